"""What is known from the local database: no question to production whose answer is known, and none answered wrongly."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Event

import pytest

from cowstorage.database import blobs
from cowstorage.part import journal
from cowstorage.production.wire import knowledge as knowledge_module
from cowstorage.production.wire.knowledge import UNKNOWN, Knowledge, Known
from cowstorage.production.wire.names import blob_path, oid_of
from harness.polling import until
from production.wire.base import CONTENT, Base
from production.wire.line import ROOT, Error, Line, path_of
from production.wire.server import CLOSE, OPEN, READ, STAT, Server

ABSENT = (0x7777).to_bytes(8, "big")


def directory_of(oid: bytes) -> str:
    """The directory of an object."""
    return "/".join(f"0x{byte:02x}" for byte in oid)


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return Base(tmp_path)


def test_the_files_of_objects_are_known_and_those_that_are_not(base: Base) -> None:
    knowledge = base.knowledge()
    for oid, tid in base.blobs.items():
        assert knowledge.of(oid) == Known(tid=tid)
        assert blob_path(directory_of(oid), tid) == blobs.path_of(oid, tid, "bushy")
    assert knowledge.of(bytes(8)) == UNKNOWN
    assert knowledge.of(ABSENT) == Known(is_absent=True)


@pytest.mark.parametrize("doubt", ["no journal", "no base", "no file", "no index", "another file", "unfinished"])
def test_in_doubt_nothing_is_known(doubt: str, base: Base) -> None:
    files = base.location / "base"
    if doubt == "no base":
        base.journal.bases = {}
    elif doubt == "no file":
        (files / "Data.fs").unlink()
    elif doubt == "no index":
        (files / "Data.fs.index").unlink()
    elif doubt == "another file":
        os.truncate(files / "Data.fs", 100)
    elif doubt == "unfinished":
        base.journal.unfinished = {"command": "cow-sync", "again": "bin/cow-sync", "mounted": True}
    base.save()
    if doubt == "no journal":
        os.unlink(base.location / journal.JOURNAL)
        knowledge = Knowledge(str(base.location))
    else:
        knowledge = base.knowledge()
    assert {knowledge.of(oid) for oid in (ABSENT, *base.blobs)} == {UNKNOWN}


def test_of_several_storages_all_must_lack_an_object(base: Base) -> None:
    base.journal.bases["other.fs"] = [100, "03f1b2c4d5e6f708"]
    base.save()
    assert base.knowledge().of(ABSENT) == UNKNOWN


def test_a_journal_that_changes_is_read_again(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once where the bases have stayed, as after cow-rollback."""
    monkeypatch.setattr(knowledge_module, "AGAIN_SECONDS", 60.0)
    knowledge = base.knowledge()
    lookups = knowledge._loaded[1]
    base.journal.synced = 1.0
    base.save()
    assert knowledge.of(ABSENT) == Known(is_absent=True)
    assert knowledge._loaded[1] is lookups
    base.journal.bases = {}
    base.save()
    assert knowledge.of(ABSENT) == UNKNOWN


def test_bases_that_take_their_time_are_not_waited_for(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    knowledge = base.knowledge()
    may_read = Event()
    load = journal.load
    monkeypatch.setattr(journal, "load", lambda location: may_read.wait(60) and load(location))
    base.journal.synced = 1.0
    base.save()
    assert knowledge.of(ABSENT) == UNKNOWN
    assert knowledge.of(ABSENT) == UNKNOWN
    may_read.set()
    until(lambda: knowledge.of(ABSENT) == Known(is_absent=True), "it is known again")


# In a session


def test_a_new_object_is_not_asked_for(base: Base, tmp_path: Path) -> None:
    server = Server({})
    line = Line(tmp_path / "cache", server, knowledge=base.knowledge())
    with pytest.raises(Error, match="2"):
        line.stat(path_of(directory_of(ABSENT)))
    assert server.asked == []


def test_without_a_database_it_is(tmp_path: Path) -> None:
    server = Server({})
    line = Line(tmp_path / "cache", server, knowledge=Knowledge(str(tmp_path)))
    with pytest.raises(Error, match="2"):
        line.stat(path_of(directory_of(ABSENT)))
    assert server.asked == [(STAT, path_of(directory_of(ABSENT)))]


def test_a_known_file_is_opened_with_the_question_for_its_directory(base: Base, tmp_path: Path) -> None:
    server = Server(base.files())
    line = Line(tmp_path / "cache", server, knowledge=base.knowledge())
    oid, tid = next(iter(base.blobs.items()))
    directory, file = path_of(directory_of(oid)), path_of(blob_path(directory_of(oid), tid))
    server.files[directory] = b""
    line.stat(directory)
    assert sorted(server.asked) == sorted([(STAT, directory), (STAT, file), (OPEN, file), (READ, file)])
    server.asked.clear()
    assert line.stat(file) == len(CONTENT)
    handle = line.open(file)
    assert line.pread(handle, 0, 100) == CONTENT
    # It may be in the cache by then.
    assert {kind for kind, _ in server.asked} <= {CLOSE}
    line.close(handle)


def test_a_file_that_production_has_not_any_more_is_not_there(base: Base, tmp_path: Path) -> None:
    server = Server({})
    line = Line(tmp_path / "cache", server, knowledge=base.knowledge())
    oid, tid = next(iter(base.blobs.items()))
    for path in (directory_of(oid), blob_path(directory_of(oid), tid)):
        with pytest.raises(Error, match="2"):
            line.stat(path_of(path))


def test_a_directory_of_the_cache_is_answered_from_it_and_no_other(base: Base, tmp_path: Path) -> None:
    server = Server({ROOT[:-1]: b"", path_of("0x00/0x01"): b"", path_of("tmp"): b""})
    line = Line(tmp_path / "cache", server, knowledge=base.knowledge())
    (tmp_path / "cache" / "blobstorage" / "0x00").mkdir(parents=True)
    for directory, is_asked in ((b"", True), (b"0x00", False), (b"0x00/0x01", True), (b"tmp", True)):
        server.asked.clear()
        line.stat((ROOT + directory).rstrip(b"/"))
        assert bool(server.asked) == is_asked, directory


def test_an_oid_is_told_by_a_whole_directory_only() -> None:
    assert oid_of(directory_of(ABSENT)) == ABSENT
    assert oid_of("0x00/0x01") is None
