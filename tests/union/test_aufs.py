"""aufs, which Debian's kernels have no more: what mount(8) is asked for, by the grammar of aufs(5); and mounted."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Callable, Iterator, Tuple

import pytest

from cowstorage.buildout.options import UNIONS
from cowstorage.system import mounts
from cowstorage.system.programs import Command
from cowstorage.union import kinds, whiteouts
from cowstorage.union.base import layer_of
from harness.buildout import Buildout
from harness.developer import Developers
from harness.disk import Disk
from harness.production import Production
from harness.runtime import Runtime
from harness.sshd import Sshd
from production.parts import DEVELOPER, DIRECTORY, part

# More than one page of inode numbers.
FILES = 2000

ANY_BRANCH = r"[^,:=]+(=(rw|ro|rr)(\+(wh|nolwh|unpin|coo_reg|coo_all|moo))*)?"
on_aufs = pytest.mark.machine(kernel="aufs")


def aufs(lowers: Tuple[str, ...]) -> Command:
    layer = layer_of(part(remote="/srv/production"), "blobstorage", lowers, "aufs")
    return kinds.UNIONS["aufs"].mount(layer, DEVELOPER)


def test_aufs_has_one_writable_branch_on_top() -> None:
    command = aufs(("/cache", "/srv/a:b,c=d"))
    assert command.root
    assert command.cwd == f"{DIRECTORY}/var/cow-storage/layers/blobstorage"
    options = command.argv[command.argv.index("-o") + 1]
    # br: would be refused by mount(8) of util-linux 2.39 and later.
    assert re.fullmatch(rf"br={ANY_BRANCH}(:{ANY_BRANCH})*(,[a-z]+)*", options)
    assert options.startswith("br=upper=rw+nolwh:lower0=ro:lower1=ro,")
    assert command.argv[:3] == ("mount", "-t", "aufs")


def test_a_kernels_own_unions_are_tried_first() -> None:
    assert list(kinds.UNIONS)[:2] == ["overlay", "aufs"]
    assert set(UNIONS) == {"auto", *kinds.UNIONS}


def test_a_kernel_without_aufs_is_not_asked_for_it() -> None:
    """Nor is sudo, for which each command is a question."""
    settings, equipped = part(remote="/srv/production"), DEVELOPER._replace(programs=frozenset(("mount",)))
    problem = kinds.UNIONS["aufs"].problem(settings, equipped._replace(aufs=False))
    assert problem is not None
    assert "not in this kernel" in problem
    assert kinds.UNIONS["aufs"].problem(settings, equipped._replace(aufs=True)) is None


def test_an_upper_of_aufs_is_told_from_one_of_fuse_overlayfs(tmp_path: Path) -> None:
    (tmp_path / ".wh.deleted").touch()
    assert whiteouts.writers(str(tmp_path)) == ("fuse-overlayfs", "aufs")
    (tmp_path / ".wh..wh.orph").mkdir()
    assert whiteouts.writers(str(tmp_path)) == ("aufs",)


def test_a_directory_that_hides_productions_is_no_plain_one(tmp_path: Path) -> None:
    (tmp_path / "0x00").mkdir()
    assert whiteouts.is_plain(str(tmp_path), "aufs")
    (tmp_path / "0x00" / ".wh..wh..opq").touch()
    assert not whiteouts.is_plain(str(tmp_path), "aufs")


OPTIONS = {"filesystem": "directory", "union": "aufs"}

# A mount(8) of a kernel without overlay.
WITHOUT_OVERLAY = """#!/bin/sh
case " $* " in
    *" -t overlay "*) echo "mount: unknown filesystem type 'overlay'." >&2; exit 32 ;;
esac
exec /bin/mount "$@"
"""


@pytest.fixture
def buildout(
    disk: Disk, production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> Iterator[Buildout]:
    """Of a developer with sudo, on a disk of its own, in a directory whose name has what a branch can't have."""
    developer = developers.dev
    production.give_to(developer.uid, developer.gid)
    made = make_buildout(developer, {**OPTIONS, "remote": str(production.path)}, f"{disk.path.name}/a,b:c=d")
    yield made
    made.run("umount", check=True)


