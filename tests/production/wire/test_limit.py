"""The limit of the BLOB cache: that it was reached is noted once."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, List

from cowstorage.part.eviction import FULL
from cowstorage.production.wire.limit import Limit
from harness.polling import until


class Later:
    """A worker that does what it is given when the test says so."""

    def __init__(self) -> None:
        self.given: List[Callable[[], object]] = []

    def give(self, function: Callable[[], object]) -> None:
        self.given.append(function)


def test_a_cache_that_is_found_full_again_before_that_is_noted_is_noted_once(tmp_path: Path) -> None:
    """A second note, written after room was made, would have room made once more."""
    writer = Later()
    limit = Limit(str(tmp_path), 100, writer)  # type: ignore[arg-type]
    until(lambda: limit.counted == 0, "what is there is counted")
    limit.keep("first", 80)
    assert [limit.allows(50, 0, None) for _ in range(3)] == [False, False, False]
    for note in writer.given:
        note()
    assert (tmp_path / FULL).exists()
    assert len(writer.given) == 1
