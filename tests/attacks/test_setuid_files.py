"""A setuid file or a device that production has is none through a union, whoever mounts it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Callable

import pytest

from cowstorage.errors import CowStorageError
from cowstorage.system import mounts
from cowstorage.union import kinds
from cowstorage.union.base import Layer
from cowstorage.union.trial import Use, prove
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from stacks import Stack, built

UNIONS = ["overlay", "fuse-overlayfs", "unionfs-fuse"]
STACKS = [Stack("directory", union, "root") for union in UNIONS]
STACKS += [Stack("directory", union, "alone") for union in UNIONS if union != "overlay"]


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_productions_setuid_files_and_devices_are_none(
    stack: Stack,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    with built(stack, production, developers, lambda: None, make_buildout) as buildout:
        program = production.blob_storage / "id"
        shutil.copy("/usr/bin/id", program)
        os.chown(program, 0, 0)
        program.chmod(0o4755)
        production.blob_storage.chmod(0o755)
        production.remember()
        buildout.run("mount", check=True)
        mount = mounts.top(mounts.read(), str(buildout.blob_storage))
        # What is said through the union, by somebody who is not root.
        os.chmod(buildout.blob_storage, 0o755) if stack.developer == "root" else None
        said = developers.alone.run([buildout.blob_storage / "id", "-u"])
        buildout.run("umount", check=True)
    assert said.stdout.strip() != "0"
    assert mount is not None
    assert {"nosuid", "nodev"} <= set(mount.options)


def test_a_union_without_them_does_not_pass_its_trial(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Layer("blobstorage", str(scratch), "", "", "", ())
    shown = mounts.Mount(1, 0, "0:1", "/", str(scratch), ("rw", "nodev"), "overlay", "cowstorage", ("rw",))
    monkeypatch.setattr(mounts, "read", lambda: (shown,))
    with pytest.raises(CowStorageError, match="without nosuid"):
        prove(kinds.UNIONS["overlay"], layer, Use(), (0, 0))
