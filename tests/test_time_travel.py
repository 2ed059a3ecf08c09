"""cow-log, cow-savepoint and cow-rollback: where the database was, and back there."""

from __future__ import annotations

import json
import os
import time
from typing import Callable, Iterator, Optional

import pytest

from harness import database
from harness.buildout import Buildout
from harness.developer import Developers
from harness.polling import until
from harness.production import Production
from harness.sshd import Sshd
from refreshing import (
    assert_is_production,
    assert_opens_quietly,
    journal,
    local_blobs,
    log,
    refused,
    status,
    upper,
)


@pytest.fixture
def buildout(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> Iterator[Buildout]:
    """Mounted over a local directory by kernel overlay."""
    made = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    made.run("mount", check=True)
    yield made
    made.run("umount", "--lazy")


def noted(buildout: Buildout, *lines: str, user: str = "admin") -> None:
    """One transaction whose description grew line by line, as ``transaction.note`` lets it."""
    with database.opened(str(buildout.data_fs), str(buildout.blob_storage)) as db, db.transaction() as connection:
        connection.root()["noted"] = os.urandom(10)
        current = connection.transaction_manager.get()
        for line in lines:
            current.note(line)
        current.setUser(user, "/Plone")


# cow-log


def test_log_of_nothing(buildout: Buildout) -> None:
    assert log(buildout) == []
    assert "There are no local transactions since the last sync, 20" in buildout.run("log", check=True).stdout


def test_log_is_what_zodb_has(buildout: Buildout) -> None:
    base = upper(buildout).stat().st_size
    buildout.commit(3, new=2, changed=1, note="Step", user="upgrader")
    entries = log(buildout)
    assert [entry["description"] for entry in entries] == ["Step 3", "Step 2", "Step 1"]
    assert [entry["tid"] for entry in entries] == sorted((entry["tid"] for entry in entries), reverse=True)
    assert {entry["user"] for entry in entries} == {"/Plone upgrader"}
    assert {entry["storage"] for entry in entries} == {"Data.fs"}
    assert sum(entry["size"] for entry in entries) == upper(buildout).stat().st_size - base
    with database.opened(str(buildout.data_fs), None) as db:
        for seen, entry in zip(db.storage.undoLog(0, 3), entries):
            assert abs(seen["time"] - entry["time"]) < 0.001
            assert seen["size"] == entry["size"] - 8
        for record, entry in zip(db.storage.iterator(bytes.fromhex(entries[-1]["tid"])), reversed(entries)):
            assert record.tid.hex() == entry["tid"]
            assert len(list(record)) == entry["objects"]


def test_log_for_people(buildout: Buildout) -> None:
    buildout.commit(2, note="Step")
    buildout.run("savepoint", "there", check=True)
    buildout.commit(1, note="Later")
    lines = buildout.run("log", check=True).stdout.splitlines()
    assert len(lines) == 3
    assert "/Plone editor" in lines[0]
    assert lines[0].endswith("Later 1")
    assert lines[1].endswith("Step 2 [there]")
    assert time.strftime("%Y-%m-%d %H:") in lines[1]
    assert buildout.run("log", "-n", "1", check=True).stdout.splitlines() == lines[:1]
    assert len(log(buildout, "-n", "2")) == 2


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_log_wants_a_number(buildout: Buildout, number: str) -> None:
    assert buildout.run("log", "-n", number).returncode == 2


def test_upgrades_are_recognised_by_their_notes(buildout: Buildout) -> None:
    # The notes that Zope 5 writes: @@plone-upgrade runs all of portal_migration's steps in one request, and
    # collective.upgrade commits each version of a profile, with the site's path before its own words.
    noted(buildout, "/Plone/plone-upgrade/__call__")
    noted(buildout, "/Plone", "Upgraded profile 'Products.CMFPlone:plone' to '5213'")
    lines = buildout.run("log", check=True).stdout.splitlines()
    assert lines[0].endswith("/Plone / Upgraded profile 'Products.CMFPlone:plone' to '5213'")
    assert lines[1].endswith("/Plone/plone-upgrade/__call__")
    assert log(buildout)[0]["description"] == "/Plone\nUpgraded profile 'Products.CMFPlone:plone' to '5213'"


def test_log_keeps_off_the_terminal(buildout: Buildout) -> None:
    noted(buildout, "\x1b[31mred\x07")
    line = buildout.run("log", check=True).stdout
    assert "\x1b" not in line
    assert "?[31mred?" in line


def test_log_while_zope_runs(buildout: Buildout) -> None:
    buildout.commit(1)
    process = buildout.hold()
    assert len(log(buildout)) == 1
    process.kill()
    process.wait()


# cow-savepoint


NO_NAMES = ["-x", ".hidden", "a/b", "../x", "a b", "ä", "x" * 65, "0" * 16, "0xABCDEF0123456789"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_names_that_are_none(buildout: Buildout, name: str) -> None:
    result = buildout.run("savepoint", "--", name)
    assert result.returncode == 1
    assert "can't be a savepoint's name" in result.stderr
    assert journal(buildout)["savepoints"] == {}


@pytest.mark.parametrize("name", ["before-upgrade", "5.2", "x" * 64, "a_b+c", "deadbeef"])
def test_names(buildout: Buildout, name: str) -> None:
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


def test_back_though_production_has_packed_away_the_blob_that_proved_the_mount(
    buildout: Buildout, production: Production
) -> None:
    sample = production.blob_storage / journal(buildout)["mounted"]["sample"]
    assert sample.is_file()
    buildout.commit(1)
    production.pack()
    assert not sample.exists()
    result = buildout.run("rollback", "--yes", check=True)
    assert "The database is back at production's state as last synced" in result.stdout


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
    }
    assert status(buildout)["savepoints"] == ["one", "two"]

    content = upper(buildout).read_bytes()
    buildout.run("savepoint", "--delete", "one", check=True)
    assert list(journal(buildout)["savepoints"]) == ["two"]
    assert upper(buildout).read_bytes() == content
    assert "There is no savepoint one" in refused(buildout, "savepoint", "--delete", "one")
    assert "Known: two" in refused(buildout, "rollback", "--yes", "one")


def test_savepoint_while_zope_runs(buildout: Buildout) -> None:
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


# cow-rollback


def test_back_to_the_base(buildout: Buildout, production: Production) -> None:
    base = production.data_fs.read_bytes()
    buildout.commit(3, new=2, changed=2)
    buildout.delete(1)
    assert local_blobs(buildout)
    said = refused(buildout, "rollback")
    assert "Data.fs: 4 local transactions, " in said
    assert "blobstorage.prod: " in said
    assert "run it again with --yes" in said
    buildout.run("rollback", "--yes", check=True)
    assert local_blobs(buildout) == []
    assert_is_production(buildout, production, base)
    assert "already" in buildout.run("rollback", check=True).stdout


def test_back_to_the_base_that_production_has_left_behind(buildout: Buildout, production: Production) -> None:
    base, documents = production.data_fs.read_bytes(), production.expected()
    buildout.commit(1)
    production.commit(2)
    buildout.run("rollback", "--yes", check=True)
    assert upper(buildout).read_bytes() == base
    assert buildout.read() == documents


def test_back_to_a_savepoint_and_a_transaction(buildout: Buildout) -> None:
    states = []
    for number in range(4):
        buildout.commit(1, new=1, changed=1)
        if number == 1:
            buildout.run("savepoint", "middle", check=True)
        states.append((upper(buildout).read_bytes(), buildout.read(), local_blobs(buildout)))
    tids = [entry["tid"] for entry in reversed(log(buildout))]

    for target, number in ((tids[2], 2), ("middle", 1), (f"0x{tids[0].upper()}", 0)):
        buildout.run("rollback", "--yes", target, check=True)
        content, documents, blobs = states[number]
        assert upper(buildout).read_bytes() == content
        assert local_blobs(buildout) == blobs
        assert_opens_quietly(buildout)
        assert buildout.read() == documents
    assert journal(buildout)["savepoints"] == {}
    assert "There is no local transaction" in refused(buildout, "rollback", "--yes", tids[3])


def test_work_goes_on_after_a_rollback(buildout: Buildout) -> None:
    buildout.commit(2, changed=1)
    buildout.run("savepoint", "here", check=True)
    buildout.commit(2, changed=1)
    buildout.run("rollback", "--yes", "here", check=True)
    buildout.commit(2, new=1, changed=2)
    there = buildout.read()
    assert_opens_quietly(buildout)
    assert buildout.read() == there
    assert len(log(buildout)) == 4


def test_asked_on_a_terminal(buildout: Buildout) -> None:
    buildout.commit(1)
    content = upper(buildout).read_bytes()
    no = buildout.run("rollback", tty=True, answers=[("Go on? [y/N] ", "n\n")])
    assert no.returncode == 1
    assert "This drops:\n  Data.fs: 1 local transaction, " in no.stdout
    assert upper(buildout).read_bytes() == content
    assert buildout.run("rollback", tty=True, answers=[("Go on? [y/N] ", "y\n")]).returncode == 0
    assert log(buildout) == []


def test_a_dry_run_changes_nothing(buildout: Buildout) -> None:
    buildout.commit(1)
    content = upper(buildout).read_bytes()
    said = buildout.run("rollback", "--dry-run", check=True).stdout
    assert "# This would be dropped, after a question: Data.fs: 1 local transaction" in said
    assert upper(buildout).read_bytes() == content
    assert status(buildout)["state"] == "mounted"


def test_refused_while_in_use(buildout: Buildout) -> None:
    buildout.commit(1)
    process = buildout.hold()
    said = refused(buildout, "rollback", "--yes")
    assert "In use" in said
    assert f"pid {process.pid}" in said
    assert len(log(buildout)) == 1
    process.kill()
    process.wait()


def test_local_pack_makes_savepoints_useless(buildout: Buildout, production: Production) -> None:
    base = production.data_fs.read_bytes()
    buildout.commit(2, changed=1)
    buildout.run("savepoint", "before", check=True)
    tid = log(buildout)[0]["tid"]
    buildout.commit(1, changed=1)
    buildout.pack()
    packed = upper(buildout).read_bytes()
    for target in ("before", tid):
        said = refused(buildout, "rollback", "--yes", target)
        assert "packed locally" in said or "no local transaction" in said
        assert upper(buildout).read_bytes() == packed
    assert "packed locally" in buildout.run("log", check=True).stderr
    assert "packed locally" in buildout.run("status").stdout
    assert "all local changes (it was packed locally)" in refused(buildout, "rollback")

    buildout.run("savepoint", "after", check=True)
    documents = buildout.read()
    buildout.commit(1)
    buildout.run("rollback", "--yes", "after", check=True)
    assert upper(buildout).read_bytes() == packed
    assert buildout.read() == documents

    buildout.run("rollback", "--yes", check=True)
    assert_is_production(buildout, production, base)


def test_local_pack_of_local_transactions_only(buildout: Buildout, production: Production) -> None:
    """What comes before the base keeps its length then, and only the status of its transactions tells of the pack."""
    buildout.run("umount", check=True)
    production.pack()
    buildout.run("sync", "--yes", check=True)
    buildout.run("mount", check=True)
    base = production.data_fs.read_bytes()
    for _ in range(3):
        noted(buildout, "The same object again")
    buildout.run("savepoint", "before", check=True)
    buildout.pack()
    refused(buildout, "rollback", "--yes", "before")
    buildout.run("rollback", "--yes", check=True)
    assert_is_production(buildout, production, base)


@pytest.mark.parametrize("target", [None, "there"])
def test_a_damaged_local_database_can_be_gone_back_from(
    buildout: Buildout, production: Production, target: Optional[str]
) -> None:
    base = production.data_fs.read_bytes()
    buildout.run("savepoint", "there", check=True)
    buildout.commit(3)
    with upper(buildout).open("r+b") as file:
        file.seek(len(base) + 200)
        file.write(os.urandom(500))
    buildout.run("rollback", "--yes", *([target] if target else []), check=True)
    assert local_blobs(buildout) == []
    assert_is_production(buildout, production, base)


def test_without_production(
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    """The server is gone, the mount dead: the data go back all the same."""
    sshd = make_sshd()
    base = production.data_fs.read_bytes()
    made = make_buildout(developers.root, {"remote": sshd.remote(production.path), "union": "overlay"})
    made.run("mount", check=True)
    made.commit(1)
    made.run("savepoint", "one", check=True)
    one = upper(made).read_bytes()
    made.commit(1)
    sshd.kill()

    said = refused(made, "rollback", "--yes", "one")
    assert "The database is back at savepoint one, but the unions could not be laid again" in said
    assert "run bin/cow-mount" in said
    assert upper(made).read_bytes() == one
    # Nothing is left that it could lay again.
    made.run("rollback", "--yes", check=True)
    assert upper(made).read_bytes() == base
    assert journal(made)["unfinished"] is None
    assert local_blobs(made) == []

    sshd.start()
    made.run("mount", check=True)
    assert_is_production(made, production, base)
    made.run("umount", check=True)


def test_unmounted(buildout: Buildout, production: Production) -> None:
    base = production.data_fs.read_bytes()
    buildout.commit(1)
    buildout.run("umount", check=True)
    assert len(log(buildout)) == 1
    buildout.run("savepoint", "one", check=True)
    buildout.run("rollback", "--yes", check=True)
    assert upper(buildout).read_bytes() == base
    assert status(buildout)["state"] == "not mounted"


def test_the_old_upper_is_only_renamed(buildout: Buildout) -> None:
    """Deleting comes afterwards, in the background."""
    directory = buildout.path / "var" / "blobstorage.prod" / "many"
    for number in range(2_000):
        path = directory / f"{number % 50}"
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{number}").touch()
    inode = (buildout.path / "var" / "blobstorage.prod").stat().st_ino
    said = buildout.run("rollback", "--dry-run", check=True).stdout
    assert f"mv -T -- {buildout.path}/var/blobstorage.prod {buildout.path}/var/cow-storage/trash/" in said
    buildout.run("rollback", "--yes", check=True)
    assert (buildout.path / "var" / "blobstorage.prod").stat().st_ino != inode
    trash = buildout.path / "var" / "cow-storage" / "trash"
    until(lambda: not os.listdir(trash), "the trash is empty")
