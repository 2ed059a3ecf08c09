"""Make room in a BLOB cache that has reached its limit: the BLOBs that were read least recently go.

A lower of a mounted overlay must not change, https://docs.kernel.org/filesystems/overlayfs.html, and fuse-overlayfs
remembers what it has seen there.  So what is below a union stays, and room is made before the unions are laid the next
time.  The wire, which may run then, keeps open what it has open.
"""

from __future__ import annotations

import contextlib
import os
from typing import Iterator, NamedTuple, Tuple

from cowstorage.database.blobs import tid_of
from cowstorage.part.blob_cache import Complete, Sizes, cache_directory, cache_paths
from cowstorage.part.settings import Settings
from cowstorage.system.files import walk

# The file in the directory of the BLOB cache that says that something was not kept since there was no room.
FULL = "full"

# How much of the limit stays: what is read until the unions are laid the next time finds room for the rest.
KEPT_PARTS, PARTS = 3, 4


class Dropped(NamedTuple):
    """What was dropped: how many BLOBs, and their bytes."""

    files: int
    size: int


def is_full(settings: Settings) -> bool:
    """Tell whether something was not kept since ``cache-size`` allows no more."""
    return settings.cache_size is not None and os.path.exists(os.path.join(cache_directory(settings), FULL))


def make_room(settings: Settings) -> Dropped:
    """Drop what was read least recently; to be called while no union lies over the cache.

    When a file was read last its atime tells: the wire sets it, whatever the mount options of the disk are.
    """
    limit = (settings.cache_size or 0) * KEPT_PARTS // PARTS
    sizes, dropped = Sizes(), Dropped(0, 0)
    for _, read, size in _files(settings):
        sizes.add(read, size)
    oldest = sizes.oldest_within(limit)
    for path, read, size in _files(settings):
        if read < oldest:
            os.unlink(path)
            dropped = Dropped(dropped.files + 1, dropped.size + size)
    if dropped.files:
        Complete(settings).forget()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(cache_directory(settings), FULL))
    return dropped


def _files(settings: Settings) -> Iterator[Tuple[str, str, int]]:
    """Yield path, the time of the last reading (nanoseconds, 16 hex digits) and bytes of each BLOB in the cache."""
    blobs = cache_paths(settings).blobs
    for entry in walk(blobs) if os.path.isdir(blobs) else ():
        if tid_of(entry.name) is not None and entry.is_file(follow_symlinks=False):
            status = entry.stat(follow_symlinks=False)
            yield entry.path, f"{max(0, status.st_atime_ns):016x}", status.st_size
