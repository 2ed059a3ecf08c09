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
import ZODB
from hypothesis import given, settings
from hypothesis import strategies as st
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob, BlobStorage, FilesystemHelper, is_blob_record
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError, UndoError
from ZODB.utils import p64

from cowstorage import blobs
from cowstorage.errors import DamagedDatabase


class Site:
    """A database with BLOBs, kept by the FileStorage itself (zeoserver) or by a wrapper (zope2instance)."""

    def __init__(self, directory, wrapped=False, layout="bushy"):
        self.path = os.path.join(str(directory), "Data.fs")
        self.blob_directory = os.path.join(str(directory), "blobstorage")
        os.makedirs(self.blob_directory)
        with open(os.path.join(self.blob_directory, ".layout"), "w") as marker:
            marker.write(layout)
        if wrapped:
            storage = BlobStorage(self.blob_directory, FileStorage(self.path))
        else:
            storage = FileStorage(self.path, blob_dir=self.blob_directory)
        self.database = ZODB.DB(storage)
        self.connection = self.database.open()

    @property
    def root(self):
        return self.connection.root()

    @property
    def last_tid(self):
        return self.database.storage.lastTransaction()

    def close(self):
        transaction.abort()
        self.connection.close()
        self.database.close()

    def create(self, key):
        self.root[key] = Blob(b"new")
        transaction.commit()
        return self.root[key]

    def change(self, key, content=b"changed"):
        with self.root[key].open("w") as file:
            file.write(content)
        transaction.commit()

    def undo(self, back=0):
        """Undo the last transaction but ``back``; refused by ZODB when later ones build on it."""
        self.database.undo(self.database.undoLog(back, back + 1)[0]["id"])
        try:
            transaction.commit()
        except (UndoError, POSKeyError):  # the wrapper stumbles over a creation that was undone twice
            transaction.abort()
        self.connection.sync()

    def current(self):
        """What ZODB loads as BLOB: revisions by oid, each with its file there."""
        storage = self.database.storage
        found = set()
        for number in range(int.from_bytes(storage.new_oid(), "big") + 1):
            try:
                data, tid = storage.load(p64(number))[:2]
            except POSKeyError:
                continue
            if is_blob_record(data):
                assert os.path.exists(storage.loadBlob(p64(number), tid))
                found.add((p64(number), tid))
        return found

    def history(self):
        """The BLOB revisions that ZODB iterates over."""
        iterator = self.database.storage.iterator()
        return {
            (record.oid, record.tid)
            for transaction_record in iterator
            for record in transaction_record
            if is_blob_record(record.data)
        }

    def files(self):
        """The BLOB files below the directory, relative to it."""
        return {
            os.path.relpath(os.path.join(directory, name), self.blob_directory)
            for directory, _, names in os.walk(self.blob_directory)
            for name in names
            if name.endswith(".blob")
        }

    def paths(self, revisions, layout="bushy"):
        return {blobs.path_of(oid, tid, layout) for oid, tid in revisions}

    def check(self):
        """References are what ZODB says, each once, and every file that can be asked for is there."""
        current = list(blobs.references(self.path))
        history = list(blobs.references(self.path, history=True))
        assert len(set(current)) == len(current)
        assert len(set(history)) == len(history)
        assert set(current) == self.current()
        assert set(history) == self.history()
        assert set(current) <= set(history)
        assert self.paths(history) <= self.files()


@pytest.fixture(params=[False, True], ids=["filestorage", "wrapper"])
def site(request, tmp_path):
    site = Site(tmp_path, wrapped=request.param)
    yield site
    site.close()


# References


def test_no_blobs(site):
    assert list(blobs.references(site.path)) == []
    assert list(blobs.references(site.path, history=True)) == []


def test_current_and_history(site):
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


def test_undone_change_has_a_file_of_its_own(site):
    blob = site.create("a")
    site.change("a")
    site.undo()
    with blob.open() as file:
        assert file.read() == b"new"
    assert list(blobs.references(site.path)) == [(blob._p_oid, site.last_tid)]
    site.check()


def test_undone_creation_has_no_file(site):
    site.create("a")
    site.undo()
    assert "a" not in site.root
    assert list(blobs.references(site.path)) == []
    site.check()


def test_undone_undo(site):
    site.create("a")
    site.change("a")
    for _ in range(4):
        site.undo()
        site.check()


