"""A server sends more than it has shown, or what never ends: the disk stays ours, and nothing of it is kept."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

import pytest

from cowstorage.database import blobs
from cowstorage.production import through_mount
from cowstorage.production.blob_source import BlobSource
from faults import scripts
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from harness.sshd import Sshd
from stacks import Stack, developer_of, part_options, prepared

# The bytes that are sent where some kB were shown; a hole on the server.
SENT = 1_000_000_000
# The most bytes that may be written to any file here, so that a test that fails doesn't fill the disk; and be kept.
MOST = 400_000_000
KEPT = 20_000_000

STACKS = [
    Stack("directory", "overlay", "root"),
    Stack("sshfs", "overlay", "sudo"),
    Stack("sshfs", DEVELOPERS_UNION, "alone"),
    Stack("sshfs", "fuse-overlayfs", "alone"),
]


class Rogue(NamedTuple):
    """A buildout whose rsync reads elsewhere than its mount shows.

    :param path: a copy of production, which rsync reads.
    """

    buildout: Buildout
    production: Production
    path: Path

    def run(self, command: str, *arguments: str) -> scripts.Ended:
        """Run a command that may write no large file, whatever it tries."""
        return scripts.run(self.buildout, command, *arguments, fault=no_large_files)

    def follow(self) -> None:
        """Have rsync see what the mount shows."""
        shutil.rmtree(self.path, ignore_errors=True)
        subprocess.run(["cp", "-a", "--", str(self.production.path), str(self.path)], check=True)
        # The developer plays the rogue, too.
        subprocess.run(["chmod", "-R", "a+rwX", "--", str(self.path)], check=True)

    def kept(self) -> int:
        """Return the bytes on the disk below the buildout."""
        du = ["du", "-sx", "--block-size=1", "--", str(self.buildout.path)]
        # It fails where a user's FUSE mount is, which root may not look into.
        return int(subprocess.run(du, capture_output=True, text=True).stdout.split()[-2])


def referred_to(production: Production) -> str:
    """Return the relative path of a BLOB that the database refers to, and that no mount has read to try itself."""
    *_, last = blobs.references(str(production.data_fs))
    return blobs.path_of(*last, layout="bushy")


def no_large_files() -> None:
    """Let nothing be written that is large, and have rsync fetch also what would be read through the mount."""
    through_mount.MOST = 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, MOST))


@pytest.fixture(params=STACKS, ids=str)
def rogue(
    request: pytest.FixtureRequest,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    scratch: Path,
    fuse: None,
) -> Iterator[Rogue]:
    stack: Stack = request.param
    developer = developer_of(stack, developers)
    sshd = make_sshd()
    with prepared(stack, production, developer):
        options = part_options(stack, production, sshd if stack.filesystem == "sshfs" else None)
        options["rsync-remote"] = sshd.remote(scratch / "rogue")
        made = Rogue(make_buildout(developer, options), production, scratch / "rogue")
        made.follow()
        yield made
        made.buildout.run("umount", "--lazy")


def hole(path: Path) -> None:
    os.truncate(path, SENT)


def zeros(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["Data.fs", "Data.fs.index"])
@pytest.mark.parametrize("make", [hole, zeros, fifo])
def test_a_first_fetch_of_more_than_was_shown(rogue: Rogue, make: Callable[[Path], None], name: str) -> None:
    """Data.fs is refused, and an index that didn't come is made."""
    make(rogue.path / "var" / "filestorage" / name)
    ended = rogue.run("mount")
    assert rogue.kept() < KEPT
    if name == "Data.fs" or make is hole:
        assert ended.returncode == 1
        assert "the same command again" in ended.stderr
        rogue.follow()
    assert rogue.run("mount").returncode == 0
    assert rogue.buildout.read() == rogue.production.expected()


def test_a_refresh_of_more_than_was_shown(rogue: Rogue) -> None:
    """What was here stays, and the same command goes on when the server has come to its senses."""
    assert rogue.run("mount").returncode == 0
    rogue.production.commit(1)
    rogue.follow()
    hole(rogue.path / "var" / "filestorage" / "Data.fs")
    ended = rogue.run("sync", "--yes")
    assert ended.returncode == 1
    assert "far more than" in ended.stderr
    assert rogue.kept() < KEPT
    rogue.follow()
    assert rogue.run("sync", "--yes").returncode == 0
    assert rogue.buildout.read() == rogue.production.expected()


@pytest.mark.parametrize("make", [hole, zeros, fifo])
def test_a_blob_of_more_than_was_shown(rogue: Rogue, make: Callable[[Path], None]) -> None:
    """The sizes that are asked for first are small; then all that is sent is large."""
    assert rogue.run("mount").returncode == 0
    # Some seconds behind a mount neighbours of what it has read come; here nothing but rsync is to bring BLOBs.
    assert rogue.run("umount").returncode == 0
    assert rogue.run("prefetch", "--clear").returncode == 0
    blob = rogue.path / "var" / "blobstorage" / referred_to(rogue.production)

    (rogue.path / "forged").touch()
    make(rogue.path / "forged")

    def swap_after_sizes() -> None:
        no_large_files()
        fetch = BlobSource.fetch

        def swap(self: BlobSource, *arguments: Any) -> None:
            os.replace(rogue.path / "forged", blob)
            fetch(self, *arguments)

        BlobSource.fetch = swap  # type: ignore[method-assign]

    scripts.run(rogue.buildout, "prefetch", fault=swap_after_sizes)
    assert rogue.kept() < KEPT
    cached = rogue.buildout.path / "var" / "cow-storage" / "cache" / "blobstorage"
    relative = blob.relative_to(rogue.path / "var" / "blobstorage")
    assert not (cached / relative).exists()
    rogue.follow()
    assert rogue.run("prefetch").returncode == 0
    assert (cached / relative).read_bytes() == (rogue.production.blob_storage / relative).read_bytes()


@pytest.mark.parametrize("developer", ["root", "dev", "alone"])
@pytest.mark.parametrize("make", [zeros, fifo])
def test_a_blob_without_end_that_is_read_through_the_mount(
    make: Callable[[Path], None],
    developer: str,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    """Where no rsync is: a link to a device, in a directory of this machine, leads to the device itself."""
    user = getattr(developers, developer)
    production.give_to(user.uid, user.gid)
    sudo = "no" if user is developers.alone else "auto"
    rogue = Rogue(make_buildout(user, {"remote": str(production.path), "sudo": sudo}), production, production.path)
    assert rogue.run("mount").returncode == 0
    blob = production.blob_storage / referred_to(production)
    with production._changing():
        make(blob)
    ended = rogue.run("prefetch")
    assert ended.returncode == 0, ended
    assert "Not on production: 1." in ended.stdout
    assert rogue.kept() < KEPT
    cached = rogue.buildout.path / "var" / "cow-storage" / "cache" / "blobstorage"
    assert len(list(cached.rglob("*.blob"))) == len(list(blobs.references(str(production.data_fs)))) - 1
    assert rogue.run("umount").returncode == 0
