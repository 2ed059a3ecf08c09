"""A session between a client and a server of the tests, without processes: bytes go to and fro until all is quiet."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

from cowstorage.production.wire.candidates import Candidates
from cowstorage.production.wire.framing import Framing
from cowstorage.production.wire.knowledge import Knowledge
from cowstorage.production.wire.names import BlobNames
from cowstorage.production.wire.session import Session
from cowstorage.production.wire.store import Store
from cowstorage.production.wire.threads import Readers
from harness.polling import until
from production.wire.server import (
    ATTRS,
    CLOSE,
    DATA,
    HANDLE,
    INIT,
    OPEN,
    READ,
    STAT,
    STATUS,
    Server,
    packet,
    split,
    text,
)

ROOT = b"/srv/blobstorage/"
BLOB = "0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x05/0x03f1b2c4d5e6f708.blob"
OTHER = "0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x06/0x03f1b2c4d5e6f708.blob"
# What sshfs asks for at once.
PIECE = 32768


class Error(Exception):
    """A STATUS that is not OK; its code."""


class Line:
    """sshfs's side, the session, and the server's side.

    :param cut: bytes that are received at once, on both ways; 0: all there is.
    :param fills: whether what the local database knows is fetched before it is read.
    """

    def __init__(
        self,
        location: Path,
        server: Server,
        limit: Optional[int] = None,
        cut: int = 0,
        knowledge: Optional[Knowledge] = None,
        fills: bool = False,
    ):
        self.server = server
        self.store = Store(str(location), limit)
        self.readers = Readers()
        self.session = Session(
            BlobNames(ROOT.decode()),
            self.store,
            self.readers,
            self._answers_come,
            self._requests_go,
            knowledge,
            candidates=Candidates(str(location), self.store, knowledge) if knowledge and fills else None,
        )
        self._cut = cut
        self._requests = Framing(self.session.looks_at_request)
        self._answers = Framing(self.session.looks_at_answer, after_rubbish=True)
        self.to_server = b""
        self._to_client = b""
        self.held: Optional[List[Tuple[int, int, bytes]]] = None
        self.answers: Dict[int, Tuple[int, bytes]] = {}
        self._number = 0
        self.send(INIT, 3)
        self.settle()
        self.first = self.answers.popitem()

    # The bytes

    def _answers_come(self, content: object) -> None:
        self._to_client += bytes(content)  # type: ignore[call-overload]

    def _requests_go(self, content: object) -> None:
        self.to_server += bytes(content)  # type: ignore[call-overload]

    def send(self, kind: int, number: int, body: bytes = b"") -> None:
        """sshfs sends a request."""
        self.send_bytes(packet(kind, number, body))

    def send_bytes(self, content: bytes) -> None:
        """sshfs sends bytes."""
        self.session.has_asked()
        feed(self._requests, content, self._cut, self.session.request, self._requests_go)

    def receive_bytes(self, content: bytes) -> None:
        """The server sends bytes."""
        feed(self._answers, content, self._cut, self.session.answer, self._answers_come)

    def settle(self) -> None:
        """Let the server answer until it has no more requests; what it has held back stays."""
        while self.to_server:
            requests, self.to_server = split(self.to_server)
            for request in requests:
                if self.held is not None:
                    self.held.append(request)
                else:
                    self.receive_bytes(self.server.answer(*request))
        answered, self._to_client = split(self._to_client)
        for kind, number, body in answered:
            assert number not in self.answers, "answered twice"
            self.answers[number] = (kind, body)

    def release(self, backwards: bool = False) -> None:
        """Let the server answer what it has held back, and all that follows."""
        held, self.held = self.held or [], None
        for request in held[::-1] if backwards else held:
            self.receive_bytes(self.server.answer(*request))
        self.settle()

    # What sshfs does

    def ask(self, kind: int, body: bytes) -> int:
        """Send a request and return its id."""
        self._number += 1
        self.send(kind, self._number, body)
        self.settle()
        return self._number

    def wait(self, number: int) -> Tuple[int, bytes]:
        """The answer to a request, which may come from a thread."""

        def has_come() -> bool:
            self.readers.take_results()
            self.settle()
            return number in self.answers

        until(has_come, "an answer")
        kind, body = self.answers.pop(number)
        if kind == STATUS and struct.unpack_from(">I", body)[0]:
            raise Error(struct.unpack_from(">I", body)[0])
        return kind, body

    def stat(self, path: bytes) -> int:
        """The size of a file."""
        kind, body = self.wait(self.ask(STAT, text(path)))
        assert kind == ATTRS
        return int(struct.unpack_from(">Q", body, 4)[0])

    def open(self, path: bytes) -> bytes:
        """A handle; sshfs asks for the file's size with it."""
        number = self.ask(OPEN, text(path) + struct.pack(">II", 1, 0))
        self.stat(path)
        kind, body = self.wait(number)
        assert kind == HANDLE
        return body[4:]

    def pread(self, handle: bytes, offset: int, length: int) -> bytes:
        """Bytes of a file; none at its end."""
        try:
            kind, body = self.wait(self.ask(READ, text(handle) + struct.pack(">QI", offset, length)))
        except Error as error:
            if error.args == (1,):
                return b""
            raise
        assert kind == DATA
        assert len(body) - 4 == struct.unpack_from(">I", body)[0] <= length
        return body[4:]

    def close(self, handle: bytes) -> None:
        """Close a handle."""
        self.wait(self.ask(CLOSE, text(handle)))

    def read(self, path: bytes) -> bytes:
        """All of a file, as sshfs reads it: a short answer is its end."""
        size = self.stat(path)
        handle = self.open(path)
        content = b""
        while len(content) < size:
            piece = self.pread(handle, len(content), PIECE)
            content += piece
            if len(piece) < min(PIECE, size - len(content) + len(piece)):
                break
        self.close(handle)
        return content

    # What sshfs does not ask for

    def work_until(self, is_done: Callable[[], bool], what: str) -> None:
        """Let be done what is done while sshfs asks for nothing, until something is."""

        def works() -> bool:
            self.session.expire()
            self.readers.take_results()
            self.settle()
            return is_done()

        until(works, what)

    def idle(self) -> None:
        """Let be done what is done while sshfs asks for nothing, until there is nothing to do."""
        filling, following = self.session._filling, self.session._following
        if following:
            # As if a while had passed.
            following._opened_at = float("-inf")
        self.work_until(
            lambda: (
                not (following and (following._is_looking or following._alone))
                and not (filling._is_looking or filling._more or filling._queue or filling._opening or filling._files)
                and not self.session._completion.is_busy
            ),
            "nothing is to be fetched",
        )

    # The cache

    def quiet(self) -> Line:
        """Wait until the cache's threads have nothing to do."""
        self.store.finish(10)
        return self


def feed(framing: Framing, content: bytes, cut: int, whole: object, rest: object) -> None:
    """Have bytes received, a few at once."""
    while content:
        space = framing.space
        count = min(len(content), len(space), cut or len(content))
        space[:count] = content[:count]
        for piece in framing.received(count):
            if piece.kind:
                whole(piece.kind, piece.content)  # type: ignore[operator]
            else:
                rest(piece.content)  # type: ignore[operator]
        content = content[count:]


def in_cache(location: Path) -> Dict[str, bytes]:
    """The BLOB files of the cache."""
    top = location / "blobstorage"
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*.blob")}


def path_of(relative: str) -> bytes:
    """The path in requests."""
    return ROOT + relative.encode()
