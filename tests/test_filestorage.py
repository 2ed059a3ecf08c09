"""FileStorage files, whole, torn, damaged and packed; ZODB itself is the judge."""

from __future__ import annotations

import builtins
import contextlib
import logging
import os
import pickle
import shutil
import struct
import time
from typing import NamedTuple

import pytest
import transaction
import ZODB
from hypothesis import given, settings
from hypothesis import strategies as st
from ZODB.blob import Blob
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import FileIterator
from ZODB.fsIndex import fsIndex
from ZODB.utils import p64, z64

from cowstorage import filestorage, glance
from cowstorage.errors import DamagedDatabase
from cowstorage.filestorage import Position

EMPTY = Position(4, "0" * 16)
HEADER = 23
STATUS = 16


def commit(connection, key, value, note=""):
    """One transaction; its Position."""
    connection.root()[key] = value
    transaction.get().note(note)
    transaction.commit()
    storage = connection.db().storage
    return Position(storage.getSize(), storage.lastTransaction().hex())


def open_database(path, **options):
    return ZODB.DB(FileStorage(path, **options))


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)
    return str(path)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def patched(content, offset, replacement):
    return content[:offset] + replacement + content[offset + len(replacement) :]


class Sample(NamedTuple):
    """A database's bytes, the positions of its transactions and the indexes that ZODB saved at them."""

    content: bytes
    positions: list
    indexes: dict

    def __repr__(self):
        return f"<Sample of {len(self.content)} bytes>"

    @property
    def end(self):
        return self.positions[-1]

    def last_before(self, size):
        return max(position for position in self.positions if position.size <= size)

    def start_of(self, number):
        """Offset at which the transaction begins that ends at ``positions[number]``."""
        return self.positions[number - 1].size


def sample_indexes(path, positions):
    """The index as ZODB writes it after each transaction."""
    indexes = {}
    content = read(path)
    for position in positions:
        copy = write(path + ".at", content[: position.size])
        FileStorage(copy).close()
        indexes[position] = read(copy + ".index")
        os.remove(copy + ".index")
    return indexes


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Ten transactions: ordinary ones, BLOBs, an undo, an undone creation, one without objects, a large one."""
    directory = tmp_path_factory.mktemp("sample")
    path = str(directory / "Data.fs")
    database = open_database(path, blob_dir=str(directory / "blobs"))
    connection = database.open()
    for number in range(3):
        commit(connection, number, "x" * 10 * number, f"step {number}")
    commit(connection, "blob", Blob(b"one"))
    database.undo(database.undoLog(0, 1)[0]["id"])
    transaction.commit()
    without_objects(database.storage)
    connection.sync()
    commit(connection, "large", "y" * 900, "Grüße")
    commit(connection, "last", "z", "the last one")
    database.close()
    positions = [EMPTY]
    for record in FileIterator(path):
        positions.append(Position(record._tend + 8, record.tid.hex()))
    assert len(positions) == 10
    return Sample(read(path), positions, sample_indexes(path, positions))


def without_objects(storage):
    metadata = TransactionMetaData("", "nothing in it")
    storage.tpc_begin(metadata)
    storage.tpc_vote(metadata)
    storage.tpc_finish(metadata)


@pytest.fixture
def path(sample, tmp_path):
    """A file with the sample's bytes."""
    return write(tmp_path / "Data.fs", sample.content)


@pytest.fixture
def scratch(tmp_path_factory):
    return str(tmp_path_factory.mktemp("scratch") / "Data.fs")


# The last complete transaction


def test_complete_end_of_a_whole_file(path, sample):
    assert filestorage.complete_end(path) == sample.end


@pytest.mark.parametrize("number", range(10))
def test_complete_end_at_each_transaction(path, sample, number):
    position = sample.positions[number]
    write(path, sample.content[: position.size])
    assert filestorage.complete_end(path) == position


