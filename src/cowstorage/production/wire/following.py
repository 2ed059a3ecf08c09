"""Ask for the BLOB files that are read next while sshfs reads one."""

from __future__ import annotations

import time
from collections import deque
from typing import Callable, Deque, List, NamedTuple, Optional

from cowstorage.production.wire.sequence import Sequence
from cowstorage.production.wire.threads import Readers

# Files that were read and not looked at yet; those that were read first are forgotten first.
MOST_WAITING = 64

# So often in a row nothing is to be asked for; then it is looked no more, which takes half a millisecond each time,
# until a file is read that is not in the cache.
MOST_IN_VAIN = 16

# Files that may turn out to be the first ones of an order, and the seconds without a read after which they don't.
FIRST_ONES = 2
ALONE_SECONDS = 5.0


class Opened(NamedTuple):
    """A BLOB file that sshfs opens.

    :param is_hit: whether it was in the cache.
    :param has_come: whether all of it was here, be it that it was asked for ahead.
    :param is_crowded: whether answers of production's wait for each other.
    """

    relative: str
    is_hit: bool
    has_come: bool
    is_crowded: bool


class Found(NamedTuple):
    """What was found out of files that sshfs has opened.

    :param following: the files that are read next.
    :param alone: those that were read in no order.
    :param is_ordered: whether there is an order now.
    """

    following: List[str]
    alone: List[Opened]
    is_ordered: bool


class Following:
    """The files that are asked for since they follow in the order in which files are read.

    :param readers: the threads that look which these are.
    :param begin: asks for a file ahead.
    :param has_read: takes note of a file that was read in no order, and of whether it was in the cache.
    """

    def __init__(
        self,
        sequence: Sequence,
        readers: Readers,
        begin: Callable[[str], None],
        has_read: Callable[[str, bool], None],
    ):
        self._sequence = sequence
        self._readers = readers
        self._begin = begin
        self._has_read = has_read
        self._opened: Deque[Opened] = deque(maxlen=MOST_WAITING)
        self._is_looking = False
        self._in_vain = 0
        self._alone: Deque[Opened] = deque()
        self._opened_at = 0.0

    def has_opened(self, opened: Opened) -> None:
        """Take note of a BLOB file that sshfs opens."""
        self._opened_at = time.monotonic()
        if not opened.is_hit:
            self._in_vain = 0
        if self._in_vain < MOST_IN_VAIN:
            self._opened.append(opened)
            self._look()

    def _look(self) -> None:
        if self._opened and not self._is_looking:
            self._is_looking = True
            self._readers.ask_apart(self._find, self._take)

    def _find(self) -> Found:
        following: List[str] = []
        alone: List[Opened] = []
        while self._opened:
            opened = self._opened.popleft()
            following = self._sequence.next(opened.relative, opened.has_come, opened.is_crowded)
            alone += [] if self._sequence.is_found else [opened]
        return Found(following, alone, self._sequence.is_found)

    def _take(self, found: Found) -> None:
        self._is_looking = False
        self._in_vain = 0 if found.following else self._in_vain + 1
        for relative in found.following:
            self._begin(relative)
        self._alone.extend(found.alone)
        if found.is_ordered:
            self._alone.clear()
        self._hand_on(FIRST_ONES)
        self._look()

    def _hand_on(self, left: int) -> None:
        """Hand on which files were read in no order, but for the last ones."""
        while len(self._alone) > left:
            opened = self._alone.popleft()
            self._has_read(opened.relative, opened.is_hit)

    def expire(self) -> Optional[float]:
        """Hand on the last ones where nothing is read any more, and return in how many seconds that may be due."""
        due = self._opened_at + ALONE_SECONDS - time.monotonic()
        if self._alone and due <= 0:
            self._hand_on(0)
        return due if self._alone else None
