"""A server's Data.fs and its index are forged to take all memory of whoever reads them."""

from __future__ import annotations

import os
import pickle
import struct
from io import BytesIO
from pathlib import Path

import pytest
import ZODB.blob
from hypothesis import given
from hypothesis import strategies as st
from persistent.mapping import PersistentMapping
from ZODB.Connection import TransactionMetaData
from zodbpickle import pickle as zodbpickle

from attacks.memory import output_with_little_memory
from cowstorage.database import filestorage
from cowstorage.database.blobs import is_blob_record
from cowstorage.database.index import SavedIndex, index_position
from database.sample import commit, open_database, read, write

# The class by protocol 3 (ZODB 5 on either Python), by protocol 1 (ZODB 3.10 on Python 2), by 2; then the state.
BLOB = b"cZODB.blob\nBlob\nq\x01."
RECORDS = [b"\x80\x03" + BLOB + b"\x80\x03N.", BLOB + b"N.", b"\x80\x02" + BLOB + b"\x80\x02N."]

REFERENCES = """
from cowstorage.database import blobs
print(len(list(blobs.references(sys.argv[1]))))
"""

OPEN_INDEX = """
from cowstorage.database.index import SavedIndex
try:
    SavedIndex(sys.argv[1] + ".index")
except ValueError:
    print("damaged")
"""


def site_with_record(directory: Path, record: bytes) -> str:
    """Return a database whose last transaction has that record, and no other object."""
    path = str(directory / "Data.fs")
    database = open_database(path)
    commit(database.open(), "x", "y")
    storage = database.storage
    metadata = TransactionMetaData()
    storage.tpc_begin(metadata)
    storage.store(b"\0" * 7 + b"\x09", b"\0" * 8, record, "", metadata)
    storage.tpc_vote(metadata)
    storage.tpc_finish(metadata)
    database.close()
    return path


# A place in the memo that is far away: 26 bytes in all, and the C unpickler reserves 4.3 GB for it, or fails.
HUGE_MEMO = b"\x80\x03cZODB.blob\nBlob\nr\xff\xff\xff\x1f.N."


@pytest.mark.parametrize("prefix", [b"\x80\x03", b"\x80\x02", b""], ids=["3", "2", "1"])
def test_a_record_of_26_bytes_that_takes_gigabytes(tmp_path: Path, prefix: bytes) -> None:
    path = site_with_record(tmp_path, prefix + HUGE_MEMO[2:])
    assert output_with_little_memory(REFERENCES, path) == "1\n"


@pytest.mark.parametrize("record", RECORDS)
def test_the_records_of_every_writer_are_known(record: bytes) -> None:
    assert ZODB.blob.is_blob_record(record)
    assert is_blob_record(record)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3])
def test_what_zodb_pickles_is_known(protocol: int) -> None:
    """By each protocol that it can write, and however the two pickles share a memo."""
    file = BytesIO()
    pickler = zodbpickle.Pickler(file, protocol)
    pickler.dump(ZODB.blob.Blob)
    pickler.dump(None)
    assert is_blob_record(file.getvalue())
    assert not is_blob_record(zodbpickle.dumps(PersistentMapping, protocol))


# pickletools of Python 3.12 and later, on forged escapes.
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@given(st.sampled_from(RECORDS), st.integers(0, 25), st.binary(max_size=3))
def test_what_is_said_to_be_a_blob_is_one_to_zodb(record: bytes, offset: int, forged: bytes) -> None:
    """Whatever bytes are changed; but for a memo that is far away, which ZODB would fill memory for."""
    record = record[:offset] + forged + record[offset + len(forged) :]
    if is_blob_record(record) and b"r" not in record[17:]:
        assert ZODB.blob.is_blob_record(record)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A database of some transactions, with its index."""
    path = str(tmp_path / "Data.fs")
    database = open_database(path)
    for number in range(6):
        commit(database.open(), number, "x")
    database.close()
    assert filestorage.index_fits(path, path + ".index")
    return path


# Bytes of an index that takes no room on the disk.
SPARSE = 3_000_000_000


def forged_index(path: str, position: int, opcode: bytes, length: int) -> None:
    """Write an index whose first bucket is said to be as long as the file, which is a hole."""
    with open(path + ".index", "wb") as file:
        file.write(pickle.dumps(position, 3))
        file.write(b"\x80\x03C\x06" + b"\0" * 6 + opcode + struct.pack("<I", length))
        file.truncate(SPARSE)


@pytest.mark.parametrize("opcode", [b"B", b"X", b"T", b"\x8b", b"J"], ids=repr)
def test_a_sparse_index_of_3_gb(path: str, opcode: bytes) -> None:
    """As bytes, as text, as a str of Python 2, as a number."""
    forged_index(path, os.path.getsize(path), opcode, 0x7FFFFFFF)
    assert index_position(path + ".index") == os.path.getsize(path)
    assert output_with_little_memory(OPEN_INDEX, path) == "damaged\n"
    assert not filestorage.index_fits(path, path + ".index")


def test_a_line_without_end_in_an_index(path: str) -> None:
    with open(path + ".index", "wb") as file:
        file.write(pickle.dumps(os.path.getsize(path), 3) + b"I")
        file.truncate(SPARSE)
    assert output_with_little_memory(OPEN_INDEX, path) == "damaged\n"
    assert not filestorage.index_fits(path, path + ".index")


def with_buckets(path: str, count: int) -> None:
    """Put so many buckets of one object, which is nowhere, behind those of an index."""
    end = pickle.dumps(None, 3)
    buckets = (b"\x80\x03C\x06%sC\x08" % number.to_bytes(6, "big") + b"\0" * 8 + b"\x86." for number in range(1, count))
    write(path + ".index", b"".join((read(path + ".index")[: -len(end)], *buckets, end)))


def test_an_index_of_more_objects_than_the_file_has_room_for(path: str) -> None:
    """Sound in itself: but each object takes more bytes in Data.fs than in the index."""
    with_buckets(path, 2000)
    SavedIndex(path + ".index").close()
    assert not filestorage.index_fits(path, path + ".index")


def test_an_index_of_more_buckets_than_there_is_memory_for(path: str) -> None:
    """However large the file is said to be: a hole takes no room on the disk."""
    with_buckets(path, 70_000)
    os.truncate(path, SPARSE)
    with pytest.raises(ValueError, match="too many"):
        SavedIndex(path + ".index")


def test_an_index_of_one_object_fits(tmp_path: Path) -> None:
    """The shortest file that has one, so that no limit is too low."""
    path = str(tmp_path / "Data.fs")
    open_database(path).close()
    assert os.path.getsize(path + ".index") < os.path.getsize(path)
    assert filestorage.index_fits(path, path + ".index")
