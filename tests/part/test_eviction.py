"""Room in a BLOB cache that has reached its limit: what was read last stays."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List

import pytest

from cowstorage.part import blob_cache, eviction
from cowstorage.part.settings import Settings
from part.parts import made

SIZE = 1000


class Cache:
    """A cache of BLOBs of 1000 bytes each, of which number 0 was read first."""

    def __init__(self, top: Path, count: int, **options: str):
        self.settings: Settings = made(**options)._replace(location=str(top))
        self.blobs = Path(blob_cache.cache_paths(self.settings).blobs)
        self.full = Path(blob_cache.cache_directory(self.settings)) / eviction.FULL
        self.paths: List[Path] = []
        for number in range(count):
            # The tids go the other way.
            path = self.blobs / f"0x{number:02x}" / f"0x03f1b2c4d5e6{999 - number:04x}.blob"
            path.parent.mkdir(parents=True)
            path.write_bytes(bytes(SIZE))
            os.utime(path, (1_700_000_000 + number, 1_600_000_000))
            self.paths.append(path)
        self.full.write_text("")

    @property
    def left(self) -> List[int]:
        """The numbers of those that are there."""
        return [number for number, path in enumerate(self.paths) if path.exists()]


def test_what_was_read_last_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10, cache_size="10k")
    assert eviction.is_full(cache.settings)
    assert eviction.make_room(cache.settings) == (3, 3 * SIZE)
    assert cache.left == list(range(3, 10))
    assert not eviction.is_full(cache.settings)


def test_nothing_is_dropped_where_there_is_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 7, cache_size="10k")
    assert eviction.make_room(cache.settings) == (0, 0)
    assert cache.left == list(range(7))
    assert not eviction.is_full(cache.settings)
    assert eviction.make_room(cache.settings) == (0, 0)


def test_without_a_limit_nothing_is_full(tmp_path: Path) -> None:
    assert not eviction.is_full(Cache(tmp_path, 1).settings)


@pytest.mark.parametrize("count, is_kept", [(10, False), (7, True)])
def test_a_cache_that_something_was_dropped_from_is_not_complete(count: int, is_kept: bool, tmp_path: Path) -> None:
    cache = Cache(tmp_path, count, cache_size="10k")
    complete = blob_cache.Complete(cache.settings)
    complete.write({}, iter([(SIZE, str(path.relative_to(cache.blobs))) for path in cache.paths]))
    eviction.make_room(cache.settings)
    assert Path(blob_cache.cache_paths(cache.settings).complete).exists() == is_kept


def test_what_is_no_blob_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10, cache_size="1k")
    others = [cache.blobs / ".layout", cache.blobs / "0x00" / "other", cache.blobs / "0x00" / "0x01.blob"]
    others[0].write_text("lawn")
    others[1].write_bytes(bytes(SIZE))
    os.symlink(cache.paths[0], others[2])
    eviction.make_room(cache.settings)
    assert cache.left == []
    assert [path for path in others if os.path.lexists(path)] == others
