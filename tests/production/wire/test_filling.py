"""What is fetched before it is asked for: which files, how much, and that nobody waits for it."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random
from typing import List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowstorage.database import blobs
from cowstorage.production.wire import candidates, filling, store, window
from cowstorage.production.wire.names import blob_path, directory_of, object_of
from harness.polling import until
from production.wire.base import BUSHY, LAWN, NEW, OLD, Base, Database, cache, note, relative_of, served
from production.wire.line import PIECE, Line, in_cache, path_of
from production.wire.server import FAILURE, OPEN, READ, STAT, STATUS, Server, packet, text

CONTENT = bytes(range(256)) * 300
LARGE = CONTENT * 5


def asked_by_us(line: Line) -> List[int]:
    """The types of our own requests that are held back."""
    return [kind for kind, number, _ in line.held or [] if number > 1 << 30]


# Which files


@pytest.mark.parametrize("layout", [BUSHY, LAWN])
def test_the_new_revision_of_what_was_read_is_fetched(layout: str, tmp_path: Path) -> None:
    old, new = relative_of(5, OLD, layout), relative_of(5, NEW, layout)
    cache(tmp_path, old)
    note(tmp_path, 5, layout=layout)
    server = Server(served(new))
    line = Line(tmp_path, server, knowledge=Database({5: NEW}), fills=True)
    line.idle()
    line.quiet()
    assert in_cache(tmp_path) == {old: b"old", new: CONTENT}
    assert server.opened == {}


def test_what_the_cache_never_had_whole_is_not_fetched(tmp_path: Path) -> None:
    """Somebody looked at the beginning of a film, or the user has deleted the cache."""
    note(tmp_path, 5, 6, 7)
    (tmp_path / "blobstorage" / directory_of(6, BUSHY)).mkdir(parents=True)
    server = Server(served(*map(relative_of, (5, 6, 7))))
    line = Line(tmp_path, server, knowledge=Database(dict.fromkeys((5, 6, 7), NEW)), fills=True)
    line.idle()
    assert server.asked == []


def test_what_is_there_already_is_not_fetched(tmp_path: Path) -> None:
    cache(tmp_path, relative_of(5))
    note(tmp_path, 5)
    server = Server(served(relative_of(5)))
    Line(tmp_path, server, knowledge=Database({5: NEW}), fills=True).idle()
    assert server.asked == []


def test_after_a_sync_it_is_looked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Base(tmp_path)
    oids = [int.from_bytes(oid, "big") for oid in base.blobs]
    location = tmp_path / "cache"
    for oid in oids:
        cache(location, relative_of(oid, OLD))
    note(location, *oids)
    bases, base.journal.bases = base.journal.bases, {}
    base.save()
    line = Line(location, Server(base.files()), knowledge=base.knowledge(), fills=True)
    line.idle()
    assert line.server.asked == []
    monkeypatch.setattr(filling, "LOOK_SECONDS", 0.0)
    base.journal.bases = bases
    base.save()
    expected = {blobs.path_of(oid, tid, "bushy") for oid, tid in base.blobs.items()}
    line.work_until(lambda: set(in_cache(location)) >= expected, "what was read has come")


def test_the_neighbours_of_what_is_read_are_fetched(tmp_path: Path) -> None:
    near = [100 + 3 * number for number in range(5)]
    far = 101 + candidates.REACH
    server = Server(served(*map(relative_of, (*near, far, 99))))
    line = Line(tmp_path, server, knowledge=Database(dict.fromkeys((*near, far, 99), NEW)), fills=True)
    line.idle()
    assert server.asked == []
    assert line.read(path_of(relative_of(near[0]))) == CONTENT
    line.idle()
    line.quiet()
    assert set(in_cache(tmp_path)) == set(map(relative_of, near))
    assert server.opened == {}


def test_who_reads_on_has_the_next_neighbours_fetched_and_who_reads_again_none(tmp_path: Path) -> None:
    oids = range(100, 200, candidates.REACH // 2)
    server = Server(served(*map(relative_of, oids), content=b"content"))
    known = Database(dict.fromkeys(oids, NEW))
    line = Line(tmp_path, server, knowledge=known, fills=True)
    line.read(path_of(relative_of(oids[0])))
    line.idle()
    assert {subject for _, subject in server.asked} == set(map(path_of, map(relative_of, oids[:3])))
    until(lambda: len(in_cache(tmp_path)) == 3, "they are in the cache")
    line.read(path_of(relative_of(oids[2])))
    line.idle()
    assert {subject for _, subject in server.asked} == set(map(path_of, map(relative_of, oids)))
    line.quiet()
    again = Line(tmp_path, server, knowledge=known, fills=True)
    again.idle()
    again.read(path_of(relative_of(oids[0])))
    assert not again.session._filling._more


def test_who_reads_in_an_order_has_what_it_passes_over_not_fetched(tmp_path: Path) -> None:
    oids = range(100, 200)
    server = Server(served(*map(relative_of, oids), content=b"content"))
    line = Line(tmp_path, server, knowledge=Database(dict.fromkeys(oids, NEW)), fills=True)
    order = oids[::20]
    for oid in order:
        line.read(path_of(relative_of(oid)))
        line.work_until(lambda: not line.session._following._is_looking, "what follows was looked for")
    line.idle()
    line.quiet()
    assert {relative_of(oid) for oid in order} == set(in_cache(tmp_path))


def test_who_reads_in_no_order_has_the_neighbours_of_all_but_the_last_at_once(tmp_path: Path) -> None:
    oids = range(100, 200)
    server = Server(served(*map(relative_of, oids), content=b"content"))
    line = Line(tmp_path, server, knowledge=Database(dict.fromkeys(oids, NEW)), fills=True)
    for oid in (100, 150, 120):
        line.read(path_of(relative_of(oid)))
    expected = {relative_of(oid) for oid in range(100, 101 + candidates.MOST_NEIGHBOURS)}
    line.work_until(lambda: expected <= set(in_cache(tmp_path)), "the first one's neighbours are there")
    assert {relative_of(oid) for oid in (151, 121)}.isdisjoint(in_cache(tmp_path))
    line.idle()
    until(lambda: {relative_of(oid) for oid in (151, 121)} <= set(in_cache(tmp_path)), "the others' are there")


def test_what_is_fetched_so_leaves_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "free_bytes", lambda path: store.RESERVE + filling.SPARE.room)
    server = Server(served(*map(relative_of, range(100, 104))))
    line = Line(tmp_path, server, knowledge=Database(dict.fromkeys(range(100, 104), NEW)), fills=True)
    line.read(path_of(relative_of(100)))
    line.idle()
    line.quiet()
    assert set(in_cache(tmp_path)) == {relative_of(100)}


def test_so_many_neighbours_and_no_more_bytes_than_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "FREE", 0)
    oids = range(100, 130)
    server = Server(served(*map(relative_of, oids)))
    line = Line(tmp_path, server, knowledge=Database(dict.fromkeys(oids, NEW)), fills=True)
    line.read(path_of(relative_of(100)))
    line.idle()
    neighbours = {subject for kind, subject in server.asked if kind == READ} - {path_of(relative_of(100))}
    # What came of it before it was written into the cache may have come twice.
    assert len(neighbours) == line.session.counters.from_production // len(CONTENT) >= 1
    assert len({subject for kind, subject in server.asked if kind == OPEN}) == 1 + candidates.MOST_NEIGHBOURS
    assert server.opened == {}


def test_a_large_neighbour_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "SMALL_REST", len(CONTENT) - 1)
    server = Server(served(relative_of(100), relative_of(101)))
    line = Line(tmp_path, server, knowledge=Database({100: NEW, 101: NEW}), fills=True)
    line.read(path_of(relative_of(100)))
    line.idle()
    line.quiet()
    assert set(in_cache(tmp_path)) == {relative_of(100)}


def test_a_part_of_the_limit_is_left_to_what_is_read(tmp_path: Path) -> None:
    oids = range(1, 17)
    cache(tmp_path, *(relative_of(oid, OLD) for oid in oids))
    note(tmp_path, *oids)
    files = served(*map(relative_of, (*oids, 1000)))
    limit = 10 * len(CONTENT)
    line = Line(tmp_path, Server(files), limit, knowledge=Database(dict.fromkeys(oids, NEW)), fills=True)
    until(lambda: line.store.limit.counted is not None, "what is there is counted")
    line.idle()
    line.read(path_of(relative_of(1000)))
    line.quiet()
    new = [content for content in in_cache(tmp_path).values() if content == CONTENT]
    assert len(new) == 8 + 1
    assert relative_of(1000) in in_cache(tmp_path)


@pytest.mark.parametrize("layout", [BUSHY, LAWN])
@given(oid=st.integers(0, (1 << 64) - 1), tid=st.integers(0, (1 << 64) - 1))
def test_the_names_are_zodbs(layout: str, oid: int, tid: int) -> None:
    directory = directory_of(oid, layout)
    expected = blobs.path_of(oid.to_bytes(8, "big"), tid.to_bytes(8, "big"), "bushy" if layout == BUSHY else "lawn")
    assert blob_path(directory, tid.to_bytes(8, "big")) == expected
    assert object_of(directory) == oid


@pytest.mark.parametrize("line", ["", "0x00/0x00", "0x", "tmp", "0x00/../0x00/0x00/0x00/0x00/0x00/0x00/0x05"])
def test_a_note_that_is_none_is_passed_over(line: str) -> None:
    assert object_of(line) is None


# Nobody waits for it


def held(line: Line, *relatives: str) -> Line:
    """Begin to fetch, and hold back what the server is asked."""
    line.held = []
    line.work_until(lambda: len(line.held or []) == 2 * len(relatives), "files are opened")
    return line


@pytest.fixture
def line(tmp_path: Path) -> Line:
    """One that has begun to fetch a file, of which the server has answered nothing yet, and another file."""
    cache(tmp_path, relative_of(5, OLD))
    note(tmp_path, 5)
    server = Server(served(relative_of(5), relative_of(1000), content=LARGE))
    return held(Line(tmp_path, server, knowledge=Database({5: NEW}), fills=True), relative_of(5))


def answers(line: Line) -> None:
    """Let the server answer what it has been asked so far."""
    asked, line.held = line.held or [], []
    for request in asked:
        line.receive_bytes(line.server.answer(*request))
    line.settle()


def test_a_server_that_never_answers_hinders_nobody(line: Line) -> None:
    path = path_of(relative_of(1000))
    assert sorted(asked_by_us(line)) == sorted([STAT, OPEN])
    kept, line.held = line.held, None
    assert line.read(path) == LARGE
    line.session.expire()
    line.settle()
    assert line.server.asked.count((OPEN, path_of(relative_of(5)))) == 0
    assert kept


def test_one_packet_is_under_way_while_sshfs_reads(line: Line) -> None:
    answers(line)
    assert asked_by_us(line) == [READ]
    assert struct.unpack_from(">I", line.held[0][2], len(line.held[0][2]) - 4)[0] == window.PACKET
    for _ in range(3):
        answers(line)
        assert asked_by_us(line) == [READ]
    # While sshfs waits nothing more is asked.
    asked = line.ask(STAT, text(path_of(relative_of(1000))))
    ours = [request for request in line.held if request[0] == READ]
    for request in ours:
        line.held.remove(request)
        line.receive_bytes(line.server.answer(*request))
    line.settle()
    assert READ not in asked_by_us(line)
    line.release()
    line.wait(asked)


def test_more_is_under_way_when_sshfs_is_quiet(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "QUIET_SECONDS", -1.0)
    monkeypatch.setattr(window, "QUEUE_SECONDS", 60.0)
    for _ in range(3):
        answers(line)
    assert asked_by_us(line) == [READ] * 3
    monkeypatch.setattr(window, "QUIET_SECONDS", 60.0)
    line.send(STAT, 1 << 20, text(b"/srv"))
    answers(line)
    assert asked_by_us(line) == [READ]


@pytest.mark.parametrize("step", [0, 1, 2])
def test_what_sshfs_asks_for_meanwhile_it_has_at_once_and_whole(step: int, line: Line, tmp_path: Path) -> None:
    path = path_of(relative_of(5))
    for _ in range(step):
        answers(line)
    asked = line.ask(STAT, text(path))
    if step:
        assert asked in line.answers
    line.release()
    assert struct.unpack_from(">Q", line.wait(asked)[1], 4)[0] == len(LARGE)
    assert line.read(path) == LARGE
    if step:
        assert line.server.asked.count((OPEN, path)) == 1
    line.idle()
    line.quiet()
    assert in_cache(tmp_path)[relative_of(5)] == LARGE
    assert line.server.opened == {}


def test_nothing_is_asked_before_the_server_has_begun(tmp_path: Path) -> None:
    cache(tmp_path, relative_of(5, OLD))
    note(tmp_path, 5)
    line = Line(tmp_path, Server({}, version=4), knowledge=Database({5: NEW}), fills=True)
    line.session.is_on, line.session.has_begun = True, False
    line.session.expire()
    assert line.to_server == b""


@pytest.mark.parametrize("kind", [STAT, OPEN, READ])
def test_a_server_that_denies_is_left_alone(kind: int, tmp_path: Path) -> None:
    oids = range(1, 100)
    cache(tmp_path, *(relative_of(oid, OLD) for oid in oids))
    note(tmp_path, *oids)

    class Denies(Server):
        def answer(self, asked: int, number: int, body: bytes) -> bytes:
            content = super().answer(asked, number, body)
            if asked != kind or number < 1 << 30:
                return content
            return packet(STATUS, number, struct.pack(">I", FAILURE) + text(b"") + text(b""))

    server = Denies(served(*map(relative_of, (*oids, 1000))))
    line = Line(tmp_path, server, knowledge=Database(dict.fromkeys(oids, NEW)), fills=True)
    line.idle()
    tried = {subject for asked, subject in server.asked if asked == STAT}
    assert filling.MOST_ERRORS <= len(tried) < filling.MOST_ERRORS + filling.MOST_FILES
    server.__class__ = Server
    assert line.read(path_of(relative_of(1000))) == CONTENT
    line.quiet()
    assert {name for name, content in in_cache(tmp_path).items() if content == CONTENT} == {relative_of(1000)}


def test_a_handle_that_is_anothers_is_not_believed(line: Line, tmp_path: Path) -> None:
    path = path_of(relative_of(1000))
    ours, line.held = line.held, None
    handle = line.open(path)
    line.server._number -= 1
    line.held = ours
    line.release()
    for offset in range(0, len(LARGE), PIECE):
        line.pread(handle, offset, PIECE)
    line.quiet()
    assert set(in_cache(tmp_path)) == {relative_of(5, OLD)}


@settings(max_examples=30)
@given(short=st.integers(1000, 40_000), order=st.randoms(use_true_random=False))
def test_short_answers_in_any_order_are_kept_whole_or_not(
    tmp_path_factory: pytest.TempPathFactory, short: int, order: Random
) -> None:
    location = tmp_path_factory.mktemp("cache")
    oids = range(1, 6)
    cache(location, *(relative_of(oid, OLD) for oid in oids))
    note(location, *oids)
    server = Server(served(*map(relative_of, oids)), short=short)
    line = Line(location, server, knowledge=Database(dict.fromkeys(oids, NEW)), fills=True)
    line.held = []
    line.work_until(lambda: bool(line.held), "files are opened")
    while line.held:
        answered = line.held.pop(order.randrange(len(line.held)))
        line.receive_bytes(server.answer(*answered))
        line.settle()
        line.session.expire()
        line.settle()
    line.quiet()
    assert sum(content == CONTENT for content in in_cache(location).values()) == len(oids)
    assert server.opened == {}
