"""Scenes for the faults: a buildout with local changes on two stacks, the quickest and the one without root."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Callable, Iterator

import pytest

from faults.scene import Scene
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.sshd import Sshd
from stacks import Stack, developer_of, part_options, prepared

LOCAL = Stack("directory", "overlay", "root")
REMOTE = Stack("sshfs", "unionfs-fuse", "alone")


@pytest.fixture
def stack() -> Stack:
    """Overridden by parameters."""
    return LOCAL


@pytest.fixture
def in_memory(scratch: Path) -> Iterator[str]:
    """A directory where fsync costs nothing, by its name in ``scratch``: what is killed loses no pages."""
    path = scratch / "memory"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tests", str(path)], check=True)
    yield path.name
    subprocess.run(["umount", "--", str(path)], check=True)


@pytest.fixture
def scene(
    stack: Stack,
    in_memory: str,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> Iterator[Scene]:
    """Unmounted, with local changes, production ahead."""
    developer = developer_of(stack, developers)
    sshd = make_sshd() if stack.filesystem == "sshfs" else None
    with prepared(stack, production, developer):
        options = part_options(stack, production, sshd)
        made = Scene(make_buildout(developer, options, f"{in_memory}/buildout"), production)
        yield made
        made.run("umount", "--lazy")
