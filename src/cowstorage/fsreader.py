"""A FileStorage file, read forwards and backwards by ZODB's own format code and checked as ZODB's pack checks it.

``ZODB/FileStorage/format.py`` describes the format.  ``ZODB.FileStorage.FileIterator`` isn't used: it stops at damage
as it does at the end, reads all data, and fails at a transaction of status "u".
ZODB is imported in functions, because scripts that don't need it must start fast.
"""

from __future__ import annotations

import errno
import os
import struct
from types import TracebackType
from typing import Any, Callable, Iterator, NamedTuple, Optional, Type

from cowstorage.errors import DamagedDatabase
from cowstorage.saved_index import SavedIndex

NO_TID = "0" * 16
MAGIC_SIZE = 4
LENGTH_SIZE = 8

# Read ahead, in bytes: records are some hundred bytes on average, and skipped where their content doesn't matter.
READ_AHEAD = 1 << 16

# A copy of a live file may hold a transaction that was unfinished when it was read and finished ones that were
# appended while the copy was still going on.  Looking back over more transactions than are committed in the time
# that it takes to copy one buffer finds it.
LOOK_BACK = 32


class Position(NamedTuple):
    """The end of a transaction: ``size`` bytes of the file up to and with it, ``tid`` in 16 hex digits.

    A file without transactions has ``size`` 4 and ``tid`` 16 zeros.
    """

    size: int
    tid: str


class Transaction(NamedTuple):
    """One transaction: ``time`` in Unix seconds, ``objects`` the number of its data records.

    ``size`` is that of the whole record in bytes, ``end`` the offset after it.
    """

    tid: str
    time: float
    user: str
    description: str
    objects: int
    size: int
    end: int

    @property
    def position(self) -> Position:
        return Position(self.end, self.tid)


Visitor = Callable[[int, Any], None]


