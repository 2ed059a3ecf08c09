"""Find and read transactions in a FileStorage file, compare two files, cut a file, and make its index.

``ZODB/FileStorage/format.py`` describes the format, and ZODB's own code parses and checks the file.  ``reader`` says
when a transaction is whole and when it is torn.
ZODB is imported inside functions, so that scripts without need of ZODB start fast.

All functions take paths of local files or of files on a mount.  They raise OSError when a file can't be opened or read,
and DamagedDatabase for wrong content.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, Iterator, Optional, Tuple

from cowstorage.database.format import (
    LENGTH_SIZE,
    MAGIC,
    MAGIC_SIZE,
    PYTHON_2_MAGIC,
    START,
    Position,
    Transaction,
    magic_problem,
)
from cowstorage.database.index import FIRST_PICKLE, SavedIndex, index_position
from cowstorage.database.progress import Progress, reporter
from cowstorage.database.reader import Reader
from cowstorage.errors import DamagedDatabase
from cowstorage.system.files import open_unbuffered

# The status bytes of finished transactions, ``ZODB/FileStorage/format.py``.
STATUS_WHOLE = (b" ", b"p", b"u")

# Bytes before a position that most last transactions lie within; on a line of 10 Mbit/s they take 13 ms.
AHEAD = 1 << 14


def last_transactions_time(tid: str) -> float:
    """Return the Unix seconds at which a transaction began, as its tid (16 hex digits) says."""
    from persistent.TimeStamp import TimeStamp  # start-up

    return float(TimeStamp(bytes.fromhex(tid)).timeTime())


def complete_end(path: str, index_path: Optional[str] = None, start: int = MAGIC_SIZE) -> Position:
    """Return the end of the last whole transaction.

    A file that ends with a whole transaction takes some dozen small reads.  A file with a torn end, as a copy of a live
    file may be, is walked from the end of the last transaction in the index, else from ``start``, else from the
    beginning of the file.

    Only the last transactions are checked; ``check_chain`` checks all.

    :param index_path: an index file of any age, which may be missing or damaged; ``None``: no index is used.
    :param start: a byte offset where a transaction is known to end.
    :raises DamagedDatabase: when the file is no FileStorage, or is damaged before a torn end.
    """
    with Reader(path) as reader:
        candidates = [reader.size]
        indexed = index_position(index_path) if index_path else None
        if indexed is not None:
            candidates.append(indexed)
        candidates.append(start)
        for end in candidates:
            tid = reader.whole(end)
            if tid is not None:
                return _last(reader, Position(end, tid))
        return _last(reader, START)


def _last(reader: Reader, position: Position) -> Position:
    """Return the end of the last whole transaction, found by walking from a position."""
    for transaction in reader.walk(position):
        position = transaction.position
    return position


def transactions(path: str, position: Position) -> Iterator[Transaction]:
    """Yield the whole transactions after a position, oldest first.

    Zope may commit meanwhile: a commit that is not finished is ignored, and so are bytes that are written after the
    file was opened.

    :raises DamagedDatabase: when the file doesn't hold ``position``, or is damaged after ``position``.
    """
    with Reader(path) as reader:
        _demand(holds(path, position), path, position)
        yield from reader.walk(position)


def check_chain(path: str, start: Position) -> Position:
    """Check all transactions after a position and return the end of the last whole transaction.

    The tids must increase strictly, the lengths at both ends of a transaction must be equal, data records must point to
    their transaction and add up.  A torn transaction at the end of the file is no error.

    :raises DamagedDatabase: when the file doesn't hold ``start``, or is damaged before a torn end.
    """
    with Reader(path) as reader:
        _demand(holds(path, start), path, start)
        return _last(reader, start)


def boundary(path: str, base: Position, tid: str) -> Optional[Position]:
    """Return the end of the transaction that has a tid.

    :param base: the end of the first transaction that is compared; the others are those after ``base``.
    :param tid: 16 hex digits.
    :returns: ``base`` for its own tid; ``None`` when no transaction after ``base`` has the tid.
    :raises DamagedDatabase: when the file doesn't hold ``base``, or is damaged between ``base`` and the transaction.
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
    """Return the magic, the bytes before a byte offset, and the header of the transaction that ends at this offset.

    Three reads.  Each of the values may be shorter, or empty, when no transaction ends at ``end``.

    :param end: byte offset.
    :param reach: the number of bytes before ``end``, ``LENGTH_SIZE`` at least.
    """
    from ZODB.FileStorage.format import TRANS_HDR_LEN  # start-up

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
    """Return whether the finished transaction ``position.tid`` ends at ``position.size`` in a file.

    The file is opened once and read three times, less than 30 bytes each, since the path may lie on a slow mount.

    :raises OSError: when the file can't be opened or read, which says nothing about the database.
    """
    with open_unbuffered(path) as file:
        return _holds(file, position)


def _holds(file: BinaryIO, position: Position) -> bool:
    """Return the same as ``holds``, for an unbuffered file at its beginning."""
    from ZODB.FileStorage.format import TRANS_HDR, TRANS_HDR_LEN  # start-up

    if position.size <= MAGIC_SIZE:
        return position == START and magic_problem(file.read(MAGIC_SIZE)) is None
    magic, tail, header = _around(file, position.size, LENGTH_SIZE)
    if magic_problem(magic) is not None or len(header) != TRANS_HDR_LEN:
        return False
    tid, length, status, _, _, _ = struct.unpack(TRANS_HDR, header)
    return tid.hex() == position.tid and status in STATUS_WHOLE and length == int.from_bytes(tail, "big")


