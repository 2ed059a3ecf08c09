"""Know for a moment which names a directory has that sshfs has just listed: for all others production needn't be asked.

A look at production asks for what ZODB makes beside Data.fs, one name after the other, since the kernel looks up one
name in a directory at a time.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Callable, Dict, Set

from cowstorage.production.wire import packets
from cowstorage.production.wire.exchange import Takes

# How long a listing is believed, in seconds from its begin.
SECONDS = 2.0

# Directories that are remembered, and names of each: those of larger ones are not.
MOST_DIRECTORIES = 16
MOST_NAMES = 1000


class Listing:
    """A directory that sshfs lists.

    :ivar under_way: READDIRs without an answer.
    :ivar has_ended: whether the server has said that there are no more names.
    """

    def __init__(self, path: bytes):
        self.path = path
        self.begun = time.monotonic()
        self.names: Set[bytes] = set()
        self.under_way = 0
        self.has_ended = False

    @property
    def is_known(self) -> bool:
        """Whether all names are known, and still believed."""
        return self.has_ended and not self.under_way and time.monotonic() < self.begun + SECONDS


class Listings:
    """The listings of late.

    :param wait: has the answer to a request of sshfs's looked at.
    """

    def __init__(self, wait: Callable[[int, Takes], None]):
        self._wait = wait
        # By the server's handle while it is open, and by path.
        self._open: Dict[bytes, Listing] = {}
        self._latest: Dict[bytes, Listing] = {}

    def lacks(self, path: bytes) -> bool:
        """Tell whether a path is known not to be there."""
        directory, _, name = path.rpartition(b"/")
        listing = self._latest.get(directory)
        return listing is not None and listing.is_known and name not in listing.names

    # Requests, all of which are passed on

    def open(self, number: int, packet: memoryview) -> bool:
        """Take note of an OPENDIR."""
        self._wait(number, partial(self._opened, Listing(packets.text(packet)[0])))
        return False

    def read(self, number: int, packet: memoryview) -> bool:
        """Take note of a READDIR."""
        listing = self._open.get(packets.text(packet)[0])
        if listing and self._latest.get(listing.path) is listing:
            listing.under_way += 1
            self._wait(number, partial(self._came, listing))
        return False

    def close(self, handle: bytes) -> None:
        """Take note of a CLOSE."""
        self._open.pop(handle, None)

    # Answers

    def _opened(self, listing: Listing, kind: int, packet: memoryview) -> bool:
        self._latest.pop(listing.path, None)
        if kind == packets.HANDLE:
            self._latest[listing.path] = self._open[packets.text(packet)[0]] = listing
            if len(self._latest) > MOST_DIRECTORIES:
                del self._latest[next(iter(self._latest))]
        return False

    def _came(self, listing: Listing, kind: int, packet: memoryview) -> bool:
        listing.under_way -= 1
        if kind == packets.NAME and len(listing.names) < MOST_NAMES:
            listing.names.update(packets.names_of(packet))
        elif kind == packets.STATUS and packets.number(packet, packets.HEADER.size) == packets.EOF:
            listing.has_ended = True
        elif self._latest.get(listing.path) is listing:
            # No more of it is looked at: a directory may have no end.
            del self._latest[listing.path]
        return False
