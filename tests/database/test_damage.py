"""Damage to a FileStorage is found, and never taken for its end."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowstorage.database import filestorage
from cowstorage.database.format import MAGIC_SIZE, NO_TID, Position
from cowstorage.errors import DamagedDatabase
from database.sample import DAMAGES, EMPTY, damaged, damages, patched, write
from harness import database


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(path, sample, name, caplog):
    offset, replacement = damages(sample)[name]
    write(path, patched(sample.content, offset, replacement))
    with pytest.raises(DamagedDatabase) as caught:
        filestorage.check_chain(path, EMPTY)
    assert sample.start_of(4) <= caught.value.position < sample.positions[4].size
    assert path in str(caught.value)
    assert filestorage.check_chain(path, sample.positions[5]) == sample.end
    assert not caplog.records


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_last_transaction_is_not_taken_for_whole(path, sample, name):
    offset, replacement = damages(sample)[name]
    content = patched(sample.content, offset, replacement)[: sample.positions[4].size]
    write(path, content)
    with contextlib.suppress(DamagedDatabase):
        assert filestorage.complete_end(path) == sample.positions[3]


@settings(max_examples=400, deadline=5000)
@given(data=st.data())
def test_a_damaged_file_gives_results_or_damaged_database(sample, tmp_path_factory, data):
    content = data.draw(damaged(sample.content))
    path = write(tmp_path_factory.getbasetemp() / "damaged.fs", content)
    position = data.draw(st.sampled_from(sample.positions))
    index = write(path + ".index", sample.indexes[position])
    ends = []
    for function in (
        lambda: ends.append(filestorage.complete_end(path)),
        lambda: ends.append(filestorage.complete_end(path, index)),
        lambda: ends.append(filestorage.check_chain(path, position)),
        lambda: list(filestorage.transactions(path, position)),
        lambda: filestorage.boundary(path, position, sample.end.tid),
        lambda: filestorage.rebuild_index(path),
        lambda: filestorage.index_fits(path, index),
        lambda: filestorage.holds(path, position),
        lambda: filestorage.fingerprint(path, position),
        lambda: filestorage.cut(path, position),
    ):
        with contextlib.suppress(DamagedDatabase):
            function()
    for end in ends:
        assert 4 <= end.size <= len(content)


@settings(max_examples=500, deadline=5000)
@given(data=st.data())
def test_one_changed_byte_never_loses_a_transaction(sample, tmp_path_factory, data):
    """Either the damage is found, or the end is where it was; only a status of "c" may look like a torn tail."""
    offset = data.draw(st.integers(4, sample.start_of(9) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != ord("c")))
    path = write(tmp_path_factory.getbasetemp() / "changed.fs", patched(sample.content, offset, bytes([byte])))
    for function in (filestorage.complete_end, lambda path: filestorage.check_chain(path, EMPTY)):
        with contextlib.suppress(DamagedDatabase):
            assert function(path) == sample.end


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "Data.fs"
    database.create(str(path))
    database.commit(str(path), None, n=6, new=1)
    return path


@given(data=st.data())
def test_all_before_the_damage_is_found_and_nothing_is_cut_off_there(whole: Path, data: st.DataObject) -> None:
    """Bytes overwritten, the end cut off: all before the damage is found, and nothing is cut off before it."""
    content = bytearray(whole.read_bytes())
    start = Position(MAGIC_SIZE, NO_TID)
    true = [transaction.position for transaction in filestorage.transactions(str(whole), start)]
    first_damage = length = data.draw(st.integers(4, len(content)), "length")
    for _ in range(data.draw(st.integers(0, 3), "times")):
        at = data.draw(st.integers(4, len(content) - 1), "at")
        written = data.draw(st.binary(min_size=1, max_size=9), "written")
        content[at : at + len(written)] = written
        first_damage = min(first_damage, at)
    with tempfile.TemporaryDirectory() as directory:
        damaged = Path(directory) / "Data.fs"
        damaged.write_bytes(content[:length])
        found = []
        try:
            found = [one.position for one in filestorage.transactions(str(damaged), start)]
            end = filestorage.complete_end(str(damaged))
        except DamagedDatabase:
            end = None
        sound = [position for position in true if position.size <= first_damage]
        assert found[: len(sound)] == sound or end is None
        if end is not None:
            assert end.size <= length
            assert not sound or end.size >= sound[-1].size
