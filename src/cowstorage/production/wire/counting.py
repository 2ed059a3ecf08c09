"""Write down now and then what was counted, for cow-status."""

from __future__ import annotations

import time
from typing import Dict, Optional

from cowstorage.part.counters import Counters
from cowstorage.production.wire.threads import Worker

# Seconds between two writings.
SAVE_SECONDS = 2.0


class Counting:
    """The counters of one session, and their file.

    :param directory: ``cache`` in the part's ``location``.
    :param writer: the thread that writes.
    """

    def __init__(self, directory: str, writer: Worker):
        self.counters = Counters()
        self._directory = directory
        self._writer = writer
        self._saved: Dict[str, int] = {}
        self._saved_at = 0.0

    def expire(self) -> Optional[float]:
        """Write where it is time to; return in how many seconds it is again, ``None`` where nothing has changed."""
        if self.counters.as_data() == self._saved:
            return None
        left = self._saved_at + SAVE_SECONDS - time.monotonic()
        if left > 0:
            return left
        self.save()
        return None

    def save(self) -> None:
        """Write."""
        self._saved, self._saved_at = self.counters.as_data(), time.monotonic()
        self._writer.give(lambda: self.counters.save(self._directory))
