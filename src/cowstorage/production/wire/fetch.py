"""One file that production is asked for ahead of sshfs, and what asking ahead needs of the session."""

from __future__ import annotations

import time
from typing import Callable, List, NamedTuple, Optional, Set

from cowstorage.production.wire.completion import Asks
from cowstorage.production.wire.packets import Attributes, Buffer
from cowstorage.production.wire.partial import Coverage
from cowstorage.production.wire.pieces import Pieces, Read
from cowstorage.production.wire.window import PIECE

# Bytes that are asked for ahead of a reader: at first, which is what the kernel wants at once, and at most.
FIRST_WINDOW = 4 * PIECE
LAST_WINDOW = 128 * PIECE

# The same at first, while no answer waits for another, at most: of a file that follows others which were read, and of
# one that doesn't, whose beginning may be all that is wanted.
FOLLOWING_WINDOW = 16 * PIECE
ALONE_WINDOW = 8 * PIECE

# Bytes that are asked for at once of a file of so many and more: half as many requests, for the server, too.
LARGE_PIECE = 2 * PIECE
LARGE = 1 << 20


class Fetch:
    """What is asked for ahead of one file.

    :param answer: sends an answer to sshfs.
    :ivar handle: the server's; ``None`` until it has come.
    :ivar told: what production told of it, and ``attributes`` the packet that it told it with.
    :ivar first: bytes that are asked for before anybody reads.
    :ivar piece: bytes that are asked for at once.
    :ivar is_asked: whether we have asked for it, before sshfs opened it.
    :ivar is_told: whether it has told, be it that there is no such file.
    :ivar follows: whether it is asked for since others before it in an order were read.
    :ivar is_claimed: whether sshfs has opened it.
    """

    def __init__(self, relative: str, answer: Callable[[Buffer], None]):
        self.relative = relative
        self.handle: Optional[bytes] = None
        self.told: Optional[Attributes] = None
        self.attributes = b""
        self.is_asked = self.is_told = self.is_claimed = self.follows = False
        self.is_broken = self.is_closed = False
        self.born = time.monotonic()
        # Ids of sshfs's requests that wait for what we have asked for.
        self.stats: List[int] = []
        self.opens: List[int] = []
        self.pieces = Pieces(answer)
        self.piece = PIECE
        self.under_way: Set[int] = set()
        self.next_piece = 0
        self.read_to = 0
        self.first = self.window = FIRST_WINDOW

    @property
    def size(self) -> int:
        """Bytes of the file, as told."""
        return self.told.size if self.told else 0

    @property
    def is_whole(self) -> bool:
        """Whether all of it was asked for ahead, and has come."""
        return self.told is not None and self.next_piece * self.piece >= self.size and not self.under_way

    def begin(self, told: Attributes, packet: Buffer, largest: int) -> None:
        """Take what production told of it; from now on its size is known, and what it is read in.

        :param largest: bytes that are asked for at once at most.
        """
        self.told, self.attributes, self.is_told = told, bytes(packet), True
        self.piece = self.pieces.size = largest if told.size >= LARGE else PIECE

    def ranges_under_way(self) -> Coverage:
        """Return which bytes will come yet."""
        coverage = Coverage()
        for number in self.under_way:
            coverage.add(number * self.piece, min(self.size, (number + 1) * self.piece))
        return coverage


class Around(NamedTuple):
    """What ``Ahead`` needs of the session.

    :param ask: makes the id of a request of ours, from what takes the answer.
    :param send: sends a request to the server.
    :param answer: sends an answer to sshfs.
    :param has_told: called with a relative path, what production told of the file, and the packet with that.
    :param has_opened: called with a handle of the server's, and a relative path; tells whether it can be believed.
    :param has_closed: called with the same for a file that nobody has opened.
    :param completes: called with the same, and what is under way; tells whether the rest of the file is read by the
        handle, which is closed then.
    :param keep: takes bytes of a file for the cache: relative path, offset, bytes, whether they may be the first, and
        whether more is under way.
    :param doubt: called with the relative path of a file that is not what production told.
    :param pass_on: has a READ of sshfs's, by a handle of the server's, answered by the server.
    """

    ask: Asks
    send: Callable[[bytes], None]
    answer: Callable[[Buffer], None]
    has_told: Callable[[str, Attributes, Buffer], None]
    has_opened: Callable[[bytes, str], bool]
    has_closed: Callable[[bytes, str], None]
    completes: Callable[[bytes, str, Coverage], bool]
    keep: Callable[[str, int, Buffer, bool, bool], None]
    doubt: Callable[[str], None]
    pass_on: Callable[[bytes, Read], None]
