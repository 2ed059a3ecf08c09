"""Bytes go to and fro whole: what is ours comes between the packets that are passed on, however these are cut."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cowstorage.production.wire.names import BlobNames
from cowstorage.production.wire.relay import Relay
from cowstorage.production.wire.session import Session
from cowstorage.production.wire.store import Store
from cowstorage.production.wire.threads import Readers
from production.wire.line import BLOB, ROOT, path_of
from production.wire.server import HANDLE, INIT, NAME, OPEN, STAT, STATUS, VERSION, attributes, packet, split, text

READLINK, READ, ATTRS = 19, 5, 105
OWN = b"/srv/filestorage/.cowstorage-4711"
NAMES = struct.pack(">I", 1) + text(b"x" * 90_000) + text(b"") + attributes(1)

Packets = List[Tuple[int, int, bytes]]


class Ends:
    """A relay, and the sockets of sshfs and of ssh; what is sent is carried at once."""

    def __init__(self, location: Path):
        self.client, client = socket.socketpair()
        self.server, server = socket.socketpair()
        self._inside = (client, server)
        readers = Readers()
        store = Store(str(location))
        self._relay = Relay(
            client.fileno(),
            client.fileno(),
            server.fileno(),
            readers,
            lambda to_client, to_server: Session(BlobNames(ROOT.decode()), store, readers, to_client, to_server),
        )
        self.left = {self.client: b"", self.server: b""}
        for one in self.left:
            one.setblocking(False)
        self.send(self.client, packet(INIT, 3))
        self.send(self.server, packet(VERSION, 3))
        assert self.come(self.client)[0][0] == VERSION
        assert self.come(self.server)[0][0] == INIT

    def close(self) -> None:
        for one in (*self.left, *self._inside):
            one.close()

    def send(self, end: socket.socket, content: bytes, cut: int = 1 << 16) -> None:
        """Send bytes, so many at once."""
        for begin in range(0, len(content), cut):
            end.sendall(content[begin : begin + cut])
            self._relay._carry()
            # What the other side is sent is received, or it would not be written.
            for one in self.left:
                self._receive(one)

    def come(self, end: socket.socket) -> Packets:
        """Return the packets that have come at an end, whole."""
        self._receive(end)
        found, self.left[end] = split(self.left[end])
        return found

    def _receive(self, end: socket.socket) -> None:
        while True:
            try:
                self.left[end] += end.recv(1 << 20)
            except BlockingIOError:
                return


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    made = Ends(tmp_path)
    yield made
    made.close()


def test_an_answer_of_ours_waits_for_the_end_of_the_one_that_comes(ends: Ends) -> None:
    """sshfs takes what stands in the middle of a packet for the packet's, and ends at the next one."""
    ends.send(ends.client, packet(READLINK, 1, text(b"/srv")))
    answer = packet(NAME, 1, NAMES)
    ends.send(ends.server, answer[:50_000])
    ends.send(ends.client, packet(STAT, 2, text(OWN)))
    assert ends.come(ends.client) == []
    ends.send(ends.server, answer[50_000:])
    assert [(kind, number) for kind, number, _ in ends.come(ends.client)] == [(NAME, 1), (STATUS, 2)]


def test_an_answer_of_ours_comes_before_the_next_one(ends: Ends) -> None:
    ends.send(ends.client, packet(READLINK, 1, text(b"/srv")) + packet(READLINK, 3, text(b"/srv")))
    answer = packet(NAME, 1, NAMES)
    ends.send(ends.server, answer[:50_000])
    ends.send(ends.client, packet(STAT, 2, text(OWN)))
    ends.send(ends.server, answer[50_000:] + answer[:5])
    assert [number for _, number, _ in ends.come(ends.client)] == [1, 2]


def test_a_request_of_ours_waits_for_the_end_of_the_one_that_comes(ends: Ends) -> None:
    ends.send(ends.client, packet(STAT, 1, text(path_of(BLOB))))
    asked = ends.come(ends.server)
    assert [kind for kind, _, _ in asked] == [STAT, OPEN]
    request = packet(READLINK, 2, text(b"/srv/" + b"x" * 500))
    ends.send(ends.client, request[:100])
    (_, stat, _), (_, opening, _) = asked
    ends.send(ends.server, packet(ATTRS, stat, attributes(1000)) + packet(HANDLE, opening, text(b"h")))
    assert ends.come(ends.server) == []
    ends.send(ends.client, request[100:])
    assert [kind for kind, _, _ in ends.come(ends.server)] == [READLINK, READ]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.sampled_from(["own", "directory", "readlink", "answer"]), min_size=1, max_size=25),
    cuts=st.lists(st.integers(1, 70_000), min_size=1, max_size=8),
)
def test_however_they_are_cut_all_packets_are_whole(steps: List[str], cuts: List[int], tmp_path: Path) -> None:
    """Each request is answered once, and no byte of an answer is another's."""
    ends = Ends(tmp_path)
    try:
        waiting: List[bytes] = []
        asked: Packets = []
        answered: Packets = []
        for number, step in enumerate(steps, 1):
            cut = cuts[number % len(cuts)]
            if step == "answer" and waiting:
                whole = waiting[0]
                ends.send(ends.server, whole[:cut])
                waiting[:1] = [whole[cut:]] if whole[cut:] else []
            elif step == "own":
                ends.send(ends.client, packet(STAT, number, text(OWN)), cut)
            elif step == "directory":
                ends.send(ends.client, packet(STAT, number, text(path_of("0x00"))), cut)
            else:
                ends.send(ends.client, packet(READLINK, number, text(b"/srv")), cut)
            for kind, id_, _ in ends.come(ends.server):
                asked.append((kind, id_, b""))
                waiting.append(packet(NAME, id_, NAMES) if kind == READLINK else packet(ATTRS, id_, attributes(1)))
            answered += ends.come(ends.client)
        while waiting:
            ends.send(ends.server, waiting.pop(0))
            for kind, id_, _ in ends.come(ends.server):
                waiting.append(packet(NAME, id_, NAMES) if kind == READLINK else packet(ATTRS, id_, attributes(1)))
            answered += ends.come(ends.client)
        assert sorted(id_ for _, id_, _ in answered) == [
            number for number, step in enumerate(steps, 1) if step != "answer" or number in {a[1] for a in asked}
        ]
        assert {body for kind, _, body in answered if kind == NAME} <= {NAMES}
        assert set(ends.left.values()) == {b""}
    finally:
        ends.close()
