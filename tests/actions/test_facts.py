"""A look at production that is begun before its answer is needed: the same answer, or none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Tuple

import pytest

from commands.plans import context
from cowstorage.actions import compare
from cowstorage.actions.context import Context
from cowstorage.actions.facts import Facts
from cowstorage.database import filestorage
from cowstorage.errors import NotReadOnly
from cowstorage.part.host import Host
from cowstorage.production import through_mount
from harness import database

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
