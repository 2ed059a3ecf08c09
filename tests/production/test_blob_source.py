"""What rsync tells of BLOBs is handed on by one thread, while another waits for how much has been."""

from __future__ import annotations

from typing import Callable, List, Tuple, Type, Union

import pytest

from cowstorage.production.blob_source import Told, ToldBefore

BLOB = "0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x0{}/0x03f1b2c4d5e6f708.blob"
LINES = [f"0 {size} {BLOB.format(size)}\n" for size in range(1, 4)]


@pytest.mark.parametrize("kind", [Told, ToldBefore])
def test_what_is_counted_was_handed_on(kind: Union[Type[Told], Type[ToldBefore]]) -> None:
    """Who sees the last one counted goes on, and nothing is handed on any more."""
    counts: List[int] = []
    told = kind(lambda size, relative: counts.append(told.count))
    for line in (*LINES, ""):
        told.take(line)
    assert counts == [0, 1, 2]
    assert told.count == 3


@pytest.mark.parametrize("kind, late", [(Told, 0), (ToldBefore, 1)])
def test_each_is_handed_on_when_it_has_its_name(
    kind: Callable[[Callable[[int, str], None]], Union[Told, ToldBefore]], late: int
) -> None:
    handed: List[Tuple[int, str]] = []
    told = kind(lambda *entry: handed.append(entry))
    for number, line in enumerate(LINES, 1):
        told.take(line)
        told.take("0 4096 0x00/\n")
        told.take(f"0 7 ../{BLOB.format(9)}\n")
        assert len(handed) == number - late
    told.take("")
    assert handed == [(size, BLOB.format(size)) for size in range(1, 4)]
