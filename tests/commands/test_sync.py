"""cow-sync brings Data.fs to production's state: what was added where that is all there is, else the whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Iterator

import pytest

from benchmarks.slow_link import SlowLink
from cowstorage.part import operation
from cowstorage.system.output import human_size
from harness import database
from harness.buildout import Buildout
from harness.developer import Developers
from harness.polling import until
from harness.production import Production
from harness.sshd import Sshd
from refreshing import (
    append_bytes,
    assert_is_production,
    assert_opens_quietly,
    in_place_of_rsync,
    journal,
    log,
    mounted,
    refused,
    replace_database,
    status,
    upper,
)

# What rsync moves beside the bytes that were added: a hundredth of them, and this.
WITHIN = 0.01
BESIDES = 10_000
# What is read to prove that the mount works and that production has the base.
WHOLE_SYNC_BESIDES = 80_000


@pytest.fixture
def buildout(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> Iterator[Buildout]:
    """Over a local directory by kernel overlay: the quickest way to what isn't about mounts."""
    made = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    yield made
    made.run("umount", "--lazy")


# Grown


def test_only_what_was_added_is_fetched(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    buildout.commit(2, new=1, changed=1)
    inode = upper(buildout).stat().st_ino
    production.commit(3, new=1, changed=1)
    result = buildout.run("sync", "--yes", check=True)
    assert re.search(r"at production's latest state \(\d.* added\)", result.stdout)
    assert upper(buildout).stat().st_ino == inode
    assert_is_production(buildout, production, production.data_fs.read_bytes())


def test_without_anything_new_nothing_is_fetched(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    buildout.commit(1)
    result = buildout.run("sync", "--yes", "--verbose", check=True)
    assert "unchanged" in result.stdout
    assert "rsync" not in result.stderr
    assert_is_production(buildout, production, production.data_fs.read_bytes())


def test_who_looks_for_locks_does_not_copy_productions_lock_file(buildout: Buildout, production: Production) -> None:
    with production._changing():
        (production.file_storage / "Data.fs.lock").write_text("4711\n")
    mounted(buildout)
    # Without the one that the mount makes, production's is there.
    (upper(buildout).parent / "Data.fs.lock").unlink()
    buildout.run("umount", check=True)
    assert "Data.fs.lock" not in os.listdir(upper(buildout).parent)


def test_over_sshfs_hardly_more_than_what_was_added_is_moved(
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    fuse: None,
    scratch: Path,
) -> None:
    sshd = make_sshd()
    append_bytes(production, 6_000_000)
    with SlowLink(sshd.port, 0.0, 1e9) as link:
        unknown = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        options = {
            "remote": sshd.remote(production.path),
            "union": "overlay",
            "ssh-options": f"-p {link.port} {unknown}",
        }
        buildout = make_buildout(developers.root, options)
        buildout.run("mount", check=True)
        # Else a mount that is five seconds old fetches what may be read next.
        buildout.run("prefetch", check=True)
        appended = append_bytes(production, 3_000_000)
        before = link.bytes_up + link.bytes_down
        statistics = scratch / "statistics"
        environment = in_place_of_rsync(buildout, f'exec "$real" --stats "$@" >{statistics}')
        buildout.run("sync", "--yes", check=True, env=environment)
        moved = link.bytes_up + link.bytes_down - before
        said = statistics.read_text().replace(",", "")
        by_rsync = sum(int(number) for number in re.findall(r"Total bytes (?:sent|received): (\d+)", said))
        assert_is_production(buildout, production, production.data_fs.read_bytes())
        little = append_bytes(production, 1_000_000)
        before = link.bytes_up + link.bytes_down
        buildout.run("sync", "--yes", check=True)
        through_the_mount = link.bytes_up + link.bytes_down - before
        assert_is_production(buildout, production, production.data_fs.read_bytes())
        buildout.run("umount", check=True)
    assert little < through_the_mount <= little * (1 + WITHIN) + WHOLE_SYNC_BESIDES
    assert appended < by_rsync <= appended * (1 + WITHIN) + BESIDES
    assert by_rsync < moved <= appended * (1 + WITHIN) + WHOLE_SYNC_BESIDES


def test_the_lead_of_production_is_told(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    assert "production   has not changed since the last sync" in buildout.run("status").stdout
    added = append_bytes(production, 1_000_000)
    later = journal(buildout)["synced"] + 3 * 86_400
    with production._changing():
        os.utime(production.data_fs, (later, later))
    assert f"production   is 3 days and {human_size(added)} ahead" in buildout.run("status").stdout
    assert status(buildout)["production"]["Data.fs"]["size"] == added
    buildout.run("sync", "--yes", check=True)
    assert status(buildout)["production"]["Data.fs"]["size"] == 0


def test_the_lead_is_told_at_once_over_sshfs(
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    """Whatever the mount remembers of production's files."""
    options = {"remote": make_sshd().remote(production.path), "union": "overlay"}
    buildout = mounted(make_buildout(developers.root, options))
    assert status(buildout)["production"]["Data.fs"]["state"] == "current"
    size = production.data_fs.stat().st_size
    production.commit(1)
    lead = status(buildout)["production"]["Data.fs"]
    assert (lead["state"], lead["size"]) == ("grown", production.data_fs.stat().st_size - size)
    buildout.run("umount", check=True)


def test_the_base_is_proven_by_a_few_hundred_bytes(buildout: Buildout, production: Production) -> None:
    """A byte that differs right before the base is seen, and all is fetched anew."""
    mounted(buildout)
    content = bytearray(production.data_fs.read_bytes())
    content[-20] ^= 1
    damaged = bytes(content)
    production.commit(1)
    later = production.data_fs.read_bytes()[len(damaged) :]
    replace_database(production, damaged + later)
    result = buildout.run("sync", "--yes", check=True)
    assert "production was packed" in result.stdout
    assert upper(buildout).read_bytes() == damaged + later


# Packed


def test_after_a_pack_the_whole_is_compared(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    buildout.commit(2)
    production.pack()
    assert status(buildout)["production"]["Data.fs"]["state"] == "packed"
    assert "production   was packed since: the next sync fetches all of it" in buildout.run("status").stdout
    result = buildout.run("sync", "--yes", check=True)
    assert "Data.fs: production was packed. All of it is compared, what differs is fetched." in result.stdout
    assert_is_production(buildout, production, production.data_fs.read_bytes())


def test_a_pack_is_noticed_though_production_has_regrown_past_the_base(
    buildout: Buildout, production: Production
) -> None:
    mounted(buildout)
    size = production.data_fs.stat().st_size
    production.pack()
    append_bytes(production, size)
    assert production.data_fs.stat().st_size > size
    buildout.run("sync", "--yes", check=True)
    assert_is_production(buildout, production, production.data_fs.read_bytes())


def test_the_old_file_stays_until_the_new_one_is_whole(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    before = upper(buildout).read_bytes()
    production.pack()
    whole = production.data_fs.read_bytes()
    middle = bytearray(whole)
    middle[len(whole) // 2 :] = os.urandom(len(whole) - len(whole) // 2)
    replace_database(production, bytes(middle))
    said = refused(buildout, "sync", "--yes")
    assert "not whole" in said
    assert upper(buildout).read_bytes() == before
    replace_database(production, whole)
    buildout.run("sync", "--yes", check=True)
    assert_is_production(buildout, production, whole)


def test_a_local_pack_is_taken_back(buildout: Buildout, production: Production) -> None:
    """The file that was fetched is still there, so that only what was added has to come."""
    mounted(buildout)
    buildout.commit(2, changed=1)
    buildout.pack()
    production.commit(1)
    result = buildout.run("sync", "--yes", check=True)
    assert re.search(r"\(\d.* added\)", result.stdout)
    assert_is_production(buildout, production, production.data_fs.read_bytes())


# Replaced


def test_another_site_is_asked_about(buildout: Buildout, production: Production, scratch: Path) -> None:
    mounted(buildout)
    before = upper(buildout).read_bytes()
    database.create(str(scratch / "other.fs"))
    database.commit(str(scratch / "other.fs"), None, n=40)
    replace_database(production, (scratch / "other.fs").read_bytes())
    assert "another database" in buildout.run("status").stdout
    said = refused(buildout, "sync")
    assert "another database" in said
    assert "--yes" in said
    assert upper(buildout).read_bytes() == before
    assert status(buildout)["state"] == "mounted"
    buildout.run("sync", "--yes", check=True)
    assert upper(buildout).read_bytes() == production.data_fs.read_bytes()
    assert_opens_quietly(buildout)


def test_a_restored_backup_is_asked_about(buildout: Buildout, production: Production) -> None:
    backup = production.data_fs.read_bytes()
    production.commit(2)
    mounted(buildout)
    replace_database(production, backup)
    said = refused(buildout, "sync")
    assert "a restored backup" in said
    buildout.run("sync", "--yes", check=True)
    assert upper(buildout).read_bytes() == backup


# Room


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own, so small that a second Data.fs doesn't fit."""
    image = path / "disk"
    with image.open("wb") as file:
        file.truncate(megabytes * 1_000_000)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    target = path / "small"
    target.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(target)], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_no_room_is_said_before_anything_is_touched(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout], scratch: Path
) -> None:
    append_bytes(production, 30_000_000)
    with small_disk(scratch, 60):
        buildout = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"}, "small/var")
        mounted(buildout)
        buildout.commit(1)
        before = upper(buildout).read_bytes()
        production.pack()
        said = refused(buildout, "sync", "--yes")
        assert re.search(r"has no room: 3\d\.\d MB are to be fetched, \d\d?\.\d MB are free", said)
        assert upper(buildout).read_bytes() == before
        assert log(buildout)
        assert status(buildout)["state"] == "mounted"
        buildout.run("umount", check=True)


# Interrupted


def interrupted_sync(buildout: Buildout, production: Production, where: str) -> None:
    """Kill a sync when the journal tells that it is in the step ``where``."""
    environment = in_place_of_rsync(
        buildout, f'case "$*" in *{where}*) touch "$0.begun"; sleep 60;; esac; exec "$real" "$@"'
    )
    process = buildout.popen("sync", "--yes", env=environment)
    until(lambda: "Fetch" in str(operation.noted(buildout.settings.location)), "the sync fetches")
    until((buildout.path / "programs" / "rsync.begun").exists, "rsync runs")
    os.killpg(process.pid, 9)
    process.wait()


@pytest.mark.parametrize("packed", [False, True])
def test_an_interrupted_sync_is_resumed(buildout: Buildout, production: Production, packed: bool) -> None:
    mounted(buildout)
    buildout.commit(1)
    if packed:
        production.pack()
    production.commit(1)
    interrupted_sync(buildout, production, "Data.fs")
    said = refused(buildout, "mount")
    assert "An earlier cow-sync was interrupted. Run bin/cow-sync again" in said
    assert buildout.run("status").returncode == 4
    buildout.run("sync", check=True)
    assert status(buildout)["state"] == "mounted"
    assert_is_production(buildout, production, production.data_fs.read_bytes())


def test_an_interrupted_sync_can_be_rolled_back(buildout: Buildout, production: Production) -> None:
    base = production.data_fs.read_bytes()
    mounted(buildout)
    buildout.commit(1)
    buildout.run("savepoint", "lost", check=True)
    tid = log(buildout)[0]["tid"]
    production.commit(1)
    interrupted_sync(buildout, production, "Data.fs")
    # Its BLOBs are gone already.
    refused(buildout, "rollback", "--yes", "lost")
    assert "without a name" in refused(buildout, "rollback", "--yes", tid)
    buildout.run("rollback", "--yes", check=True)
    assert upper(buildout).read_bytes() == base
    assert_opens_quietly(buildout)


# Several


def test_several_storages_move_together(buildout: Buildout, production: Production) -> None:
    production.add_storage("catalog.fs")
    mounted(buildout)
    local = [upper(buildout, name) for name in ("Data.fs", "catalog.fs")]
    bases = [path.read_bytes() for path in local]
    assert sorted(journal(buildout)["bases"]) == ["Data.fs", "catalog.fs"]

    catalog = str(buildout.file_storage / "catalog.fs")
    buildout.commit(1)
    database.commit(catalog, None, note="In the catalog")
    buildout.run("savepoint", "one", check=True)
    saved = [path.read_bytes() for path in local]
    database.commit(catalog, None, n=2)
    buildout.commit(1)
    assert [entry["storage"] for entry in log(buildout)] == [
        "Data.fs",
        "catalog.fs",
        "catalog.fs",
        "catalog.fs",
        "Data.fs",
    ]
    assert [entry["savepoints"] for entry in log(buildout)] == [[], [], [], ["one"], ["one"]]

    buildout.run("rollback", "one", "--yes", check=True)
    assert [path.read_bytes() for path in local] == saved
    buildout.run("rollback", "--yes", check=True)
    assert [path.read_bytes() for path in local] == bases

    production.commit(1)
    production.commit(2, storage="catalog.fs")
    buildout.run("sync", "--yes", check=True)
    assert [path.read_bytes() for path in local] == [
        (production.file_storage / path.name).read_bytes() for path in local
    ]
    for name in ("Data.fs", "catalog.fs"):
        assert_opens_quietly(buildout, name)


def test_a_savepoint_of_several_storages_is_refused_while_in_use(buildout: Buildout, production: Production) -> None:
    production.add_storage("catalog.fs")
    mounted(buildout)
    process = buildout.hold()
    assert "In use" in refused(buildout, "savepoint", "one")
    process.kill()
    process.wait()


# Without a FileStorage


def test_without_a_filestorage_blobs_are_brought_to_productions_state(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    """RelStorage: the database is elsewhere, the BLOBs are files."""
    with production._changing():
        shutil.rmtree(production.file_storage)
    options = {"remote": str(production.path), "union": "overlay", "file-storage": ""}
    buildout = make_buildout(developers.root, options)
    mounted(buildout)
    sample = next(path for path in buildout.blob_storage.rglob("*.blob"))
    content = sample.read_bytes()
    sample.chmod(0o600)
    sample.write_bytes(b"changed")
    assert "blobstorage.prod" in refused(buildout, "sync")
    result = buildout.run("sync", "--yes", check=True)
    assert "Local changes are dropped. Next: start your instance." in result.stdout
    assert sample.read_bytes() == content
    buildout.run("umount", check=True)


def test_the_question_says_what_is_got_and_what_is_lost(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    buildout.commit(2)
    content = upper(buildout).read_bytes()
    no = buildout.run("sync", tty=True, answers=[("Go on? [y/N] ", "n\n")])
    assert "Production has not changed since the last sync. cow-rollback drops local changes without" in no.stdout
    assert no.stdout.rstrip().endswith("Nothing was changed.")
    assert "cow-sync: Nothing" not in no.stdout
    added = append_bytes(production, 1_000_000)
    no = buildout.run("sync", tty=True, answers=[("Go on? [y/N] ", "n\n")])
    there = rf"Production is .*{re.escape(human_size(added))} ahead\. To get there, this is dropped:"
    assert re.search(there, no.stdout)
    assert "  Data.fs: 2 local transactions, " in no.stdout
    assert upper(buildout).read_bytes() == content
    assert status(buildout)["state"] == "mounted"
    # Not mounted, production is mounted to be looked at, and unmounted again.
    buildout.run("umount", check=True)
    no = buildout.run("sync", tty=True, answers=[("Go on? [y/N] ", "n\n")])
    assert f"Production is {human_size(added)} ahead. To get there, this is dropped:" in no.stdout
    assert status(buildout)["state"] == "not mounted"
    assert buildout.run("sync", tty=True, answers=[("Go on? [y/N] ", "y\n")]).returncode == 0
    mounted(buildout)
    assert_is_production(buildout, production, production.data_fs.read_bytes())


def test_what_is_fetched_shows_its_pace_on_a_terminal(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    added = append_bytes(production, 1_000_000)
    shown = buildout.run("sync", "--yes", tty=True).stdout
    assert f"Data.fs: {human_size(added)} of {human_size(added)}, 100%, " in shown
    assert "xfr#" not in shown
    assert "Data.fs: " not in buildout.run("sync", "--yes", check=True).stderr
