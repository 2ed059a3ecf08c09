"""cow-rollback: back to where the database was."""

from __future__ import annotations

import os
from typing import Callable, Optional

import pytest

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
    noted,
    refused,
    status,
    upper,
)


def test_rollback_goes_back_though_production_has_packed_away_the_blob_that_proved_the_mount(
    buildout: Buildout, production: Production
) -> None:
    sample = production.blob_storage / journal(buildout)["mounted"]["sample"]
    assert sample.is_file()
    buildout.commit(1)
    production.pack()
    assert not sample.exists()
    result = buildout.run("rollback", "--yes", check=True)
    assert "The database is back at production's state as last synced" in result.stdout


def test_rollback_goes_back_to_the_base(buildout: Buildout, production: Production) -> None:
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


def test_rollback_goes_back_to_a_base_that_production_has_left_behind(
    buildout: Buildout, production: Production
) -> None:
    base, documents = production.data_fs.read_bytes(), production.expected()
    buildout.commit(1)
    production.commit(2)
    buildout.run("rollback", "--yes", check=True)
    assert upper(buildout).read_bytes() == base
    assert buildout.read() == documents


def test_rollback_goes_back_to_a_savepoint_and_to_a_transaction(buildout: Buildout) -> None:
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


def test_what_is_dropped_is_named_with_yes_too(buildout: Buildout) -> None:
    buildout.commit(1)
    buildout.run("savepoint", "early", check=True)
    buildout.commit(5, note="Step")
    buildout.run("savepoint", "late", check=True)
    said = buildout.run("rollback", "early", "--yes", check=True).stdout
    assert said.startswith("Back to savepoint early. This drops:\n  Data.fs: 5 local transactions, ")
    assert "and their BLOBs\n    Step 5\n    Step 4\n    Step 3\n    and 2 more\n" in said
    assert "  savepoint late\n" in said
    assert "savepoint early\n" not in said


def test_deletions_are_dropped_and_named(buildout: Buildout, production: Production) -> None:
    buildout.delete(2)
    buildout.pack()
    blobs = status(buildout)["local"]["blobs"]
    assert blobs["files"] == blobs["size"] == 0
    assert blobs["deleted"] > 0
    assert f"0 files, 0 bytes, {blobs['deleted']} deletions" in buildout.run("status").stdout
    said = buildout.run("rollback", "--yes", check=True).stdout
    assert f"blobstorage.prod: 0 files, 0 bytes, {blobs['deleted']} deletions" in said
    assert buildout.read() == production.expected()
    assert status(buildout)["local"]["blobs"]["deleted"] == 0


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


def test_rollback_asks_first_on_a_terminal(buildout: Buildout) -> None:
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


def test_rollback_is_refused_while_in_use(buildout: Buildout) -> None:
    buildout.commit(1)
    process = buildout.hold()
    said = refused(buildout, "rollback", "--yes")
    assert "In use" in said
    assert f"pid {process.pid}" in said
    assert len(log(buildout)) == 1
    process.kill()
    process.wait()


def test_a_local_pack_makes_earlier_savepoints_useless(buildout: Buildout, production: Production) -> None:
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


def test_a_pack_of_local_transactions_only_is_noticed(buildout: Buildout, production: Production) -> None:
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


def test_rollback_goes_back_without_production(
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


def test_rollback_works_while_nothing_is_mounted(buildout: Buildout, production: Production) -> None:
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
