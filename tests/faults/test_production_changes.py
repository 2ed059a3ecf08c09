"""Production changes while it is mounted: said by the commands, and nothing local is lost by it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import pytest

from cowstorage.database import filestorage
from faults import scripts
from faults.conftest import LOCAL, REMOTE
from harness import database
from harness.buildout import Buildout
from harness.developer import Developers
from harness.polling import until
from harness.production import Production
from harness.sshd import Sshd
from refreshing import replace_database, upper
from stacks import Stack, developer_of, is_clean_of, part_options, prepared

# sshfs shows what it has seen for 20 seconds; here, for one.
FRESH = {"mount-options": "dcache_timeout=1"}


class Site:
    """A mounted buildout with a local transaction.

    :ivar local: what its Data.fs holds.
    :ivar base: of it, what was fetched.
    """

    def __init__(self, buildout: Buildout, production: Production):
        self.buildout, self.production = buildout, production
        scripts.run(buildout, "mount", check=True)
        self.base = upper(buildout).read_bytes()
        self.documents = {**production.expected(), **buildout.commit(1)}
        self.local = upper(buildout).read_bytes()

    def run(self, command: str, *arguments: str, check: bool = True) -> scripts.Ended:
        """A script."""
        return scripts.run(self.buildout, command, *arguments, check=check)

    def refused(self, command: str, *arguments: str) -> str:
        """What a script says that has to fail, with nothing local lost."""
        result = self.run(command, *arguments, check=False)
        assert result.returncode == 1, result
        assert upper(self.buildout).read_bytes() == self.local
        return result.stderr

    def status(self) -> Dict[str, Any]:
        """What ``cow-status --json`` says, and its exit code."""
        result = self.run("status", "--json", check=False)
        return {**json.loads(result.stdout), "code": result.returncode}

    def finding(self) -> str:
        """How production's Data.fs relates to the local one, by cow-status."""
        return str((self.status()["production"] or {}).get("Data.fs", {}).get("state"))

    def says_broken(self) -> bool:
        """Whether cow-status says so, and what to do."""
        result = self.run("status", check=False)
        assert ("to do" in result.stdout) == (result.returncode == 4)
        return result.returncode == 4

    def shows_local(self) -> None:
        """Mounted, with every local document."""
        self.run("mount")
        assert self.buildout.read() == self.documents

    def becomes_production(self) -> None:
        """cow-sync agrees with whatever production is now."""
        self.run("sync", "--yes")
        assert upper(self.buildout).read_bytes() == self.production.data_fs.read_bytes()
        assert self.buildout.read() == self.production.expected()


@pytest.fixture(params=[LOCAL, REMOTE], ids=str)
def stack(request: pytest.FixtureRequest) -> Stack:
    found: Stack = request.param
    return found


@pytest.fixture
def sshd(stack: Stack, make_sshd: Callable[..., Sshd]) -> Sshd:
    return make_sshd()