def test_complete_end_of_a_database_without_transactions(tmp_path):
    path = str(tmp_path / "Data.fs")
    FileStorage(path).close()
    assert os.path.getsize(path) == 4
    assert filestorage.complete_end(path) == EMPTY
    assert filestorage.check_chain(path, EMPTY) == EMPTY
    assert list(filestorage.transactions(path, EMPTY)) == []
    assert filestorage.holds(path, EMPTY)


def test_torn_at_every_byte(path, sample):
    """Wherever it is torn, and whichever index lies beside it, the boundary before is found."""
    index = path + ".index"
    middle = sample.positions[5]
    for size in range(4, len(sample.content) + 1):
        write(path, sample.content[:size])
        expected = sample.last_before(size)
        for saved_at in (None, middle, sample.end):
            if saved_at:
                write(index, sample.indexes[saved_at])
            assert filestorage.complete_end(path, saved_at and index) == expected
        assert filestorage.check_chain(path, EMPTY) == expected
        assert filestorage.complete_end(path, None, middle.size) == expected


def test_torn_file_is_walked_from_its_index(path, sample, monkeypatch):
    walked = []
    walk = filestorage.Reader.walk
    monkeypatch.setattr(filestorage.Reader, "walk", lambda self, start: walked.append(start) or walk(self, start))
    write(path, sample.content[:-1])
    index = write(path + ".index", sample.indexes[sample.positions[7]])
    assert filestorage.complete_end(path, index) == sample.positions[-2]
    assert walked == [sample.positions[7]]


def test_voted_but_not_finished(tmp_path):
    """What a copy holds that was made between vote and finish, and what a reader sees in that moment."""
    path = str(tmp_path / "Data.fs")
    database = open_database(path)
    connection = database.open()
    before = commit(connection, "a", 1)
    storage = database.storage
    metadata = TransactionMetaData()
    storage.tpc_begin(metadata)
    storage.store(storage.new_oid(), z64, b"x" * 100, "", metadata)
    storage.tpc_vote(metadata)
    copy = write(tmp_path / "copy.fs", read(path))
    for file in (path, copy):
        assert os.path.getsize(file) > before.size
        assert filestorage.complete_end(file) == before
        assert filestorage.check_chain(file, before) == before
        assert list(filestorage.transactions(file, before)) == []
    storage.tpc_finish(metadata)
    assert filestorage.complete_end(path).size == os.path.getsize(path)
    database.close()


def test_unfinished_one_before_finished_ones(path, sample):
    """A slow copy of a live file: the header was read before finish, and more was appended meanwhile."""
    for number in (9, 8, 7, 5):
        write(path, patched(sample.content, sample.start_of(number) + STATUS, b"c"))
        assert filestorage.complete_end(path) == sample.positions[number - 1]
        assert filestorage.check_chain(path, EMPTY) == sample.positions[number - 1]


def test_reader_while_a_commit_is_aborted(tmp_path):
    """The file gets shorter under a reader, which has seen the longer size."""
    path = str(tmp_path / "Data.fs")
    database = open_database(path)
    before = commit(database.open(), "a", 1)
    storage = database.storage
    metadata = TransactionMetaData()
    storage.tpc_begin(metadata)
    storage.store(storage.new_oid(), z64, b"x" * 100, "", metadata)
    storage.tpc_vote(metadata)
    with filestorage.Reader(path) as reader:
        storage.tpc_abort(metadata)
        assert list(reader.walk(before)) == []
    database.close()


def test_reader_while_others_commit(tmp_path):
    path = str(tmp_path / "Data.fs")
    database = open_database(path)
    connection = database.open()
    base = filestorage.complete_end(path)
    positions = [commit(connection, number, "x" * 5000) for number in range(3)]
    reader = filestorage.transactions(path, base)
    assert next(reader).position == positions[0]
    later = commit(connection, "later", "y")
    assert [found.position for found in reader] == positions[1:]
    assert filestorage.complete_end(path) == later
    database.close()


