"""Carry bytes between sshfs and ssh, through a session, until one of them ends."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
from collections import deque
from typing import Callable, Deque, Dict, List, Optional

from cowstorage.production.wire.exchange import SameId
from cowstorage.production.wire.framing import Framing
from cowstorage.production.wire.packets import Buffer
from cowstorage.production.wire.session import Session
from cowstorage.production.wire.threads import Readers

# Bytes that wait for one side; when there are more, nothing is read that would make it more still.
FULL = 1 << 20

# Bytes of requests that are received at once: 200 of sshfs's, whose answers are all kept when sshfs does not read.
REQUESTS = 1 << 13

# Pieces that are written at once, limits.h, IOV_MAX.
MOST_PIECES = 1024

GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


class Output:
    """The way to one side, which never waits: what can't be written yet is kept.

    Packets of the session's go between those that are passed on, some of which come in several pieces.
    """

    def __init__(self, descriptor: int):
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.waiting = 0
        self._pieces: Deque[Buffer] = deque()
        self._is_inside = False
        self._held: List[bytes] = []

    @property
    def is_full(self) -> bool:
        """Whether more waits than is good."""
        return self.waiting > FULL

    def send(self, content: Buffer) -> None:
        """Have a packet written by the next ``flush``, until which it must stay as it is; or behind the present one."""
        if self._is_inside:
            self._held.append(bytes(content))
            self.waiting += len(content)
        else:
            self.pass_on(content)

    def pass_on(self, content: Buffer) -> None:
        """Have bytes of the other side written, as ``send`` does."""
        self._pieces.append(content)
        self.waiting += len(content)

    def has_passed(self, whole: bool) -> None:
        """Take note whether what was passed on last ends with a packet."""
        self._is_inside = not whole
        if whole:
            self._pieces.extend(self._held)
            self._held.clear()

    def flush(self) -> None:
        """Write as much as can be written, many pieces at once, and keep a copy of the rest.

        :raises OSError: when nobody reads any more.
        """
        with contextlib.suppress(BlockingIOError):
            while self._pieces:
                some = list(itertools.islice(self._pieces, MOST_PIECES))
                written = os.writev(self.descriptor, some)
                self.waiting -= written
                while self._pieces and written >= len(self._pieces[0]):
                    written -= len(self._pieces.popleft())
                if written:
                    self._pieces[0] = bytes(memoryview(self._pieces[0])[written:])
        for number, piece in enumerate(self._pieces):
            if isinstance(piece, memoryview):
                self._pieces[number] = bytes(piece)


class Relay:
    """The two sides and what lies between them.

    :param client: the descriptors that sshfs's requests come from and answers go to.
    :param server: the descriptor of ssh, for both.
    :param make_session: makes the session from what sends to sshfs, and what sends to the server.
    """

    def __init__(
        self,
        client: int,
        to_client: int,
        server: int,
        readers: Readers,
        make_session: Callable[[Callable[[Buffer], None], Callable[[Buffer], None]], Session],
    ):
        self._client = client
        self._server = server
        self._readers = readers
        self._to_client = Output(to_client)
        self._to_server = Output(server)
        os.set_blocking(client, False)
        self.session = make_session(self._to_client.send, self._to_server.send)
        self._due: Optional[float] = None
        self._requests = Framing(self.session.looks_at_request)
        self._answers = Framing(self.session.looks_at_answer, after_rubbish=True)

    def run(self) -> None:
        """Carry until one side has ended, and what it sent before has been written."""
        try:
            while self._carry():
                self._due = self.session.expire()
            # The server's last words; sshfs reads all the time.
            os.set_blocking(self._to_client.descriptor, True)
            self._to_client.flush()
        except (OSError, SameId):
            # Nobody reads any more, or nobody can tell what is whose: sshfs sees what it sees when ssh dies.
            return

    def _carry(self) -> bool:
        """Wait for what can be done next, and do it; return whether there is more."""
        client_is_full, server_is_full = self._to_client.is_full, self._to_server.is_full
        # That sshfs has ended is told without being asked for; of the server it would be told again and again.
        wanted = {
            self._readers.wakes: select.POLLIN,
            self._client: 0 if client_is_full or server_is_full else select.POLLIN,
            **({} if client_is_full else {self._server: select.POLLIN}),
        }
        for output in (self._to_client, self._to_server):
            if output.waiting:
                wanted[output.descriptor] = wanted.get(output.descriptor, 0) | select.POLLOUT
        happened = _poll(wanted, self._due)
        self._flush()
        if self._readers.wakes in happened:
            self._readers.take_results()
        goes_on = True
        if happened.get(self._server, 0) and not client_is_full:
            goes_on = self._receive_answers()
        events = happened.get(self._client, 0)
        if goes_on and events & select.POLLIN:
            goes_on = self._receive_requests()
        elif events & GONE:
            goes_on = False
        self._flush()
        return goes_on

    def _flush(self) -> None:
        self._to_client.flush()
        self._to_server.flush()

    def _receive_requests(self) -> bool:
        count = _received(self._client, self._requests.space[:REQUESTS])
        if count is None:
            return True
        self.session.has_asked()
        _carry_pieces(self._requests, count, self.session.request, self._to_server)
        if self._requests.lost:
            self.session.turn_off()
        return count > 0

    def _receive_answers(self) -> bool:
        count = _received(self._server, self._answers.space)
        if count is None:
            return True
        _carry_pieces(self._answers, count, self.session.answer, self._to_client)
        if self._answers.lost:
            self.session.turn_off()
        return count > 0


def _carry_pieces(framing: Framing, count: int, look: Callable[[int, memoryview], None], output: Output) -> None:
    """Have packets looked at, and pass the other bytes on.

    :param count: bytes that were received.
    """
    for piece in framing.received(count):
        if piece.kind:
            output.has_passed(whole=True)
            look(piece.kind, piece.content)
        else:
            output.pass_on(piece.content)
    output.has_passed(whole=not framing.is_inside)


def _poll(wanted: Dict[int, int], seconds: Optional[float]) -> Dict[int, int]:
    """Return what has happened to each descriptor, of what is wanted of it; waits until something has, or so long."""
    poll = select.poll()
    for descriptor, events in wanted.items():
        poll.register(descriptor, events)
    return dict(poll.poll(None if seconds is None else seconds * 1000))


def _received(descriptor: int, space: memoryview) -> Optional[int]:
    """Return how many bytes were received into ``space``; 0 at the end, ``None`` where there are none yet."""
    try:
        return os.readv(descriptor, [space])
    except BlockingIOError:
        return None
    except ConnectionError:
        return 0
