"""Whatever mount -t takes: a FUSE helper by root, and an image of a disk."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path
from typing import Callable, Iterator

import pytest

from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.sshd import Sshd
from network.cycle import assert_read_only, whole_cycle

pytestmark = pytest.mark.usefixtures("fuse")


# mount(8) calls it with the source, the directory and -o with the options.
HELPER = '#!/bin/sh\nexec sshfs -o "$4" -- "$1" "$2"\n'


@pytest.fixture
def kind() -> Iterator[str]:
    """A type that has a helper of its own, as davfs has."""
    name = f"cowtest{secrets.token_hex(4)}"
    helper = Path("/sbin") / f"mount.{name}"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    yield name
    helper.unlink()


def test_the_whole_cycle_by_a_helper_of_mount(
    kind: str, production: Production, developers: Developers, sshd: Sshd, make_buildout: Callable[..., Buildout]
) -> None:
    dev = developers.dev
    options = {
        "remote": sshd.remote(production.path),
        "filesystem": kind,
        "mount-options": f"allow_other,default_permissions,uid={dev.uid},gid={dev.gid}",
        "union": "overlay",
    }
    whole_cycle(make_buildout(dev, options), production, "overlay")


def test_an_image_of_a_disk_is_mounted_and_never_written(
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


def test_missing_root_is_said_before_anything_is_tried(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    buildout = make_buildout(developers.alone, {"remote": "cluster:/x", "filesystem": "ext4", "sudo": "no"})
    refused = buildout.run("mount")
    assert refused.returncode == 1
    assert "only root can mount it" in refused.stderr
