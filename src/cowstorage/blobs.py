"""Which BLOB files a database refers to and where they lie.

A BLOB file is named after the object's id (its directory) and the transaction's (its name), and never changed.
ZODB is imported in functions, because scripts that don't need it must start fast.
"""

from __future__ import annotations

import os
import re
import stat
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from cowstorage.filestorage import Progress, reporter
from cowstorage.fsreader import MAGIC_SIZE, NO_TID, Position, Reader

# ZODB.utils.tid_repr leaves leading zero bytes out; a tid of our age has none.
BLOB_NAME = re.compile(r"0x((?:[0-9a-f]{2}){1,8})\.blob")

# A BLOB file, or the directory of an oid (lawn) or of a byte of one (bushy).
BLOB_OR_DIRECTORY_NAME = re.compile(r"0x(?:[0-9a-f]{2}){1,8}(?:\.blob)?")

# The record of a BLOB is its class and None, 25 bytes; ZODB.blob.Blob has no state and can't be subclassed.
# So longer records needn't be read.
LONGEST_BLOB_RECORD = 200

START = Position(MAGIC_SIZE, NO_TID)
LAYOUT_NAMES = ("bushy", "lawn")

Revision = Tuple[bytes, bytes]


def layout(directory: str) -> Optional[str]:
    """How a BLOB directory is laid out: ``bushy`` or ``lawn``; ``None`` without a marker that says one of them."""
    from ZODB.blob import LAYOUT_MARKER, LAYOUTS

    try:
        with open(os.path.join(directory, LAYOUT_MARKER), encoding="ascii", errors="replace") as marker:
            name = marker.read(100).strip()
    except FileNotFoundError:
        return None
    return name if name in LAYOUTS else None


def path_of(oid: bytes, tid: bytes, layout: str) -> str:
    """The path of a BLOB file, relative to the BLOB directory."""
    from ZODB.blob import LAYOUTS

    path: str = LAYOUTS[layout].getBlobFilePath(oid, tid)
    return path


def tid_of(name: str) -> Optional[str]:
    """The tid (16 hex digits) in a BLOB file's name without directory, ``None`` for another name."""
    match = BLOB_NAME.fullmatch(name)
    return match.group(1).zfill(16) if match else None


def references(
    fs_path: str, history: bool = False, progress: Optional[Progress] = None, end: Optional[int] = None
) -> Iterator[Revision]:
    """The BLOB revisions that a FileStorage refers to, as oid and tid: all that its readers can ask for.

    The tid is that of the record itself, also where it was written by an undo and only points back to older data:
    ZODB copies the BLOB file to the undo's tid (``FileStorage._txn_undo_write``), and ``load`` gives that one out.
    No BLOB file belongs to a record that undoes an object's creation.

    The whole file is scanned, since a BLOB can only be told by its record.  Without ``history`` nothing is yielded
    before its end; memory is some 16 bytes for a BLOB.

    :param history: not only the current revision of each BLOB, but those before it too.
    :param progress: called with the fraction that is done, from 0 to 1, at most a hundred times.
    :param end: a byte offset where a transaction ends: what comes after it isn't looked at.
    :raises DamagedDatabase: for no FileStorage, or damage before a torn end.
    """
    with Reader(fs_path) as reader:
        reader.size = reader.size if end is None else min(end, reader.size)
        report = reporter(progress, reader.size)
        yield from _all_revisions(reader, report, START) if history else _current_revisions(reader, report)


def _is_blob(reader: Reader, pos: int, header: Any) -> bool:
    """Whether the data record is of a BLOB that exists; no class is imported to tell it."""
    from ZODB.blob import is_blob_record

    return bool(is_blob_record(reader.data(pos, header, LONGEST_BLOB_RECORD)))


def references_after(fs_path: str, position: Position) -> Iterator[Revision]:
    """Those that the transactions after a position refer to; only these are read.

    :raises DamagedDatabase: for damage before a torn end.
    """
    with Reader(fs_path) as reader:
        yield from _all_revisions(reader, reporter(None, reader.size), position)


def _all_revisions(reader: Reader, report: Callable[[int], None], start: Position) -> Iterator[Revision]:
    found: List[Revision] = []

    def visit(pos: int, header: Any) -> None:
        if _is_blob(reader, pos, header):
            found.append((header.oid, header.tid))

    for transaction in reader.walk(start, visit):
        yield from dict.fromkeys(found)  # one transaction may have two records of one object
        found.clear()
        report(transaction.end)


def _current_revisions(reader: Reader, report: Callable[[int], None]) -> Iterator[Revision]:
    from ZODB.fsIndex import fsIndex

    positions = fsIndex()  # a tenth of a dict's memory

    def visit(pos: int, header: Any) -> None:
        if _is_blob(reader, pos, header):
            positions[header.oid] = pos
        elif header.oid in positions:
            del positions[header.oid]

    for transaction in reader.walk(START, visit):
        report(transaction.end)
    for oid, pos in positions.iteritems():
        yield oid, reader.record_tid(pos)


def files_after(upper: str, tid: str) -> Iterator[str]:
    """The paths, beginning with ``upper``, of the BLOB files in it whose tid is greater.

    Those of transactions that a rollback to ``tid`` takes back.  Marks of deletion aren't among them.
    """
    for entry in entries(upper):
        found = tid_of(entry.name)
        if found is not None and found > tid and entry.is_file(follow_symlinks=False):
            yield entry.path


def entries(directory: str) -> Iterator[os.DirEntry[str]]:
    """Everything below a directory, symbolic links not followed; memory grows with the depth only."""
    with os.scandir(directory) as found:
        for entry in found:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from entries(entry.path)


def _device_mark(entry: os.DirEntry[str]) -> Optional[str]:
    """A character device 0:0 (kernel: Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories")."""
    if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
        return None  # known from the directory, without a stat for each of 100,000 files
    status = entry.stat(follow_symlinks=False)
    return entry.name if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0 else None


def _name_mark(entry: os.DirEntry[str]) -> Optional[str]:
    """A file ``.wh.<name>`` (aufs, and fuse-overlayfs where it may not make devices)."""
    return entry.name[len(".wh.") :] if entry.name.startswith(".wh.") else None


def _hidden_mark(entry: os.DirEntry[str]) -> Optional[str]:
    """``<name>_HIDDEN~``, a file or a directory, in unionfs-fuse's own directory at the top of upper."""
    return entry.name[: -len("_HIDDEN~")] if entry.name.endswith("_HIDDEN~") else None


Mark = Callable[["os.DirEntry[str]"], Optional[str]]

MARKS: Dict[str, Tuple[Mark, ...]] = {
    "overlay": (_device_mark,),
    "fuse-overlayfs": (_device_mark, _name_mark),
    "unionfs-fuse": (_hidden_mark,),
    "aufs": (_name_mark,),
}


def has_whiteouts(upper: str, union: str) -> bool:
    """Whether a BLOB of production was deleted in an upper directory, which a pack of the local database does.

    A mark on an oid's directory counts too: a pack that removes an object removes its directory whole, and the union
    then may mark only that (kernel overlay: seen).  Marks on other names (temporary files) don't.

    :param union: the union that wrote ``upper``, a key of ``MARKS``.
    """
    for entry in entries(upper):
        for mark in MARKS[union]:
            name = mark(entry)
            if name is not None and BLOB_OR_DIRECTORY_NAME.fullmatch(name):
                return True
    return False
