"""A look at production that is begun before its answer is needed: the same answer, or none."""

from __future__ import annotations

import os
import select
import shutil
from pathlib import Path
from typing import Tuple

import pytest

from commands.plans import context
from cowstorage.actions import compare
from cowstorage.actions.context import Context
from cowstorage.actions.facts import Facts
from cowstorage.database import filestorage
from cowstorage.errors import NotReadOnly, UnionUnusable
from cowstorage.part.host import Host
from cowstorage.production import through_mount
from harness import database
from harness.polling import until

US = Host(
    euid=os.geteuid(),
    uid=os.geteuid(),
    gid=os.getegid(),
    sudo=None,
    interactive=False,
    programs=frozenset(),
    user_allow_other=True,
    fuse=True,
)


@pytest.fixture
def made(tmp_path: Path) -> Tuple[Context, Path]:
    """A part that has fetched Data.fs over sshfs, with a directory in the place of the mount; and Data.fs there."""
    there = tmp_path / "var" / "prod" / "var" / "filestorage" / "Data.fs"
    there.parent.mkdir(parents=True)
    blobs = there.parents[1] / "blobstorage"
    database.create(str(there), str(blobs))
    database.commit(str(there), str(blobs), n=2)
    here = tmp_path / "var" / "filestorage.prod" / "Data.fs"
    here.parent.mkdir()
    shutil.copy(there, here)
    part = context(tmp_path, "sync", host=US)
    part.journal.bases = {"Data.fs": list(filestorage.complete_end(str(here)))}
    return part, there


def test_it_finds_what_is_found_without(made: Tuple[Context, Path]) -> None:
    part, there = made
    database.commit(str(there), str(there.parents[1] / "blobstorage"), n=2)
    facts, begun = Facts(part), Facts(part)
    begun.begin(None)
    assert begun.production() == facts.production()
    seen = begun._found
    assert seen
    assert begun.findings(seen.production) == facts.findings(facts.production()) == seen.findings
    assert [finding.state for finding in seen.findings] == [compare.GROWN]
    base = part.journal.bases["Data.fs"][0]
    assert begun.added(seen.production) == {"Data.fs": there.read_bytes()[base:]}
    assert facts.added(seen.production) == {}


def test_where_nothing_was_added_nothing_is_read(made: Tuple[Context, Path]) -> None:
    facts = Facts(made[0])
    facts.begin(None)
    production = facts.production()
    assert [finding.state for finding in facts.findings(production)] == [compare.CURRENT]
    assert facts.added(production) == {}


def test_what_is_much_is_left_to_rsync(made: Tuple[Context, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    part, there = made
    database.commit(str(there), str(there.parents[1] / "blobstorage"))
    monkeypatch.setattr(through_mount, "MOST", 10)
    facts = Facts(part)
    facts.begin(None)
    production = facts.production()
    assert [finding.state for finding in facts.findings(production)] == [compare.GROWN]
    assert facts.added(production) == {}


def test_a_look_that_fails_fails_as_ever(made: Tuple[Context, Path]) -> None:
    part, there = made
    facts = Facts(part)
    there.rename(there.with_name("elsewhere"))
    facts.begin(None)
    with pytest.raises(NotReadOnly, match="is not mounted any more"):
        facts.production()
    there.with_name("elsewhere").rename(there)
    assert facts.production().storages == {"Data.fs": there.stat().st_size}


def test_what_was_given_up_is_not_taken(made: Tuple[Context, Path]) -> None:
    part, there = made
    facts = Facts(part)
    facts.begin(None)
    facts.give_up()
    facts.give_up()
    database.commit(str(there), str(there.parents[1] / "blobstorage"))
    production = facts.production()
    assert production.storages == {"Data.fs": there.stat().st_size}
    assert facts.added(production) == {}


# Indexes, which are read while a union is tried


@pytest.fixture
def new(made: Tuple[Context, Path]) -> Tuple[Context, Path]:
    """The same part before it has fetched anything."""
    part, there = made
    part.journal.bases = {}
    Path(part.settings.file_upper, "Data.fs").unlink()
    return part, there


def test_before_a_first_fetch_the_index_is_read(new: Tuple[Context, Path]) -> None:
    part, there = new
    facts = Facts(part)
    production = facts.production()
    with facts.reading_indexes(production):
        assert facts.added(production) == {"Data.fs.index": Path(f"{there}.index").read_bytes()}
        assert facts.added(production) == {}


def test_it_is_read_for_a_first_fetch_only_and_where_it_is_little(
    new: Tuple[Context, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    part, there = new
    facts = Facts(part)
    production = facts.production()
    monkeypatch.setattr(through_mount, "MOST", 10)
    with facts.reading_indexes(production):
        assert facts.added(production) == {}
    monkeypatch.undo()
    shutil.copy(there, Path(part.settings.file_upper) / "Data.fs")
    part.journal.bases = {"Data.fs": list(filestorage.complete_end(str(there)))}
    part.journal.synced = 1.0
    with facts.reading_indexes(production):
        assert facts.added(production) == {}


def test_one_that_can_not_be_read_is_fetched_later(new: Tuple[Context, Path]) -> None:
    part, there = new
    facts = Facts(part)
    production = facts.production()
    Path(f"{there}.index").unlink()
    with facts.reading_indexes(production):
        assert facts.added(production) == {}


def test_nothing_goes_on_reading_when_a_union_fails(
    new: Tuple[Context, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    part, _ = new
    facts = Facts(part)
    production = facts.production()
    hanging = tmp_path / "hanging"
    os.mkfifo(hanging)
    monkeypatch.setattr(through_mount, "read", lambda *range_: hanging.read_bytes())
    reading = facts.reading_indexes(production)
    reading.__enter__()
    writing = os.open(hanging, os.O_WRONLY)
    assert not reading.__exit__(UnionUnusable, UnionUnusable([]), None)
    # Nobody reads from it any more.
    until(lambda: not _has_reader(writing), "the reader has ended")
    os.close(writing)


def _has_reader(descriptor: int) -> bool:
    ready = select.poll()
    ready.register(descriptor, 0)
    return not ready.poll(0)
