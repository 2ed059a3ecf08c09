"""Limit what a program may take: time, sizes of files, memory."""

from typing import NamedTuple, Optional

# The time limit of a program of which nothing else is known.
QUIET_SECONDS = 60.0


class Limits(NamedTuple):
    """What a program and all that it starts may take, getrlimit(2); ``None``: as much as we.

    :param largest: bytes of a file that is written.
    :param memory: bytes of addresses of one process.
    """

    largest: Optional[int] = None
    memory: Optional[int] = None


NO_LIMITS = Limits()
