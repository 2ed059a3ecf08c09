"""Single BLOBs by the saved index: what ZODB itself would load, or an error."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Dict, Optional

import pytest

from cowstorage.database import blobs, filestorage
from cowstorage.database.blob_lookup import BlobLookup
from cowstorage.database.format import Position
from database.blob_site import Site


def expected(path: str) -> Dict[bytes, bytes]:
    """The current revisions of all BLOBs, by a scan."""
    return dict(blobs.references(path))


def base_of(path: str) -> Position:
    """The end of the last transaction."""
    return filestorage.complete_end(path, path + ".index")


def made(directory: Path) -> Site:
    """BLOBs that were made, changed, undone and are no BLOBs any more."""
    site = Site(directory)
    for number in range(20):
        site.create(number)
    site.change(3)
    site.change(4)
    site.undo()
    site.create("undone")
    site.undo()
    return site


def looked_up(lookup: BlobLookup, oid: bytes) -> Optional[bytes]:
    """The tid of a BLOB; none also where there is no object."""
    try:
        return lookup.tid(oid)
    except KeyError:
        return None


def all_of(path: str, index: str, base: Position) -> Dict[bytes, bytes]:
    """What is looked up for all oids there may be."""
    lookup = BlobLookup(path, index, base)
    found = {oid: looked_up(lookup, oid) for oid in (number.to_bytes(8, "big") for number in range(200))}
    lookup.close()
    return {oid: tid for oid, tid in found.items() if tid}


def test_all_blobs_are_found_with_their_tids(tmp_path: Path) -> None:
    site = made(tmp_path)
    site.close()
    assert len(expected(site.path)) == 20
    assert all_of(site.path, site.path + ".index", base_of(site.path)) == expected(site.path)


def test_those_behind_the_index_are_found_and_those_behind_the_base_are_not(tmp_path: Path) -> None:
    site = made(tmp_path)
    site.close()
    index = str(tmp_path / "old.index")
    shutil.copy(site.path + ".index", index)
    site = _again(tmp_path)
    site.create("behind")
    site.change(5)
    site.close()
    base, present = base_of(site.path), expected(site.path)
    site = _again(tmp_path)
    site.create("local")
    site.change(6)
    site.close()
    assert all_of(site.path, index, base) == present


def _again(directory: Path) -> Site:
    import ZODB
    from ZODB.FileStorage import FileStorage

    site = Site.__new__(Site)
    site.path = str(directory / "Data.fs")
    site.blob_directory = str(directory / "blobstorage")
    site.database = ZODB.DB(FileStorage(site.path, blob_dir=site.blob_directory))
    site.connection = site.database.open()
    return site


def test_an_object_that_is_no_blob_has_no_tid_and_none_is_an_error(tmp_path: Path) -> None:
    site = made(tmp_path)
    site.close()
    lookup = BlobLookup(site.path, site.path + ".index", base_of(site.path))
    assert lookup.tid(bytes(8)) is None
    with pytest.raises(KeyError):
        lookup.tid(b"\0" * 6 + b"\x77\x77")
    lookup.close()


@pytest.mark.parametrize("damage", ["other tid", "shorter", "index ahead", "no index"])
def test_files_that_do_not_fit_are_refused(damage: str, tmp_path: Path) -> None:
    site = made(tmp_path)
    site.close()
    base, index = base_of(site.path), site.path + ".index"
    if damage == "other tid":
        base = base._replace(tid="03f1b2c4d5e6f708")
    elif damage == "shorter":
        os.truncate(site.path, base.size - 100)
    elif damage == "index ahead":
        base = base._replace(size=base.size - 100)
    else:
        os.unlink(index)
    with pytest.raises(ValueError):
        BlobLookup(site.path, index, base)
