"""Look up single BLOBs in a FileStorage by its saved index, without ZODB, without a scan and without loading the index.

``ZODB/FileStorage/format.py`` describes the records.  Only what is up to a known end of a transaction counts.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from typing import Optional, Tuple

from cowstorage.database.blobs import LONGEST_BLOB_RECORD, is_blob_record
from cowstorage.database.format import LENGTH_SIZE, Position
from cowstorage.database.index import SavedIndex, index_position
from cowstorage.system.files import open_regular

# tid, length, status, lengths of user, description and extension.
TRANSACTION = struct.Struct(">8sQcHHH")
# oid, tid, position of the previous record, of the transaction, no length of a version, length of the data.
RECORD = struct.Struct(">8s8sQQHQ")
LENGTH = struct.Struct(">Q")

# Bytes that the index may lack at the end of the file: they are walked through once.
MOST_BEHIND = 64_000_000

# Records that only point back to another one, as undo writes them.
MOST_STEPS = 100

UNDONE = b"u"


class BlobLookup:
    """An open FileStorage and its index, up to a base.

    :param fs_path: the ``.fs`` file.
    :param index_path: an index of it, which may lack the last transactions.
    :param base: the end of a transaction.
    :raises ValueError: when the files do not fit, or the index lacks more than ``MOST_BEHIND``.
    :raises OSError: as ``open`` does.
    """

    def __init__(self, fs_path: str, index_path: str, base: Position):
        indexed = index_position(index_path)
        if indexed is None or not 0 <= base.size - indexed <= MOST_BEHIND:
            raise ValueError("the index is of another file, or old")
        self._file = open_regular(fs_path)
        self._index = SavedIndex(index_path)
        self._end = base.size
        # Of the objects behind the index, sorted: some 16 bytes of memory for each record.
        self._oids, self._positions = array("Q"), array("Q")
        self._check_end(base)
        self._walk(indexed)
        self._sort()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._index.close()

    def tid(self, oid: bytes) -> Optional[bytes]:
        """Return the tid of the current revision of a BLOB; ``None`` for an object of another class.

        :param oid: 8 bytes.
        :raises KeyError: when there is no such object.
        :raises ValueError: when the files are damaged.
        """
        position = self._position_behind(oid) or self._index.get(oid)
        if not position:
            raise KeyError(oid)
        found, tid, size = self._record(position)
        if found != oid:
            raise ValueError("the index leads to another object")
        for _ in range(MOST_STEPS):
            if size:
                record = self._read(size) if size <= LONGEST_BLOB_RECORD else b""
                return tid if is_blob_record(record) else None
            (back,) = LENGTH.unpack(self._read(LENGTH.size))
            if not back:
                return None
            _, _, size = self._record(back)
        raise ValueError("records point back without an end")

    def _check_end(self, base: Position) -> None:
        """Make sure that the base's transaction ends where it should."""
        self._file.seek(base.size - LENGTH_SIZE)
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        if length > base.size - LENGTH_SIZE:
            raise ValueError("a transaction is longer than the file")
        self._file.seek(base.size - LENGTH_SIZE - length)
        if self._read(8).hex() != base.tid:
            raise ValueError("the file has another transaction there")

    def _walk(self, position: int) -> None:
        """Remember the records of the transactions from a position on."""
        while position < self._end:
            self._file.seek(position)
            _, length, status, *texts = TRANSACTION.unpack(self._read(TRANSACTION.size))
            end = position + length
            at = position + TRANSACTION.size + sum(texts)
            while status != UNDONE and at < end:
                oid, _, size = self._record(at)
                self._oids.append(int.from_bytes(oid, "big"))
                self._positions.append(at)
                at += RECORD.size + (size or LENGTH.size)
            if length < TRANSACTION.size or (status != UNDONE and at != end):
                raise ValueError("a transaction is damaged")
            position = end + LENGTH_SIZE
        if position != self._end:
            raise ValueError("no transaction ends at the base")

    def _sort(self) -> None:
        """Sort what was walked through by oid; of one object the last record stays the last."""
        order = sorted(range(len(self._oids)), key=self._oids.__getitem__)
        self._oids = array("Q", (self._oids[number] for number in order))
        self._positions = array("Q", (self._positions[number] for number in order))

    def _position_behind(self, oid: bytes) -> Optional[int]:
        """Return the byte offset of an object's last record behind the index; ``None`` where it has none there."""
        number = int.from_bytes(oid, "big")
        at = bisect_right(self._oids, number) - 1
        return self._positions[at] if at >= 0 and self._oids[at] == number else None

    def _record(self, position: int) -> Tuple[bytes, bytes, int]:
        """Return oid, tid and data length of a record, and leave the file behind its header."""
        if position >= self._end:
            raise ValueError("a record is behind the base")
        self._file.seek(position)
        oid, tid, _, _, _, size = RECORD.unpack(self._read(RECORD.size))
        return oid, tid, size

    def _read(self, count: int) -> bytes:
        content = self._file.read(count)
        if len(content) != count:
            raise ValueError("the file ends too early")
        return content
