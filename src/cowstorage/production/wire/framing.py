"""Cut a stream of SFTP into packets, without copying and without waiting for those that nobody looks at."""

from __future__ import annotations

from typing import Callable, Iterator, NamedTuple

from cowstorage.production.wire.packets import HEADER, VERSION

# Bytes that are read at once at most; two packets fit in.
BUFFER = 1 << 19

# Bytes of the longest packet that is looked at: sshfs takes none of more than 128 kB, MAX_REPLY_LEN.
LONGEST = 1 << 18

# Bytes of a length that comes before the type, and that the length doesn't count.
_PREFIX = 4

# What a profile of the server's shell prints before the first packet, at most.
RUBBISH = 1 << 16

_ALL = 1 << 62


class Piece(NamedTuple):
    """Bytes of a stream, valid until ``Framing.space`` is asked for again.

    :param kind: the type of the packet that they are; 0 for bytes that nobody looks at, of packets in whole or in part.
    """

    kind: int
    content: memoryview


class Framing:
    """The packets of one direction.

    Bytes are received into ``space``.  Behind what is no packet, all that comes is bytes that nobody looks at.

    :param looks: takes type and id of a packet, and tells whether somebody looks at the packet.
    :param after_rubbish: whether the first packet, a VERSION, may come after other output, as sshfs allows.
    :ivar lost: whether there was something that is no packet.
    """

    def __init__(self, looks: Callable[[int, int], bool], after_rubbish: bool = False):
        self._looks = looks
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._begin = self._end = 0
        self._passing = 0
        self._searched = 0 if after_rubbish else _ALL
        self.lost = False

    @property
    def is_inside(self) -> bool:
        """Whether the last piece was the beginning of a packet only: nothing may come between it and the next piece."""
        return self._passing > 0 and not self.lost

    @property
    def space(self) -> memoryview:
        """Where the next bytes are to be received; to ask for it ends the life of all pieces."""
        if self._begin:
            left = self._end - self._begin
            self._view[:left] = self._view[self._begin : self._end]
            self._begin, self._end = 0, left
        return self._view[self._end :]

    def received(self, count: int) -> Iterator[Piece]:
        """Yield what is complete with the bytes that were received into ``space``; to be read to its end."""
        view, end = self._view, self._end + count
        begin = at = 0
        if self._searched < RUBBISH:
            at = self._search(end)
        while True:
            if self._passing:
                passed = min(self._passing, end - at)
                at += passed
                self._passing -= passed
                if self._passing:
                    break
            if self._searched < RUBBISH or end - at < HEADER.size:
                break
            length, kind, number = HEADER.unpack_from(view, at)
            whole = _PREFIX + length
            if whole < HEADER.size:
                self._give_up()
            elif whole > LONGEST or not self._looks(kind, number):
                self._passing = whole
            elif end - at < whole:
                break
            else:
                if begin < at:
                    yield Piece(0, view[begin:at])
                yield Piece(kind, view[at : at + whole])
                begin = at = at + whole
        if begin < at:
            yield Piece(0, view[begin:at])
        self._begin, self._end = at, end

    def _search(self, end: int) -> int:
        """Return the offset of the first packet, or of what may be its beginning, as sshfs's sftp_find_init_reply."""
        for at in range(max(0, end - HEADER.size + 1)):
            length, kind, _ = HEADER.unpack_from(self._view, at)
            if kind == VERSION and HEADER.size - _PREFIX <= length <= LONGEST:
                self._searched = _ALL
                return at
            self._searched += 1
            if self._searched == RUBBISH:
                self._searched = _ALL
                self._give_up()
                return at
        return max(0, end - HEADER.size + 1)

    def _give_up(self) -> None:
        self.lost = True
        self._passing = _ALL
