"""Ask production for BLOB files before sshfs does, one step ahead of it, so that it waits for fewer round trips.

sshfs asks for a file's size, opens it, and reads it, and waits each time.  Here it is opened with the first question,
and read as soon as its handle and size are there; a large one within a window that moves with its reader.
"""

from __future__ import annotations

import time
from typing import Callable, Dict, Optional

from cowstorage.production.wire import packets
from cowstorage.production.wire.fetch import (
    ALONE_WINDOW,
    FIRST_WINDOW,
    FOLLOWING_WINDOW,
    LARGE_PIECE,
    LAST_WINDOW,
    Around,
    Fetch,
)
from cowstorage.production.wire.packets import Attributes, Buffer
from cowstorage.production.wire.partial import Coverage
from cowstorage.production.wire.pieces import Read
from cowstorage.production.wire.window import PIECE

# Answers that take so much longer than twice the fastest wait behind others.
QUEUE_SECONDS = 0.005

# Bytes that are asked for together, of a window that has room: each READ that is sent alone wakes ssh and the server.
TOGETHER = 8 * PIECE

# Bytes that are kept in memory for all readers.
MEMORY = 256 * PIECE

# Files at a time that nobody has opened yet, and how long they wait for it in seconds.
MOST_UNCLAIMED = 16
UNCLAIMED_SECONDS = 3.0

# After so many in a row that nobody has opened somebody lists files, and does not read them.
MOST_MISSES = 16


