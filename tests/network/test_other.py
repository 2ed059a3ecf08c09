"""Whatever mount -t takes: a FUSE helper by root, and an image of a disk."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Callable

import pytest

from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.sshd import Sshd
from network.cycle import assert_read_only, whole_cycle

pytestmark = pytest.mark.usefixtures("fuse")


def test_cycle_by_a_helper_of_mount(
    production: Production, developers: Developers, sshd: Sshd, make_buildout: Callable[..., Buildout]
) -> None:
    dev = developers.dev
    options = {
        "remote": sshd.remote(production.path),
        "filesystem": "fuse.sshfs",
        "mount-options": f"allow_other,uid={dev.uid},gid={dev.gid}",
        "union": "overlay",
    }
    whole_cycle(make_buildout(dev, options), production, "overlay")


def test_image_of_a_disk(
    scratch: Path, production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    production.give_to(developers.dev.uid, developers.dev.gid)
    image = scratch / "a backup, of 2019.img"
    subprocess.run(["mkfs.ext4", "-q", "-d", str(production.path), str(image), "64M"], check=True)
    before = image.read_bytes()
    options = {"remote": str(image), "filesystem": "ext4", "mount-options": "loop,noload", "union": "overlay"}
    buildout = make_buildout(developers.dev, options)
    buildout.run("mount", check=True)
    assert_read_only(buildout)
    assert buildout.read() == production.expected()
    buildout.commit(2, new=1)
    buildout.run("sync", "--yes", check=True)
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)
    assert image.read_bytes() == before


def test_a_type_that_nothing_here_knows_is_said(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    buildout = make_buildout(developers.dev, {"remote": "cluster:/production", "filesystem": "nosuchfs"})
    refused = buildout.run("mount")
    assert refused.returncode == 1
    assert "no program mount.nosuchfs is installed" in refused.stderr


def test_without_root_it_is_said_before_anything_is_tried(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    buildout = make_buildout(developers.alone, {"remote": "cluster:/x", "filesystem": "ext4", "sudo": "no"})
    refused = buildout.run("mount")
    assert refused.returncode == 1
    assert "only root can mount it" in refused.stderr
