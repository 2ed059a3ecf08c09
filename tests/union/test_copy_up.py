"""A program changes the mode of production's BLOBs, and the disk is full before they are copied up."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Callable, Iterator

import pytest

from harness.buildout import Buildout
from harness.developer import Developers
from harness.polling import until
from harness.production import Production
from harness.sshd import Sshd
from stacks import Stack, built

MEGABYTE = 1 << 20
STACKS = [
    Stack("sshfs", "unionfs-fuse", "alone"),
    Stack("directory", "unionfs-fuse", "alone"),
    Stack("directory", "fuse-overlayfs", "alone"),
    Stack("directory", "overlay", "root"),
]


@pytest.fixture
def small_disk(scratch: Path) -> Iterator[Path]:
    path = scratch / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755,size=8m", "tests", str(path)], check=True)
    yield path
    # The daemon of a union lets go of it a moment after its unmounting.
    until(lambda: subprocess.run(["umount", "--", str(path)]).returncode == 0, f"{path} is unmounted")


@pytest.fixture(params=STACKS, ids=str)
def stack(request: pytest.FixtureRequest) -> Stack:
    return request.param


@pytest.fixture
def buildout(
    stack: Stack,
    small_disk: Path,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> Iterator[Buildout]:
    with built(stack, production, developers, make_sshd, make_buildout, f"{small_disk.name}/buildout") as made:
        yield made
        (small_disk / "filling").unlink(missing_ok=True)
        made.run("umount", "--lazy")


def fill(disk: Path, free: int) -> Path:
    """Leave so many bytes."""
    status = os.statvfs(disk)
    filling = disk / "filling"
    with filling.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - free)
    return filling


def biggest_blob(production: Production) -> Path:
    """Relative to the BLOB directory."""
    path = max(production.blob_storage.rglob("*.blob"), key=lambda blob: blob.stat().st_size)
    return path.relative_to(production.blob_storage)


def test_a_copy_that_is_cut_short_is_told_and_removed(
    stack: Stack, buildout: Buildout, small_disk: Path, production: Production
) -> None:
    warned = buildout.run("mount", check=True).stderr
    assert "left for all that is written" in warned
    local = {**buildout.read(), **buildout.commit(1, new=1, sizes=[1000])}
    blob = biggest_blob(production)
    filling = fill(small_disk, free=MEGABYTE // 4)
    assert buildout.developer.run(["chmod", "0600", buildout.blob_storage / blob]).returncode == 1

    left = buildout.path / "var" / "blobstorage.prod" / blob
    if stack.union == "unionfs-fuse":
        assert left.stat().st_size < (production.blob_storage / blob).stat().st_size
        assert buildout.run("status", "-q").returncode == 4
        status = json.loads(buildout.run("status", "--json").stdout)
        (said,) = [one["problem"] for one in status["mounts"] if one["problem"]]
        assert str(blob) in said
        assert "cut short" in said
        filling.unlink()
        assert f"{blob}, a copy that was cut short was removed" in buildout.run("mount", check=True).stderr
    assert not left.exists()
    assert buildout.run("status", "-q").returncode == 0
    assert buildout.read() == local
    buildout.run("umount", check=True)


@pytest.mark.parametrize("stack", STACKS[1:2], ids=str, indirect=True)
def test_what_was_left_by_an_earlier_mount_is_removed_before_it_is_shown(
    buildout: Buildout, production: Production
) -> None:
    """Whole copies stay, and so do local BLOBs."""
    buildout.run("mount", check=True)
    local = {**buildout.read(), **buildout.commit(1, new=1, sizes=[1000])}
    buildout.developer.run(["chmod", "-R", "u+rwX", buildout.blob_storage], check=True)
    buildout.run("umount", check=True)
    upper = buildout.path / "var" / "blobstorage.prod"
    copies = [path.relative_to(upper) for path in upper.rglob("*.blob")]
    for blob in copies[::3]:
        if (production.blob_storage / blob).exists():
            os.truncate(upper / blob, 100)
    said = buildout.run("mount", check=True).stderr
    assert "a copy that was cut short, as " in said
    assert buildout.read() == local
    assert set(copies[1::3]) < {path.relative_to(upper) for path in upper.rglob("*.blob")}
    buildout.run("umount", check=True)
