"""An index fits its file or not, is rebuilt as ZODB would, and never executed."""

from __future__ import annotations

import os
import pickle
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.fsIndex import fsIndex
from ZODB.utils import p64, z64

from cowstorage.database import filestorage
from cowstorage.database.index import index_position
from cowstorage.errors import DamagedDatabase
from database.sample import damaged, damages, pack, patched, read, write, zodb_warnings


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_the_position_of_an_index_is_the_size_that_it_was_saved_at(path, sample):
    for position, saved in sample.indexes.items():
        assert index_position(write(path + ".index", saved)) == position.size


def test_the_position_of_a_large_file_is_read(path):
    for position in (255, 256, 65536, 2**31, 2**40, 2**47):
        fsIndex().save(position, path + ".index")
        assert index_position(path + ".index") == position


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
def test_a_damaged_index_has_no_position_and_does_not_fit(path, content):
    index = write(path + ".index", content)
    assert index_position(index) is None
    assert not filestorage.index_fits(path, index)


def test_a_missing_index_has_no_position_and_does_not_fit(path):
    assert index_position(path + ".index") is None
    assert not filestorage.index_fits(path, path + ".index")


def test_an_index_is_not_executed(path, sample, tmp_path):
    bomb = pickle.dumps(Bomb(str(tmp_path / "boom")), 3)
    first, rest = sample.indexes[sample.end].split(b".", 1)
    for content in (bomb, first + b"." + bomb, first + b"." + bomb + rest, first + b"." + rest + bomb):
        index = write(path + ".index", content)
        index_position(index)
        filestorage.index_fits(path, index)
        assert not os.path.exists(tmp_path / "boom")
    pickle.loads(bomb)
    assert os.path.exists(tmp_path / "boom")


def test_an_index_fits_when_and_only_when_zodb_uses_it(path, sample, caplog):
    """Every index beside every shorter and longer file."""
    for file_end in sample.positions[1:]:
        for saved in sample.indexes.values():
            write(path, sample.content[: file_end.size])
            write(path + ".index", saved)
            fits = filestorage.index_fits(path, path + ".index")
            warnings, used = zodb_warnings(caplog, path)
            assert fits == used
            assert fits == (not warnings)


def test_an_index_from_before_a_pack_does_not_fit(two):
    local, remote, _ = two
    index = local + ".index"
    shutil.copy(remote + ".index", index)
    pack(remote)
    assert filestorage.index_fits(local, index)
    assert not filestorage.index_fits(remote, index)
    assert filestorage.index_fits(remote, remote + ".index")
    assert not filestorage.index_fits(local, remote + ".index")


def test_an_index_of_another_database_that_ends_alike_does_not_fit(path, sample):
    """Its position is a boundary, but it knows other objects."""
    position = sample.positions[8]
    fsIndex({p64(1): 4, p64(1 << 20): 4}).save(position.size, path + ".index")
    assert index_position(path + ".index") == position.size
    assert not filestorage.index_fits(path, path + ".index")


def test_a_torn_index_does_not_fit(path, sample):
    content = sample.indexes[sample.end]
    for size in range(len(content)):
        assert not filestorage.index_fits(path, write(path + ".index", content[:size]))


def test_an_index_with_many_buckets_fits(tmp_path):
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


def test_a_rebuilt_index_is_byte_for_byte_the_one_of_zodb(path, sample, caplog):
    fractions = []
    filestorage.rebuild_index(path, fractions.append)
    assert read(path + ".index") == sample.indexes[sample.end]
    assert read(path) == sample.content
    assert sorted(os.listdir(os.path.dirname(path))) == ["Data.fs", "Data.fs.index"]
    assert fractions == sorted(set(fractions))
    assert fractions[0] >= 0
    assert fractions[-1] == 1
    assert zodb_warnings(caplog, path) == ([], True)


def test_rebuilding_an_index_leaves_a_torn_tail_alone(path, sample):
    write(path, sample.content[:-1])
    write(path + ".index", b"damaged")
    filestorage.rebuild_index(path)
    assert read(path) == sample.content[:-1]
    assert read(path + ".index") == sample.indexes[sample.positions[-2]]


def test_rebuilding_the_index_of_a_damaged_file_is_refused_and_changes_nothing(path, sample):
    offset, replacement = damages(sample)["record of another transaction"]
    content = patched(sample.content, offset, replacement)
    write(path, content)
    write(path + ".index", sample.indexes[sample.positions[2]])
    with pytest.raises(DamagedDatabase):
        filestorage.rebuild_index(path)
    assert read(path) == content
    assert read(path + ".index") == sample.indexes[sample.positions[2]]
    assert sorted(os.listdir(os.path.dirname(path))) == ["Data.fs", "Data.fs.index"]


def test_an_index_is_rebuilt_beside_a_read_only_file(path, sample):
    os.chmod(path, 0o400)
    filestorage.rebuild_index(path)
    assert filestorage.index_fits(path, path + ".index")


@settings(max_examples=200, deadline=5000)
@given(data=st.data())
def test_an_index_that_is_said_to_fit_is_used_by_zodb(sample, tmp_path_factory, data):
    """Whatever happened to an index: when it is said to fit, ZODB takes it."""
    directory = tmp_path_factory.getbasetemp()
    path = write(directory / "indexed.fs", sample.content)
    position = data.draw(st.sampled_from(sample.positions[2:]))
    index = write(path + ".index", data.draw(damaged(sample.indexes[position])))
    saved = index_position(index)
    assert saved is None or saved >= 0
    if filestorage.index_fits(path, index):
        storage = FileStorage(path, read_only=True)
        assert storage._used_index
        storage.close()