@pytest.mark.parametrize("number", [6, 9])
def test_database_within_a_database(tmp_path, sample, number):
    """Torn right after bytes of an object that are themselves the end of a FileStorage."""
    inner = sample.content[: sample.positions[number].size]
    path = str(tmp_path / "Data.fs")
    database = open_database(path)
    connection = database.open()
    before = commit(connection, "a", 1)
    commit(connection, "file", inner, "an upload")
    database.close()
    content = read(path)
    write(path, content[: content.index(inner) + len(inner)])
    assert filestorage.complete_end(path) == before
    assert filestorage.check_chain(path, before) == before


def test_only_transactions_without_objects(tmp_path):
    path = str(tmp_path / "Data.fs")
    storage = FileStorage(path)
    for _ in range(40):
        without_objects(storage)
    end = Position(storage.getSize(), storage.lastTransaction().hex())
    storage.close()
    assert filestorage.complete_end(path) == end
    # ZODB has nothing to check such an index by, and ignores it
    assert not filestorage.index_fits(path, path + ".index")


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "isn't a FileStorage"),
        (b"FS", "isn't a FileStorage"),
        (b"SQLite format 3\0", "isn't a FileStorage"),
        (b"FS21" + b"\0" * 100, "Python 2"),
    ],
)
def test_no_filestorage(tmp_path, content, says):
    path = write(tmp_path / "Data.fs", content)
    for function in (
        filestorage.complete_end,
        filestorage.rebuild_index,
        lambda path: filestorage.check_chain(path, EMPTY),
        lambda path: list(filestorage.transactions(path, EMPTY)),
    ):
        with pytest.raises(DamagedDatabase, match=says):
            function(path)
    assert not filestorage.holds(path, EMPTY)
    assert read(path) == content


def test_missing_file(tmp_path):
    """A file that isn't there is the caller's affair, and no damage: production may just not be mounted."""
    for function in (filestorage.complete_end, filestorage.rebuild_index):
        with pytest.raises(FileNotFoundError):
            function(str(tmp_path / "Data.fs"))
    with pytest.raises(FileNotFoundError):
        filestorage.holds(str(tmp_path / "Data.fs"), EMPTY)
    assert os.listdir(tmp_path) == []


def test_undone_status_of_old_zodb(path, sample):
    """Status "u" is no longer written, but ZODB still reads (and skips) it."""
    write(path, patched(sample.content, sample.start_of(9) + STATUS, b"u"))
    assert filestorage.complete_end(path) == sample.end
    assert filestorage.check_chain(path, EMPTY) == sample.end
    assert filestorage.holds(path, sample.end)


def test_status_that_there_is_not(path, sample):
    write(path, patched(sample.content, sample.start_of(9) + STATUS, b"\xff"))
    with pytest.raises(DamagedDatabase) as caught:
        filestorage.complete_end(path)
    assert caught.value.position == sample.start_of(9)


# Transactions


def test_transactions_as_zodb_lists_them(path, sample):
    found = list(filestorage.transactions(path, EMPTY))
    records = list(FileIterator(path))
    assert [t.position for t in found] == sample.positions[1:]
    assert [bytes.fromhex(t.tid) for t in found] == [record.tid for record in records]
    assert [t.user.encode() for t in found] == [record.user for record in records]
    assert [t.description.encode() for t in found] == [record.description for record in records]
    iterator = FileIterator(path)
    assert [t.objects for t in found] == [len(list(record)) for record in iterator]
    assert [t.end - t.size for t in found] == [p.size for p in sample.positions[:-1]]
    assert found[-2].description == "Grüße"
    assert found[-1].time == filestorage.last_transactions_time(found[-1].tid)


def test_time_of_a_transaction(tmp_path):
    path = str(tmp_path / "Data.fs")
    before = time.time()
    open_database(path).close()
    assert before - 0.001 <= filestorage.last_transactions_time(filestorage.complete_end(path).tid) <= time.time()


def test_transactions_after_a_position(path, sample):
    for number, position in enumerate(sample.positions):
        assert [t.position for t in filestorage.transactions(path, position)] == sample.positions[number + 1 :]


