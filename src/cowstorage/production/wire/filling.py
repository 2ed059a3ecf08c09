"""Fetch BLOB files into the cache before anybody asks for them, while sshfs wants nothing.

What is fetched so takes no room from what is read, and no more of the line than a packet while somebody reads.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Callable, Deque, Dict, NamedTuple, Optional, Tuple

from cowstorage.part.counters import Counters
from cowstorage.production.wire import packets
from cowstorage.production.wire.candidates import Candidate, Candidates, Found
from cowstorage.production.wire.completion import SMALL_REST, Asks, Completion
from cowstorage.production.wire.limit import Spare
from cowstorage.production.wire.packets import Attributes
from cowstorage.production.wire.partial import Coverage
from cowstorage.production.wire.store import Store
from cowstorage.production.wire.threads import Readers
from cowstorage.production.wire.window import Careful

# Files at a time; a server may have few handles.
MOST_FILES = 4

# Files that are known to have been fetched; behind so many the first are forgotten.
MOST_FETCHED = 4096

# Errors in a row, after which the server is asked for nothing more until the next sync.
MOST_ERRORS = 8

# Bytes of neighbours that are fetched besides as many as sshfs has read from production.
FREE = 8_000_000

# What is left to what is read, of the disk and of ``cache-size``.
SPARE = Spare(room=1_000_000_000, part=8)

# Seconds between two looks whether the local database has changed.
LOOK_SECONDS = 10.0


class _Opening:
    """A file that is being opened: what has come of the answers to our two questions."""

    def __init__(self, candidate: Candidate):
        self.candidate = candidate
        self.handle: Optional[bytes] = None
        self.told: Optional[Attributes] = None
        self.asked = time.monotonic()
        self.waits = 2


class Around(NamedTuple):
    """What ``Filling`` needs of the session.

    :param ask: makes the id of a request of ours, from what takes the answer.
    :param send: sends a request to the server.
    :param path: makes the path in requests from a relative one.
    :param is_busy: tells whether sshfs waits for the server, or what it has read is being read to its end.
    :param is_open: tells whether a file is asked for by sshfs, or for it.
    :param believes: tells whether a handle of the server's may be that of a file.
    """

    ask: Asks
    send: Callable[[bytes], None]
    path: Callable[[str], bytes]
    is_busy: Callable[[], bool]
    is_open: Callable[[str], bool]
    believes: Callable[[bytes, str], bool]


class Filling:
    """The files that are fetched before they are asked for.

    :param candidates: which there are; ``None``: none.
    :param readers: the threads that look for candidates.
    """

    def __init__(
        self,
        candidates: Optional[Candidates],
        store: Store,
        readers: Readers,
        counters: Counters,
        around: Around,
    ):
        self._candidates = candidates
        self._store = store
        self._readers = readers
        self._counters = counters
        self._session = around
        self._window = Careful()
        self._files = Completion(
            store, around.ask, around.send, self._is_held_up, self._window, counters, self._note_error
        )
        self._opening: Dict[str, _Opening] = {}
        self._queue: Deque[Candidate] = deque()
        self._is_looking = False
        self._more = True
        self._looked_at = 0.0
        self._errors = self._neighbours = 0
        # Those that were fetched, and not read yet.
        self._fetched: Dict[str, bool] = {}

    @property
    def due(self) -> Optional[float]:
        """In how many seconds there is something to do, should nothing come before; ``None``: never."""
        return LOOK_SECONDS if self._candidates else None

    def interrupt(self) -> None:
        """Take note of a request of sshfs's: what it waits for is to wait behind one packet at most."""
        self._window.interrupt()

    def has_read(self, relative: str, is_hit: bool) -> None:
        """Take note of a BLOB file that sshfs opens: its neighbours may be next.

        Of one that was in the cache they are there, too, unless it is a neighbour itself that was fetched lately.
        """
        was_fetched = self._fetched.pop(relative, False)
        if self._candidates and (was_fetched or not is_hit):
            self._candidates.add(relative)
            self._more = True

    def uses(self, handle: bytes) -> Optional[str]:
        """Return the relative path of the file that is read by a handle; ``None`` for a handle that is another's."""
        return self._files.uses(handle)

    def give_up(self, relative: str) -> Optional[Tuple[bytes, Attributes]]:
        """Leave a file to sshfs; return its handle and what production told of it, where it is open already."""
        self._opening.pop(relative, None)
        return self._files.give_up(relative)

    def go_on(self) -> None:
        """Ask for more while sshfs waits for nothing."""
        if self._candidates is None or self._is_held_up():
            return
        self._files.go_on()
        while self._queue and len(self._opening) + len(self._files) < MOST_FILES:
            self._open(self._queue.popleft())
        now = time.monotonic()
        if not (self._is_looking or self._queue) and (self._more or now > self._looked_at + LOOK_SECONDS):
            self._is_looking, self._more, self._looked_at = True, False, now
            self._readers.ask_apart(self._candidates.find, self._take)

    def _is_held_up(self) -> bool:
        return self._session.is_busy() or self._store.is_behind

    def _take(self, found: Found) -> None:
        """Take what the thread has found; behind a sync a server that failed is tried again."""
        self._is_looking = False
        self._more |= found.more
        if found.is_new:
            self._errors = 0
        if self._errors < MOST_ERRORS:
            self._queue.extend(found.candidates)

    def _note_error(self) -> None:
        self._errors += 1
        if self._errors >= MOST_ERRORS:
            self._queue.clear()

    # Files

    def _open(self, candidate: Candidate) -> None:
        relative = candidate.relative
        if relative in self._store.partials or self._session.is_open(relative) or self._store.has(relative):
            return
        opening = self._opening[relative] = _Opening(candidate)
        path = self._session.path(relative)
        number = self._session.ask(lambda kind, packet: self._has_told(opening, kind, packet))
        self._session.send(packets.made(packets.STAT, number, packets.string(path)))
        number = self._session.ask(lambda kind, packet: self._has_opened(opening, kind, packet))
        self._session.send(packets.opening(number, path))

    def _has_told(self, opening: _Opening, kind: int, packet: memoryview) -> bool:
        self._window.round_trip(time.monotonic() - opening.asked)
        opening.told = packets.attributes_of(packet) if kind == packets.ATTRS else None
        self._begin(opening)
        return True

    def _has_opened(self, opening: _Opening, kind: int, packet: memoryview) -> bool:
        opening.handle = packets.text(packet)[0] if kind == packets.HANDLE else None
        self._begin(opening)
        return True

    def _begin(self, opening: _Opening) -> None:
        """Fetch a file once both answers have come, where that is still wanted; else close it."""
        opening.waits -= 1
        handle, told, relative = opening.handle, opening.told, opening.candidate.relative
        if opening.waits:
            return
        is_wanted = self._opening.get(relative) is opening
        if is_wanted:
            del self._opening[relative]
        if handle is None or told is None:
            self._note_error()
        if handle is None or not self._session.believes(handle, relative):
            return
        partial = self._store.begin(relative, told, SPARE) if told and is_wanted and self._may_be(opening) else None
        if partial:
            self._neighbours += 0 if opening.candidate.was_read else partial.size
            self._fetched[relative] = True
            if len(self._fetched) > MOST_FETCHED:
                del self._fetched[next(iter(self._fetched))]
            self._files.add(handle, partial, Coverage())
            self._files.go_on()
        else:
            self._session.send(packets.closing(self._session.ask(lambda kind, packet: True), handle))

    def _may_be(self, opening: _Opening) -> bool:
        """Tell whether a file is not too large for one that nobody may ever read."""
        if opening.candidate.was_read or opening.told is None:
            return True
        size = opening.told.size
        return size <= SMALL_REST and self._neighbours + size <= FREE + self._counters.from_production
