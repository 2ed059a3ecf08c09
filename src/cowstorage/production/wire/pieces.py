"""Pieces of a file that come before sshfs asks for them, or after, and the READs that wait for them.

Nothing is copied here: an answer is made of its header and the pieces as they came.
"""

from __future__ import annotations

from typing import Callable, Dict, List, NamedTuple, Optional

from cowstorage.production.wire import packets
from cowstorage.production.wire.window import PIECE


class Read(NamedTuple):
    """A READ of sshfs's."""

    number: int
    offset: int
    length: int


class _Waiting:
    """A READ that waits for some of its pieces.

    :ivar parts: its pieces in order, ``None`` for those that have not come.
    """

    __slots__ = ("first", "missing", "parts", "read")

    def __init__(self, read: Read, first: int, parts: List[Optional[bytes]]):
        self.read = read
        self.first = first
        self.parts = parts
        self.missing = parts.count(None)


class Pieces:
    """The pieces of one file that are asked for, each until it was read to its end.

    :param answer: sends bytes to sshfs.
    :ivar size: bytes of each but the last one.
    """

    def __init__(self, answer: Callable[[packets.Buffer], None]):
        self._answer = answer
        self.size = PIECE
        self._come: Dict[int, Optional[bytes]] = {}
        self._waiting: Dict[int, List[_Waiting]] = {}

    @property
    def memory(self) -> int:
        """Bytes of all, those under way included."""
        return len(self._come) * self.size

    def ask(self, number: int) -> None:
        """Expect a piece."""
        self._come[number] = None

    def is_asked(self, number: int) -> bool:
        """Tell whether a piece has come or is expected."""
        return number in self._come

    def read(self, read: Read, size: int) -> bool:
        """Answer a READ, at once or when all of its pieces have come; false where some are not asked for.

        :param size: of the file; the READ begins before.
        """
        come = self._come
        first, last = read.offset // self.size, (min(size, read.offset + read.length) - 1) // self.size
        numbers = range(first, last + 1)
        if any(number not in come for number in numbers):
            return False
        waiting = _Waiting(read, first, [come[number] for number in numbers])
        if waiting.missing:
            for number in numbers:
                if come[number] is None:
                    self._waiting.setdefault(number, []).append(waiting)
        else:
            self._finish(waiting, size)
        return True

    def put(self, number: int, content: bytes, size: int) -> None:
        """Take a piece that is asked for, and answer what waits for nothing else."""
        self._come[number] = content
        for waiting in self._waiting.pop(number, ()):
            waiting.parts[number - waiting.first] = content
            waiting.missing -= 1
            if not waiting.missing:
                self._finish(waiting, size)

    def give_up(self) -> List[Read]:
        """Let go of all, and return the READs that wait, in the order in which they came."""
        reads = {waiting.read for some in self._waiting.values() for waiting in some}
        self._come.clear()
        self._waiting.clear()
        return sorted(reads, key=lambda read: read.number)

    def _finish(self, waiting: _Waiting, size: int) -> None:
        """Answer, and let go of the pieces that were read to their ends."""
        read = waiting.read
        end = min(size, read.offset + read.length)
        left, skipped = end - read.offset, read.offset - waiting.first * self.size
        self._answer(packets.data_header(read.number, left))
        for number, part in enumerate(waiting.parts, waiting.first):
            content: packets.Buffer = part or b""
            if skipped or len(content) > left:
                content = memoryview(content)[skipped : skipped + left]
            self._answer(content)
            left, skipped = left - len(content), 0
            if end >= min(size, (number + 1) * self.size):
                self._come.pop(number, None)
