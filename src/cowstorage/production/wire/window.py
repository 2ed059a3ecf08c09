"""Limit the bytes under way that sshfs has not asked for."""

from __future__ import annotations

import time

# Bytes that sshfs asks for at once.
PIECE = 32768

# Bytes that are asked for at once by whom nobody waits for: what sshfs asks for waits behind so many while it reads,
# 1.3 ms at 100 Mbit/s.
PACKET = 16384

# Bytes under way at most, however long sshfs has asked for nothing.
MOST = 64 * PACKET

# Seconds without a request of sshfs's, until which no more than one packet is under way.
QUIET_SECONDS = 0.5

# Seconds that an answer may take longer than the fastest one; behind those that take more, others wait.
QUEUE_SECONDS = 0.005


class Steady:
    """Always as much: for the rest of a file that sshfs is known to read.

    :ivar size: bytes that may be under way.
    :ivar packet: bytes that are asked for at once.
    """

    packet = PIECE

    def __init__(self, size: int):
        self.size = size

    def interrupt(self) -> None:
        """Take note of a request of sshfs's."""

    def round_trip(self, seconds: float) -> None:
        """Take note of how long an answer took that has no bytes of a file."""

    def answered(self, seconds: float) -> None:
        """Take note of how long an answer took that has."""


class Careful(Steady):
    """One packet while sshfs asks for something; while not, one more each round trip until a queue of ours arises.

    A request of sshfs's then waits for what the line carries at that moment, and for no more: as in LEDBAT, RFC 6817,
    delay tells a queue; behind one half as much is under way.  A line on which a packet alone takes so long is never
    given more than one.
    """

    packet = PACKET

    def __init__(self) -> None:
        super().__init__(PACKET)
        self._asked = time.monotonic()
        self._fastest = float("inf")
        # Bytes that have come since the window was changed.
        self._came = 0

    def interrupt(self) -> None:
        self._asked = time.monotonic()
        self.size = PACKET

    def round_trip(self, seconds: float) -> None:
        self._fastest = min(self._fastest, seconds)

    def answered(self, seconds: float) -> None:
        self.round_trip(seconds)
        self._came += PACKET
        if seconds > self._fastest + QUEUE_SECONDS:
            self.size, self._came = max(PACKET, self.size // 2), 0
        elif self._came >= self.size and time.monotonic() - self._asked > QUIET_SECONDS:
            self.size, self._came = min(MOST, self.size + PACKET), 0