def test_texts_that_are_no_utf8(path, sample):
    offset = sample.content.index("Grüße".encode())
    write(path, patched(sample.content, offset, b"\xff"))
    assert next(filestorage.transactions(path, sample.positions[-3])).description == "\ufffdrüße"


def test_transactions_after_a_position_that_is_none(path, sample):
    for wrong in (
        Position(sample.end.size - 1, sample.end.tid),
        Position(sample.end.size, sample.positions[-2].tid),
        Position(sample.end.size + 1, sample.end.tid),
        Position(0, "0" * 16),
        Position(-5, "0" * 16),
        Position(4, sample.end.tid),
    ):
        for function in (filestorage.check_chain, filestorage.cut):
            with pytest.raises(DamagedDatabase):
                function(path, wrong)
        with pytest.raises(DamagedDatabase):
            list(filestorage.transactions(path, wrong))
        with pytest.raises(DamagedDatabase):
            filestorage.boundary(path, wrong, wrong.tid)
    assert read(path) == sample.content


def test_boundary(path, sample):
    base = sample.positions[4]
    for position in sample.positions[4:]:
        assert filestorage.boundary(path, base, position.tid) == position
    for tid in (sample.positions[3].tid, "0" * 16, "f" * 16):
        assert filestorage.boundary(path, base, tid) is None


# Damage


