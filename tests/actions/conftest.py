"""Fixtures: a buildout that is not mounted yet."""

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
    """Make one over a local directory with kernel overlay: the quickest way to what isn't about mounts."""
    made = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    yield made
    made.run("umount", "--lazy")
