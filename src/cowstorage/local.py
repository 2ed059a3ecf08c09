"""What was changed locally since the last sync, and how big it is."""

from __future__ import annotations

import os
import time
from typing import Iterator, List, NamedTuple, Optional, Tuple

from cowstorage import filestorage, refresh
from cowstorage.context import Context
from cowstorage.filestorage import Position
from cowstorage.output import counted, human_size


class Change(NamedTuple):
    """The local part of one FileStorage.

    :param transactions: after the base; ``None`` when the base is gone (a local pack).
    :param size: their bytes.
    """

    name: str
    transactions: Optional[int]
    size: int


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
            found.append(_change(name, place.local, base))
    return found


def _change(name: str, path: str, base: Position) -> Change:
    size = os.path.getsize(path)
    if size == base.size and filestorage.holds(path, base):
        return Change(name, 0, 0)
    if not filestorage.holds(path, base):
        return Change(name, None, size)
    sizes = [transaction.size for transaction in filestorage.transactions(path, base)]
    return Change(name, len(sizes), sum(sizes))


def blobs(context: Context, seconds: float = 5.0) -> Tree:
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
    lines = []
    for change in changes(context):
        if change.transactions is None:
            lines.append(f"{change.name}: all local changes (it was packed locally), {human_size(change.size)} in all")
        elif change.transactions:
            count = counted(change.transactions, "local transaction")
            lines.append(f"{change.name}: {count}, {human_size(change.size)}")
    upper = blobs(context)
    if upper.files:
        lines.append(f"{context.settings.blob_storage}.prod: {upper}")
    lines += [f"{context.settings.file_storage}.prod/{name}: {human_size(size)}" for name, size in strangers(context)]
    return lines