def damages(sample):
    """Offset and bytes that damage the fourth of nine transactions, which changes one object."""
    start = sample.start_of(4)
    length = sample.positions[4].size - start - 8
    header = struct.unpack_from(">8sQcHHH", sample.content, start)
    record = start + HEADER + sum(header[3:])
    return {
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


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(path, sample, name, caplog):
    offset, replacement = damages(sample)[name]
    write(path, patched(sample.content, offset, replacement))
    with pytest.raises(DamagedDatabase) as caught:
        filestorage.check_chain(path, EMPTY)
    assert sample.start_of(4) <= caught.value.position < sample.positions[4].size
    assert path in str(caught.value)
    assert filestorage.check_chain(path, sample.positions[5]) == sample.end
    assert not caplog.records


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_last_transaction_is_not_taken_for_whole(path, sample, name):
    offset, replacement = damages(sample)[name]
    content = patched(sample.content, offset, replacement)[: sample.positions[4].size]
    write(path, content)
    with contextlib.suppress(DamagedDatabase):
        assert filestorage.complete_end(path) == sample.positions[3]


# Two files compared


def grown(path, **options):
    database = open_database(path, **options)
    for number in range(3):
        commit(database.open(), f"grown {number}", "x" * 100)
    database.close()


def pack(path):
    database = open_database(path)
    database.pack()
    database.close()


@pytest.fixture
def two(tmp_path):
    """A local file, production's (both the same yet), and their base; half of it is garbage."""
    local, remote = str(tmp_path / "local.fs"), str(tmp_path / "remote.fs")
    database = open_database(remote)
    connection = database.open()
    for number in range(20):
        commit(connection, "changing", "x" * 100 + str(number))
    database.close()
    shutil.copy(remote, local)
    return local, remote, filestorage.complete_end(local)


def test_same_base_of_a_grown_file(two):
    local, remote, base = two
    assert filestorage.same_base(*two)
    grown(remote)
    assert filestorage.same_base(*two)
    grown(local)
    assert filestorage.same_base(*two)
    assert filestorage.holds(remote, base)


@pytest.mark.parametrize("afterwards", [lambda path: None, grown])
def test_same_base_of_a_packed_file(two, afterwards):
    _, remote, base = two
    pack(remote)
    assert os.path.getsize(remote) < base.size
    afterwards(remote)
    assert not filestorage.same_base(*two)
    assert not filestorage.holds(remote, base)


def test_same_base_of_a_file_packed_and_grown_past_the_base(two):
    _, remote, base = two
    pack(remote)
    database = open_database(remote)
    commit(database.open(), "a", "x" * base.size)
    database.close()
    assert os.path.getsize(remote) > base.size
    assert not filestorage.same_base(*two)


def test_same_base_of_another_database(two, path):
    local, remote, base = two
    assert not filestorage.same_base(local, path, base)
    write(remote, b"")
    assert not filestorage.same_base(*two)
    assert filestorage.fingerprint(remote, base) == b""


def test_same_base_needs_a_whole_local_file(two):
    """Two files that lack the base alike are not the same."""
    local, remote, base = two
    for file in (local, remote):
        os.truncate(file, base.size - 1)
    assert not filestorage.same_base(*two)


@pytest.mark.parametrize("back", [1, 9, 100, 511])
def test_fingerprint_sees_a_changed_byte(two, back):
    _, remote, base = two
    content = read(remote)
    offset = base.size - back
    write(remote, patched(content, offset, bytes([content[offset] ^ 1])))
    assert not filestorage.same_base(*two)


def test_fingerprint_sees_a_pack_that_changed_only_the_status(path, sample, tmp_path):
    """The header lies further back than the bytes that are compared."""
    status = sample.start_of(8) + STATUS
    assert sample.positions[8].size - status > 512
    packed = write(tmp_path / "packed.fs", patched(sample.content, status, b"p"))
    assert filestorage.holds(packed, sample.positions[8])
    assert not filestorage.same_base(path, packed, sample.positions[8])


def test_fingerprint_is_small(path, sample):
    assert len(filestorage.fingerprint(path, sample.end)) == 4 + 512 + HEADER
    assert len(filestorage.fingerprint(path, sample.positions[1])) < 512


@pytest.mark.parametrize("status", [b"c", b"x"])
def test_holds_wants_a_finished_transaction(path, sample, status):
    write(path, patched(sample.content, sample.start_of(9) + STATUS, status))
    assert not filestorage.holds(path, sample.end)


@pytest.mark.parametrize("function", [filestorage.holds, filestorage.fingerprint])
def test_few_small_reads(path, sample, function, monkeypatch):
    """The file may lie on a mount where each read is a round trip."""
    calls = []

    def counting_open(*arguments, **options):
        file = builtins.open(*arguments, **options)  # noqa: SIM115
        assert options["buffering"] == 0
        calls.append(("open", 0))

        class Counting:
            seek, fileno = file.seek, file.fileno

            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.close()

            def read(self, count):
                calls.append(("read", count))
                return file.read(count)

        return Counting()

    monkeypatch.setattr(glance, "open", counting_open, raising=False)
    assert function(path, sample.end)
    assert [name for name, _ in calls] == ["open", "read", "read", "read"]
    assert sum(count for _, count in calls) <= 4 + 512 + HEADER


# Cutting


def zodb_warnings(caplog, path):
    """What ZODB logs from warning on when it opens and closes the database."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        database = open_database(path)
        used_index = database.storage._used_index
        database.close()
    return [record.getMessage() for record in caplog.records], used_index


def test_cut_to_each_boundary(path, sample, caplog):
    for position in reversed(sample.positions[1:]):
        filestorage.cut(path, position)
        write(path + ".index", sample.indexes[position])
        assert read(path) == sample.content[: position.size]
        assert filestorage.complete_end(path) == position
        fits = filestorage.index_fits(path, path + ".index")
        if not fits:
            os.remove(path + ".index")
        assert zodb_warnings(caplog, path) == ([], fits)
        assert fits == (position != sample.positions[1] or position.size >= 100)
        assert read(path) == sample.content[: position.size]


def test_cut_to_nothing(path, sample, caplog):
    filestorage.cut(path, EMPTY)
    assert read(path) == b"FS30"
    write(path + ".index", sample.indexes[EMPTY])
    assert not filestorage.index_fits(path, path + ".index")


def test_cut_again_changes_nothing(path, sample):
    for _ in range(2):
        filestorage.cut(path, sample.positions[3])
        assert read(path) == sample.content[: sample.positions[3].size]


@given(size=st.integers(-10, 4000), number=st.integers(0, 9))
def test_no_wrong_cut(sample, tmp_path_factory, size, number):
    path = write(tmp_path_factory.getbasetemp() / "cut.fs", sample.content)
    position = Position(size, sample.positions[number].tid)
    if position in sample.positions:
        filestorage.cut(path, position)
        assert read(path) == sample.content[:size]
    else:
        with pytest.raises(DamagedDatabase):
            filestorage.cut(path, position)
        assert read(path) == sample.content


# Indexes


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_index_position(path, sample):
    for position, index in sample.indexes.items():
        assert filestorage.index_position(write(path + ".index", index)) == position.size


def test_index_position_of_a_large_file(path):
    for position in (255, 256, 65536, 2**31, 2**40, 2**47):
        fsIndex().save(position, path + ".index")
        assert filestorage.index_position(path + ".index") == position


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"\x80\x03",
        b"no pickle",
        pickle.dumps("3"),
        pickle.dumps(True, 0),
        pickle.dumps(-3, 3),
        pickle.dumps({"pos": 3, "index": {}}, 3),
        pickle.dumps((3, 4), 3),
        b"\x80\x03r\xff\xff\xff\xff.",
        b"\x80\x03\x8b\xff\xff\xff\x7f.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
    ],
)
def test_damaged_index(path, content):
    index = write(path + ".index", content)
    assert filestorage.index_position(index) is None
    assert not filestorage.index_fits(path, index)


def test_missing_index(path):
    assert filestorage.index_position(path + ".index") is None
    assert not filestorage.index_fits(path, path + ".index")


def test_index_is_not_executed(path, sample, tmp_path):
    bomb = pickle.dumps(Bomb(str(tmp_path / "boom")), 3)
    first, rest = sample.indexes[sample.end].split(b".", 1)
    for content in (bomb, first + b"." + bomb, first + b"." + bomb + rest, first + b"." + rest + bomb):
        index = write(path + ".index", content)
        filestorage.index_position(index)
        filestorage.index_fits(path, index)
        assert not os.path.exists(tmp_path / "boom")
    pickle.loads(bomb)
    assert os.path.exists(tmp_path / "boom")


def test_index_fits_as_zodb_judges(path, sample, caplog):
    """Every index beside every shorter and longer file."""
    for file_end in sample.positions[1:]:
        for index in sample.indexes.values():
            write(path, sample.content[: file_end.size])
            write(path + ".index", index)
            fits = filestorage.index_fits(path, path + ".index")
            warnings, used = zodb_warnings(caplog, path)
            assert fits == used
            assert fits == (not warnings)


def test_index_of_the_file_before_it_was_packed(two):
    local, remote, _ = two
    index = local + ".index"
    shutil.copy(remote + ".index", index)
    pack(remote)
    assert filestorage.index_fits(local, index)
    assert not filestorage.index_fits(remote, index)
    assert filestorage.index_fits(remote, remote + ".index")
    assert not filestorage.index_fits(local, remote + ".index")


def test_index_of_another_database_that_ends_alike(path, sample):
    """Its position is a boundary, but it knows other objects."""
    position = sample.positions[8]
    fsIndex({p64(1): 4, p64(1 << 20): 4}).save(position.size, path + ".index")
    assert filestorage.index_position(path + ".index") == position.size
    assert not filestorage.index_fits(path, path + ".index")


def test_torn_index(path, sample):
    content = sample.indexes[sample.end]
    for size in range(len(content)):
        assert not filestorage.index_fits(path, write(path + ".index", content[:size]))


def test_index_with_many_buckets(tmp_path):
    path = str(tmp_path / "Data.fs")
    storage = FileStorage(path)
    metadata = TransactionMetaData()
    storage.tpc_begin(metadata)
    for number in (1, 70000, 140000, 1 << 40):
        storage.store(p64(number), z64, b"x" * 50, "", metadata)
    storage.tpc_vote(metadata)
    storage.tpc_finish(metadata)
    storage.close()
    assert filestorage.index_fits(path, path + ".index")


def test_rebuilt_index_is_zodbs(path, sample, caplog):
    fractions = []
    filestorage.rebuild_index(path, fractions.append)
    assert read(path + ".index") == sample.indexes[sample.end]
    assert read(path) == sample.content
    assert sorted(os.listdir(os.path.dirname(path))) == ["Data.fs", "Data.fs.index"]
    assert fractions == sorted(set(fractions))
    assert fractions[0] >= 0
    assert fractions[-1] == 1
    assert zodb_warnings(caplog, path) == ([], True)


def test_rebuilding_leaves_a_torn_tail(path, sample):
    write(path, sample.content[:-1])
    write(path + ".index", b"damaged")
    filestorage.rebuild_index(path)
    assert read(path) == sample.content[:-1]
    assert read(path + ".index") == sample.indexes[sample.positions[-2]]


def test_rebuilding_the_index_of_a_damaged_file(path, sample):
    offset, replacement = damages(sample)["record of another transaction"]
    content = patched(sample.content, offset, replacement)
    write(path, content)
    write(path + ".index", sample.indexes[sample.positions[2]])
    with pytest.raises(DamagedDatabase):
        filestorage.rebuild_index(path)
    assert read(path) == content
    assert read(path + ".index") == sample.indexes[sample.positions[2]]
    assert sorted(os.listdir(os.path.dirname(path))) == ["Data.fs", "Data.fs.index"]


def test_rebuilding_at_a_read_only_file(path, sample):
    os.chmod(path, 0o400)
    filestorage.rebuild_index(path)
    assert filestorage.index_fits(path, path + ".index")


# Properties of damaged files


@st.composite
def damaged(draw, content):
    """Bytes with up to three flips, insertions, deletions and truncations."""
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


@settings(max_examples=400, deadline=5000)
@given(data=st.data())
def test_damaged_files_give_damaged_database(sample, tmp_path_factory, data):
    content = data.draw(damaged(sample.content))
    path = write(tmp_path_factory.getbasetemp() / "damaged.fs", content)
    position = data.draw(st.sampled_from(sample.positions))
    index = write(path + ".index", sample.indexes[position])
    ends = []
    for function in (
        lambda: ends.append(filestorage.complete_end(path)),
        lambda: ends.append(filestorage.complete_end(path, index)),
        lambda: ends.append(filestorage.check_chain(path, position)),
        lambda: list(filestorage.transactions(path, position)),
        lambda: filestorage.boundary(path, position, sample.end.tid),
        lambda: filestorage.rebuild_index(path),
        lambda: filestorage.index_fits(path, index),
        lambda: filestorage.holds(path, position),
        lambda: filestorage.fingerprint(path, position),
        lambda: filestorage.cut(path, position),
    ):
        with contextlib.suppress(DamagedDatabase):
            function()
    for end in ends:
        assert 4 <= end.size <= len(content)


@settings(max_examples=500, deadline=5000)
@given(data=st.data())
def test_one_changed_byte_never_loses_a_transaction(sample, tmp_path_factory, data):
    """Either the damage is found, or the end is where it was; only a status of "c" may look like a torn tail."""
    offset = data.draw(st.integers(4, sample.start_of(9) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != ord("c")))
    path = write(tmp_path_factory.getbasetemp() / "changed.fs", patched(sample.content, offset, bytes([byte])))
    for function in (filestorage.complete_end, lambda path: filestorage.check_chain(path, EMPTY)):
        with contextlib.suppress(DamagedDatabase):
            assert function(path) == sample.end


@settings(max_examples=200, deadline=5000)
@given(data=st.data())
def test_fitting_index_is_used_by_zodb(sample, tmp_path_factory, data):
    """Whatever happened to an index: when it is said to fit, ZODB takes it."""
    directory = tmp_path_factory.getbasetemp()
    path = write(directory / "indexed.fs", sample.content)
    position = data.draw(st.sampled_from(sample.positions[2:]))
    index = write(path + ".index", data.draw(damaged(sample.indexes[position])))
    saved = filestorage.index_position(index)
    assert saved is None or saved >= 0
    if filestorage.index_fits(path, index):
        storage = FileStorage(path, read_only=True)
        assert storage._used_index
        storage.close()
