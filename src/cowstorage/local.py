"""What was changed locally since the last sync, and how big it is."""

from __future__ import annotations

import os
import time
from typing import Iterator, List, NamedTuple, Optional, Tuple

from cowstorage import filestorage, refresh
from cowstorage.context import Context
from cowstorage.errors import DamagedDatabase
from cowstorage.filestorage import Position
from cowstorage.output import counted, human_size

# Counting is for people, who shall not wait for it: neither of these is worth more.
COUNT_SECONDS = 0.1


class Change(NamedTuple):
    """The local part of one FileStorage.

    :param transactions: after the base; ``None`` when they can't be told any more (a local pack).
    :param size: their bytes.
    :param complete: all of them were counted; ``size`` is right in any case.
    """

    name: str
    transactions: Optional[int]
    size: int
    complete: bool = True

    def __str__(self) -> str:
        if self.transactions is None:
            return f"all local changes (it was packed locally), {human_size(self.size)} in all"
        more = "" if self.complete else "more than "
        return f"{more}{counted(self.transactions, 'local transaction')}, {human_size(self.size)}"


class Tree(NamedTuple):
    """What an upper directory holds.

    :param files: how many, marks of deletion included.
    :param size: bytes.
    :param complete: all of it was counted, within the time given.
    """

    files: int
    size: int
    complete: bool = True

    def __str__(self) -> str:
        more = "" if self.complete else "more than "
        return f"{more}{counted(self.files, 'file')}, {human_size(self.size)}"


def changes(context: Context) -> List[Change]:
    """Of each FileStorage that has a base."""
    found = []
    for name in sorted(context.journal.bases):
        place, base = refresh.paths(context, name), refresh.base_of(context, name)
        if base is not None and os.path.exists(place.local):
            if place.is_replaced or not filestorage.holds(place.local, base):
                found.append(Change(name, None, os.path.getsize(place.local)))
            else:
                found.append(since(name, place.local, base))
    return found


def since(name: str, path: str, position: Position, seconds: float = COUNT_SECONDS) -> Change:
    """The transactions after a position that the file holds, counted for no longer than ``seconds``."""
    size = os.path.getsize(path) - position.size
    deadline = time.monotonic() + seconds
    count = 0
    try:
        for count, _ in enumerate(filestorage.transactions(path, position), 1):
            if time.monotonic() > deadline:
                return Change(name, count, size, complete=False)
    except DamagedDatabase:
        # It is to be thrown away, or was said by whoever reads it.
        return Change(name, count, size, complete=False)
    return Change(name, count, size)


def blobs(context: Context, seconds: float = COUNT_SECONDS) -> Tree:
    """The upper of the BLOB directory, counted for no longer than ``seconds``."""
    return tree(f"{context.settings.blob_storage}.prod", seconds)


def tree(path: str, seconds: float) -> Tree:
    """What a directory holds; zeros when there is none."""
    files = size = 0
    deadline = time.monotonic() + seconds
    for directory, _, names in os.walk(path):
        for name in names:
            try:
                status = os.lstat(os.path.join(directory, name))
            except OSError:
                continue
            files += 1
            size += status.st_size
        if time.monotonic() > deadline:
            return Tree(files, size, complete=False)
    return Tree(files, size)


def strangers(context: Context) -> List[Tuple[str, int]]:
    """Files in the upper of the filestorage that are no FileStorage of ours, and their bytes.

    ZODB's own left-overs are left out: nobody would miss them.
    """
    found = []
    for name in entries(context):
        path = os.path.join(f"{context.settings.file_storage}.prod", name)
        if not name.endswith((".lock", ".old", ".tmp", ".tr0", ".index", ".index_tmp")) and os.path.isfile(path):
            found.append((name, os.path.getsize(path)))
    return found


def entries(context: Context) -> Iterator[str]:
    """Names in the upper of the filestorage that are not a FileStorage with a base, nor its index."""
    upper = f"{context.settings.file_storage}.prod"
    keep = {name + suffix for name in context.journal.bases for suffix in ("", ".index")}
    if os.path.isdir(upper):
        yield from sorted(name for name in os.listdir(upper) if name not in keep)


def losses(context: Context) -> List[str]:
    """What going back to production's state throws away, a line each; empty when nothing is."""
    lines = [f"{change.name}: {change}" for change in changes(context) if change.transactions != 0 or change.size]
    upper = blobs(context)
    if upper.files:
        lines.append(f"{context.settings.blob_storage}.prod: {upper}")
    lines += [f"{context.settings.file_storage}.prod/{name}: {human_size(size)}" for name, size in strangers(context)]
    return lines
