"""What sshfs asks for beside BLOB files: what is answered without production, and that nothing there is hidden."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

import pytest

from cowstorage.database.format import FIRST_DIRECTORIES
from cowstorage.production.wire import directories, listings, momentary, packets, room
from harness.polling import until
from production.wire.line import ROOT, Error, Line, path_of
from production.wire.server import (
    ATTRS,
    CLOSE,
    END,
    FAILURE,
    HANDLE,
    NAME,
    OK,
    STAT,
    STATUS,
    Server,
    attributes,
    packet,
    text,
)

OPENDIR, READDIR, EXTENDED, EXTENDED_REPLY = 11, 12, 200, 201
STORAGES = b"/srv/filestorage"
ROOM = b"statvfs@openssh.com"


class WithDirectories(Server):
    """A server that has one directory, too, and tells how much room there is.

    :param names: what is in the directory; two of them in each answer.
    :param end: the code of the STATUS at its end.
    """

    def __init__(self, names: Sequence[bytes] = (), end: int = END, there: Sequence[bytes] = ()):
        super().__init__(dict.fromkeys(there, b""), mode=0o40755)
        self.names = list(names)
        self.end = end
        self.rooms = 0
        self._left: List[bytes] = []

    def answer(self, kind: int, number: int, body: bytes) -> bytes:
        if kind == EXTENDED:
            self.rooms += 1
            return packet(EXTENDED_REPLY, number, struct.pack(">11Q", *range(self.rooms, self.rooms + 11)))
        if kind == OPENDIR:
            self._left = list(self.names)
            return packet(HANDLE, number, text(b"directory"))
        if kind == CLOSE:
            return packet(STATUS, number, struct.pack(">I", OK) + text(b"") + text(b""))
        if kind != READDIR:
            return super().answer(kind, number, body)
        some, self._left = self._left[:2], self._left[2:]
        if not some:
            return packet(STATUS, number, struct.pack(">I", self.end) + text(b"") + text(b""))
        entries = (text(name) + text(b"-rw-r--r-- 1 plone plone " + name) + attributes(1) for name in some)
        return packet(NAME, number, struct.pack(">I", len(some)) + b"".join(entries))


def listed(line: Line, path: bytes = STORAGES, reads: int = 3) -> bytes:
    """A directory's handle, which sshfs has listed: it asks for more than it has answers to."""
    kind, body = line.wait(line.ask(OPENDIR, text(path)))
    assert kind == HANDLE
    for number in [line.ask(READDIR, body) for _ in range(reads)]:
        try:
            line.wait(number)
        except Error:
            continue
    return body[4:]


def is_there(line: Line, path: bytes) -> bool:
    try:
        line.wait(line.ask(STAT, text(path)))
    except Error as error:
        if error.args != (2,):
            raise
        return False
    return True


def asked(server: Server) -> List[bytes]:
    """What the server was asked for, once."""
    found, server.asked = [subject for kind, subject in server.asked if kind == STAT], []
    return found


# Names of our own


@pytest.mark.parametrize("directory", [STORAGES, ROOT[:-1], path_of("0x00/0x00"), path_of("tmp")])
def test_what_is_made_to_try_a_directory_is_nowhere_on_production(directory: bytes, tmp_path: Path) -> None:
    path = directory + b"/.cowstorage-4711"
    server = Server({path: b"", directory + b"/cowstorage-4711": b""})
    line = Line(tmp_path, server)
    assert not is_there(line, path)
    assert asked(server) == []
    assert is_there(line, directory + b"/cowstorage-4711")


# Names that ZODB makes for a moment


def test_a_new_index_that_was_not_there_is_not_asked_for_again(tmp_path: Path) -> None:
    name, other = STORAGES + b"/Data.fs.index.index_tmp", STORAGES + b"/Data.fs.old"
    server = Server({})
    line = Line(tmp_path, server)
    assert [is_there(line, path) for path in (name, name, other, other)] == [False] * 4
    assert asked(server) == [name, other, other]


def test_a_new_index_that_was_there_is_asked_for_again(tmp_path: Path) -> None:
    name = STORAGES + b"/Data.fs.index.index_tmp"
    server = Server({name: b""})
    line = Line(tmp_path, server)
    assert is_there(line, name)
    del server.files[name]
    assert not is_there(line, name)
    assert not is_there(line, name)
    assert asked(server) == [name, name]


