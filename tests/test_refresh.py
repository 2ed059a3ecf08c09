"""cow-sync brings Data.fs to production's state: what was added where that is all there is, else the whole."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional

import pytest

from benchmarks.slow_link import SlowLink
from cowstorage.output import human_size
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
    journal,
    log,
    refused,
    replace_database,
    status,
    upper,
)

# What rsync moves beside the bytes that were added: a hundredth of them, and this.
WITHIN = 0.01
BESIDES = 10_000
# Two logins, and what is read to prove that the mount works and that production has the base.
WHOLE_SYNC_BESIDES = 80_000


@pytest.fixture
def buildout(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> Iterator[Buildout]:
    """Over a local directory by kernel overlay: the quickest way to what isn't about mounts."""
    made = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    yield made
    made.run("umount", "--lazy")


def mounted(buildout: Buildout) -> Buildout:
    buildout.run("mount", check=True)
    return buildout


def in_place_of_rsync(buildout: Buildout, script: str) -> Dict[str, str]:
    """An environment in which ``rsync`` is a script, to which ``$real`` is the true one."""
    directory = buildout.path / "programs"
    directory.mkdir()
    (directory / "rsync").write_text(f"#!/bin/sh\nreal={shutil.which('rsync')}\n{script}\n", encoding="utf-8")
    (directory / "rsync").chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


# Which union lies there afterwards


