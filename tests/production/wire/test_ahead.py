"""Asking ahead: how often sshfs waits for the server, and what is left when it does not want what was asked for."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Callable, List

import pytest

from cowstorage.production.wire import ahead, completion, fetch
from production.wire.line import BLOB, OTHER, PIECE, Error, Line, in_cache, path_of
from production.wire.server import CLOSE, FAILURE, OPEN, READ, STAT, STATUS, Server, packet, text

CONTENT = bytes(range(256)) * 1000
PATH = path_of(BLOB)


def flights(line: Line, *steps: Callable[[], int]) -> List[List[int]]:
    """Let sshfs take one step after the other; the types of requests of each flight that it had to wait for.

    A flight is all that the server has not answered yet when sshfs waits.
    """
    waited = []
    for step in steps:
        line.held = [] if line.held is None else line.held
        number = step()
        while number not in line.answers:
            waited.append(sorted(kind for kind, _, _ in line.held))
            held, line.held = line.held, []
            for request in held:
                line.receive_bytes(line.server.answer(*request))
            line.settle()
        line.last = line.answers.pop(number)
    return waited


def stat(line: Line) -> int:
    """Ask for the size."""
    return line.ask(STAT, text(PATH))


def opens(line: Line) -> int:
    """Open as sshfs does, which waits for the answer to the second."""
    line.opening = line.ask(OPEN, text(PATH) + struct.pack(">II", 1, 0))
    return line.ask(STAT, text(PATH))


def reads(line: Line, offset: int = 0) -> Callable[[], int]:
    """Read a piece by the handle that was opened last."""

    def read() -> int:
        if line.opening in line.answers:
            line.handle = line.answers.pop(line.opening)[1][4:]
        return line.ask(READ, text(line.handle) + struct.pack(">QI", offset, PIECE))

    return read


def test_the_first_read_of_a_file_waits_twice(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: CONTENT[:100_000]}))
    waited = flights(line, lambda: stat(line), lambda: opens(line), reads(line), reads(line, PIECE))
    # Size and handle, then the bytes: of the file's four pieces the second is there with the first.
    assert waited == [sorted([STAT, OPEN]), [READ] * 4]
    assert line.last[1][4:] == CONTENT[PIECE : 2 * PIECE]


def test_an_open_without_a_question_before_waits_twice(tmp_path: Path) -> None:
    """The kernel knows the file's size still, and has not its bytes."""
    line = Line(tmp_path, Server({PATH: CONTENT[:PIECE]}))
    assert flights(line, lambda: opens(line), reads(line)) == [sorted([STAT, OPEN]), [READ]]


def test_a_file_that_is_not_there_is_asked_for_once(tmp_path: Path) -> None:
    server = Server({})
    line = Line(tmp_path, server)
    for _ in range(2):
        with pytest.raises(Error, match="2"):
            line.stat(PATH)
    assert server.asked == [(STAT, PATH), (OPEN, PATH)] * 2
    assert not line.session.expire()


def test_what_nobody_opens_is_closed_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server({PATH: CONTENT * 5})
    line = Line(tmp_path, server)
    line.stat(PATH)
    assert len(server.opened) == 1
    assert line.session.expire()
    monkeypatch.setattr(ahead, "UNCLAIMED_SECONDS", -1.0)
    line.session.expire()
    line.settle()
    assert server.opened == {}
    assert server.asked.count((READ, PATH)) == fetch.FIRST_WINDOW // fetch.LARGE_PIECE
    assert not line.session.expire()
    line.quiet()
    assert in_cache(tmp_path) == {}
    assert list((tmp_path / "coming").iterdir()) == []


def test_who_lists_files_is_not_asked_ahead_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "UNCLAIMED_SECONDS", -1.0)
    paths = [path_of(f"0x{number:02x}/0x03f1.blob") for number in range(100)]
    server = Server(dict.fromkeys(paths, b"x"))
    line = Line(tmp_path, server)
    for path in paths:
        assert line.stat(path) == 1
        line.session.expire()
        line.settle()
    assert sum(kind == OPEN for kind, _ in server.asked) == ahead.MOST_MISSES
    assert server.opened == {}
    # Who opens one reads again.
    line.read(paths[50])
    server.asked.clear()
    line.stat(paths[60])
    assert (OPEN, paths[60]) in server.asked


def test_so_many_at_a_time_are_asked_ahead_for(tmp_path: Path) -> None:
    paths = [path_of(f"0x{number:02x}/0x03f1.blob") for number in range(100)]
    server = Server(dict.fromkeys(paths, CONTENT))
    line = Line(tmp_path, server)
    for path in paths:
        line.stat(path)
    assert len(server.opened) == ahead.MOST_UNCLAIMED


