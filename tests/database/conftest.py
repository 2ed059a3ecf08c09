"""Fixtures: a sample of a FileStorage, and two files to compare."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Iterator, Tuple

import pytest
import transaction
from ZODB.blob import Blob
from ZODB.FileStorage.FileStorage import FileIterator

from cowstorage.database import filestorage
from cowstorage.database.format import Position
from database.blob_site import Site
from database.sample import EMPTY, Sample, commit, open_database, read, sample_indexes, without_objects, write


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """Make ten transactions: ordinary ones, BLOBs, an undo, an undone creation, one without objects, a large one."""
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


@pytest.fixture
def path(sample: Sample, tmp_path: Path) -> str:
    """Make a file with the sample's bytes."""
    return write(tmp_path / "Data.fs", sample.content)


@pytest.fixture
def two(tmp_path: Path) -> Tuple[str, str, Position]:
    """Make a local file, production's (both the same yet), and their base; half of it is garbage."""
    local, remote = str(tmp_path / "local.fs"), str(tmp_path / "remote.fs")
    database = open_database(remote)
    connection = database.open()
    for number in range(20):
        commit(connection, "changing", "x" * 100 + str(number))
    database.close()
    shutil.copy(remote, local)
    return local, remote, filestorage.complete_end(local)


@pytest.fixture(params=[False, True], ids=["filestorage", "wrapper"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Make a database with BLOBs, kept by each of the two ways."""
    site = Site(tmp_path, wrapped=request.param)
    yield site
    site.close()