@pytest.fixture
def site(
    stack: Stack,
    in_memory: str,
    production: Production,
    developers: Developers,
    sshd: Sshd,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> Iterator[Site]:
    developer = developer_of(stack, developers)
    with prepared(stack, production, developer):
        options = part_options(stack, production, sshd if stack.filesystem == "sshfs" else None)
        if stack.filesystem == "sshfs":
            options.update(FRESH)
        made = Site(make_buildout(developer, options, f"{in_memory}/buildout"), production)
        yield made
        made.run("umount")
        is_clean_of(made.buildout)


over_sshfs = pytest.mark.parametrize("stack", [REMOTE], ids=str)


def test_a_pack_that_removed_blobs_is_said_and_synced(site: Site) -> None:
    """Smaller; BLOBs that the local database still refers to are gone."""
    site.production.delete(3)
    site.production.pack()
    assert len(site.production.data_fs.read_bytes()) < len(site.base)
    until(lambda: site.finding() == "packed", "cow-status says packed")
    assert "1 local transaction" in site.refused("sync")
    site.run("umount")
    # What was read before, or fetched beside that, would not be missed.
    site.run("prefetch", "--clear")
    said = site.run("mount").stderr
    assert "Data.fs is not what was fetched before: it was packed since" in said
    assert "bin/cow-sync" in said
    site.becomes_production()
    assert site.run("umount").stderr == site.run("mount").stderr == ""


def test_a_renamed_blobstorage_is_said(site: Site, stack: Stack) -> None:
    """A bind mount goes on showing it."""
    renamed = site.production.blob_storage.with_name("blobs")
    with site.production._changing():
        site.production.blob_storage.rename(renamed)
    if stack == REMOTE:
        until(site.says_broken, "cow-status says so")
    for command in ("sync", "mount"):
        said = site.refused(command, "--yes")
        assert "var/blobstorage. Look at remote-blob-storage in the part." in said
    with site.production._changing():
        renamed.rename(site.production.blob_storage)
    site.shows_local()


def test_a_blob_disk_that_is_not_mounted_there_is_said(site: Site, stack: Stack) -> None:
    away = site.production.blob_storage.with_name("away")
    with site.production._changing():
        site.production.blob_storage.rename(away)
        site.production.blob_storage.mkdir()
    if stack == REMOTE:
        until(site.says_broken, "cow-status says so")
        assert "blobstorage is empty" in site.run("status", check=False).stdout
    assert "isn't mounted there" in site.refused("sync", "--yes")
    with site.production._changing():
        site.production.blob_storage.rmdir()
        away.rename(site.production.blob_storage)
    if stack.union == "fuse-overlayfs":
        # It keeps what it has listed.
        site.run("umount")
    site.shows_local()


def test_a_restored_backup_is_asked_about(site: Site, scratch: Path) -> None:
    """An older Data.fs: cow-sync asks, whatever happened to production in between."""
    earlier = site.base[:-1]
    content = scratch / "earlier.fs"
    content.write_bytes(earlier)
    older = earlier[: filestorage.complete_end(str(content)).size]
    replace_database(site.production, older)
    until(lambda: site.finding() == "replaced", "cow-status says replaced")
    assert "a restored backup. The next sync asks about it" in site.run("status").stdout
    site.run("rollback", "--yes")
    site.local = site.base
    assert "a restored backup" in site.refused("sync")
    site.run("sync", "--yes")
    assert upper(site.buildout).read_bytes() == older


def test_another_site_in_its_place_is_asked_about(site: Site) -> None:
    production = site.production
    with production._changing():
        for directory in (production.file_storage, production.blob_storage):
            shutil.rmtree(directory)
            directory.mkdir()
        database.create(str(production.data_fs), str(production.blob_storage))
        production._documents["Data.fs"] = {}
    production.commit(2)
    until(lambda: site.says_broken() or site.finding() == "replaced", "cow-status says so")
    site.run("umount")
    assert "begins with a transaction that was never here: another database" in site.run("mount").stderr
    assert "another database. The next sync asks about it" in site.run("status").stdout
    site.run("rollback", "--yes")
    site.local = site.base
    assert "another database" in site.refused("sync")
    site.becomes_production()


def test_a_data_fs_that_was_moved_to_another_disk_is_synced(site: Site, scratch: Path) -> None:
    """Data.fs is a link now."""
    production = site.production
    elsewhere = scratch / "disk"
    elsewhere.mkdir()
    with production._changing():
        shutil.move(production.data_fs, elsewhere / "Data.fs")
        os.chown(elsewhere / "Data.fs", production.uid, production.gid)
        production.data_fs.symlink_to(elsewhere / "Data.fs")
    production.commit(1)
    os.chown(elsewhere / "Data.fs", production.uid, production.gid)
    site.becomes_production()


@over_sshfs
@pytest.mark.parametrize("command", ["mount", "sync"])
def test_a_restarted_server_is_mounted_again(site: Site, sshd: Sshd, command: str) -> None:
    """As by an upgrade of the server."""
    sshd.stop()
    sshd.start()
    assert site.status()["code"] == 4
    if command == "sync":
        site.becomes_production()
    site.shows_local() if command == "mount" else site.run("umount")


@over_sshfs
def test_a_changed_host_key_is_said_with_the_remedy(site: Site, sshd: Sshd, developers: Developers) -> None:
    sshd.change_host_key()
    for command in ("mount", "sync"):
        said = site.refused(command, "--yes")
        assert "host key has changed" in said
        assert "ssh-keygen -R" in said
    site.buildout.developer.known_hosts.write_text(sshd.known_hosts_line())
    site.shows_local()