def test_names_without_end_are_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(momentary, "MOST_NAMES", 2)
    server = Server({})
    line = Line(tmp_path, server)
    names = [STORAGES + b"/%d.fs.index.index_tmp" % number for number in range(3)]
    assert [is_there(line, path) for path in (*names, *names)] == [False] * 6
    assert asked(server) == [*names, names[2]]


# The directories that the first BLOBs are in


def first(*depths: int) -> List[bytes]:
    return [path_of(FIRST_DIRECTORIES[depth - 1]) for depth in depths]


def test_the_way_to_the_first_blobs_is_one_round_trip(tmp_path: Path) -> None:
    server = WithDirectories(there=first(1, 2, 3, 4, 5, 6))
    line = Line(tmp_path, server)
    assert is_there(line, path_of("0x00"))
    assert sorted(asked(server)) == sorted(first(1, 2, 3, 4, 5, 6))
    assert all(is_there(line, path) for path in first(2, 3, 4, 5, 6))
    assert asked(server) == []
    assert is_there(line, path_of("0x00/0x00"))
    assert not is_there(line, path_of("0x00/0x00/0x07"))
    assert asked(server) == [path_of("0x00/0x00/0x07")]


def test_what_is_not_there_is_told_so(tmp_path: Path) -> None:
    line = Line(tmp_path, WithDirectories(there=first(1, 2)))
    assert [is_there(line, path) for path in first(1, 2, 3, 4)] == [True, True, False, False]


def test_who_asks_before_the_answer_has_come_waits_for_it(tmp_path: Path) -> None:
    line = Line(tmp_path, WithDirectories(there=first(1, 2, 3)))
    line.held = []
    numbers = [line.ask(STAT, text(path)) for path in (*first(1, 3), *first(3))]
    assert not line.answers
    assert len(line.held) == 6
    line.release(backwards=True)
    assert [line.wait(number)[0] for number in numbers] == [ATTRS] * 3


def test_what_was_asked_ahead_is_asked_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = WithDirectories(there=first(1))
    line = Line(tmp_path, server)
    assert is_there(line, path_of("0x00"))
    server.files[path_of("0x00/0x00")] = b""
    asked(server)
    assert is_there(line, path_of("0x00/0x00"))
    assert asked(server)[-1] == path_of("0x00/0x00")
    assert is_there(line, path_of("0x00"))
    asked(server)
    monkeypatch.setattr(directories, "AHEAD_SECONDS", 0.0)
    assert is_there(line, path_of("0x00/0x00"))
    assert path_of("0x00/0x00") in asked(server)


# Listings


def test_a_name_that_a_listing_of_just_now_lacks_is_not_asked_for(tmp_path: Path) -> None:
    server = WithDirectories([b"Data.fs", b"Data.fs.index", b"Data.fs.lock"], there=[STORAGES + b"/Data.fs.lock"])
    line = Line(tmp_path, server)
    handle = listed(line)
    assert not is_there(line, STORAGES + b"/Data.fs.old")
    line.close(handle)
    assert not is_there(line, STORAGES + b"/Data.fs.tr0")
    assert asked(server) == []
    assert is_there(line, STORAGES + b"/Data.fs.lock")
    assert not is_there(line, b"/srv/other/Data.fs.old")
    assert asked(server) == [STORAGES + b"/Data.fs.lock", b"/srv/other/Data.fs.old"]


@pytest.mark.parametrize(
    "names, end, reads, seconds",
    [
        ([b"Data.fs"], FAILURE, 3, 2.0),
        ([b"Data.fs", b"a", b"b", b"c"], END, 2, 2.0),
        ([b"Data.fs"], END, 3, 0.0),
        ([b"%d" % number for number in range(1010)], END, 600, 2.0),
    ],
    ids=["an error", "not to its end", "too old", "too many names"],
)
def test_a_listing_that_may_lack_what_is_there_is_not_believed(
    names: List[bytes], end: int, reads: int, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listings, "SECONDS", seconds)
    server = WithDirectories(names, end, there=[STORAGES + b"/new"])
    line = Line(tmp_path, server)
    listed(line, reads=reads)
    assert is_there(line, STORAGES + b"/new")


