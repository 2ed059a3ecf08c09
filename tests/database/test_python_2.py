"""FileStorages that ZODB 5.8 and ZODB 3.10 have written on Python 2.7, and what zodbupdate makes of them."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import pytest
from ZODB.fsIndex import fsIndex

from cowstorage.database import blobs, filestorage
from cowstorage.database.conversion import magic_at, magic_of
from cowstorage.database.format import MAGIC, PYTHON_2_MAGIC, START
from cowstorage.database.index import index_position, write_for_python_3
from database.sample import commit, open_database, read, write, zodb_warnings
from harness import python2, zodbupdate

SAMPLES = Path(__file__).parent / "python2"
NAMES = sorted(path.name for path in SAMPLES.iterdir() if path.is_dir())


@pytest.fixture(params=NAMES)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of one of them; the script beside them made it."""
    return Path(shutil.copytree(SAMPLES / request.param, tmp_path / "made"))


@pytest.fixture
def path(made: Path) -> str:
    return str(made / "Data.fs")


def converted(path: str) -> str:
    """Convert, and return the file."""
    write(path, _converted(read(path)))
    return path


@lru_cache(maxsize=None)
def _converted(content: bytes) -> bytes:
    """What zodbupdate makes of a file, which takes most of a second."""
    with tempfile.TemporaryDirectory() as directory:
        path = write(Path(directory) / "Data.fs", content)
        zodbupdate.convert(path)
        return read(path)


def test_it_is_read_and_checked_to_its_end(path: str) -> None:
    assert magic_of(path) == PYTHON_2_MAGIC
    end = filestorage.check_chain(path, START)
    assert end.size == os.path.getsize(path)
    assert filestorage.complete_end(path) == end
    assert filestorage.holds(path, end)
    notes = [transaction.description for transaction in filestorage.transactions(path, START)]
    assert notes[:2] == ["initial database creation", "one \xe4"]
    assert notes[-3:] == ["undone", "created", "creation undone"]


def test_every_blob_that_it_refers_to_is_there(made: Path, path: str) -> None:
    found = list(blobs.references(path))
    assert len(found) == (2 if (made / "blobs").exists() else 31)
    directory = made / "blobs"
    if directory.exists():
        layout = str(blobs.layout(str(directory)))
        assert all((directory / blobs.path_of(oid, tid, layout)).is_file() for oid, tid in found)


def test_its_index_is_read_and_written_anew_byte_for_byte_as_by_zodb_on_python_3(path: str) -> None:
    index = path + ".index"
    theirs = read(index)
    with pytest.raises((UnicodeDecodeError, SystemError)):
        fsIndex.load(index)
    assert index_position(index) == os.path.getsize(path)
    assert filestorage.index_fits(path, index)
    assert write_for_python_3(index)
    ours = read(index)
    assert not write_for_python_3(index)
    assert read(index) == ours != theirs
    assert set(os.listdir(os.path.dirname(index))) <= {"Data.fs", "Data.fs.index", "blobs"}
    filestorage.rebuild_index(path)
    assert read(index) == ours
    assert fsIndex.load(index)["pos"] == os.path.getsize(path)


def test_a_torn_index_has_no_use_and_is_left_alone(path: str) -> None:
    index = path + ".index"
    content = read(index)
    for size in {*range(0, min(len(content), 300)), len(content) - 1}:
        write(index, content[:size])
        assert not filestorage.index_fits(path, index)
        with pytest.raises(ValueError):
            write_for_python_3(index)
        assert read(index) == content[:size]


@pytest.mark.parametrize("position", [b"L%dL\n.", b"I%d\n.", b"\x80\x03I%d\n."])
def test_a_position_may_be_a_text(path: str, position: bytes) -> None:
    for number in (4, 3_000_000_000, 1 << 45):
        assert index_position(write(path + ".index", position % number)) == number
    assert index_position(write(path + ".index", b"I01\n.")) is None
    assert index_position(write(path + ".index", b"L" + b"1" * 5000 + b"L\n.")) is None


def test_after_its_conversion_and_back_it_is_what_it_was(path: str, caplog: pytest.LogCaptureFixture) -> None:
    before, base = read(path), filestorage.complete_end(path)
    write_for_python_3(path + ".index")
    index = read(path + ".index")
    converted(path)
    assert magic_of(path) == MAGIC
    assert filestorage.holds(path, base)
    filestorage.cut(path, base)
    assert read(path) == MAGIC + before[4:]
    filestorage.cut(path, base, PYTHON_2_MAGIC)
    assert read(path) == before
    write(path + ".index", index)
    with python2.python_2():
        assert zodb_warnings(caplog, path) == ([], True)


def test_the_magic_of_then_is_told_from_what_was_written(path: str) -> None:
    """Of each transaction before the conversion, of the conversion, and of those after it."""
    old = list(filestorage.transactions(path, START))
    converted(path)
    database = open_database(path)
    commit(database.open(), "new", "on Python 3")
    database.close()
    base = old[1].position
    for transaction in filestorage.transactions(path, base):
        magic = PYTHON_2_MAGIC if transaction.tid <= old[-1].tid else MAGIC
        assert magic_at(path, base, PYTHON_2_MAGIC, transaction.position) == magic


def test_a_conversion_that_was_cut_off_changes_no_magic_of_then(path: str) -> None:
    python2.begin_conversion(path)
    end = filestorage.complete_end(path)
    assert magic_at(path, START, PYTHON_2_MAGIC, end) == PYTHON_2_MAGIC


def test_no_transaction_is_asked_where_both_ends_are_of_one_kind(path: str) -> None:
    end = filestorage.complete_end(path)
    assert magic_at(path, START, PYTHON_2_MAGIC, end) == PYTHON_2_MAGIC
    assert magic_at(converted(path), START, MAGIC, end) == MAGIC


def test_files_of_both_kinds_have_a_base_in_common(path: str, tmp_path: Path) -> None:
    local = str(tmp_path / "local.fs")
    shutil.copy(path, local)
    base = filestorage.complete_end(path)
    assert filestorage.magic_of_same_base(local, path, base) == PYTHON_2_MAGIC
    converted(path)
    assert filestorage.magic_of_same_base(local, path, base) == MAGIC
    with open(path, "r+b") as file:
        file.write(b"FS99")
    assert filestorage.magic_of_same_base(local, path, base) is None
    assert filestorage.magic_of_same_base(local, path, base) is None


def test_zodbverify_reads_what_was_converted(path: str, tmp_path: Path) -> None:
    """It ends at the first undone creation, so that is cut off before."""
    before_the_creation = list(filestorage.transactions(path, START))[-3].position
    filestorage.cut(path, before_the_creation)
    os.remove(path + ".index")
    converted(path)
    zodbupdate.run([*zodbupdate.program("zodbverify"), "-f", path])