def fingerprint(path: str, position: Position, reach: int = 512) -> bytes:
    """Return some hundred bytes by which a file with a position is compared with another file.

    The bytes are the magic, the last ``reach`` bytes before ``position.size``, and the header of the transaction that
    ends at ``position.size``, whose status byte a pack changes; fewer when no transaction ends there.

    :raises OSError: when the file can't be opened or read.
    """
    with open_unbuffered(path) as file:
        # What is read is asked for at once: over a network each of the three reads would wait by itself.
        begin = max(0, position.size - AHEAD)
        os.posix_fadvise(file.fileno(), begin, position.size - begin, os.POSIX_FADV_WILLNEED)
        return b"".join(_around(file, position.size, reach))


def magic_of_same_base(local: str, remote: str, position: Position) -> Optional[bytes]:
    """Return the remote file's magic where the local file holds a position and the remote one has the same bytes there.

    The magics may differ: each of the two may have been converted to Python 3.

    :returns: ``None`` where the bytes differ.
    :raises OSError: when a file can't be opened or read.
    """
    if not holds(local, position):
        return None
    here, there = fingerprint(local, position), fingerprint(remote, position)
    magic = there[:MAGIC_SIZE]
    return magic if here[MAGIC_SIZE:] == there[MAGIC_SIZE:] and magic_problem(magic) is None else None


def _demand(held: bool, path: str, position: Position) -> None:
    """Raise DamagedDatabase unless ``held``, which says whether the file holds the position."""
    if not held:
        raise DamagedDatabase(path, position.size, f"transaction {position.tid} doesn't end here any more")


def cut(path: str, position: Position, magic: Optional[bytes] = None) -> None:
    """Cut a file to the size of a position and sync the file to disk; to cut again changes nothing.

    :param magic: the magic of that state, which a conversion to Python 3 has overwritten; ``None``: as it is.
    :raises DamagedDatabase: when the file doesn't hold ``position``; the file is not cut then.
    """
    with open(path, "r+b", buffering=0) as file:
        _demand(_holds(file, position), path, position)
        os.ftruncate(file.fileno(), position.size)
        if magic is not None and os.pread(file.fileno(), MAGIC_SIZE, 0) != magic:
            os.pwrite(file.fileno(), magic, 0)
        os.fsync(file.fileno())


def index_fits(path: str, index_path: str) -> bool:
    """Return whether an index file is undamaged and ZODB would use the index with this file.

    The index may be older than the file: ZODB reads the later transactions when it opens the file.

    :raises DamagedDatabase: when the file is no FileStorage.
    """
    return _is_sane(path, index_path) is True


def index_is_harmless(path: str, index_path: str) -> bool:
    """Return whether an index file is of this file, though ZODB may ignore the index.

    ZODB does that where one of the last five records undoes a creation, or two are of one object.

    :raises DamagedDatabase: when the file is no FileStorage.
    """
    return _is_sane(path, index_path) is not None


def _is_sane(path: str, index_path: str) -> Optional[bool]:
    """Return whether ZODB uses an index with a file; ``None`` for one that is damaged or of another file."""
    position = index_position(index_path)
    if position is None or not index_is_possible(os.path.getsize(index_path), os.path.getsize(path)):
        return None
    with Reader(path) as reader:
        if not reader.whole(position):
            return None
        try:
            index = SavedIndex(index_path)
        except ValueError:
            return None
        try:
            return reader.sane_index(index, position)
        except ValueError:
            return None
        finally:
            index.close()


def index_is_possible(index_size: int, size: int) -> bool:
    """Return whether an index of so many bytes may belong to a FileStorage of ``size`` bytes; nothing is read.

    An object takes 30 bytes in an index at the most, when it is alone in its bucket, and 42 at least in the file.
    """
    return index_size <= size + FIRST_PICKLE


def rebuild_index(path: str, progress: Optional[Progress] = None) -> None:
    """Scan a whole file and write its index, ``path + ".index"``; the old index stays until the new one is on disk.

    ZODB does the same, by the same functions, when it opens a FileStorage for writing.  But ZODB would also cut off a
    torn end, and leave lock and ``.tmp`` files.  So the file is opened for reading only.

    :param progress: called with the fraction that is done, from 0 to 1, once for each percent; ``None``: nothing is.
    :raises DamagedDatabase: when ZODB would not open the file.
    """
    from ZODB.FileStorage.FileStorage import CorruptedFileStorageError, FileStorageFormatError, read_index  # start-up
    from ZODB.FileStorage.format import CorruptedError  # start-up
    from ZODB.fsIndex import fsIndex  # start-up

    index = fsIndex()
    with Reader(path) as reader:
        watched = _WatchedFile(reader, progress)
        try:
            end, _, _ = read_index(watched, path, index, {}, read_only=True)
        except (CorruptedFileStorageError, FileStorageFormatError, CorruptedError, ValueError, struct.error) as error:
            raise DamagedDatabase(path, watched.tell(), f"ZODB can't index it: {error}") from error
    # The name is ZODB's own, so that ZODB overwrites the file that an interruption leaves.
    temporary = path + ".index.index_tmp"
    index.save(end, temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path + ".index")


class _WatchedFile:
    """A wrapper of a reader's open file that reports how far the file has been read; for ZODB's ``read_index``."""

    def __init__(self, reader: Reader, progress: Optional[Progress]):
        self._file = reader._file
        self.name = reader.path
        self.seek = self._file.seek
        self.tell = self._file.tell
        self._report = reporter(progress, reader.size)

    def read(self, count: int) -> bytes:
        """Report the progress and read ``count`` bytes; of a FileStorage of Python 2 ZODB sees its own magic."""
        offset = self._file.tell()
        self._report(offset)
        found = self._file.read(count)
        return MAGIC if offset == 0 and found == PYTHON_2_MAGIC else found
