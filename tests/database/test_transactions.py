"""A file's transactions and their boundaries are those that ZODB lists."""

from __future__ import annotations

import time

import pytest
from ZODB.FileStorage.FileStorage import FileIterator

from cowstorage.database import filestorage
from cowstorage.database.format import Position
from cowstorage.errors import DamagedDatabase
from database.sample import EMPTY, open_database, patched, read, write


def test_transactions_are_those_that_zodb_lists(path, sample):
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


def test_the_time_of_a_transaction_is_when_it_was_committed(tmp_path):
    path = str(tmp_path / "Data.fs")
    before = time.time()
    open_database(path).close()
    assert before - 0.001 <= filestorage.last_transactions_time(filestorage.complete_end(path).tid) <= time.time()


def test_transactions_up_to_a_position_are_left_out(path, sample):
    for number, position in enumerate(sample.positions):
        assert [t.position for t in filestorage.transactions(path, position)] == sample.positions[number + 1 :]


def test_a_description_that_is_no_utf8_is_shown_with_replacements(path, sample):
    offset = sample.content.index("Grüße".encode())
    write(path, patched(sample.content, offset, b"\xff"))
    assert next(filestorage.transactions(path, sample.positions[-3])).description == "\ufffdrüße"


def test_a_position_that_is_no_boundary_is_refused(path, sample):
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


def test_a_boundary_is_found_by_its_tid_and_not_before_the_base(path, sample):
    base = sample.positions[4]
    for position in sample.positions[4:]:
        assert filestorage.boundary(path, base, position.tid) == position
    for tid in (sample.positions[3].tid, "0" * 16, "f" * 16):
        assert filestorage.boundary(path, base, tid) is None
