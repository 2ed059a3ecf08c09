"""Copying production's files up on a full disk: room is looked at before, and a copy cut short is found after."""

from __future__ import annotations

import os
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

from cowstorage.blobs import tid_of
from cowstorage.children import within
from cowstorage.errors import CowStorageError
from cowstorage.output import counted, human_size
from cowstorage.union import Layer, Union

Bases = Mapping[str, Sequence[Any]]

# Less than this, and a warning is due: a BLOB that is made, or copied up by a chmod, is most often smaller.
ROOM = 50_000_000
COMPARE_SECONDS = 60.0


def prepare(kind: Union, layer: Layer, bases: Bases, developer: Tuple[int, int]) -> Iterator[str]:
    """Make an upper fit to be mounted; what to say about it.

    :param bases: of the FileStorages, as the journal has them.
    :raises TimeLimit: production does not answer.
    """
    from cowstorage.stack import existing

    found = short_copies(kind, layer, bases, developer)
    for relative in found:
        os.unlink(os.path.join(layer.upper, relative))
    if found:
        yield (
            f"{_described(layer, found)} was removed, and production's is seen again. "
            "A program wanted to change its mode, owner or time, and the disk was full."
        )
    status = os.statvfs(existing(layer.upper))
    free = status.f_bavail * status.f_frsize
    if free < ROOM:
        yield f"{layer.upper} has {human_size(free)} left for all that is written. Make room before you work."


def ailment(kind: Union, layer: Layer, bases: Bases, developer: Tuple[int, int]) -> str:
    """What is wrong with an upper that is mounted; empty when nothing is."""
    try:
        found = short_copies(kind, layer, bases, developer)
    except (CowStorageError, OSError) as error:
        return str(error)
    return f"{_described(layer, found)} hides production's" if found else ""


def short_copies(kind: Union, layer: Layer, bases: Bases, developer: Tuple[int, int]) -> List[str]:
    """The BLOBs of production that the upper has a shorter copy of: paths, relative to both.

    Told by their names: up to the tid of the bases they are production's, and it is asked for the few that were copied
    up, if any.
    """
    if not kind.cuts_copies_short or not bases:
        return []
    last = max(tid for _, tid in bases.values())
    sizes = {relative: os.lstat(os.path.join(layer.upper, relative)).st_size for relative in _copied(layer.upper, last)}
    if not sizes:
        return []
    return within(COMPARE_SECONDS, f"comparing {layer.upper}", lambda: _shorter(sizes, layer.lowers), developer)


def _described(layer: Layer, paths: Sequence[str]) -> str:
    more = f", as {counted(len(paths) - 1, 'other')}," if len(paths) > 1 else ""
    return f"{os.path.join(layer.upper, paths[0])}, a copy that was cut short{more}"


def _copied(upper: str, last: str) -> Iterator[str]:
    for directory, directories, names in os.walk(upper):
        # The names in unionfs-fuse's own directory are marks of deletion.
        directories[:] = [name for name in directories if not name.startswith(".")]
        for name in names:
            tid = tid_of(name)
            if tid is not None and tid <= last:
                yield os.path.relpath(os.path.join(directory, name), upper)


def _shorter(sizes: Dict[str, int], lowers: Sequence[str]) -> List[str]:
    return [relative for relative, size in sizes.items() if size < _size_below(relative, lowers)]


def _size_below(relative: str, lowers: Sequence[str]) -> int:
    for lower in lowers:
        try:
            return os.stat(os.path.join(lower, relative)).st_size
        except (FileNotFoundError, NotADirectoryError):
            continue
    return 0