class Reader:
    """An open FileStorage file of which the first ``size`` bytes are looked at: what is appended later isn't seen.

    :raises DamagedDatabase: when the file is no FileStorage.
    """

    def __init__(self, path: str):
        from ZODB.FileStorage.FileStorage import TempFormatter

        self.path = path
        self._file = open(path, "rb", buffering=READ_AHEAD)  # noqa: SIM115
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self._check_magic()
        except BaseException:
            self._file.close()
            raise
        self._formatter = TempFormatter(self._file)
        # ZODB's consistency checks call it; its own logs an error that is none where a boundary is only looked for.
        self._formatter.fail = self._fail

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self._file.close()

    def _check_magic(self) -> None:
        from ZODB._compat import FILESTORAGE_MAGIC

        magic = self._file.read(MAGIC_SIZE)
        if magic == b"FS21":
            raise DamagedDatabase(
                self.path, 0, "this is a FileStorage of Python 2; convert production's database with zodbupdate first"
            )
        if magic != FILESTORAGE_MAGIC:
            raise DamagedDatabase(
                self.path, 0, f"this isn't a FileStorage: it begins with {magic!r} instead of {FILESTORAGE_MAGIC!r}"
            )

    def _fail(self, pos: int, message: str, *arguments: object) -> None:
        raise DamagedDatabase(self.path, pos, message % arguments)

    def walk(self, start: Position, visit: Optional[Visitor] = None) -> Iterator[Transaction]:
        """The whole transactions after ``start``, oldest first; a torn one ends the walk.

        :param visit: called with offset and ``DataHeader`` of each data record that ZODB would see, before the
            transaction is yielded.
        :raises DamagedDatabase: for a transaction that is there to its end but contradicts itself.
        """
        from ZODB.FileStorage.format import CorruptedError

        while start.size < self.size:
            try:
                transaction = self._transaction(start, visit)
            except (CorruptedError, ValueError, struct.error) as error:
                raise DamagedDatabase(self.path, start.size, f"a transaction can't be read: {error}") from error
            if transaction is None:
                return
            yield transaction
            start = transaction.position

    def _transaction(self, start: Position, visit: Optional[Visitor]) -> Optional[Transaction]:
        """The transaction that begins at ``start``, or ``None`` when it is torn."""
        from persistent.TimeStamp import TimeStamp
        from ZODB.FileStorage.format import CorruptedDataError

        pos = start.size
        try:
            header = self._formatter._read_txn_header(pos)
        except CorruptedDataError:  # the file ends in it, perhaps since a moment ago: Zope has aborted a commit
            return None
        if header.status == "c":
            return None
        self._formatter.ltid = bytes.fromhex(start.tid)
        self._formatter.checkTxn(header, pos)
        end = pos + header.tlen + LENGTH_SIZE
        if end > self.size:
            if self.whole(self.size, look_back=1):
                self._fail(pos, "this transaction's length is wrong, it would be longer than the file")
            return None
        objects = self._visit_records(pos, header, None if header.status == "u" else visit)
        if self._formatter._read_num(end - LENGTH_SIZE) != header.tlen:
            self._fail(pos, "the two lengths of this transaction differ")
        return Transaction(
            tid=header.tid.hex(),
            time=TimeStamp(header.tid).timeTime(),
            user=header.user.decode("utf-8", "replace"),
            description=header.descr.decode("utf-8", "replace"),
            objects=objects,
            size=end - pos,
            end=end,
        )

    def _visit_records(self, transaction_pos: int, transaction: Any, visit: Optional[Visitor]) -> int:
        """Check the data records of a transaction and count them: that they add up and point to it."""
        pos = transaction_pos + transaction.headerlen()
        count = 0
        while pos < transaction_pos + transaction.tlen:
            header = self._formatter._read_data_header(pos)
            self._formatter.checkData(transaction, transaction_pos, header, pos)
            if visit is not None:
                visit(pos, header)
            pos += header.recordlen()
            count += 1
        return count

    def whole(self, end: int, look_back: int = LOOK_BACK) -> Optional[str]:
        """The tid of the whole transaction that ends at ``end``, told from the end; zeros at the end of the magic.

        ``None`` where none ends.  A length that is none (bytes of an object that look like one) isn't taken for one:
        the last transaction with data records has to have them pointing to itself, and those before it must link up.

        :param look_back: over how many transactions they are followed.
        """
        from ZODB.FileStorage.format import CorruptedError

        if not MAGIC_SIZE <= end <= self.size:
            return None
        try:
            return self._whole(end, look_back)
        except (DamagedDatabase, CorruptedError, ValueError, struct.error):
            return None

    def _whole(self, end: int, look_back: int) -> Optional[str]:
        tid = NO_TID
        later_tid = b"\xff" * 8
        hops = objects = 0
        while end > MAGIC_SIZE and (hops < look_back or not objects):
            if end < MAGIC_SIZE + LENGTH_SIZE:
                return None
            pos = end - LENGTH_SIZE - self._formatter._read_num(end - LENGTH_SIZE)
            if pos < MAGIC_SIZE:
                return None
            header = self._formatter._read_txn_header(pos)
            self._formatter.ltid = b"\0" * 8
            self._formatter.checkTxn(header, pos)
            if pos + header.tlen + LENGTH_SIZE != end or header.tid >= later_tid:
                return None
            if not objects:
                objects = self._visit_records(pos, header, None)
            if not hops:
                tid = header.tid.hex()
            later_tid, end, hops = header.tid, pos, hops + 1
        return tid

    def data(self, pos: int, header: Any, longest: int) -> Optional[bytes]:
        """The pickle of a data record, from where an undo's back pointers lead; ``b""`` if over ``longest`` bytes.

        ``None`` for an object whose creation was undone.

        :raises DamagedDatabase: for back pointers that don't lead back.
        """
        from ZODB.FileStorage.format import DATA_HDR_LEN

        while not header.plen:
            if not header.back:
                return None
            if header.back >= pos:
                self._fail(pos, "invalid back pointer: %d", header.back)
            pos = header.back
            header = self._formatter._read_data_header(pos, header.oid)
        if header.plen > longest:
            return b""
        self._file.seek(pos + DATA_HDR_LEN)
        return self._file.read(header.plen)

    def record_tid(self, pos: int) -> bytes:
        """The tid in the data record at ``pos``, which the walk has seen."""
        tid: bytes = self._formatter._read_data_header(pos).tid
        return tid

    def sane_index(self, index: SavedIndex, end: int) -> bool:
        """Whether ZODB would use an index that was saved when the file ended at ``end``."""
        from ZODB.FileStorage.FileStorage import FileStorage

        try:
            return bool(FileStorage._check_sanity(self._formatter, index, end))
        except OSError as error:
            # Where no transaction has objects, ZODB seeks before the file's beginning, and fails to open it.
            if error.errno == errno.EINVAL:
                return False
            raise
