"""Which BLOB files a database refers to; ZODB's own loading of every object is the judge."""

from __future__ import annotations

import os
import shutil
import sys
import types
from typing import NamedTuple

import persistent
import pytest
import transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob
from ZODB.Connection import TransactionMetaData

from cowstorage.database import blobs
from cowstorage.errors import DamagedDatabase
from database.blob_site import Site


def test_a_database_without_blobs_refers_to_none(site):
    assert list(blobs.references(site.path)) == []
    assert list(blobs.references(site.path, history=True)) == []


def test_the_history_has_all_revisions_and_the_current_state_has_the_last(site):
    first = site.create("first")
    revisions = [(first._p_oid, site.last_tid)]
    site.create("second")
    site.change("first")
    revisions.append((first._p_oid, site.last_tid))
    site.check()
    history = list(blobs.references(site.path, history=True))
    assert [revision for revision in history if revision[0] == first._p_oid] == revisions
    assert revisions[0] not in blobs.references(site.path)
    assert revisions[1] in blobs.references(site.path)
    assert site.paths(history) == site.files()


def test_an_undone_change_has_a_file_of_its_own(site):
    blob = site.create("a")
    site.change("a")
    site.undo()
    with blob.open() as file:
        assert file.read() == b"new"
    assert list(blobs.references(site.path)) == [(blob._p_oid, site.last_tid)]
    site.check()


def test_an_undone_creation_has_no_file(site):
    site.create("a")
    site.undo()
    assert "a" not in site.root
    assert list(blobs.references(site.path)) == []
    site.check()


def test_undone_undos_are_followed(site):
    site.create("a")
    site.change("a")
    for _ in range(4):
        site.undo()
        site.check()


def test_an_undone_undo_of_a_creation_brings_the_blob_back(site):
    oid = site.create("a")._p_oid
    site.undo()
    site.undo()
    assert list(blobs.references(site.path)) == [(oid, site.last_tid)]
    site.check()


def test_what_a_pack_removes_is_no_longer_referred_to(site):
    site.create("kept")
    site.create("removed")
    site.change("kept")
    site.change("kept")
    del site.root["removed"]
    transaction.commit()
    assert len(list(blobs.references(site.path))) == 2
    site.database.pack()
    site.check()
    assert len(list(blobs.references(site.path, history=True))) == 1
    assert site.paths(blobs.references(site.path)) == site.files()
    site.change("kept")
    site.undo()
    site.check()


def test_a_deleted_object_is_in_the_history_only(site):
    blob = site.create("a")
    storage = site.database.storage
    metadata = TransactionMetaData()
    storage.tpc_begin(metadata)
    storage.deleteObject(blob._p_oid, site.last_tid, metadata)
    storage.tpc_vote(metadata)
    storage.tpc_finish(metadata)
    assert list(blobs.references(site.path)) == []
    assert len(list(blobs.references(site.path, history=True))) == 1


def test_several_changes_undone_in_one_transaction_are_one_reference(site):
    """One object has two records then."""
    site.create("a")
    site.change("a")
    site.change("a")
    site.database.undoMultiple([entry["id"] for entry in site.database.undoLog(0, 2)])
    transaction.commit()
    site.connection.sync()
    site.check()


def test_no_application_class_is_imported(site):
    module = types.ModuleType("gone")
    module.Document = type("Document", (persistent.Persistent,), {"__module__": "gone"})
    sys.modules["gone"] = module
    try:
        document = module.Document()
        document.file = Blob(b"x")
        document.text = "ZODB.blob Blob"
        site.root["document"] = document
        site.root["ZODB.blob"] = PersistentMapping({"ZODB.blob\nBlob": "cZODB.blob\nBlob\n"})
        transaction.commit()
        oid = document.file._p_oid
    finally:
        del sys.modules["gone"]
    assert [found for found, _ in blobs.references(site.path)] == [oid]
    assert "gone" not in sys.modules


def test_a_torn_tail_is_left_out(site, tmp_path):
    site.create("a")
    expected = list(blobs.references(site.path))
    site.create("b")
    torn = str(tmp_path / "torn.fs")
    shutil.copy(site.path, torn)
    os.truncate(torn, os.path.getsize(torn) - 1)
    for history in (False, True):
        assert list(blobs.references(torn, history)) == expected


def test_blobs_in_several_buckets_are_all_found(tmp_path):
    site = Site(tmp_path)
    for number in range(3):
        site.root[number] = PersistentMapping({key: Blob(b"x") for key in range(100)})
        transaction.commit()
    assert len(list(blobs.references(site.path))) == 300
    site.check()
    site.close()


@pytest.mark.parametrize("history", [False, True])
def test_progress_rises_to_one(site, history):
    for number in range(20):
        site.create(number)
    fractions = []
    assert len(list(blobs.references(site.path, history, fractions.append))) == 20
    assert fractions == sorted(set(fractions))
    assert fractions[0] >= 0
    assert fractions[-1] == 1


def test_references_are_read_while_the_database_is_written_and_packed(site):
    site.create("a")
    site.create("b")
    reader = blobs.references(site.path, history=True)
    first = next(reader)
    site.change("a")
    site.database.pack()
    assert len([first, *reader]) == 2


STEPS = st.one_of(
    st.tuples(st.just("create"), st.integers(0, 2)),
    st.tuples(st.just("change"), st.integers(0, 2)),
    st.tuples(st.just("remove"), st.integers(0, 2)),
    st.tuples(st.just("undo"), st.integers(0, 2)),
    st.tuples(st.just("pack"), st.just(0)),
)


def perform(site, step, number):
    if step == "create" and number not in site.root:
        site.create(number)
    elif step == "change" and number in site.root:
        site.change(number)
    elif step == "remove" and number in site.root:
        del site.root[number]
        transaction.commit()
    elif step == "undo" and len(site.database.undoLog(0, 5)) > number + 1:
        site.undo(number)
    elif step == "pack":
        site.database.pack()


@settings(max_examples=60, deadline=10000)
@given(steps=st.lists(STEPS, max_size=12), wrapped=st.booleans())
def test_references_of_any_history_are_those_that_zodb_finds(tmp_path_factory, steps, wrapped):
    """Whatever is done to a database, references are those that ZODB itself finds."""
    site = Site(tmp_path_factory.mktemp("site"), wrapped)
    try:
        for step, number in steps:
            perform(site, step, number)
        site.check()
    finally:
        site.close()


class Sample(NamedTuple):
    content: bytes

    def __repr__(self):
        return f"<Sample of {len(self.content)} bytes>"


@pytest.fixture(scope="module")
def with_blobs(tmp_path_factory):
    """A FileStorage with BLOBs and back pointers."""
    site = Site(tmp_path_factory.mktemp("sample"))
    site.create("a")
    site.change("a")
    site.undo()
    site.undo()
    site.create("b")
    site.close()
    with open(site.path, "rb") as file:
        return Sample(file.read())


@settings(max_examples=300, deadline=5000)
@given(data=st.data(), history=st.booleans())
def test_a_damaged_file_gives_references_or_damaged_database(with_blobs, tmp_path_factory, data, history):
    content = bytearray(with_blobs.content)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = str(tmp_path_factory.getbasetemp() / "damaged.fs")
    with open(path, "wb") as file:
        file.write(content[: data.draw(st.integers(0, len(content)))])
    try:
        for oid, tid in blobs.references(path, history):
            assert len(oid) == len(tid) == 8
    except DamagedDatabase:
        pass
