"""Fixtures: a buildout that is mounted."""

from __future__ import annotations

from typing import Callable, Iterator

import pytest

from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production


@pytest.fixture
def buildout(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> Iterator[Buildout]:
    """Make one, mounted over a local directory by kernel overlay."""
    made = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    made.run("mount", check=True)
    yield made
    made.run("umount", "--lazy")
