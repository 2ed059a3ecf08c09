"""Where a BLOB file lies, as ZODB has it, and which names are BLOBs."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ZODB.blob import FilesystemHelper

from cowstorage.database import blobs
from database.blob_site import Site


@pytest.mark.parametrize(
    "content, expected", [("bushy", "bushy"), ("lawn\n", "lawn"), ("", ""), ("zebra", "zebra"), ("\xff", "\ufffd" * 2)]
)
def test_the_layout_is_what_its_marker_says(tmp_path, content, expected):
    (tmp_path / ".layout").write_text(content)
    assert blobs.layout(str(tmp_path)) == expected


def test_without_a_marker_there_is_no_layout(tmp_path):
    assert blobs.layout(str(tmp_path)) is None


@pytest.mark.parametrize("layout", ["bushy", "lawn"])
@given(oid=st.binary(min_size=8, max_size=8), tid=st.binary(min_size=8, max_size=8))
def test_paths_are_those_of_zodb(layout, oid, tid):
    helper = FilesystemHelper("/b", layout)
    path = blobs.path_of(oid, tid, layout)
    assert os.path.join("/b", path) == helper.getBlobFilename(oid, tid)
    assert blobs.tid_of(os.path.basename(path)) == tid.hex()


@pytest.mark.parametrize("layout", ["bushy", "lawn"])
def test_paths_lead_to_the_files_of_a_database(tmp_path, layout):
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
def test_other_names_are_no_blobs(name):
    assert blobs.tid_of(name) is None


def test_a_blob_is_named_after_its_tid():
    assert blobs.tid_of("0x03f0a1b2c3d4e5f6.blob") == "03f0a1b2c3d4e5f6"
    assert blobs.tid_of("0x10.blob") == "0000000000000010"
