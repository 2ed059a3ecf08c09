"""Scenes for the faults: a buildout with local changes on two stacks, the quickest and the one without root."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Callable, Iterator

import pytest

from faults.scene import ConvertedScene, Scene
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from harness.sshd import Sshd
from stacks import Stack, built

LOCAL = Stack("directory", "overlay", "root")
REMOTE = Stack("sshfs", DEVELOPERS_UNION, "alone")


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
    with built(stack, production, developers, make_sshd, make_buildout, f"{in_memory}/buildout") as buildout:
        made = Scene(buildout, production)
        yield made
        made.run("umount", "--lazy")


@pytest.fixture
def converted_scene(
    in_memory: str,
    scratch: Path,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
) -> Iterator[ConvertedScene]:
    """The same over a production of Python 2, converted here."""
    production = Production.create(scratch / "of-python-2", python=2)
    with built(LOCAL, production, developers, make_sshd, make_buildout, f"{in_memory}/buildout") as buildout:
        made = ConvertedScene(buildout, production)
        yield made
        made.run("umount", "--lazy")
    production.assert_unchanged()
