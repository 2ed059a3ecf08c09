"""Read the rest of BLOB files that sshfs has read in part, and files that it has not asked for, while it wants nothing.

sshfs reads a part where the kernel has the other in memory, or where that part is all that somebody wanted.
"""

from __future__ import annotations

import time
from typing import Callable, List, Optional, Tuple

from cowstorage.part.counters import Counters
from cowstorage.production.wire import packets
from cowstorage.production.wire.packets import Attributes
from cowstorage.production.wire.partial import Coverage, Partial
from cowstorage.production.wire.store import Store
from cowstorage.production.wire.window import PIECE, Steady

# Bytes of rests that are under way at a time: a request of sshfs's waits behind them for 10 ms at 100 Mbit/s.
WINDOW = 4 * PIECE

# Files at a time, each with a handle of the server's.
MOST_FILES = 16

# Bytes of a rest that is read in any case; a larger one is only when sshfs has read as much.
SMALL_REST = 8_000_000

# Takes type and packet of an answer; see ``session.Takes``.
Asks = Callable[[Callable[[int, memoryview], bool]], int]


class _Rest:
    """One file whose rest is read.

    :ivar asked: what has come or is under way.
    """

    def __init__(self, handle: bytes, partial: Partial, under_way: Coverage):
        self.handle = handle
        self.partial = partial
        self.asked = under_way
        self.asked.add_all(partial.coverage)


class Completion:
    """The files whose rest is read.

    :param ask: makes the id of a request of ours, from what takes the answer.
    :param send: sends a request to the server.
    :param is_busy: tells whether somebody waits for the server who goes first.
    :param window: how much may be under way.
    :param has_failed: called when the server has answered with less than was asked for.
    """

    def __init__(
        self,
        store: Store,
        ask: Asks,
        send: Callable[[bytes], None],
        is_busy: Callable[[], bool],
        window: Steady,
        counters: Counters,
        has_failed: Callable[[], None] = lambda: None,
    ):
        self._store = store
        self._counters = counters
        self._ask = ask
        self._send = send
        self._is_busy = is_busy
        self._window = window
        self._has_failed = has_failed
        self._rests: List[_Rest] = []
        self._under_way = 0

    def __len__(self) -> int:
        """How many files there are."""
        return len(self._rests)

    @property
    def is_busy(self) -> bool:
        """Whether something is under way."""
        return self._under_way > 0

    def take(self, handle: bytes, partial: Partial, under_way: Coverage) -> bool:
        """Read the rest of a file, unless it is large or there are enough; close the handle when it has come.

        :param handle: the server's, which nobody else uses any more.
        :param under_way: what was asked for already, and will come.
        :returns: whether that will be done.
        """
        come = partial.coverage.length
        if self.goes_on(partial) or len(self) >= MOST_FILES or partial.size - come > max(SMALL_REST, come):
            return False
        self.add(handle, partial, under_way)
        return True

    def add(self, handle: bytes, partial: Partial, under_way: Coverage) -> None:
        """Read the rest of a file, however large; as ``take``."""
        self._rests.append(_Rest(handle, partial, under_way))

    def goes_on(self, partial: Partial) -> bool:
        """Tell whether the rest of a file is being read."""
        return any(rest.partial is partial for rest in self._rests)

    def uses(self, handle: bytes) -> Optional[str]:
        """Return the relative path of the file that is read by a handle; ``None`` for a handle that is another's."""
        return next((rest.partial.relative for rest in self._rests if rest.handle == handle), None)

    def give_up(self, relative: str) -> Optional[Tuple[bytes, Attributes]]:
        """Leave a file to others: return its handle, and what production told of it; ``None``: it is not one of ours.

        What is under way is kept when it comes.
        """
        for rest in self._rests:
            if rest.partial.relative == relative:
                self._rests.remove(rest)
                return rest.handle, Attributes(rest.partial.size, rest.partial.modified, regular=True)
        return None

    def go_on(self) -> None:
        """Ask for more, when nobody waits who goes first."""
        for rest in list(self._rests):
            while not self._is_busy() and self._under_way < self._window.size and not rest.partial.failed:
                begin, end = rest.asked.first_gap(rest.partial.size)
                if begin == end:
                    break
                self._read(rest, begin, min(end, begin + self._window.packet))
            self._finish(rest)

    def _read(self, rest: _Rest, begin: int, end: int) -> None:
        asked = time.monotonic()

        def takes(kind: int, packet: memoryview) -> bool:
            self._under_way -= end - begin
            self._window.answered(time.monotonic() - asked)
            self._take(rest, begin, end, packets.data_if_any(kind, packet))
            self._finish(rest)
            return True

        rest.asked.add(begin, end)
        self._under_way += end - begin
        self._send(packets.read(self._ask(takes), rest.handle, begin, end - begin))

    def _take(self, rest: _Rest, begin: int, end: int, content: memoryview) -> None:
        self._counters.beforehand += len(content)
        is_ours, partial, come = rest in self._rests, rest.partial, begin + len(content)
        if content and come <= end and not partial.failed:
            partial.add(begin, content)
            if is_ours:
                partial.failed |= not partial.coverage.has(begin, come)
                if come < end:
                    self._read(rest, come, end)
        elif is_ours and not partial.failed:
            partial.failed = True
            self._has_failed()

    def _finish(self, rest: _Rest) -> None:
        """Close a file that is complete, or will never be."""
        partial = rest.partial
        if rest not in self._rests or not (partial.failed or partial.is_complete):
            return
        self._rests.remove(rest)
        self._send(packets.closing(self._ask(lambda kind, packet: True), rest.handle))
        if self._store.partials.get(partial.relative) is partial:
            (self._store.drop if partial.failed else self._store.keep)(partial)
