"""Fixtures: programs between sshfs and ssh."""

from __future__ import annotations

from typing import Iterator, List

import pytest

from production.wire.program import Wire


@pytest.fixture
def wires() -> Iterator[List[Wire]]:
    """Those that are ended after the test."""
    made: List[Wire] = []
    yield made
    for wire in made:
        wire.socket.close()
        wire.process.wait(30)
