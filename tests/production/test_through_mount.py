"""What is read through the mount is all of the range, or an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cowstorage.production import through_mount
from cowstorage.production.through_mount import MOST, PIECE, is_little, read


@pytest.mark.parametrize(
    "begin, end", [(0, 1), (0, PIECE), (5, PIECE + 5), (1, 3 * PIECE - 1), (PIECE, MOST + PIECE)], ids=str
)
def test_a_range_is_read_whole_and_in_order(begin: int, end: int, tmp_path: Path) -> None:
    content = os.urandom(end + 10)
    (tmp_path / "file").write_bytes(content)
    assert read(str(tmp_path / "file"), begin, end) == content[begin:end]


def test_all_pieces_are_asked_for_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    everybody = threading.Barrier(through_mount.READERS, timeout=10)

    def piece(descriptor: int, path: str, end: int, offset: int) -> bytes:
        everybody.wait()
        return b"x"

    monkeypatch.setattr(through_mount, "_piece", piece)
    (tmp_path / "file").touch()
    assert read(str(tmp_path / "file"), 0, MOST) == b"x" * through_mount.READERS


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, 2 * PIECE - 1])
def test_a_file_that_ends_before_is_an_error(size: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * size)
    with pytest.raises(OSError, match="shorter than it was"):
        read(str(tmp_path / "file"), 0, 2 * PIECE)


def test_what_is_not_known_is_not_little() -> None:
    assert [is_little(size) for size in (0, 1, MOST, MOST + 1)] == [False, True, True, False]
