"""Ask for the BLOB files that are read next while sshfs reads one."""

from __future__ import annotations

from collections import deque
from typing import Callable, Deque, List, NamedTuple

from cowstorage.production.wire.sequence import Sequence
from cowstorage.production.wire.threads import Readers

# Files that were read and not looked at yet; those that were read first are forgotten first.
MOST_WAITING = 64


class Opened(NamedTuple):
    """A BLOB file that sshfs opens; the parameters of ``Sequence.next``."""

    relative: str
    has_come: bool
    is_crowded: bool


class Following:
    """The files that are asked for since they follow in the order in which files are read.

    :param readers: the threads that look which these are.
    :param begin: asks for a file ahead.
    """

    def __init__(self, sequence: Sequence, readers: Readers, begin: Callable[[str], None]):
        self._sequence = sequence
        self._readers = readers
        self._begin = begin
        self._opened: Deque[Opened] = deque(maxlen=MOST_WAITING)
        self._is_looking = False

    def has_opened(self, opened: Opened) -> None:
        """Take note of a BLOB file that sshfs opens."""
        self._opened.append(opened)
        self._look()

    def _look(self) -> None:
        if self._opened and not self._is_looking:
            self._is_looking = True
            self._readers.ask_apart(self._find, self._take)

    def _find(self) -> List[str]:
        found: List[str] = []
        while self._opened:
            found = self._sequence.next(*self._opened.popleft())
        return found

    def _take(self, found: List[str]) -> None:
        self._is_looking = False
        for relative in found:
            self._begin(relative)
        self._look()