def test_a_listing_is_not_whole_while_names_are_under_way(tmp_path: Path) -> None:
    server = WithDirectories([b"Data.fs", b"Data.fs.index"], there=[STORAGES + b"/Data.fs"])
    line = Line(tmp_path, server)
    _, body = line.wait(line.ask(OPENDIR, text(STORAGES)))
    line.held = []
    names, end = line.ask(READDIR, body), line.ask(READDIR, body)
    held, line.held = line.held, None
    server.names = server._left = []
    line.receive_bytes(server.answer(*held[1]))
    assert is_there(line, STORAGES + b"/Data.fs")
    server._left = [b"Data.fs"]
    line.receive_bytes(server.answer(*held[0]))
    line.settle()
    assert line.wait(names)[0] == NAME
    with pytest.raises(Error):
        line.wait(end)
    assert not is_there(line, STORAGES + b"/Data.fs.old")


def test_a_new_listing_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    server = WithDirectories([b"Data.fs"], there=[STORAGES + b"/new"])
    line = Line(tmp_path, server)
    listed(line)
    assert not is_there(line, STORAGES + b"/new")
    server.names.append(b"new")
    listed(line)
    assert is_there(line, STORAGES + b"/new")


def test_a_listing_of_blobs_is_not_believed(tmp_path: Path) -> None:
    """An object that was added since may be here already, and Plone read its BLOB."""
    new = path_of("0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x19")
    server = WithDirectories([b"0x05"], there=[new])
    line = Line(tmp_path, server)
    listed(line, new.rpartition(b"/")[0])
    assert is_there(line, new)


def test_directories_without_end_are_not_remembered(tmp_path: Path) -> None:
    line = Line(tmp_path, WithDirectories([b"Data.fs"]))
    for number in range(100):
        listed(line, b"/srv/%d" % number)
    assert len(line.session._beside.listings._latest) == listings.MOST_DIRECTORIES


@pytest.mark.parametrize(
    "more, names",
    [
        (struct.pack(">I", 0), [b"a", b"b"]),
        (struct.pack(">IQ", 1, 5), [b"a", b"b"]),
        (struct.pack(">III", 0x80000000, 1, 1) + b"x" + text(b"yz"), [b"a", b"b"]),
        (struct.pack(">IIII", 0xC, 0o644, 1, 1), [b"a", b"b"]),
    ],
)
def test_names_are_found_between_attributes_of_all_kinds(more: bytes, names: List[bytes]) -> None:
    entries = b"".join(text(name) + text(b"for people") + more for name in names)
    whole = packet(NAME, 1, struct.pack(">I", len(names)) + entries)
    assert packets.names_of(whole) == names
    with pytest.raises(packets.Malformed):
        packets.names_of(whole[: whole.rindex(text(b"for people")) + 5])


# Room


def room_of(line: Line, path: bytes = b"/srv", name: bytes = ROOM) -> Tuple[int, Optional[int]]:
    kind, body = line.wait(line.ask(EXTENDED, text(name) + text(path)))
    return kind, struct.unpack_from(">Q", body)[0]


def test_how_much_room_there_is_is_asked_once_in_some_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = WithDirectories()
    line = Line(tmp_path, server)
    assert [room_of(line), room_of(line)] == [(EXTENDED_REPLY, 1)] * 2
    assert room_of(line, b"/other") == (EXTENDED_REPLY, 2)
    assert room_of(line, b"/srv", b"fstatvfs@openssh.com") == (EXTENDED_REPLY, 3)
    assert room_of(line, b"/srv", b"fstatvfs@openssh.com") == (EXTENDED_REPLY, 4)
    begun = time.monotonic()
    monkeypatch.setattr(room, "SECONDS", 0.01)
    until(lambda: time.monotonic() > begun + 0.01, "it is old")
    assert room_of(line) == (EXTENDED_REPLY, 5)


def test_an_error_is_no_answer_to_remember(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({}))
    for _ in range(2):
        with pytest.raises(Error):
            room_of(line)
    assert [kind for kind, _ in line.server.asked] == [EXTENDED, EXTENDED]


def test_rooms_without_end_are_not_remembered(tmp_path: Path) -> None:
    line = Line(tmp_path, WithDirectories())
    for number in range(100):
        room_of(line, b"/%d" % number)
    assert len(line.session._beside.room._answers) == room.MOST
