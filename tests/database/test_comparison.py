"""Two files compared: whether production's still begins with what was fetched."""

from __future__ import annotations

import builtins
import os

import pytest

from cowstorage.database import filestorage
from cowstorage.system import files
from database.sample import HEADER, STATUS, commit, grown, open_database, pack, patched, read, write


def test_a_grown_file_has_the_same_base(two):
    local, remote, base = two
    assert filestorage.magic_of_same_base(*two) is not None
    grown(remote)
    assert filestorage.magic_of_same_base(*two) is not None
    grown(local)
    assert filestorage.magic_of_same_base(*two) is not None
    assert filestorage.holds(remote, base)


@pytest.mark.parametrize("afterwards", [lambda path: None, grown])
def test_a_packed_file_has_another_base(two, afterwards):
    _, remote, base = two
    pack(remote)
    assert os.path.getsize(remote) < base.size
    afterwards(remote)
    assert filestorage.magic_of_same_base(*two) is None
    assert not filestorage.holds(remote, base)


def test_a_file_packed_and_grown_past_the_base_has_another_base(two):
    _, remote, base = two
    pack(remote)
    database = open_database(remote)
    commit(database.open(), "a", "x" * base.size)
    database.close()
    assert os.path.getsize(remote) > base.size
    assert filestorage.magic_of_same_base(*two) is None


def test_another_database_has_another_base(two, path):
    local, remote, base = two
    assert filestorage.magic_of_same_base(local, path, base) is None
    write(remote, b"")
    assert filestorage.magic_of_same_base(*two) is None
    assert filestorage.fingerprint(remote, base) == b""


def test_files_that_lack_the_base_alike_have_no_base_in_common(two):
    """Two files that lack the base alike are not the same."""
    local, remote, base = two
    for file in (local, remote):
        os.truncate(file, base.size - 1)
    assert filestorage.magic_of_same_base(*two) is None


@pytest.mark.parametrize("back", [1, 9, 100, 511])
def test_a_fingerprint_sees_a_changed_byte(two, back):
    _, remote, base = two
    content = read(remote)
    offset = base.size - back
    write(remote, patched(content, offset, bytes([content[offset] ^ 1])))
    assert filestorage.magic_of_same_base(*two) is None


def test_a_fingerprint_sees_a_pack_that_changed_only_the_status(path, sample, tmp_path):
    """The header lies further back than the bytes that are compared."""
    status = sample.start_of(8) + STATUS
    assert sample.positions[8].size - status > 512
    packed = write(tmp_path / "packed.fs", patched(sample.content, status, b"p"))
    assert filestorage.holds(packed, sample.positions[8])
    assert filestorage.magic_of_same_base(path, packed, sample.positions[8]) is None


def test_a_fingerprint_is_small(path, sample):
    assert len(filestorage.fingerprint(path, sample.end)) == 4 + 512 + HEADER
    assert len(filestorage.fingerprint(path, sample.positions[1])) < 512


@pytest.mark.parametrize("status", [b"c", b"x"])
def test_a_transaction_that_is_not_finished_is_not_held(path, sample, status):
    write(path, patched(sample.content, sample.start_of(9) + STATUS, status))
    assert not filestorage.holds(path, sample.end)


@pytest.mark.parametrize("function", [filestorage.holds, filestorage.fingerprint])
def test_a_comparison_takes_few_small_reads(path, sample, function, monkeypatch):
    """The file may lie on a mount where each read is a round trip."""
    calls = []

    def counting_open(*arguments, **options):
        file = builtins.open(*arguments, **options)  # noqa: SIM115
        assert options["buffering"] == 0
        calls.append(("open", 0))

        class Counting:
            seek, fileno = file.seek, file.fileno

            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.close()

            def read(self, count):
                calls.append(("read", count))
                return file.read(count)

        return Counting()

    monkeypatch.setattr(files, "open", counting_open, raising=False)
    assert function(path, sample.end)
    assert [name for name, _ in calls] == ["open", "read", "read", "read"]
    assert sum(count for _, count in calls) <= 4 + 512 + HEADER
