"""Count how much of what is read over sshfs comes from the BLOB cache: for the wire, and for cow-status."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Dict, Mapping, Optional

from cowstorage.system.output import human_size

# The file in the directory of the BLOB cache.
COUNTERS = "counters.json"

# Bytes; longer than any such file.
LONGEST = 1000


class Counters:
    """What was counted since one mount.

    :ivar since: Unix seconds.
    :ivar reads: how often sshfs has opened a BLOB file, and ``hits`` how often it had it from the cache.
    :ivar from_cache: bytes of BLOB files that sshfs had from the cache.
    :ivar from_production: bytes that came from production for what sshfs has opened.
    :ivar beforehand: bytes that came into the cache for what it has not opened yet, or has not read.
    """

    def __init__(self) -> None:
        self.since = int(time.time())
        self.reads = self.hits = 0
        self.from_cache = self.from_production = self.beforehand = 0

    def __str__(self) -> str:
        cached, fetched, ahead = map(human_size, (self.from_cache, self.from_production, self.beforehand))
        return f"{self.reads:,}, {self.hits:,} from the cache ({cached}); fetched {fetched}, {ahead} ahead"

    def as_data(self) -> Dict[str, int]:
        """Return them by their names."""
        return dict(vars(self))

    def save(self, directory: str) -> None:
        """Write them into the directory of the BLOB cache, whole or not at all."""
        path = os.path.join(directory, COUNTERS)
        with contextlib.suppress(OSError):
            os.makedirs(directory, 0o700, exist_ok=True)
            with open(path + ".new", "w", encoding="ascii") as file:
                json.dump(self.as_data(), file)
            os.rename(path + ".new", path)


def of_data(values: Mapping[str, int]) -> Counters:
    """Return what ``as_data`` has made plain data of.

    :raises KeyError: for one that is missing.
    :raises ValueError: for one that is no number; or TypeError, OverflowError.
    """
    counters = Counters()
    for name in vars(counters):
        setattr(counters, name, int(values[name]))
    return counters


def saved(directory: str) -> Optional[Counters]:
    """Return what the last wire has counted; ``None`` where none has, or the file is damaged."""
    try:
        with open(os.path.join(directory, COUNTERS), encoding="ascii") as file:
            return of_data(json.loads(file.read(LONGEST)))
    except (OSError, ValueError, TypeError, KeyError, OverflowError):
        return None