def test_undone_undo_of_a_creation(site):
    oid = site.create("a")._p_oid
    site.undo()
    site.undo()
    assert list(blobs.references(site.path)) == [(oid, site.last_tid)]
    site.check()


def test_pack(site):
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


def test_deleted_object(site):
    blob = site.create("a")
    storage = site.database.storage
    metadata = TransactionMetaData()
    storage.tpc_begin(metadata)
    storage.deleteObject(blob._p_oid, site.last_tid, metadata)
    storage.tpc_vote(metadata)
    storage.tpc_finish(metadata)
    assert list(blobs.references(site.path)) == []
    assert len(list(blobs.references(site.path, history=True))) == 1


def test_several_undone_in_one_transaction(site):
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


def test_torn_tail_is_left_out(site, tmp_path):
    site.create("a")
    expected = list(blobs.references(site.path))
    site.create("b")
    torn = str(tmp_path / "torn.fs")
    shutil.copy(site.path, torn)
    os.truncate(torn, os.path.getsize(torn) - 1)
    for history in (False, True):
        assert list(blobs.references(torn, history)) == expected


def test_many_blobs_in_several_buckets(tmp_path):
    site = Site(tmp_path)
    for number in range(3):
        site.root[number] = PersistentMapping({key: Blob(b"x") for key in range(100)})
        transaction.commit()
    assert len(list(blobs.references(site.path))) == 300
    site.check()
    site.close()


@pytest.mark.parametrize("history", [False, True])
def test_progress(site, history):
    for number in range(20):
        site.create(number)
    fractions = []
    assert len(list(blobs.references(site.path, history, fractions.append))) == 20
    assert fractions == sorted(set(fractions))
    assert fractions[0] >= 0
    assert fractions[-1] == 1


def test_references_while_the_database_is_in_use(site):
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
def test_any_history(tmp_path_factory, steps, wrapped):
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
def sample(tmp_path_factory):
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
def test_damaged_files_give_damaged_database(sample, tmp_path_factory, data, history):
    content = bytearray(sample.content)
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


# Where they lie


@pytest.mark.parametrize(
    "content, expected", [("bushy", "bushy"), ("lawn\n", "lawn"), ("", None), ("zebra", None), ("\xff", None)]
)
def test_layout(tmp_path, content, expected):
    (tmp_path / ".layout").write_text(content)
    assert blobs.layout(str(tmp_path)) == expected


def test_no_layout(tmp_path):
    assert blobs.layout(str(tmp_path)) is None


@pytest.mark.parametrize("layout", ["bushy", "lawn"])
@given(oid=st.binary(min_size=8, max_size=8), tid=st.binary(min_size=8, max_size=8))
def test_path_as_zodb_has_it(layout, oid, tid):
    helper = FilesystemHelper("/b", layout)
    path = blobs.path_of(oid, tid, layout)
    assert os.path.join("/b", path) == helper.getBlobFilename(oid, tid)
    assert blobs.tid_of(os.path.basename(path)) == tid.hex()


@pytest.mark.parametrize("layout", ["bushy", "lawn"])
def test_path_of_real_files(tmp_path, layout):
    site = Site(tmp_path, wrapped=True, layout=layout)
    site.create("a")
    assert blobs.layout(site.blob_directory) == layout
    assert site.paths(blobs.references(site.path), layout) == site.files()
    site.close()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".layout",
        "0x.blob",
        "0x03d.blob",
        "03f0a1b2c3d4e5f6.blob",
        "0x03f0a1b2c3d4e5f6.blob.lock",
        "0x03f0a1b2c3d4e5f6xyz.tmp",
        "0x03f0a1b2c3d4e5f600.blob",
        "0x03F0A1B2C3D4E5F6.blob",
        "0x03f0a1b2c3d4e5f6",
        "0x03f0a1b2c3d4e5f6.blob\n",
        ".wh.0x03f0a1b2c3d4e5f6.blob",
        "tmpabc.spb",
    ],
)
def test_no_blob_name(name):
    assert blobs.tid_of(name) is None


def test_tid_of():
    assert blobs.tid_of("0x03f0a1b2c3d4e5f6.blob") == "03f0a1b2c3d4e5f6"
    assert blobs.tid_of("0x10.blob") == "0000000000000010"


# In an upper directory