def test_what_lies_there_is_not_tried_again(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    production.commit(1)
    said = buildout.run("sync", "--yes", "--verbose", check=True).stderr
    assert "mount -t overlay" in said
    assert "/trial/" not in said


def test_what_was_passed_over_is_tried_again(
    buildout: Buildout, production: Production, make_buildout: Callable[..., Buildout], developers: Developers
) -> None:
    """The upper was the reason, and it is a new one now."""
    options = {"remote": str(production.path), "sudo": "no"}
    made = make_buildout(developers.root, {**options, "union": "unionfs-fuse"}, "changed")
    made.run("mount", check=True)
    made.run("umount", check=True)
    made.configure({**options, "union": "auto"})
    made.run("mount", check=True)
    assert status(made)["union"] == "unionfs-fuse"
    made.run("sync", "--yes", check=True)
    assert status(made)["union"] == "overlay"
    made.run("umount", check=True)


# Grown


def test_what_was_added_is_fetched(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    buildout.commit(2, new=1, changed=1)
    inode = upper(buildout).stat().st_ino
    production.commit(3, new=1, changed=1)
    result = buildout.run("sync", "--yes", check=True)
    assert re.search(r"at production's latest state \(\d.* added\)", result.stdout)
    assert upper(buildout).stat().st_ino == inode
    assert_is_production(buildout, production, production.data_fs.read_bytes())


def test_nothing_new_moves_nothing(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    buildout.commit(1)
    result = buildout.run("sync", "--yes", "--verbose", check=True)
    assert "unchanged" in result.stdout
    assert "rsync" not in result.stderr
    assert_is_production(buildout, production, production.data_fs.read_bytes())


def test_bytes_moved_over_sshfs(
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
        appended = append_bytes(production, 1_000_000)
        before = link.bytes_up + link.bytes_down
        statistics = scratch / "statistics"
        environment = in_place_of_rsync(buildout, f'exec "$real" --stats "$@" >{statistics}')
        buildout.run("sync", "--yes", check=True, env=environment)
        moved = link.bytes_up + link.bytes_down - before
        said = statistics.read_text().replace(",", "")
        by_rsync = sum(int(number) for number in re.findall(r"Total bytes (?:sent|received): (\d+)", said))
        assert_is_production(buildout, production, production.data_fs.read_bytes())
        buildout.run("umount", check=True)
    assert appended < by_rsync <= appended * (1 + WITHIN) + BESIDES
    assert by_rsync < moved <= appended * (1 + WITHIN) + WHOLE_SYNC_BESIDES


def test_the_lead_of_production_is_told(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    assert "none: production has not changed since the last sync" in buildout.run("status").stdout
    added = append_bytes(production, 1_000_000)
    later = journal(buildout)["synced"] + 3 * 86_400
    with production._changing():
        os.utime(production.data_fs, (later, later))
    assert f"production is 3 days and {human_size(added)} ahead" in buildout.run("status").stdout
    assert status(buildout)["production"]["Data.fs"]["size"] == added
    buildout.run("sync", "--yes", check=True)
    assert status(buildout)["production"]["Data.fs"]["size"] == 0


def test_the_lead_is_told_at_once(
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


def test_packed(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    buildout.commit(2)
    production.pack()
    assert status(buildout)["production"]["Data.fs"]["state"] == "packed"
    assert "production was packed since: the next sync fetches all of it" in buildout.run("status").stdout
    result = buildout.run("sync", "--yes", check=True)
    assert "Data.fs: production was packed. All of it is compared, what differs is fetched." in result.stdout
    assert_is_production(buildout, production, production.data_fs.read_bytes())


def test_packed_and_regrown_past_the_base(buildout: Buildout, production: Production) -> None:
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


def test_local_pack_is_taken_back(buildout: Buildout, production: Production) -> None:
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


# Always whole


@pytest.mark.parametrize("length", [None, 1, 30])
def test_torn_tail(buildout: Buildout, production: Production, length: Optional[int]) -> None:
    mounted(buildout)
    production.commit(1)
    end = production.torn_tail(length)
    buildout.run("sync", "--yes", check=True)
    assert_is_production(buildout, production, production.data_fs.read_bytes()[:end])


def test_torn_tail_of_the_first_fetch(buildout: Buildout, production: Production) -> None:
    end = production.torn_tail()
    mounted(buildout)
    assert_is_production(buildout, production, production.data_fs.read_bytes()[:end])


def test_while_production_is_writing(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    script = (
        f"import sys; sys.path[0:0] = {sys.path!r}\n"
        "from harness import database\n"
        f"with database.opened({str(production.data_fs)!r}, None) as db:\n"
        "    print('writing', flush=True)\n"
        "    while True:\n"
        "        with db.transaction() as connection:\n"
        "            connection.root()['busy'] = __import__('os').urandom(5000)\n"
    )
    with production._changing():
        writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        try:
            assert writer.stdout
            assert writer.stdout.readline() == "writing\n"
            for _ in range(4):
                buildout.run("sync", "--yes", check=True)
                assert writer.poll() is None
                local = upper(buildout).read_bytes()
                with production.data_fs.open("rb") as file:
                    assert file.read(len(local)) == local
                assert_opens_quietly(buildout)
        finally:
            writer.kill()
            writer.communicate()


# The index


@pytest.mark.parametrize("state", ["missing", "stale", "damaged", "ahead"])
def test_index_that_does_not_fit_is_rebuilt(buildout: Buildout, production: Production, state: str) -> None:
    index = production.data_fs.with_name("Data.fs.index")
    old = index.read_bytes()
    production.pack()
    with production._changing():
        if state == "missing":
            index.unlink()
        elif state == "stale":
            index.write_bytes(old)
        elif state == "damaged":
            index.write_bytes(index.read_bytes()[:-30])
        else:
            content = production.data_fs.read_bytes()
            database.commit(str(production.data_fs), str(production.blob_storage), n=2)
            production.data_fs.write_bytes(content)
    result = buildout.run("mount", check=True)
    line = r"Building the index of Data.fs: production has none that fits\. Reads all \S+ \S+B once\."
    assert re.search(line, result.stdout)
    assert_opens_quietly(buildout)


# Interrupted


def interrupted_sync(buildout: Buildout, production: Production, where: str) -> None:
    """Kill a sync when the journal tells that it is in the step ``where``."""
    environment = in_place_of_rsync(buildout, f'case "$*" in *{where}*) sleep 60;; esac; exec "$real" "$@"')
    process = buildout.popen("sync", "--yes", env=environment)
    until(lambda: "Fetch" in str((journal(buildout)["operation"] or {}).get("step")), "the sync fetches")
    time.sleep(0.2)
    os.killpg(process.pid, 9)
    process.wait()


@pytest.mark.parametrize("packed", [False, True])
def test_interrupted_sync_is_resumed(buildout: Buildout, production: Production, packed: bool) -> None:
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


def test_interrupted_sync_can_be_rolled_back(buildout: Buildout, production: Production) -> None:
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


def test_savepoint_of_several_wants_them_at_rest(buildout: Buildout, production: Production) -> None:
    production.add_storage("catalog.fs")
    mounted(buildout)
    process = buildout.hold()
    assert "In use" in refused(buildout, "savepoint", "one")
    process.kill()
    process.wait()


def test_the_option_storages(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    production.add_storage("catalog.fs")
    options = {"remote": str(production.path), "union": "overlay", "storages": "Data.fs"}
    buildout = make_buildout(developers.root, options)
    result = buildout.run("mount", check=True)
    assert "catalog.fs of production was not fetched and is hidden" in result.stderr
    assert "name it in storages" in result.stderr
    assert not (buildout.file_storage / "catalog.fs").exists()
    assert not upper(buildout, "catalog.fs").is_file()
    assert status(buildout)["hidden"] == ["catalog.fs"]

    buildout.configure({**options, "storages": "Data.fs catalog.fs"})
    buildout.run("sync", "--yes", check=True)
    assert status(buildout)["hidden"] == []
    assert upper(buildout, "catalog.fs").read_bytes() == (production.file_storage / "catalog.fs").read_bytes()
    buildout.run("umount", check=True)


def test_a_storage_that_is_new_on_production(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    buildout.run("umount", check=True)
    production.add_storage("catalog.fs")
    assert "catalog.fs of production was not fetched" in buildout.run("mount", check=True).stderr
    assert not (buildout.file_storage / "catalog.fs").exists()
    buildout.run("sync", "--yes", check=True)
    assert (buildout.file_storage / "catalog.fs").exists()


def test_first_fetch_that_was_interrupted_between_two(buildout: Buildout, production: Production) -> None:
    production.add_storage("catalog.fs")
    environment = in_place_of_rsync(buildout, 'case "$*" in *catalog.fs*) exit 1;; esac; exec "$real" "$@"')
    assert buildout.run("mount", env=environment).returncode == 1
    mounted(buildout)
    assert sorted(journal(buildout)["bases"]) == ["Data.fs", "catalog.fs"]
    assert status(buildout)["hidden"] == []


# Without a FileStorage


def test_blobs_only(production: Production, developers: Developers, make_buildout: Callable[..., Buildout]) -> None:
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
