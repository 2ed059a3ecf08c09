"""The BLOB cache: what is taken into it, and what is dropped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterable, Optional

import pytest

from cowstorage.part import blob_cache
from cowstorage.system.count import FEW
from cowstorage.system.programs import Runner
from part.parts import made


def test_a_file_of_another_size_is_not_adopted(tmp_path: Path) -> None:
    settings = made()._replace(location=str(tmp_path))
    incoming = Path(blob_cache.cache_paths(settings).incoming)
    incoming.mkdir(parents=True)
    Path(blob_cache.cache_paths(settings).blobs).mkdir()
    (incoming / "a").write_bytes(b"12")
    assert not blob_cache.adopt(settings, "a", 3)
    assert not blob_cache.adopt(settings, "b", 0)
    assert blob_cache.adopt(settings, "a", 2)
    assert os.listdir(incoming) == []


def test_the_oldest_within_a_size_is_where_the_newest_fit() -> None:
    sizes = blob_cache.Sizes()
    for tid, size in (("03", 10), ("01", 10), ("02", 10)):
        sizes.add(tid, size)
    assert sizes.oldest_within(30) == "0" * 16
    assert int(sizes.oldest_within(25), 16) == 2
    assert int(sizes.oldest_within(5), 16) == 4


@pytest.mark.parametrize("productions, is_kept", [("lawn", True), (None, True), ("bushy", False)])
def test_a_cache_of_productions_layout_is_kept(productions: Optional[str], is_kept: bool, tmp_path: Path) -> None:
    """Without a marker production's is a lawn."""
    settings = made()._replace(location=str(tmp_path / "location"))
    directory = Path(blob_cache.cache_paths(settings).blobs)
    directory.mkdir(parents=True)
    (directory / ".layout").write_text("lawn")
    blob_cache.match(settings, productions, Runner(None, interactive=False))
    assert blob_cache.exists(settings) == is_kept


def put(blobs: Path, numbers: Iterable[int]) -> None:
    """A BLOB of five bytes for each number."""
    for number in numbers:
        (blobs / f"0x{number:02x}").mkdir(parents=True)
        (blobs / f"0x{number:02x}" / "0x03f0000000000001.blob").write_bytes(b"12345")


def test_what_the_cache_holds_is_counted_within_its_time(tmp_path: Path) -> None:
    settings = made()._replace(location=str(tmp_path))
    assert blob_cache.held(settings, 10.0) == (0, 0, True, 0)
    blobs = Path(blob_cache.cache_paths(settings).blobs)
    put(blobs, range(3))
    (blobs / ".layout").write_text("lawn")
    Path(blob_cache.notes_path(settings)).write_text("0x00\n0x01\n")
    assert blob_cache.held(settings, 10.0) == (3, 15, True, 2)
    assert str(blob_cache.held(settings, 10.0)) == "3 BLOBs, 15 bytes; 2 objects read over sshfs"
    assert blob_cache.held(settings, -1.0).complete
    put(blobs, range(3, FEW + 10))
    assert str(blob_cache.held(settings, -1.0)) == "more than 101 BLOBs, 505 bytes; 2 objects read over sshfs"
