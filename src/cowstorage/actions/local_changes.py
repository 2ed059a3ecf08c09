"""What was changed locally since the last sync, and how big the changes are."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from typing import Deque, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from cowstorage.actions.context import Context
from cowstorage.database import filestorage
from cowstorage.database.conversion import magic_at, magic_of
from cowstorage.database.format import PYTHONS, Position
from cowstorage.errors import DamagedDatabase
from cowstorage.system.count import Count
from cowstorage.system.output import confirm, counted, human_size, one_line
from cowstorage.union import whiteouts

# Give up counting transactions or files after this: the sums are for display.
COUNT_SECONDS = 0.1

# How many transactions that are dropped are named.
NOTES = 3


class Change(NamedTuple):
    """The local part of one FileStorage.

    :param transactions: after the base; ``None`` when they can't be told any more (a local pack).
    :param size: their bytes.
    :param complete: all of them were counted; ``size`` is right in any case.
    :param magics: the magic of before and the one of now, where they differ; else empty.
    :param converted: the last transactions are of the magic of now, too: a conversion has got that far.
    :param notes: of the newest transactions that were counted, newest first.
    """

    name: str
    transactions: Optional[int]
    size: int
    complete: bool = True
    magics: Tuple[bytes, ...] = ()
    converted: bool = False
    notes: Tuple[str, ...] = ()

    @property
    def is_any(self) -> bool:
        """Whether anything was changed."""
        return self.transactions != 0 or bool(self.size or self.magics)

    @property
    def conversion(self) -> str:
        """What the changed magic means; empty without one."""
        if not self.magics:
            return ""
        before, now = (f"{magic.decode('ascii', 'replace')} ({PYTHONS.get(magic, 'unknown')})" for magic in self.magics)
        text = f"its magic was changed from {before} to {now}"
        return text if self.converted else f"{text}, and no record: a conversion was cut off"

    def __str__(self) -> str:
        if self.transactions is None:
            return f"all local changes (it was packed locally), {human_size(self.size)} in all"
        text = f"{counted(self.transactions, 'local transaction', self.complete)}, {human_size(self.size)}"
        return f"{text}; {self.conversion}" if self.magics else text


class Tree(NamedTuple):
    """What an upper directory holds.

    :param files: how many.
    :param size: bytes of these.
    :param complete: all of it was counted, within the time given.
    :param deleted: how many whiteouts: files and directories of production's that are hidden.
    """

    files: int
    size: int
    complete: bool = True
    deleted: int = 0

    def __str__(self) -> str:
        text = f"{counted(self.files, 'file', self.complete)}, {human_size(self.size)}"
        return f"{text}, {counted(self.deleted, 'deletion')}" if self.deleted else text


def changes(context: Context) -> List[Change]:
    """Return the local change of each FileStorage that has a base."""
    found = []
    for name in sorted(context.journal.bases):
        paths, base = context.paths(name), context.journal.base_of(name)
        if base is not None and os.path.exists(paths.local):
            if paths.is_replaced or not filestorage.holds(paths.local, base):
                found.append(Change(name, None, os.path.getsize(paths.local)))
            else:
                found.append(since(name, paths.local, base, context.journal.base_magic(name)))
    return found


def since(
    name: str, path: str, position: Position, magic: Optional[bytes] = None, seconds: float = COUNT_SECONDS
) -> Change:
    """Count the transactions of a file after a position, as far as ``seconds`` allow.

    :param magic: that of the file at the position; ``None``: it is not compared.
    """
    counted_so_far = _counted(name, path, position, seconds)
    now = magic_of(path)
    if magic is None or magic == now:
        return counted_so_far
    try:
        converted = magic_at(path, position, magic, filestorage.complete_end(path, start=position.size)) == now
    except DamagedDatabase:
        converted = False
    return counted_so_far._replace(magics=(magic, now), converted=converted)


def _counted(name: str, path: str, position: Position, seconds: float) -> Change:
    size = os.path.getsize(path) - position.size
    count, complete = Count(seconds), True
    notes: Deque[str] = deque(maxlen=NOTES)
    try:
        for transaction in filestorage.transactions(path, position):
            notes.appendleft(one_line(transaction.description))
            if not count.add():
                complete = False
                break
    except DamagedDatabase:
        # The damage is thrown away with the rest, or was reported by whoever reads the file.
        complete = False
    return Change(name, count.number, size, complete, notes=tuple(notes) if complete else ())


def changed_blobs(context: Context, seconds: float = COUNT_SECONDS) -> Tree:
    """Count what the upper of the BLOB directory holds, as far as ``seconds`` allow."""
    return tree(context.settings.blob_upper, seconds)


def tree(path: str, seconds: float) -> Tree:
    """Count the files and the whiteouts below an upper, as far as ``seconds`` allow; zeros when there is none."""
    files = size = deleted = 0
    directories = Count(seconds)
    waiting = [path] if os.path.isdir(path) else []
    while waiting:
        for entry in _entries(waiting.pop()):
            if entry.name.startswith(whiteouts.AUFS_OWN):
                continue
            if whiteouts.is_whiteout(entry):
                deleted += 1
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                with contextlib.suppress(OSError):
                    size += entry.stat(follow_symlinks=False).st_size
                    files += 1
        if not directories.add():
            return Tree(files, size, False, deleted)
    return Tree(files, size, True, deleted)


def _entries(directory: str) -> List[os.DirEntry[str]]:
    """Return the entries of a directory; none where it is gone or can't be read."""
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []


def unknown_files(context: Context) -> List[Tuple[str, int]]:
    """Return name and bytes of each file in the upper of the FileStorages that is none of the part's.

    ZODB's own left-overs are left out: nobody would miss them.
    """
    found = []
    for name in unknown_names(context):
        path = os.path.join(context.settings.file_upper, name)
        if not name.endswith((".lock", ".old", ".tmp", ".tr0", ".index", ".index_tmp")) and os.path.isfile(path):
            found.append((name, os.path.getsize(path)))
    return found


def unknown_names(context: Context) -> Iterator[str]:
    """Yield the names in the upper of the FileStorages that are neither a FileStorage with a base nor its index."""
    upper = context.settings.file_upper
    keep = {name + suffix for name in context.journal.bases for suffix in ("", ".index")}
    if os.path.isdir(upper):
        yield from sorted(name for name in os.listdir(upper) if name not in keep)


def named(change: Change, besides: str = "") -> Iterator[str]:
    """Yield a change as lines: what it is, and below that the notes of its newest transactions.

    :param besides: ends the first line.
    """
    yield f"{change.name}: {change}{besides}"
    if any(change.notes):
        yield from (f"  {note or '(no note)'}" for note in change.notes)
        more = (change.transactions or 0) - len(change.notes)
        if more > 0:
            yield f"  and {more:,} more"


def losses(context: Context) -> List[str]:
    """Return what going back to production's state throws away, a line each; empty when nothing is."""
    lines = [line for change in changes(context) if change.is_any for line in named(change)]
    upper = changed_blobs(context)
    if upper.files or upper.deleted:
        lines.append(f"{context.settings.blob_upper}: {upper}")
    lines += [f"{context.settings.file_upper}/{name}: {human_size(size)}" for name, size in unknown_files(context)]
    return lines


def agree(context: Context, lines: Sequence[str], heading: str) -> None:
    """Name what is dropped, and ask; with ``--yes`` name it only.

    :raises Refused: nobody agreed.
    """
    if not lines:
        return
    text = context.output.below("\n".join([heading, *(f"  {line}" for line in lines)]))
    confirm(text, context.arguments.yes, context.host.interactive)
    if context.arguments.yes:
        context.output.say(text)
