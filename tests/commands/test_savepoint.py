"""cow-savepoint: names for where the database is."""

from __future__ import annotations

import json
import os

import pytest

from harness import database
from harness.buildout import Buildout
from refreshing import assert_opens_quietly, journal, log, refused, status, upper

NO_NAMES = ["-x", ".hidden", "a/b", "../x", "a b", "ä", "x" * 65, "0" * 16, "0xABCDEF0123456789"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_can_not_be_a_name_is_refused(buildout: Buildout, name: str) -> None:
    result = buildout.run("savepoint", "--", name)
    assert result.returncode == 1
    assert "can't be a savepoint's name" in result.stderr
    assert journal(buildout)["savepoints"] == {}


@pytest.mark.parametrize("name", ["before-upgrade", "5.2", "x" * 64, "a_b+c", "deadbeef"])
def test_a_savepoint_gets_its_name(buildout: Buildout, name: str) -> None:
    buildout.run("savepoint", name, check=True)
    assert list(journal(buildout)["savepoints"]) == [name]


def test_savepoints_are_not_overwritten_unasked(buildout: Buildout) -> None:
    buildout.run("savepoint", "one", check=True)
    first = journal(buildout)["savepoints"]
    buildout.commit(1)
    assert "--force" in refused(buildout, "savepoint", "one")
    assert journal(buildout)["savepoints"] == first
    buildout.run("savepoint", "--force", "one", check=True)
    assert journal(buildout)["savepoints"] != first
    after = buildout.read()
    buildout.commit(1)
    buildout.run("rollback", "--yes", "one", check=True)
    assert buildout.read() == after


def test_savepoints_are_listed_and_deleted(buildout: Buildout) -> None:
    assert buildout.run("savepoint", "--list", check=True).stdout == "There are no savepoints.\n"
    buildout.run("savepoint", "one", check=True)
    buildout.commit(1)
    buildout.run("savepoint", "two", check=True)
    lines = buildout.run("savepoint", "--list", check=True).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "one", "two"]
    listed = json.loads(buildout.run("savepoint", "--list", "--json", check=True).stdout)
    assert [one["name"] for one in listed] == ["one", "two"]
    assert listed[1]["positions"]["Data.fs"] == {
        "size": upper(buildout).stat().st_size,
        "tid": log(buildout)[0]["tid"],
        "magic": "FS30",
    }
    assert status(buildout)["savepoints"] == ["one", "two"]

    content = upper(buildout).read_bytes()
    buildout.run("savepoint", "--delete", "one", check=True)
    assert list(journal(buildout)["savepoints"]) == ["two"]
    assert upper(buildout).read_bytes() == content
    assert "There is no savepoint one" in refused(buildout, "savepoint", "--delete", "one")
    assert "Known: two" in refused(buildout, "rollback", "--yes", "one")


def test_a_savepoint_while_zope_runs_is_where_the_last_commit_ended(buildout: Buildout) -> None:
    """Between two commits, and with a third under way, it is where the last one ended."""
    buildout.commit(1)
    with database.opened(str(buildout.data_fs), str(buildout.blob_storage)) as db:
        with db.transaction() as connection:
            connection.root()["one"] = 1
        end, tid = db.storage.getSize(), db.storage.lastTransaction().hex()
        connection = db.open()
        connection.root()["two"] = os.urandom(100_000)
        current = connection.transaction_manager.get()
        connection.tpc_begin(current)
        connection.commit(current)
        connection.tpc_vote(current)
        assert upper(buildout).stat().st_size > end
        buildout.run("savepoint", "running", check=True)
        connection.tpc_finish(current)
        connection.close()
    assert journal(buildout)["savepoints"]["running"]["positions"] == {"Data.fs": [end, tid]}
    buildout.run("rollback", "--yes", "running", check=True)
    assert upper(buildout).stat().st_size == end
    assert_opens_quietly(buildout)
