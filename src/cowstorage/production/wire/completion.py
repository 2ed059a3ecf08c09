"""Read the rest of BLOB files that sshfs has read in part, while sshfs wants nothing.

sshfs reads a part where the kernel has the other in memory, or where that part is all that somebody wanted.
"""

from __future__ import annotations

from typing import Callable, List

from cowstorage.production.wire import packets
from cowstorage.production.wire.partial import Coverage, Partial
from cowstorage.production.wire.store import Store

# Bytes that are asked for at once, as sshfs does.
PIECE = 32768

# Bytes that are under way at a time: a request of sshfs's waits behind them for 10 ms at 100 Mbit/s.
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
    :param is_busy: tells whether sshfs waits for the server.
    """

    def __init__(self, store: Store, ask: Asks, send: Callable[[bytes], None], is_busy: Callable[[], bool]):
        self._store = store
        self._ask = ask
        self._send = send
        self._is_busy = is_busy
        self._rests: List[_Rest] = []
        self._under_way = 0

    def take(self, handle: bytes, partial: Partial, under_way: Coverage) -> bool:
        """Read the rest of a file, unless it is large or there are enough; close the handle when it has come.

        :param handle: the server's, which nobody else uses any more.
        :param under_way: what was asked for already, and will come.
        :returns: whether that will be done.
        """
        come = partial.coverage.length
        known = any(rest.partial is partial for rest in self._rests)
        if known or len(self._rests) >= MOST_FILES or partial.size - come > max(SMALL_REST, come):
            return False
        self._rests.append(_Rest(handle, partial, under_way))
        return True

    def goes_on(self, partial: Partial) -> bool:
        """Tell whether the rest of a file is being read."""
        return any(rest.partial is partial for rest in self._rests)

    def go_on(self) -> None:
        """Ask for more, when sshfs waits for nothing."""
        for rest in list(self._rests):
            while not self._is_busy() and self._under_way < WINDOW and not rest.partial.failed:
                begin, end = rest.asked.first_gap(rest.partial.size)
                if begin == end:
                    break
                self._read(rest, begin, min(end, begin + PIECE))
            self._finish(rest)

    def _read(self, rest: _Rest, begin: int, end: int) -> None:
        def takes(kind: int, packet: memoryview) -> bool:
            self._under_way -= end - begin
            content = packets.data_if_any(kind, packet)
            if content and len(content) <= end - begin and not rest.partial.failed:
                rest.partial.add(begin, content)
                rest.partial.failed |= not rest.partial.coverage.has(begin, begin + len(content))
                if len(content) < end - begin:
                    self._read(rest, begin + len(content), end)
            else:
                rest.partial.failed = True
            self._finish(rest)
            return True

        rest.asked.add(begin, end)
        self._under_way += end - begin
        self._send(packets.read(self._ask(takes), rest.handle, begin, end - begin))

    def _finish(self, rest: _Rest) -> None:
        """Close a file that is complete, or will never be."""
        partial = rest.partial
        if rest not in self._rests or not (partial.failed or partial.is_complete):
            return
        self._rests.remove(rest)
        self._send(packets.closing(self._ask(lambda kind, packet: True), rest.handle))
        if self._store.partials.get(partial.relative) is partial:
            (self._store.drop if partial.failed else self._store.keep)(partial)
