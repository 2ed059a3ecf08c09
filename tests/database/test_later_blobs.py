"""The BLOB files that are later than a transaction: what a rollback removes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cowstorage.database import blobs
from database.blob_site import Site
from uppers import make_upper, mark_device


@pytest.fixture
def upper(tmp_path: Path) -> str:
    return make_upper(tmp_path)


def test_blobs_after_a_tid_are_those_with_a_later_one(upper: str) -> None:
    first = os.path.join(upper, "0x00", "0x01", "0x03f0000000000001.blob")
    second = os.path.join(upper, "0x00", "0x02", "0x03f0000000000002.blob")
    assert set(blobs.files_after(upper, "03f0000000000000")) == {first, second}
    assert set(blobs.files_after(upper, "03f0000000000001")) == {second}
    assert set(blobs.files_after(upper, "03f0000000000002")) == set()


def test_without_the_blobs_after_a_savepoint_it_is_as_it_was(tmp_path: Path) -> None:
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


def test_marks_links_and_directories_are_no_blobs(upper: str) -> None:
    directory = os.path.join(upper, "0x00")
    os.symlink(directory, os.path.join(upper, "loop"))
    os.symlink("/nowhere", os.path.join(directory, "0x03f0000000000009.blob"))
    os.mkdir(os.path.join(directory, "0x03f0000000000008.blob"))
    mark_device(directory, "0x03f0000000000007.blob")
    assert len(list(blobs.files_after(upper, "0" * 16))) == 2