def mark_device(directory, name):
    try:
        os.mknod(os.path.join(directory, name), 0o020000, os.makedev(0, 0))
    except PermissionError:
        pytest.skip("may not make character devices here")


def mark_name(directory, name):
    open(os.path.join(directory, ".wh." + name), "w").close()


def hide(metadata, kind):
    def mark(directory, name):
        upper = directory[: directory.index("upper") + len("upper")]
        hidden = os.path.join(upper, metadata, os.path.relpath(directory, upper))
        os.makedirs(hidden, exist_ok=True)
        kind(os.path.join(hidden, name + "_HIDDEN~"))

    return mark


def touch(path):
    open(path, "w").close()


MARKS = [
    ("overlay", mark_device),
    ("fuse-overlayfs", mark_device),
    ("fuse-overlayfs", mark_name),
    ("unionfs-fuse", hide(".unionfs-fuse", touch)),
    ("unionfs-fuse", hide(".unionfs", touch)),
    ("unionfs-fuse", hide(".unionfs-fuse", os.mkdir)),
    ("aufs", mark_name),
]


@pytest.fixture
def upper(tmp_path):
    """An upper directory with two new BLOBs, as the unions leave it."""
    for oid, tid in (("0x01", "0x03f0000000000001"), ("0x02", "0x03f0000000000002")):
        (tmp_path / "upper" / "0x00" / oid).mkdir(parents=True)
        (tmp_path / "upper" / "0x00" / oid / f"{tid}.blob").write_bytes(b"x")
    (tmp_path / "upper" / "tmp").mkdir()
    (tmp_path / "upper" / "tmp" / "BUCabc").write_bytes(b"x")
    return str(tmp_path / "upper")


def test_files_after(upper):
    first = os.path.join(upper, "0x00", "0x01", "0x03f0000000000001.blob")
    second = os.path.join(upper, "0x00", "0x02", "0x03f0000000000002.blob")
    assert set(blobs.files_after(upper, "03f0000000000000")) == {first, second}
    assert set(blobs.files_after(upper, "03f0000000000001")) == {second}
    assert set(blobs.files_after(upper, "03f0000000000002")) == set()


def test_files_after_a_savepoint(tmp_path):
    """What is left after they are removed is what the database at the savepoint refers to."""
    site = Site(tmp_path)
    site.create("a")
    savepoint = site.last_tid.hex()
    before = site.files()
    site.change("a")
    site.create("b")
    site.undo(1)
    for path in blobs.files_after(site.blob_directory, savepoint):
        os.remove(path)
    assert site.files() == before
    site.close()


def test_files_after_leaves_marks_and_links_alone(upper, tmp_path):
    directory = os.path.join(upper, "0x00")
    os.symlink(directory, os.path.join(upper, "loop"))
    os.symlink("/nowhere", os.path.join(directory, "0x03f0000000000009.blob"))
    os.mkdir(os.path.join(directory, "0x03f0000000000008.blob"))
    mark_device(directory, "0x03f0000000000007.blob")
    assert len(list(blobs.files_after(upper, "0" * 16))) == 2


@pytest.mark.parametrize("union", sorted(blobs.MARKS))
def test_no_whiteouts(upper, union):
    assert not blobs.has_whiteouts(upper, union)


@pytest.mark.parametrize("union, mark", MARKS)
@pytest.mark.parametrize(
    "directory, name", [("0x00/0x01", "0x03f0000000000000.blob"), ("0x00", "0x7f"), (".", "0x00000000000001")]
)
def test_whiteout_of_a_blob_or_its_directory(upper, union, mark, directory, name):
    mark(os.path.normpath(os.path.join(upper, directory)), name)
    assert blobs.has_whiteouts(upper, union)


@pytest.mark.parametrize("union, mark", MARKS)
@pytest.mark.parametrize("name", ["BUCdef", ".removed", "0x03f0000000000000.spb"])
def test_whiteout_of_something_else(upper, union, mark, name):
    mark(os.path.join(upper, "tmp"), name)
    assert not blobs.has_whiteouts(upper, union)


def test_other_devices_are_no_whiteouts(upper):
    try:
        os.mknod(os.path.join(upper, "0x03f0000000000000.blob"), 0o020000, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("may not make character devices here")
    assert not blobs.has_whiteouts(upper, "overlay")