class Ahead:
    """All that is asked for ahead, by the files' relative paths.

    :param path: makes the path in requests from a relative one.
    :ivar is_crowded: whether the last answer has waited behind others.
    """

    def __init__(self, path: Callable[[str], bytes], session: Around):
        self._path = path
        self._session = session
        self._files: Dict[str, Fetch] = {}
        self._misses = 0
        self._round_trip = 60.0
        # Bytes under way of one file for which no answer has waited.
        self._carried = FIRST_WINDOW
        self.is_crowded = False
        self._largest = LARGE_PIECE

    @property
    def memory(self) -> int:
        """Bytes of pieces that have come or are under way."""
        return sum(fetch.pieces.memory for fetch in self._files.values())

    @property
    def is_busy(self) -> bool:
        """Whether something is under way, which sshfs may wait for."""
        return any(fetch.under_way or fetch.handle is None for fetch in self._files.values())

    # What sshfs does

    def stat(self, relative: str, number: int) -> bool:
        """Answer a question for a file's size, at once or when ours is answered; tell whether that will be.

        :param number: the request's id.
        """
        fetch = self._files.get(relative) or self.begin(relative)
        if fetch and fetch.attributes:
            self._session.answer(packets.renumbered(fetch.attributes, number))
        elif fetch and fetch.is_asked and not fetch.is_told:
            fetch.stats.append(number)
        else:
            return False
        return True

    def begin(self, relative: str, follows: bool = False) -> Optional[Fetch]:
        """Ask for the size of a file, and open it; ``None`` where too much is asked for already.

        :param follows: whether files before it in an order were read.
        """
        if relative in self._files or self._misses >= MOST_MISSES or not self._has_room():
            return None
        fetch = self._files[relative] = Fetch(relative, self._session.answer)
        fetch.is_asked = True
        fetch.follows = follows
        fetch.first = fetch.window = min(self._carried, FOLLOWING_WINDOW if follows else ALONE_WINDOW)
        path = self._path(relative)
        number = self._session.ask(lambda kind, packet: self._has_told(fetch, kind, packet))
        self._session.send(packets.made(packets.STAT, number, packets.string(path)))
        number = self._session.ask(lambda kind, packet: self._has_opened(fetch, kind, packet))
        self._session.send(packets.opening(number, path))
        return fetch

    def _has_room(self) -> bool:
        """Tell whether there may be one more that nobody has opened; of those that have come whole the first goes."""
        unclaimed = [fetch for fetch in self._files.values() if not fetch.is_claimed]
        if len(unclaimed) < MOST_UNCLAIMED:
            return True
        whole = next((fetch for fetch in unclaimed if fetch.is_whole), None)
        if whole:
            # It is read from the cache.
            self._abandon(whole)
        return whole is not None

    def has(self, relative: str) -> bool:
        """Tell whether a file is asked for."""
        return relative in self._files

    def is_there(self, relative: str) -> bool:
        """Tell whether a file is asked for, and production has told that it has it."""
        fetch = self._files.get(relative)
        return fetch is not None and fetch.told is not None

    def adopt(self, relative: str, handle: bytes, told: Attributes) -> None:
        """Take a file that is open already, and that nobody has asked for before."""
        fetch = self._files[relative] = Fetch(relative, self._session.answer)
        fetch.is_asked, fetch.handle = True, handle
        self.told(relative, told, packets.attributes(0, told))

    def told(self, relative: str, told: Attributes, packet: Buffer) -> None:
        """Take what production told of a file, and the packet that it told it with."""
        fetch = self._files.get(relative)
        if fetch and fetch.told is None:
            fetch.begin(told, packet, self._largest)
            self._go_on(fetch)

    def open(self, relative: str, number: int) -> bool:
        """Let sshfs have the handle of a file, now or when it has come; tell whether it will have it.

        :param number: the request's id.
        """
        fetch = self._files.get(relative)
        self._misses = 0
        if fetch is None or fetch.is_claimed:
            return False
        fetch.is_claimed = True
        if fetch.handle is None:
            fetch.opens.append(number)
        else:
            self._session.answer(packets.made(packets.HANDLE, number, packets.string(fetch.handle)))
            self._go_on(fetch)
        return True

    def pass_by(self, relative: str) -> None:
        """Close a file that sshfs has from the cache: all of it has come before sshfs has opened it."""
        self._misses = 0
        if relative in self._files:
            self._abandon(self._files[relative])

    def opening(self, relative: str) -> None:
        """Remember that sshfs opens a file itself, and will be read ahead of."""
        if relative not in self._files:
            self._files[relative] = fetch = Fetch(relative, self._session.answer)
            fetch.is_claimed = True

    def opened(self, relative: str, handle: Optional[bytes]) -> None:
        """Read ahead of sshfs, which has opened a file itself; or not, where that failed."""
        fetch = self._files.get(relative)
        if fetch is None or fetch.is_asked or fetch.handle is not None:
            return
        if handle is None:
            self._forget(fetch)
        else:
            fetch.handle = handle
            self._go_on(fetch)

    def read(self, handle: bytes, relative: str, read: Read) -> bool:
        """Answer a READ, at once or when what is under way has come; tell whether that will be."""
        fetch = self._files.get(relative)
        if fetch is None or fetch.handle != handle or fetch.told is None or fetch.is_broken:
            return False
        end = min(fetch.size, read.offset + read.length)
        if read.offset >= end or read.length > FIRST_WINDOW:
            return False
        if read.offset == fetch.read_to:
            # A reader that goes on, from where it was; what it jumped to is not asked for ahead.
            self._ask(fetch, end)
        if not fetch.pieces.read(read, fetch.size):
            return False
        fetch.read_to = max(fetch.read_to, end)
        self._go_on(fetch)
        return True

    def close(self, handle: bytes, relative: str) -> Coverage:
        """Ask for no more of a file that sshfs has closed; return what is under way of it, and will be kept."""
        fetch = self._files.get(relative)
        if fetch is None or fetch.handle != handle:
            return Coverage()
        for read in fetch.pieces.give_up():
            self._session.answer(packets.status(read.number, packets.FAILURE, b"the file was closed"))
        self._forget(fetch)
        return fetch.ranges_under_way()

    def expire(self) -> bool:
        """Close the files that nobody has opened in time, and tell whether there are more that may have to be."""
        now = time.monotonic()
        waiting = [fetch for fetch in self._files.values() if not fetch.is_claimed]
        for fetch in waiting:
            if now > fetch.born + UNCLAIMED_SECONDS and fetch.handle is not None and fetch.is_told:
                self._misses += 1
                self._let_go(fetch, fetch.handle)
        return bool(waiting)

    # What the server answers

    def _has_told(self, fetch: Fetch, kind: int, packet: memoryview) -> bool:
        fetch.is_told = True
        for number in fetch.stats:
            self._session.answer(packets.renumbered(packet, number))
        fetch.stats.clear()
        told = packets.attributes_of(packet) if kind == packets.ATTRS else None
        if told and told.regular:
            self._session.has_told(fetch.relative, told, packet)
        else:
            self._abandon(fetch)
        return True

    def _has_opened(self, fetch: Fetch, kind: int, packet: memoryview) -> bool:
        numbers, fetch.opens = fetch.opens, []
        for number in numbers:
            self._session.answer(packets.renumbered(packet, number))
        if kind != packets.HANDLE:
            self._forget(fetch)
            return True
        fetch.handle = packets.text(packet)[0]
        if not self._session.has_opened(fetch.handle, fetch.relative):
            self._forget(fetch)
        elif fetch.is_closed:
            self._close(fetch)
        else:
            self._go_on(fetch)
        return True

    # Reading ahead

    def _go_on(self, fetch: Fetch) -> None:
        """Ask for what comes next, as far as the window goes."""
        if fetch.handle is None or fetch.told is None:
            return
        # Somebody who reads the beginning only is not sent much more.
        window = min(fetch.window, max(fetch.first, fetch.read_to))
        end = min(fetch.size, fetch.read_to + window)
        if end == fetch.size or end - fetch.next_piece * fetch.piece >= min(window // 4, TOGETHER):
            self._ask(fetch, end)

    def _ask(self, fetch: Fetch, end: int) -> None:
        if fetch.next_piece * fetch.piece >= end or fetch.is_broken or fetch.is_closed:
            return
        room = MEMORY - self.memory
        while fetch.next_piece * fetch.piece < end and room > 0:
            number, fetch.next_piece = fetch.next_piece, fetch.next_piece + 1
            fetch.pieces.ask(number)
            room -= fetch.piece
            self._read(fetch, number, b"")

    def _read(self, fetch: Fetch, number: int, have: bytes) -> None:
        """Ask for a piece, or for what a short answer lacks of it."""
        begin = number * fetch.piece
        wanted = min(fetch.piece, fetch.size - begin)
        asked = time.monotonic()

        def takes(kind: int, packet: memoryview) -> bool:
            fetch.under_way.discard(number)
            content = packets.data_if_any(kind, packet)
            if not content or len(have) + len(content) > wanted:
                self._break(fetch)
                return True
            self._adapt(fetch, time.monotonic() - asked)
            # The only copy: the cache and sshfs have the same.
            come = bytes(content)
            self._session.keep(fetch.relative, begin + len(have), come, not fetch.is_closed, bool(fetch.under_way))
            piece = have + come if have else come
            if len(piece) < wanted:
                # Go's pkg/sftp sends no more at once, and has to be asked again.
                self._largest = PIECE
                self._read(fetch, number, piece)
            elif fetch.pieces.is_asked(number):
                fetch.pieces.put(number, piece, fetch.size)
                self._go_on(fetch)
            return True

        assert fetch.handle is not None
        fetch.under_way.add(number)
        request = self._session.ask(takes)
        self._session.send(packets.read(request, fetch.handle, begin + len(have), wanted - len(have)))

    def _adapt(self, fetch: Fetch, seconds: float) -> None:
        """Make the window larger while answers come as fast as they can, smaller when they wait for each other."""
        self._round_trip = min(self._round_trip, seconds)
        self.is_crowded = seconds >= 2 * self._round_trip + QUEUE_SECONDS
        change = -PIECE if self.is_crowded else PIECE
        fetch.window = max(FIRST_WINDOW, min(LAST_WINDOW, fetch.window + change))
        self._carried = max(FIRST_WINDOW, min(FOLLOWING_WINDOW, self._carried + change))

    # Ends

    def _break(self, fetch: Fetch) -> None:
        """Ask for no more ahead of a file that is not what was told; the server answers what sshfs waits for."""
        fetch.is_broken = True
        self._session.doubt(fetch.relative)
        for read in fetch.pieces.give_up():
            self._session.pass_on(fetch.handle or b"", read)

    def _let_go(self, fetch: Fetch, handle: bytes) -> None:
        """Leave a file that nobody has opened: one that follows will be read, and so its rest may come."""
        if fetch.follows and self._session.completes(handle, fetch.relative, fetch.ranges_under_way()):
            self._forget(fetch)
        else:
            self._abandon(fetch)

    def _abandon(self, fetch: Fetch) -> None:
        """Close a file that nobody has opened."""
        if self._files.get(fetch.relative) is fetch and not fetch.is_claimed:
            self._forget(fetch)
            if fetch.handle is not None:
                self._close(fetch)

    def _close(self, fetch: Fetch) -> None:
        assert fetch.handle is not None
        self._session.send(packets.closing(self._session.ask(lambda kind, packet: True), fetch.handle))
        self._session.has_closed(fetch.handle, fetch.relative)

    def _forget(self, fetch: Fetch) -> None:
        if self._files.get(fetch.relative) is fetch:
            del self._files[fetch.relative]
        fetch.is_closed = True
        fetch.pieces.give_up()
