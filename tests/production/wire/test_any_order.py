"""Whatever sshfs asks for, and whenever and however short the server answers: the right bytes, each answer once."""

from __future__ import annotations

import struct
from typing import Dict, Iterator, List, NamedTuple, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowstorage.production.wire import ahead
from harness.polling import until
from production.wire.base import NEW, OLD, Database, cache, note, relative_of
from production.wire.line import PIECE, Line, in_cache, path_of
from production.wire.server import ATTRS, CLOSE, DATA, END, HANDLE, OK, OPEN, READ, STAT, STATUS, Server, text

CONTENT = bytes(range(251)) * 1000
SIZES = (0, 1, PIECE, 100_000, 250_000)
RELATIVES = [relative_of(100 + number) for number in range(len(SIZES))]
FILES = {path_of(relative): CONTENT[:size] for relative, size in zip(RELATIVES, SIZES)}
PATHS = list(FILES)

a_step = st.tuples(
    st.sampled_from(["stat", "open", "go on", "go on", "jump", "close", "answer", "answer", "answer", "expire"]),
    st.integers(0, len(SIZES) - 1),
    st.integers(0, 300_000),
)


class Asked(NamedTuple):
    """A request of sshfs's."""

    kind: int
    path: bytes
    handle: bytes = b""
    offset: int = 0
    length: int = 0


class Client:
    """sshfs with several readers, none of which waits for another; each answer is looked at."""

    def __init__(self, line: Line):
        self.line = line
        line.held = []
        self.asked: Dict[int, Asked] = {}
        # Handle, path, and where the next READ begins.
        self.opened: List[Tuple[bytes, bytes, int]] = []

    def ask(self, asked: Asked) -> None:
        """Send a request."""
        body = text(asked.handle or asked.path)
        if asked.kind == OPEN:
            body += struct.pack(">II", 1, 0)
        elif asked.kind == READ:
            body += struct.pack(">QI", asked.offset, asked.length)
        self.asked[self.line.ask(asked.kind, body)] = asked

    def step(self, what: str, which: int, number: int) -> None:
        """Do something of what is possible now."""
        if what == "stat":
            self.ask(Asked(STAT, PATHS[which]))
        elif what == "open":
            self.ask(Asked(OPEN, PATHS[which]))
            self.ask(Asked(STAT, PATHS[which]))
        elif what == "answer" and self.line.held:
            self.line.receive_bytes(self.line.server.answer(*self.line.held.pop(number % len(self.line.held))))
        elif what == "expire":
            self.line.session.expire()
        elif self.opened:
            self._use(what, which % len(self.opened), number)
        self.line.readers.take_results()
        self.line.settle()
        self.look()

    def _use(self, what: str, which: int, number: int) -> None:
        handle, path, offset = self.opened[which]
        # sshfs asks for the size when it opens, and reads when it has it.
        is_told = not any(asked.path == path for asked in self.asked.values() if asked.kind == STAT)
        if what == "close":
            # sshfs waits for its READs first.
            if not any(asked.handle == handle for asked in self.asked.values()):
                self.opened.pop(which)
                self.ask(Asked(CLOSE, path, handle))
        elif what in ("jump", "go on") and is_told:
            offset = number if what == "jump" else offset
            length = PIECE if number % 3 else 1 + number % (2 * PIECE)
            self.opened[which] = (handle, path, offset + length)
            self.ask(Asked(READ, path, handle, offset, length))

    def look(self) -> None:
        """Compare what has come with what is right."""
        for number in list(self.line.answers):
            kind, body = self.line.answers.pop(number)
            asked = self.asked.pop(number)
            content = FILES[asked.path]
            if asked.kind == STAT:
                assert (kind, struct.unpack_from(">Q", body, 4)[0]) == (ATTRS, len(content))
            elif asked.kind == OPEN:
                assert kind == HANDLE
                self.opened.append((body[4:], asked.path, 0))
            elif asked.kind == READ and asked.offset < len(content):
                assert (kind, body[4:]) == (DATA, content[asked.offset : asked.offset + asked.length])
            else:
                expected = END if asked.kind == READ else OK
                assert (kind, struct.unpack_from(">I", body)[0]) == (STATUS, expected)

    def finish(self) -> None:
        """Close all, and let the server answer all."""

        def is_done() -> bool:
            for which in range(len(self.opened)):
                self.step("close", which, 0)
            while self.line.held:
                self.step("answer", 0, 0)
            self.step("expire", 0, 0)
            return not (self.asked or self.opened or self.line.held)

        until(is_done, "all is answered")


@pytest.fixture(autouse=True, scope="module")
def nothing_waits_for_long() -> Iterator[None]:
    """What nobody opens is closed at the next look."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ahead, "UNCLAIMED_SECONDS", -1.0)
        yield


@pytest.mark.parametrize("fills", [False, True])
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(a_step, max_size=80), short=st.integers(500, 40_000), cut=st.sampled_from([0, 1000, 7919]))
def test_each_answer_is_right_and_comes_once(
    fills: bool,
    steps: List[Tuple[str, int, int]],
    short: int,
    cut: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    location = tmp_path_factory.mktemp("cache")
    cache(location, relative_of(104, OLD))
    note(location, 104)
    server = Server(dict(FILES), short=short)
    known = Database({100 + number: NEW for number in range(len(SIZES))})
    client = Client(Line(location, server, cut=cut, knowledge=known, fills=fills))
    for step in steps:
        client.step(*step)
    client.finish()
    client.line.quiet()
    assert server.opened == {}
    for relative, content in in_cache(location).items():
        assert content == (FILES[path_of(relative)] if relative in RELATIVES else b"old")