@pytest.mark.root
@on_aufs
def test_auto_takes_aufs_where_the_kernel_has_no_overlay(
    scratch: Path, production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    (scratch / "mount").write_text(WITHOUT_OVERLAY)
    (scratch / "mount").chmod(0o755)
    buildout = make_buildout(developers.root, {**OPTIONS, "remote": str(production.path), "union": "auto"})
    buildout.run("mount", env={"PATH": f"{scratch}:{os.environ['PATH']}"}, check=True)
    mounted = mounts.top(mounts.read(), str(buildout.blob_storage))
    assert mounted is not None
    assert mounted.type == "aufs"
    buildout.run("umount", check=True)


@pytest.mark.root
@on_aufs
def test_a_developer_goes_back_where_productions_files_have_more_than_one_name(
    buildout: Buildout, production: Production
) -> None:
    """As in each backup by hard links; a copy of such a file would belong to root, and could not be removed."""
    lock = production.file_storage / "Data.fs.lock"
    lock.touch()
    backup = production.path / "backup"
    backup.mkdir()
    for path in (lock, *production.blob_storage.rglob("*.blob")):
        os.link(path, backup / f"{path.parent.name}-{path.name}")
    production.give_to(production.uid, production.gid)
    buildout.run("mount", check=True)
    buildout.commit(2, new=1, changed=1)
    buildout.delete(1)
    buildout.run("rollback", "--yes", check=True)
    assert buildout.read() == production.expected()
    buildout.commit(1)
    buildout.run("sync", "--yes", check=True)
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)
    # As the developer, without root.
    var = buildout.path / "var"
    directories = [var / "blobstorage.prod", var / "filestorage.prod", var / "cow-storage"]
    buildout.developer.run(["rm", "-rf", "--", *directories], check=True)
    assert not any(directory.exists() for directory in directories)


@pytest.mark.root
@on_aufs
def test_production_is_readable_when_the_disk_is_full(disk: Disk, buildout: Buildout, production: Production) -> None:
    many = production.blob_storage / "many"
    many.mkdir(mode=0o755)
    for number in range(FILES):
        (many / str(number)).write_text("production's")
    production.give_to(production.uid, production.gid)
    buildout.run("mount", check=True)
    disk.fill()
    try:
        read = ["sh", "-c", 'cat -- "$0"/* | wc -c', str(buildout.blob_storage / "many")]
        result = buildout.developer.run(read, timeout=120, check=True)
        assert result.stdout.split() == [str(FILES * len("production's"))]
    finally:
        disk.make_room()


@pytest.mark.root
@on_aufs
def test_an_upper_that_aufs_has_used_is_free_for_another_union(buildout: Buildout, production: Production) -> None:
    """While nothing local is there, though aufs leaves a directory of root's in it."""
    buildout.run("mount", check=True)
    buildout.run("umount", check=True)
    buildout.configure({**OPTIONS, "remote": str(production.path), "union": "overlay"})
    buildout.run("mount", check=True)
    assert buildout.read() == production.expected()


# As the script was published before there was this recipe, with aufs for its union; br= as util-linux 2.39 wants it.
PUBLISHED = """
cd "$0"
mkdir prod filestorage blobstorage filestorage.prod blobstorage.prod
sshfs -o ro "$1" prod
rsync -az "$1/var/filestorage/Data.fs" filestorage.prod/
rsync -az "$1/var/filestorage/Data.fs.index" filestorage.prod/
mount -t aufs -o br=filestorage.prod=rw:prod/var/filestorage=ro none filestorage
mount -t aufs -o br=blobstorage.prod=rw:prod/var/blobstorage=ro none blobstorage
"""
LIFTED = """
cd "$0"
umount filestorage blobstorage
fusermount3 -u prod
"""


@pytest.mark.root
@on_aufs
def test_the_lines_of_the_published_script_work(
    scratch: Path, production: Production, developers: Developers, sshd: Sshd, runtime: Runtime, fuse: None
) -> None:
    root, home = developers.root, scratch / "published"
    home.mkdir()
    root.run(["sh", "-euc", PUBLISHED, str(home), sshd.remote(production.path)], check=True, timeout=120)
    try:
        arguments = [str(home / "filestorage" / "Data.fs"), str(home / "blobstorage")]
        read = [*runtime.module("harness.database"), "read", *arguments]
        found = json.loads(root.run(read, check=True, timeout=120).stdout)
        assert {name: tuple(fields) for name, fields in found.items()} == production.expected()
    finally:
        root.run(["sh", "-euc", LIFTED, str(home)], check=True)
