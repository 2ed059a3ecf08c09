"""Scenes for the faults: a buildout with local changes on two stacks, the quickest and the one without root."""

from __future__ import annotations

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
def scene(
    stack: Stack,
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
        made = Scene(make_buildout(developer, part_options(stack, production, sshd)), production)
        yield made
        made.run("umount", "--lazy")
