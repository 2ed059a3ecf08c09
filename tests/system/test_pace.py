"""One line tells how far a fetch is, how fast, and how long it will take."""

from __future__ import annotations

import pytest

from cowstorage.system.pace import Pace


class Clock:
    """A clock that is set by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    "total, seconds, done, line",
    [
        (72_400_000, 4.0, 16_200_000, "Data.fs: 16.2 MB of 72.4 MB, 22%, 4.0 MB/s, 13 seconds left"),
        (1_200_000, 2.0, 1_200_000, "Data.fs: 1.2 MB of 1.2 MB, 100%, 600.0 kB/s, 0 seconds left"),
        (1_000, 1.0, 1_500, "Data.fs: 1.5 kB of 1.0 kB, 100%, 1.5 kB/s, 0 seconds left"),
        (1_000, 1.0, 0, "Data.fs: 0 bytes of 1.0 kB, 0%, 0 bytes/s"),
        (0, 2.0, 5_000, "Data.fs: 5.0 kB, 2.5 kB/s"),
        (10, 0.0, 10, "Data.fs: 10 bytes of 10 bytes, 100%, 10 bytes/s, 0 seconds left"),
    ],
)
def test_line(total: int, seconds: float, done: int, line: str) -> None:
    clock = Clock()
    pace = Pace("Data.fs", total, clock)
    clock.now += seconds
    assert pace.line(done) == line
    assert pace.line(done, "2 of 3 BLOBs") == line.replace("Data.fs", "2 of 3 BLOBs")
