"""What was counted of reading over sshfs: kept whole, and shown in a line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cowstorage.part.counters import COUNTERS, Counters, saved


def test_what_is_saved_is_read_and_shown(tmp_path: Path) -> None:
    counters = Counters()
    assert saved(str(tmp_path)) is None
    counters.reads, counters.hits, counters.from_cache, counters.from_production = 1200, 1100, 5_000_000, 14_200
    counters.save(str(tmp_path / "cache"))
    found = saved(str(tmp_path / "cache"))
    assert found is not None
    assert found.as_data() == counters.as_data()
    found.beforehand = 7
    assert str(found) == "1,200, 1,100 from the cache (5.0 MB); fetched 14.2 kB, 7 bytes ahead"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [COUNTERS]


@pytest.mark.parametrize(
    "damaged",
    ["", "{", "[]", "{}", "null", {"since": float("inf")}, {"reads": "many"}],
)
def test_what_is_damaged_is_nothing(damaged: object, tmp_path: Path) -> None:
    if isinstance(damaged, dict):
        damaged = {**Counters().as_data(), **damaged}
    (tmp_path / COUNTERS).write_text(damaged if isinstance(damaged, str) else json.dumps(damaged))
    assert saved(str(tmp_path)) is None


def test_what_can_not_be_saved_is_passed_by(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no directory")
    Counters().save(str(tmp_path / "cache"))
    assert (tmp_path / "cache").read_text() == "no directory"