def test_the_window_moves_with_its_reader(tmp_path: Path) -> None:
    server = Server({PATH: CONTENT * 50})
    line = Line(tmp_path, server)
    line.stat(PATH)
    handle = line.open(PATH)
    for number in range(300):
        assert line.pread(handle, number * PIECE, PIECE) == (CONTENT * 50)[number * PIECE : (number + 1) * PIECE]
        asked = sum(kind == READ for kind, _ in server.asked) * PIECE
        read = (number + 1) * PIECE
        assert asked - read <= max(fetch.FIRST_WINDOW, min(read, fetch.LAST_WINDOW))
    assert line.session._ahead.memory <= fetch.LAST_WINDOW
    line.close(handle)
    assert line.session._ahead.memory == 0


def test_the_memory_of_all_readers_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "MEMORY", 8 * PIECE)
    paths = [path_of(f"0x{number:02x}/0x03f1.blob") for number in range(10)]
    line = Line(tmp_path, Server(dict.fromkeys(paths, CONTENT)))
    handles = [line.open(path) for path in paths]
    assert line.session._ahead.memory <= 8 * PIECE
    for offset in range(0, len(CONTENT), PIECE):
        for handle in handles:
            assert line.pread(handle, offset, PIECE) == CONTENT[offset : offset + PIECE]
    assert line.session._ahead.memory <= 8 * PIECE


@pytest.mark.parametrize("answer", [packet(STATUS, 0, struct.pack(">I", FAILURE)), packet(103, 0, b"\0\0\0\xff")])
def test_what_can_not_be_asked_ahead_for_the_server_answers(answer: bytes, tmp_path: Path) -> None:
    server = Server({PATH: CONTENT})
    line = Line(tmp_path, server)
    line.stat(PATH)
    line.held = []
    handle = line.ask(OPEN, text(PATH) + struct.pack(">II", 1, 0))
    line.handle = line.wait(handle)[1][4:]
    asked = line.ask(READ, text(line.handle) + struct.pack(">QI", 4 * PIECE, PIECE))
    first = line.ask(READ, text(line.handle) + struct.pack(">QI", 0, PIECE))
    for kind, number, body in list(line.held):
        if kind == READ and number > 1 << 30:
            line.held.remove((kind, number, body))
            line.receive_bytes(answer[:5] + struct.pack(">I", number) + answer[9:])
    line.release()
    if first in line.answers:
        assert line.wait(first)[1][4:] == CONTENT[:PIECE]
    assert line.wait(asked)[1][4:] == CONTENT[4 * PIECE : 5 * PIECE]


def test_a_file_that_is_read_in_part_and_closed_while_more_is_under_way_comes_whole(tmp_path: Path) -> None:
    server = Server({PATH: CONTENT})
    line = Line(tmp_path, server)
    line.held = []
    number = line.ask(STAT, text(PATH))
    line.release()
    line.wait(number)
    handle = line.open(PATH)
    line.held = []
    line.pread(handle, 0, PIECE)
    closed = line.ask(CLOSE, text(handle))
    line.wait(closed)
    line.release()
    line.quiet()
    assert in_cache(tmp_path) == {BLOB: CONTENT}
    assert server.opened == {}
    asked = sum(kind == READ for kind, _ in server.asked)
    assert asked <= len(CONTENT) // PIECE + 1


def test_reading_at_random_goes_to_the_server(tmp_path: Path) -> None:
    server = Server({PATH: CONTENT * 50, path_of(OTHER): b""})
    line = Line(tmp_path, server)
    handle = line.open(PATH)
    before = len(server.asked)
    for offset in (5_000_000, 3_000_000, 9_000_000):
        assert line.pread(handle, offset, 100) == (CONTENT * 50)[offset : offset + 100]
    assert len(server.asked) == before + 3


@pytest.mark.parametrize("short, piece", [(1 << 20, fetch.LARGE_PIECE), (PIECE, PIECE), (10_000, PIECE)])
def test_a_large_file_is_asked_for_in_what_the_server_sends_at_once(short: int, piece: int, tmp_path: Path) -> None:
    server = Server({PATH: CONTENT * 5, path_of(OTHER): CONTENT * 5}, short=short)
    line = Line(tmp_path, server)
    assert line.read(PATH) == CONTENT * 5
    line.held = []
    line.ask(STAT, text(path_of(OTHER)))
    requests, line.held = line.held, []
    for request in requests:
        line.receive_bytes(server.answer(*request))
    line.settle()
    asked = [struct.unpack_from(">QI", body, len(body) - 12) for kind, _, body in line.held if kind == READ]
    assert asked == [(offset, piece) for offset in range(0, fetch.ALONE_WINDOW, piece)]


def test_the_pieces_are_those_of_sshfs() -> None:
    assert completion.PIECE == fetch.PIECE == 32768
