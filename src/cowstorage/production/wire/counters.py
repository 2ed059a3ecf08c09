"""How much of what is read over sshfs comes from the cache, and how much from production."""

from __future__ import annotations


class Counters:
    """What one wire has counted since it began.

    :ivar reads: how often sshfs has opened a BLOB file, and ``hits`` how often it had it from the cache.
    :ivar from_cache: bytes of BLOB files that sshfs had from the cache.
    :ivar from_production: bytes of them that came from production because sshfs wanted them, or will.
    :ivar filled: bytes that came before anybody wanted them.
    """

    def __init__(self) -> None:
        self.reads = self.hits = 0
        self.from_cache = self.from_production = self.filled = 0
