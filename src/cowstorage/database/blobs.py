"""Find the BLOB files that a FileStorage refers to, and their paths.

The directory of a BLOB file is named after the oid, the file after the tid; a committed BLOB file never changes.
ZODB is imported inside functions, so that scripts without need of ZODB start fast.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import Any, Callable, Iterator, List, Optional, Tuple

from cowstorage.database.format import START, Position
from cowstorage.database.index import NEWEST_PROTOCOL
from cowstorage.database.progress import Progress, reporter
from cowstorage.database.reader import Reader
from cowstorage.system.files import open_regular, walk

# The name of a BLOB file.  ZODB.utils.tid_repr omits leading zero bytes, which no tid since 1932 has.
BLOB_NAME = re.compile(r"0x((?:[0-9a-f]{2}){1,8})\.blob")

# Bytes.  The data record of a BLOB has 25 bytes, its class and None: ZODB.blob.Blob has no state and can't be
# subclassed.  So longer records needn't be read.
LONGEST_BLOB_RECORD = 200

# The module and the name of the class of BLOBs, and how pickletools shows the two.
BLOB_CLASS = (b"ZODB.blob", b"Blob")
BLOB_CLASS_ARGUMENT = b" ".join(BLOB_CLASS).decode("ascii")

# The opcodes that remember the class for what follows in the record.
MEMO_OPCODES = ("PUT", "BINPUT", "LONG_BINPUT")

# The file in a BLOB directory that says how the directory is laid out.
LAYOUT_MARKER = ".layout"

# The layouts that ZODB.blob.LAYOUTS knows besides the automatic one.
LAYOUT_NAMES = ("bushy", "lawn")

# The oid and the tid of a BLOB, 8 bytes each.
Revision = Tuple[bytes, bytes]


def path_of(oid: bytes, tid: bytes, layout: str) -> str:
    """Return the path of a BLOB file, relative to the BLOB directory.

    :param oid: 8 bytes.
    :param tid: 8 bytes.
    :param layout: one of ``LAYOUT_NAMES``.
    """
    from ZODB.blob import LAYOUTS  # start-up

    path: str = LAYOUTS[layout].getBlobFilePath(oid, tid)
    return path


def tid_of(name: str) -> Optional[str]:
    """Return the tid (16 hex digits) in a file name without directory; ``None`` unless the name is of a BLOB file."""
    match = BLOB_NAME.fullmatch(name)
    return match.group(1).zfill(16) if match else None


def references(
    fs_path: str, history: bool = False, progress: Optional[Progress] = None, end: Optional[int] = None
) -> Iterator[Revision]:
    """Yield the BLOB revisions that a FileStorage refers to, as oid and tid.

    The tid is the tid of the data record, also of a record that was written by an undo and only points back to older
    data: ZODB copies the BLOB file to the undo's tid (``FileStorage._txn_undo_write``), and ``load`` returns this tid.
    A record that undoes the creation of an object has no BLOB file.

    The whole file is scanned, since only its data record says that an object is a BLOB.  Without ``history`` all
    revisions are yielded after the scan; memory is some 16 bytes for each BLOB.

    :param history: whether earlier revisions are yielded, besides the current revision of each BLOB.
    :param progress: called with the fraction that is done, from 0 to 1, once for each percent; ``None``: nothing is.
    :param end: a byte offset where a transaction ends and the scan stops; ``None``: the end of the file.
    :raises DamagedDatabase: when the file is no FileStorage, or is damaged before a torn end.
    """
    with Reader(fs_path) as reader:
        reader.size = reader.size if end is None else min(end, reader.size)
        report = reporter(progress, reader.size)
        yield from _all_revisions(reader, report, START) if history else _current_revisions(reader, report)


def _is_blob(reader: Reader, pos: int, header: Any) -> bool:
    """Return whether a data record is of a BLOB whose creation was not undone.

    :param pos: byte offset of the data record.
    :param header: its ``ZODB.FileStorage.format.DataHeader``.
    """
    record = reader.data(pos, header, LONGEST_BLOB_RECORD)
    return record is not None and BLOB_CLASS[0] in record and is_blob_record(record)


@lru_cache(maxsize=64)
def is_blob_record(record: bytes) -> bool:
    """Return whether a data record begins with the pickle of the class ``ZODB.blob.Blob``, as every writer makes it.

    ``ZODB.blob.is_blob_record`` executes the opcodes of the pickle: a record of 26 bytes makes the C unpickler reserve
    4.3 GB for its memo.  Here they are only parsed, and compared with those that ZODB has ever written for a class:
    protocols 0 to 3, with or without a place in the memo.  Nearly all such records are the same 25 bytes, so the last
    answers are kept: half a second for a million BLOBs.

    :param record: no longer than ``LONGEST_BLOB_RECORD``, which bounds the lengths that opcodes may have.
    """
    import pickletools  # start-up

    names: List[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(record):
            if opcode.name == "GLOBAL" and argument != BLOB_CLASS_ARGUMENT:
                return False
            if opcode.name == "PROTO" and argument > NEWEST_PROTOCOL:  # type: ignore[operator]
                return False
            if opcode.name not in MEMO_OPCODES:
                names.append(opcode.name)
    except ValueError:
        return False
    return names in (["GLOBAL", "STOP"], ["PROTO", "GLOBAL", "STOP"])


def references_after(fs_path: str, position: Position) -> Iterator[Revision]:
    """Yield the BLOB revisions, as oid and tid, of the transactions after a position; only these are read.

    :param position: the end of a transaction in this file, which is not checked.
    :raises DamagedDatabase: when the file is no FileStorage, or is damaged between ``position`` and a torn end.
    """
    with Reader(fs_path) as reader:
        yield from _all_revisions(reader, reporter(None, reader.size), position)


def _all_revisions(reader: Reader, report: Callable[[int], None], start: Position) -> Iterator[Revision]:
    """Yield the BLOB revisions of the transactions after ``start``, in the order of the file."""
    found: List[Revision] = []

    def visit(pos: int, header: Any) -> None:
        if _is_blob(reader, pos, header):
            found.append((header.oid, header.tid))

    for transaction in reader.walk(start, visit):
        yield from dict.fromkeys(found)  # one transaction may have two records of one object
        found.clear()
        report(transaction.end)


def _current_revisions(reader: Reader, report: Callable[[int], None]) -> Iterator[Revision]:
    """Yield the last revision of each BLOB, in the order of the oids."""
    from ZODB.fsIndex import fsIndex  # start-up

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
    """Yield the paths of the BLOB files in an upper that belong to transactions after a tid; whiteouts are left out.

    :param upper: a directory, which the paths begin with.
    :param tid: 16 hex digits.
    """
    # No BLOB is in a directory with a dot; aufs has one there that is root's.
    for entry in walk(upper, closed="."):
        found = tid_of(entry.name)
        if found is not None and found > tid and entry.is_file(follow_symlinks=False):
            yield entry.path


def layout(directory: str) -> Optional[str]:
    """Return the content of a BLOB directory's marker, which names the layout; ``None`` when there is no marker."""
    try:
        with open_regular(os.path.join(directory, LAYOUT_MARKER)) as marker:
            return marker.read(100).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
