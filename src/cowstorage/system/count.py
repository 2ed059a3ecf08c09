"""Count for display: a few in any case, and then for as long as there is time."""

import time

# Of two nobody says "more than 1" since a disk was busy.
FEW = 100


class Count:
    """A count that may be given up, since people wait for it.

    :param seconds: after which it is, if there are more than a few.
    :ivar number: how many were counted.
    """

    def __init__(self, seconds: float):
        self.number = 0
        self._deadline = time.monotonic() + seconds

    def add(self) -> bool:
        """Count one more, and return whether to go on."""
        self.number += 1
        return self.number <= FEW or time.monotonic() <= self._deadline
