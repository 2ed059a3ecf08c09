"""Copy-ups on a full disk: free room is checked before a mount, and a copy that was cut short is found after it."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

from cowstorage.database.blobs import tid_of
from cowstorage.errors import CowStorageError
from cowstorage.system.output import counted, human_size
from cowstorage.system.room import RESERVE, free_bytes
from cowstorage.system.time_limits import within
from cowstorage.union.base import Layer, Union

# FileStorage file name → ``[size, tid]`` of the base, as in the journal.
Bases = Mapping[str, Sequence[Any]]

# Time limit for comparing the sizes with production's.
COMPARE_SECONDS = 120.0


def prepare(kind: Union, layer: Layer, bases: Bases, developer: Tuple[int, int]) -> Iterator[str]:
    """Remove the copies that were cut short from an upper before a mount, and yield messages about them and free room.

    :param bases: the bases of the FileStorages, as the journal has them.
    :param developer: uid and gid of the user who compares the files with production's.
    :raises TimeLimit: when production does not answer.
    """
    found = short_copies(kind, layer, bases, developer)
    for relative in found:
        os.unlink(os.path.join(layer.upper, relative))
    if found:
        yield (
            f"{_described(layer, found)} was removed, and production's is seen again. "
            "A program wanted to change its mode, owner or time, and the disk was full."
        )
    free = free_bytes(layer.upper)
    if free < RESERVE:
        yield f"{layer.upper} has {human_size(free)} left for all that is written. Make room before you work."


def problem(kind: Union, layer: Layer, bases: Bases, developer: Tuple[int, int]) -> str:
    """Return what is wrong with the upper of a mounted union, as a clause for people; empty when nothing is."""
    try:
        found = short_copies(kind, layer, bases, developer)
    except (CowStorageError, OSError) as error:
        return str(error)
    return f"{_described(layer, found)} hides production's" if found else ""


def short_copies(kind: Union, layer: Layer, bases: Bases, developer: Tuple[int, int]) -> List[str]:
    """Return the BLOBs of production that the upper has a shorter copy of: paths relative to upper and lowers.

    A BLOB whose name has a tid up to the last one of the bases is production's.  Production is asked for the sizes of
    such BLOBs in the upper only: few or none.
    """
    if not kind.cuts_copies_short or not bases:
        return []
    last = max(tid for _, tid in bases.values())
    sizes = {relative: os.lstat(os.path.join(layer.upper, relative)).st_size for relative in _copied(layer.upper, last)}
    if not sizes:
        return []
    return within(COMPARE_SECONDS, f"comparing {layer.upper}", lambda: _shorter(sizes, layer.lowers), developer)


def _described(layer: Layer, paths: Sequence[str]) -> str:
    """Return a noun phrase about copies that were cut short: the path of the first and the number of the others."""
    more = f", as {counted(len(paths) - 1, 'other')}," if len(paths) > 1 else ""
    return f"{os.path.join(layer.upper, paths[0])}, a copy that was cut short{more}"


def _copied(upper: str, last: str) -> Iterator[str]:
    """Yield the relative paths of the BLOB files in an upper with a tid up to ``last``."""
    for directory, directories, names in os.walk(upper):
        # The names in unionfs-fuse's own directory are whiteouts.
        directories[:] = [name for name in directories if not name.startswith(".")]
        for name in names:
            tid = tid_of(name)
            if tid is not None and tid <= last:
                yield os.path.relpath(os.path.join(directory, name), upper)


def _shorter(sizes: Dict[str, int], lowers: Sequence[str]) -> List[str]:
    """Return the relative paths of the files that are shorter than in the lowers.

    :param sizes: relative path → bytes in the upper.
    """
    return [relative for relative, size in sizes.items() if size < _size_below(relative, lowers)]


def _size_below(relative: str, lowers: Sequence[str]) -> int:
    """Return the bytes of a file in the topmost lower that has the file; 0 when none has."""
    for lower in lowers:
        try:
            return os.stat(os.path.join(lower, relative)).st_size
        except (FileNotFoundError, NotADirectoryError):
            continue
    return 0
