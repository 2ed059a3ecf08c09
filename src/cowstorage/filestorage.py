"""What a FileStorage file holds: its last complete transaction, its transactions, and how it is cut.

The format is ZODB's (``ZODB/FileStorage/format.py`` describes it), and so is the code that parses and checks it.
ZODB is imported in functions, because scripts that don't need it must start fast.

Paths are local or on a mount; a file that can't be read at all gives the OSError of the operating system, what is
wrong inside it gives DamagedDatabase.  "Whole" below means: complete, finished, and nothing in it contradicts itself.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, Callable, Iterator, Optional, Tuple

from cowstorage import glance
from cowstorage.errors import DamagedDatabase
from cowstorage.fsreader import LENGTH_SIZE, MAGIC_SIZE, NO_TID, Position, Reader, Transaction
from cowstorage.saved_index import SavedIndex, index_position

__all__ = (
    "Position",
    "Transaction",
    "boundary",
    "check_chain",
    "complete_end",
    "cut",
    "fingerprint",
    "holds",
    "index_fits",
    "index_position",
    "last_transactions_time",
    "rebuild_index",
    "same_base",
    "transactions",
)

STATUS_WHOLE = (b" ", b"p", b"u")

Progress = Callable[[float], None]


def last_transactions_time(tid: str) -> float:
    """Unix seconds at which a transaction was begun, told from its tid (16 hex digits)."""
    from persistent.TimeStamp import TimeStamp

    return float(TimeStamp(bytes.fromhex(tid)).timeTime())


def complete_end(path: str, index_path: Optional[str] = None, start: int = MAGIC_SIZE) -> Position:
    """The end of the last complete transaction.

    Takes some dozen small reads when the file ends with it.  If it is torn (a copy of a live file may be), it is
    walked from where the index was saved, or else from ``start``, or else from its beginning.

    Vouches for the last transaction, and that those right before it link up; ``check_chain`` vouches for all.

    :param start: a byte offset where a transaction is known to end.
    :raises DamagedDatabase: for no FileStorage, or damage before a torn end.
    """
    with Reader(path) as reader:
        starts = (reader.size, index_path and index_position(index_path), start, MAGIC_SIZE)
        for size in starts:
            tid = reader.whole(size) if size else None
            if size and tid:
                return _last(reader, Position(size, tid))
    raise AssertionError("unreachable: the magic was there")


def _last(reader: Reader, position: Position) -> Position:
    for transaction in reader.walk(position):
        position = transaction.position
    return position


def transactions(path: str, position: Position) -> Iterator[Transaction]:
    """The transactions after ``position``, oldest first, up to the last complete one.

    May be read while Zope is committing: a commit under way, and what is committed after the call, isn't seen.

    :raises DamagedDatabase: when the file doesn't hold ``position``, or is damaged after it.
    """
    with Reader(path) as reader:
        _demand(holds(path, position), path, position)
        yield from reader.walk(position)


def check_chain(path: str, start: Position) -> Position:
    """Walk all transactions from ``start`` on and give the end of the last complete one.

    Checked are: tids strictly increase, the lengths at both ends are equal, data records point to their transaction
    and add up.  A torn tail (a copy that ends within a transaction, or in one that wasn't finished) is no error.

    :raises DamagedDatabase: for damage before a torn tail, and when the file doesn't hold ``start``.
    """
    with Reader(path) as reader:
        _demand(holds(path, start), path, start)
        return _last(reader, start)


def boundary(path: str, base: Position, tid: str) -> Optional[Position]:
    """The position right after the local transaction ``tid``; ``base`` itself for its own tid, ``None`` for no such.

    :raises DamagedDatabase: when the file doesn't hold ``base``, or is damaged between the two.
    """
    if tid == base.tid:
        _demand(holds(path, base), path, base)
        return base
    for transaction in transactions(path, base):
        if transaction.tid == tid:
            return transaction.position
        if transaction.tid > tid:
            break
    return None


def _around(file: BinaryIO, end: int, reach: int) -> Tuple[bytes, bytes, bytes]:
    """Magic, the last ``reach`` bytes before ``end``, and the header of the transaction that ends there.

    Three reads; each may give less than asked for, or nothing, in a file that isn't what it should be.
    """
    from ZODB.FileStorage.format import TRANS_HDR_LEN

    def read(offset: int, count: int) -> bytes:
        file.seek(offset)
        return file.read(count)

    magic = read(0, MAGIC_SIZE)
    begin = max(0, end - max(reach, LENGTH_SIZE))
    tail = read(begin, end - begin)
    header = b""
    if end - begin == len(tail) >= LENGTH_SIZE:
        begin = end - LENGTH_SIZE - int.from_bytes(tail[-LENGTH_SIZE:], "big")
        if begin >= MAGIC_SIZE:
            header = read(begin, TRANS_HDR_LEN)
    return magic, tail, header


def holds(path: str, position: Position) -> bool:
    """Whether the file still has exactly that finished transaction ending at ``position.size``.

    One open and three reads of less than 30 bytes, since the path may lie on a slow mount.

    :raises OSError: for no file, or a dead mount: neither says anything about the database.
    """
    with glance.opened(path) as file:
        return _holds(file, position)


def _holds(file: BinaryIO, position: Position) -> bool:
    from ZODB._compat import FILESTORAGE_MAGIC
    from ZODB.FileStorage.format import TRANS_HDR, TRANS_HDR_LEN

    if position.size <= MAGIC_SIZE:
        return position == (MAGIC_SIZE, NO_TID) and file.read(MAGIC_SIZE) == FILESTORAGE_MAGIC
    magic, tail, header = _around(file, position.size, LENGTH_SIZE)
    if magic != FILESTORAGE_MAGIC or len(header) != TRANS_HDR_LEN:
        return False
    tid, length, status, _, _, _ = struct.unpack(TRANS_HDR, header)
    return tid.hex() == position.tid and status in STATUS_WHOLE and length == int.from_bytes(tail, "big")


def fingerprint(path: str, position: Position, reach: int = 512) -> bytes:
    """What tells a file that has ``position`` from another one: some hundred bytes of it.

    The magic, the last ``reach`` bytes before ``position.size``, and the header of the transaction that ends there
    (a pack changes its status byte).  Shorter where the file isn't what it should be.

    :raises OSError: for no file, or a dead mount.
    """
    with glance.opened(path) as file:
        return b"".join(_around(file, position.size, reach))


def same_base(local: str, remote: str, position: Position) -> bool:
    """Whether two files are the same up to ``position``, as far as the bytes around it tell."""
    return holds(local, position) and fingerprint(local, position) == fingerprint(remote, position)


def _demand(held: bool, path: str, position: Position) -> None:
    if not held:
        raise DamagedDatabase(path, position.size, f"transaction {position.tid} doesn't end here any more")


def cut(path: str, position: Position) -> None:
    """Cut the file to ``position`` and bring that to disk.  Cutting again changes nothing.

    :raises DamagedDatabase: when the file doesn't hold ``position``; nothing is cut then.
    """
    with open(path, "r+b", buffering=0) as file:
        _demand(_holds(file, position), path, position)
        os.ftruncate(file.fileno(), position.size)
        os.fsync(file.fileno())


def index_fits(path: str, index_path: str) -> bool:
    """Whether an index file is whole and ZODB would use it with this file.

    It may be older than the file: ZODB then reads the transactions after it at the next opening.
    """
    position = index_position(index_path)
    if position is None:
        return False
    with Reader(path) as reader:
        if not reader.whole(position):
            return False
        try:
            index = SavedIndex(index_path)
        except (ValueError, MemoryError):  # a damaged length may ask for 4 GB
            return False
        try:
            return reader.sane_index(index, position)
        finally:
            index.close()


def rebuild_index(path: str, progress: Optional[Progress] = None) -> None:
    """Scan the whole file and write ``path + ".index"``; the old index stays until the new one is on disk.

    This is what opening a FileStorage for writing does, by the same functions of ZODB, but the file is opened for
    reading only: opening it for writing would also cut a torn tail off, and leave lock and ``.tmp`` files.

    :param progress: called with the fraction that is done, from 0 to 1, at most a hundred times.
    :raises DamagedDatabase: where ZODB wouldn't open the file.
    """
    from ZODB.FileStorage.FileStorage import CorruptedFileStorageError, FileStorageFormatError, read_index
    from ZODB.FileStorage.format import CorruptedError
    from ZODB.fsIndex import fsIndex

    index = fsIndex()
    with Reader(path) as reader:
        watched = _WatchedFile(reader, progress)
        try:
            end, _, _ = read_index(watched, path, index, {}, read_only=True)
        except (CorruptedFileStorageError, FileStorageFormatError, CorruptedError, ValueError, struct.error) as error:
            raise DamagedDatabase(path, watched.tell(), f"ZODB can't index it: {error}") from error
    temporary = path + ".index.index_tmp"  # ZODB's own name for it: it overwrites what an interruption leaves
    index.save(end, temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path + ".index")


def reporter(progress: Optional[Progress], size: int) -> Callable[[int], None]:
    """A function that takes an offset in a file of ``size`` bytes and calls ``progress`` once for each percent."""
    reported = -1

    def report(offset: int) -> None:
        nonlocal reported
        percent = offset * 100 // (size or 1)
        if progress is not None and percent > reported:
            reported = percent
            progress(min(percent, 100) / 100)

    return report


class _WatchedFile:
    """A file as ``read_index`` needs it, which reports how far it has been read; the scan itself knows no progress."""

    def __init__(self, reader: Reader, progress: Optional[Progress]):
        self._file = reader._file
        self.name = reader.path
        self.seek = self._file.seek
        self.tell = self._file.tell
        self._report = reporter(progress, reader.size)

    def read(self, count: int) -> bytes:
        self._report(self._file.tell())
        return self._file.read(count)
