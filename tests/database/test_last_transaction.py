"""The end of a file's last complete transaction, whole or torn; ZODB itself is the judge."""

from __future__ import annotations

import os

import pytest
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.utils import z64

from cowstorage.database import filestorage
from cowstorage.database.format import Position
from cowstorage.errors import DamagedDatabase
from database.sample import EMPTY, STATUS, commit, open_database, patched, read, without_objects, write


def test_the_end_of_a_whole_file_is_its_last_transaction(path, sample):
    assert filestorage.complete_end(path) == sample.end


@pytest.mark.parametrize("number", range(10))
def test_a_file_cut_after_any_transaction_ends_there(path, sample, number):
    position = sample.positions[number]
    write(path, sample.content[: position.size])
    assert filestorage.complete_end(path) == position


def test_a_database_without_transactions_ends_after_its_magic(tmp_path):
    path = str(tmp_path / "Data.fs")
    FileStorage(path).close()
    assert os.path.getsize(path) == 4
    assert filestorage.complete_end(path) == EMPTY
    assert filestorage.check_chain(path, EMPTY) == EMPTY
    assert list(filestorage.transactions(path, EMPTY)) == []
    assert filestorage.holds(path, EMPTY)


@pytest.mark.slow
def test_a_file_torn_at_any_byte_ends_at_the_boundary_before(path, sample):
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


def test_a_torn_file_is_walked_from_its_index(path, sample, monkeypatch):
    walked = []
    walk = filestorage.Reader.walk
    monkeypatch.setattr(filestorage.Reader, "walk", lambda self, start: walked.append(start) or walk(self, start))
    write(path, sample.content[:-1])
    index = write(path + ".index", sample.indexes[sample.positions[7]])
    assert filestorage.complete_end(path, index) == sample.positions[-2]
    assert walked == [sample.positions[7]]


def test_a_transaction_that_is_voted_but_not_finished_is_left_out(tmp_path):
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


def test_a_file_ends_before_an_unfinished_transaction_that_finished_ones_follow(path, sample):
    """A slow copy of a live file: the header was read before finish, and more was appended meanwhile."""
    for number in (9, 8, 7, 5):
        write(path, patched(sample.content, sample.start_of(number) + STATUS, b"c"))
        assert filestorage.complete_end(path) == sample.positions[number - 1]
        assert filestorage.check_chain(path, EMPTY) == sample.positions[number - 1]


def test_a_reader_survives_a_commit_that_is_aborted(tmp_path):
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


def test_a_reader_sees_what_was_there_when_it_began(tmp_path):
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
def test_a_database_inside_an_object_is_not_taken_for_the_end(tmp_path, sample, number):
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


def test_transactions_without_objects_count(tmp_path):
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
        (b"FS22" + b"\0" * 100, "isn't a FileStorage"),
    ],
)
def test_what_is_no_filestorage_is_refused_and_left_alone(tmp_path, content, says):
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


def test_a_missing_file_is_no_damage(tmp_path):
    """A file that isn't there is the caller's affair, and no damage: production may just not be mounted."""
    for function in (filestorage.complete_end, filestorage.rebuild_index):
        with pytest.raises(FileNotFoundError):
            function(str(tmp_path / "Data.fs"))
    with pytest.raises(FileNotFoundError):
        filestorage.holds(str(tmp_path / "Data.fs"), EMPTY)
    assert os.listdir(tmp_path) == []


def test_the_undone_status_of_old_zodb_is_read(path, sample):
    """Status "u" is no longer written, but ZODB still reads (and skips) it."""
    write(path, patched(sample.content, sample.start_of(9) + STATUS, b"u"))
    assert filestorage.complete_end(path) == sample.end
    assert filestorage.check_chain(path, EMPTY) == sample.end
    assert filestorage.holds(path, sample.end)


def test_an_unknown_status_is_damage(path, sample):
    write(path, patched(sample.content, sample.start_of(9) + STATUS, b"\xff"))
    with pytest.raises(DamagedDatabase) as caught:
        filestorage.complete_end(path)
    assert caught.value.position == sample.start_of(9)
