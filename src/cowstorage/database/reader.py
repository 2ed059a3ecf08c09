"""Read a FileStorage file forwards and backwards with ZODB's format code, and check it as ZODB's pack does.

``ZODB/FileStorage/format.py`` describes the format.  ``ZODB.FileStorage.FileIterator`` isn't used: it stops at damage
as it does at the end, reads all data, and fails at a transaction of status "u".
A transaction is whole when it is complete, finished (its status is not "c"), and its lengths and data records agree.
A torn transaction is one at the end of the file that is not complete or not finished.
ZODB is imported inside functions, so that scripts without need of ZODB start fast.
"""

from __future__ import annotations

import errno
import os
import struct
from types import TracebackType
from typing import Any, Callable, Iterator, Optional, Tuple, Type

from cowstorage.database.format import LENGTH_SIZE, MAGIC_SIZE, NO_TID, Position, Transaction, magic_problem
from cowstorage.database.index import SavedIndex
from cowstorage.errors import DamagedDatabase
from cowstorage.system.files import open_regular

# The size of the read buffer in bytes: records have some hundred bytes on average, and many are skipped.
READ_AHEAD = 1 << 16

# The number of transactions that are followed backwards from the end of a file.  A copy of a live file may have an
# unfinished transaction before finished ones: they were appended while the copy was still going on.  The unfinished one
# is found by looking back over more transactions than are committed in the time that it takes to copy one buffer.
LOOK_BACK = 32

# Called with the byte offset and the ``ZODB.FileStorage.format.DataHeader`` of a data record.
Visitor = Callable[[int, Any], None]


class Reader:
    """An open FileStorage file.

    :param path: the ``.fs`` file.
    :ivar size: the size in bytes when the file was opened: bytes after it are ignored.
    :ivar magic: the first bytes, which say for which Python the file is.
    :raises DamagedDatabase: when the file is no FileStorage.
    :raises OSError: as ``open`` does.
    """

    def __init__(self, path: str):
        from ZODB.FileStorage.FileStorage import TempFormatter  # start-up

        self.path = path
        self._file = open_regular(path, READ_AHEAD)
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self.magic = self._file.read(MAGIC_SIZE)
            problem = magic_problem(self.magic)
            if problem:
                raise DamagedDatabase(path, 0, problem)
        except BaseException:
            self._file.close()
            raise
        self._formatter = TempFormatter(self._file)
        # ZODB's consistency checks call ``fail`` for damage.  ZODB's own ``fail`` logs an error besides, which would be
        # wrong where a transaction is only looked for.
        self._formatter.fail = self._fail

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self._file.close()

    def _fail(self, pos: int, message: str, *arguments: object) -> None:
        """Raise ``DamagedDatabase``; the parameters are those of ``FileStorageFormatter.fail``."""
        raise DamagedDatabase(self.path, pos, message % arguments)

    def walk(self, start: Position, visit: Optional[Visitor] = None) -> Iterator[Transaction]:
        """Yield the whole transactions after a position, oldest first, up to the end of the file or a torn transaction.

        :param start: the end of a transaction in this file.
        :param visit: called for each data record of a transaction before the transaction is yielded; not for the
            records of a transaction of status "u", which ZODB ignores.  ``None``: nothing is called.
        :raises DamagedDatabase: for a transaction that is complete but not whole.
        """
        from ZODB.FileStorage.format import CorruptedError  # start-up

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
        """Return the transaction that begins at ``start``; ``None`` when the transaction is torn.

        Parameters and errors are those of ``walk``; errors of ZODB and ``struct`` are passed on.
        """
        from persistent.TimeStamp import TimeStamp  # start-up
        from ZODB.FileStorage.format import CorruptedDataError  # start-up

        pos = start.size
        try:
            header = self._formatter._read_txn_header(pos)
        except CorruptedDataError:  # the file ends within the header, perhaps only now: Zope has aborted a commit
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
        """Check that the data records of a transaction add up and point to the transaction; return their number.

        :param transaction_pos: byte offset of the transaction.
        :param transaction: its ``ZODB.FileStorage.format.TxnHeader``.
        :param visit: called for each data record; ``None``: nothing is called.
        """
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
        """Return the tid of the whole transaction that ends at a byte offset, read backwards from there.

        Bytes inside an object may look like the end of a transaction.  So the data records of the last transaction that
        has any must point to this transaction, and the transactions before must follow each other without a gap, with
        smaller and smaller tids.

        :param end: byte offset; ``MAGIC_SIZE`` is the end of a file without transactions.
        :param look_back: the number of transactions that are read.
        :returns: 16 hex digits; ``NO_TID`` for ``MAGIC_SIZE``; ``None`` when no whole transaction ends at ``end``.
        """
        from ZODB.FileStorage.format import CorruptedError  # start-up

        if not MAGIC_SIZE <= end <= self.size:
            return None
        try:
            return self._whole(end, look_back)
        except (DamagedDatabase, CorruptedError, ValueError, struct.error):
            return None

    def _whole(self, end: int, look_back: int) -> Optional[str]:
        """Return the same as ``whole``; errors of ZODB and ``struct`` are passed on."""
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
        """Return the pickle of a data record, following the back pointers that an undo has written.

        :param pos: byte offset of the data record.
        :param header: its ``ZODB.FileStorage.format.DataHeader``.
        :param longest: bytes; a longer pickle is not read.
        :returns: ``b""`` for a longer pickle; ``None`` for a record that undoes the creation of its object.
        :raises DamagedDatabase: when a back pointer points forwards.
        """
        from ZODB.FileStorage.format import DATA_HDR_LEN  # start-up

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

    def start_of(self, end: int) -> int:
        """Return the byte offset at which the transaction begins that ends at a byte offset.

        :raises DamagedDatabase: when none ends there.
        """
        start: int = end - LENGTH_SIZE - self._formatter._read_num(end - LENGTH_SIZE)
        if not MAGIC_SIZE <= start < end:
            self._fail(end, "no transaction ends here")
        return start

    def records(self, start: int) -> Iterator[Tuple[int, Any]]:
        """Yield the byte offset and the ``ZODB.FileStorage.format.DataHeader`` of each data record of a transaction.

        :param start: byte offset of the transaction.
        :raises DamagedDatabase: when one can't be read.
        """
        from ZODB.FileStorage.format import CorruptedError  # start-up

        try:
            transaction = self._formatter._read_txn_header(start)
            pos = start + transaction.headerlen()
            while pos < start + transaction.tlen:
                header = self._formatter._read_data_header(pos)
                yield pos, header
                pos += header.recordlen()
        except (CorruptedError, ValueError, struct.error) as error:
            raise DamagedDatabase(self.path, start, f"a transaction can't be read: {error}") from error

    def record_tid(self, pos: int) -> bytes:
        """Return the tid, 8 bytes, of the data record at a byte offset that ``walk`` has given to its visitor."""
        tid: bytes = self._formatter._read_data_header(pos).tid
        return tid

    def sane_index(self, index: SavedIndex, end: int) -> Optional[bool]:
        """Return whether ZODB would use an index with this file.

        :param end: byte offset at the end of the last transaction that is in the index.
        :returns: ``None``: with this index ZODB would not even open the file.
        """
        from ZODB.FileStorage.FileStorage import FileStorage  # start-up

        try:
            return bool(FileStorage._check_sanity(self._formatter, index, end))
        except OSError as error:
            # In a file whose transactions have no objects ZODB seeks to a negative offset, and fails to open the file.
            if error.errno == errno.EINVAL:
                return None
            raise
