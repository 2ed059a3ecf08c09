"""A sample of a FileStorage, the ways to damage it, and what ZODB says to it."""

from __future__ import annotations

import logging
import os
import struct
from typing import Any, Callable, Dict, List, NamedTuple, Tuple, Union

import pytest
import transaction
import ZODB
from hypothesis import strategies as st
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64, z64

from cowstorage.database.format import Position

# A file name, as the tests have it.
Path = Union[str, "os.PathLike[str]"]

EMPTY = Position(4, "0" * 16)
# Of a transaction: the length of its header, and where its status is in that.
HEADER = 23
STATUS = 16


def commit(connection: Any, key: object, value: object, note: str = "") -> Position:
    """Commit one transaction, and return its end."""
    connection.root()[key] = value
    transaction.get().note(note)
    transaction.commit()
    storage = connection.db().storage
    return Position(storage.getSize(), storage.lastTransaction().hex())


def open_database(path: str, **options: Any) -> Any:
    """Open a FileStorage; the options are its own."""
    return ZODB.DB(FileStorage(path, **options))


def write(path: Path, content: bytes) -> str:
    """Write a file, and return its name."""
    with open(path, "wb") as file:
        file.write(content)
    return os.fspath(path)


def read(path: Path) -> bytes:
    """Read a file."""
    with open(path, "rb") as file:
        return file.read()


def patched(content: bytes, offset: int, replacement: bytes) -> bytes:
    """Return the content with other bytes from an offset on."""
    return content[:offset] + replacement + content[offset + len(replacement) :]


class Sample(NamedTuple):
    """A database's bytes, the positions of its transactions and the indexes that ZODB saved at them."""

    content: bytes
    positions: List[Position]
    indexes: Dict[Position, bytes]

    def __repr__(self) -> str:
        return f"<Sample of {len(self.content)} bytes>"

    @property
    def end(self) -> Position:
        """The end of the last transaction."""
        return self.positions[-1]

    def last_before(self, size: int) -> Position:
        """Return the last position in a file of that size."""
        return max(position for position in self.positions if position.size <= size)

    def start_of(self, number: int) -> int:
        """Return the offset at which the transaction begins that ends at ``positions[number]``."""
        return self.positions[number - 1].size


def sample_indexes(path: str, positions: List[Position]) -> Dict[Position, bytes]:
    """Return the index that ZODB writes after each transaction."""
    indexes = {}
    content = read(path)
    for position in positions:
        copy = write(path + ".at", content[: position.size])
        FileStorage(copy).close()
        indexes[position] = read(copy + ".index")
        os.remove(copy + ".index")
    return indexes


def without_objects(storage: Any) -> None:
    """Commit a transaction that changes no object."""
    metadata = TransactionMetaData("", "nothing in it")
    storage.tpc_begin(metadata)
    storage.tpc_vote(metadata)
    storage.tpc_finish(metadata)


def damages(sample: Sample) -> Dict[str, Tuple[int, bytes]]:
    """Return the offset and the bytes of each damage to the fourth of nine transactions, which changes one object."""
    start = sample.start_of(4)
    length = sample.positions[4].size - start - 8
    header = struct.unpack_from(">8sQcHHH", sample.content, start)
    record = start + HEADER + sum(header[3:])
    found = {
        "tid not increasing": (start, bytes.fromhex(sample.positions[2].tid)),
        "tid zero": (start, z64),
        "too long for the file": (start + 8, p64(1 << 40)),
        "shorter than its header": (start + 8, p64(5)),
        "too short": (start + 8, p64(length - 1)),
        "too long": (start + 8, p64(length + 1)),
        "unknown status": (start + STATUS, b"x"),
        "header lengths": (start + STATUS + 1, b"\xff\xff"),
        "record of another transaction": (record + 24, p64(start + 1)),
        "version": (record + 32, b"\1\1"),
        "previous record after this one": (record + 16, p64(record + 1)),
        "record too long": (record + 34, p64(length)),
        "record too short": (record + 34, p64(1)),
        "lengths differ": (start + length, p64(length + 1)),
    }
    assert tuple(found) == DAMAGES
    return found


DAMAGES = (
    "tid not increasing",
    "tid zero",
    "too long for the file",
    "shorter than its header",
    "too short",
    "too long",
    "unknown status",
    "header lengths",
    "record of another transaction",
    "version",
    "previous record after this one",
    "record too long",
    "record too short",
    "lengths differ",
)


def grown(path: str) -> None:
    """Commit three more transactions."""
    database = open_database(path)
    for number in range(3):
        commit(database.open(), f"grown {number}", "x" * 100)
    database.close()


def pack(path: str) -> None:
    """Pack a database."""
    database = open_database(path)
    database.pack()
    database.close()


def zodb_warnings(caplog: pytest.LogCaptureFixture, path: str) -> Tuple[List[str], bool]:
    """Open and close a database; return what ZODB logs from warning on, and whether it has used the index."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        database = open_database(path)
        used_index = database.storage._used_index
        database.close()
    return [record.getMessage() for record in caplog.records], used_index


@st.composite
def damaged(draw: Callable[..., Any], content: bytes) -> bytes:
    """Draw bytes with up to three flips, insertions, deletions and truncations."""
    for _ in range(draw(st.integers(1, 3))):
        offset = draw(st.integers(0, len(content)))
        what = draw(st.sampled_from(("flip", "set", "insert", "delete", "truncate")))
        if what == "flip":
            bit = 1 << draw(st.integers(0, 7))
            content = patched(content, offset, bytes(byte ^ bit for byte in content[offset : offset + 1]))
        elif what == "set":
            content = patched(content, offset, draw(st.sampled_from((b"\0", b"\xff", b"c", b"u", b" "))))
        elif what == "insert":
            content = content[:offset] + draw(st.binary(max_size=40)) + content[offset:]
        elif what == "delete":
            content = content[:offset] + content[offset + draw(st.integers(1, 40)) :]
        else:
            content = content[:offset]
    return content
