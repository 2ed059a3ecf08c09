"""The machine's own loopback as a line: long, or cut; nothing but its tests uses it."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import Iterator

DEVICE = "lo"
# Packets on the way; the default of a thousand would be a narrow line, too.
PACKETS = "20000"


class Line:
    """By the kernel's network emulator, tc-netem(8)."""

    @contextmanager
    def delay(self, round_trip: float) -> Iterator[None]:
        """Every packet is late by half the round trip, in seconds."""
        with self._emulated("delay", f"{round_trip * 500:g}ms"):
            yield

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Nothing arrives, and nobody is told."""
        with self._emulated("loss", "100%"):
            yield

    @contextmanager
    def _emulated(self, *what: str) -> Iterator[None]:
        discipline = ["dev", DEVICE, "root"]
        subprocess.run(["tc", "qdisc", "add", *discipline, "netem", "limit", PACKETS, *what], check=True)
        try:
            yield
        finally:
            subprocess.run(["tc", "qdisc", "del", *discipline], check=True)
