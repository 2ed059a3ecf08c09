"""A file is cut back to a boundary, and to nothing else."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowstorage.database import filestorage
from cowstorage.database.format import Position
from cowstorage.errors import DamagedDatabase
from database.sample import EMPTY, read, write, zodb_warnings


def test_a_file_cut_to_any_boundary_opens_without_a_warning(path, sample, caplog):
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


def test_a_file_cut_to_its_beginning_is_a_magic_alone(path, sample, caplog):
    filestorage.cut(path, EMPTY)
    assert read(path) == b"FS30"
    write(path + ".index", sample.indexes[EMPTY])
    assert not filestorage.index_fits(path, path + ".index")


def test_cutting_again_changes_nothing(path, sample):
    for _ in range(2):
        filestorage.cut(path, sample.positions[3])
        assert read(path) == sample.content[: sample.positions[3].size]


@given(size=st.integers(-10, 4000), number=st.integers(0, 9))
def test_only_a_boundary_can_be_cut_to(sample, tmp_path_factory, size, number):
    path = write(tmp_path_factory.getbasetemp() / "cut.fs", sample.content)
    position = Position(size, sample.positions[number].tid)
    if position in sample.positions:
        filestorage.cut(path, position)
        assert read(path) == sample.content[:size]
    else:
        with pytest.raises(DamagedDatabase):
            filestorage.cut(path, position)
        assert read(path) == sample.content
