"""Tell how far the moving of bytes is, how fast, and how long it will take, as one line."""

from __future__ import annotations

import time
from typing import Callable

from cowstorage.system.output import human_size, human_span


class Pace:
    """One moving of bytes, which begins when its pace is made.

    :param what: what is moved; begins the line.
    :param total: bytes to move; 0 where that isn't known.
    :param clock: tells seconds.
    """

    def __init__(self, what: str, total: int, clock: Callable[[], float] = time.monotonic):
        self.what = what
        self.total = total
        self.clock = clock
        self.begun = clock()

    @property
    def seconds(self) -> float:
        """The time since the pace was made."""
        return self.clock() - self.begun

    def line(self, done: int, what: str = "") -> str:
        """Return the line for a number of bytes moved: ``Data.fs: 16.2 MB of 72.4 MB, 22%, 14.6 MB/s, 4 seconds left``.

        :param what: instead of the pace's own.
        """
        rate = done / (self.seconds or 1)
        parts = [f"{what or self.what}: {human_size(done)}"]
        if self.total:
            parts[0] += f" of {human_size(self.total)}"
            parts.append(f"{min(done / self.total, 1):.0%}")
        parts.append(f"{human_size(rate)}/s")
        if self.total and rate:
            parts.append(f"{human_span(max(self.total - done, 0) / rate)} left")
        return ", ".join(parts)
