"""The program between sshfs and ssh: OpenSSH's sftp-server takes the part of ssh, the test that of sshfs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

import pytest

from cowstorage.part.counters import saved
from cowstorage.production.wire import __main__ as program
from harness.polling import until
from harness.sshd import SFTP_SERVERS
from production.wire.server import (
    CLOSE,
    DATA,
    HANDLE,
    INIT,
    OPEN,
    READ,
    STAT,
    VERSION,
    packet,
    split,
    text,
)

PIECE = 32768
# Kilobytes of memory; the goal is 64 MB.
MOST_MEMORY = 64_000
SERVER = Path(__file__).parent / "server.py"


class Wire:
    """The program, and requests to it."""

    def __init__(self, top: Path, *ssh: str):
        self.top = top
        self.blobs = top / "blobs"
        self.cache = top / "cache"
        words = ["--blobs", f"{self.blobs}/", "--cache", str(self.cache), "--", *ssh]
        command = [sys.executable, "-I", "-S", "-X", "utf8", program.__file__, *words]
        self.socket, its = socket.socketpair()
        self.process = subprocess.Popen(command, stdin=its, stdout=its, cwd="/")
        its.close()
        self.socket.settimeout(60)
        self._number = 0
        self._rest = b""
        self._come: Dict[int, Tuple[int, bytes]] = {}

    def send(self, kind: int, body: bytes) -> int:
        """Send a request and return its id."""
        self._number += 1
        self.socket.sendall(packet(kind, self._number, body))
        return self._number

    def wait(self, number: int) -> Tuple[int, bytes]:
        """The answer to a request."""
        while number not in self._come:
            received = self.socket.recv(1 << 20)
            assert received, "the wire has ended"
            answers, self._rest = split(self._rest + received)
            self._come.update({came: (kind, body) for kind, came, body in answers})
        return self._come.pop(number)

    def begin(self) -> bytes:
        """Begin as sshfs does, and return what the server says first."""
        self.socket.sendall(packet(INIT, 3))
        return self.wait(3)[1]

    def path(self, relative: str) -> bytes:
        """A BLOB's path in requests."""
        return os.fsencode(self.blobs / relative)

    def open(self, path: bytes) -> bytes:
        """A handle; size and time are asked for with it."""
        opened = self.send(OPEN, text(path) + struct.pack(">II", 1, 0))
        self.wait(self.send(STAT, text(path)))
        kind, body = self.wait(opened)
        assert kind == HANDLE
        return body[4:]

    def read_pieces(self, handle: bytes, size: int, ahead: int = 8) -> Iterator[bytes]:
        """All of an open file, with so many requests at a time."""
        asked: List[int] = []
        for offset in range(0, size, PIECE):
            asked.append(self.send(READ, text(handle) + struct.pack(">QI", offset, PIECE)))
            if len(asked) == ahead:
                yield self._data(asked.pop(0))
        for number in asked:
            yield self._data(number)

    def _data(self, number: int) -> bytes:
        kind, body = self.wait(number)
        assert kind == DATA
        return body[4:]

    def read(self, relative: str, size: int) -> bytes:
        """All of a BLOB file."""
        handle = self.open(self.path(relative))
        content = b"".join(self.read_pieces(handle, size))
        self.wait(self.send(CLOSE, text(handle)))
        return content

    def memory(self) -> int:
        """The most kilobytes of memory that it has had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))

    def children(self) -> List[int]:
        """The pids of what it has started."""
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def has_cached(self, count: int) -> None:
        """Wait until so many BLOBs are in the cache, for as long as a disk may take."""
        cached = self.cache / "blobstorage"
        until(lambda: len(list(cached.rglob("*.blob"))) == count, f"{count} BLOBs in the cache", 60)


@pytest.fixture
def sftp_server() -> str:
    """OpenSSH's sftp-server."""
    return next(path for path in SFTP_SERVERS if Path(path).exists())


@pytest.fixture
def wires() -> Iterator[List[Wire]]:
    """Those that are ended after the test."""
    made: List[Wire] = []
    yield made
    for wire in made:
        wire.socket.close()
        wire.process.wait(30)


@pytest.fixture
def wire(tmp_path: Path, sftp_server: str, wires: List[Wire]) -> Wire:
    """One that has begun, on a server of OpenSSH's."""
    made = Wire(tmp_path, sftp_server)
    wires.append(made)
    made.begin()
    return made


def blob(wire: Wire, number: int, content: bytes) -> str:
    """Make a BLOB file on production; its path below the BLOB directory."""
    relative = "".join(f"0x{byte:02x}/" for byte in number.to_bytes(8, "big")) + "0x03f1b2c4d5e6f708.blob"
    path = wire.blobs / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return relative


def test_it_reads_through_into_the_cache(wire: Wire) -> None:
    content = os.urandom(300_000)
    relative = blob(wire, 1, content)
    assert wire.read(relative, len(content)) == content
    wire.has_cached(1)
    (wire.blobs / relative).unlink()
    assert wire.read(relative, len(content)) == content


@pytest.mark.slow
def test_ten_thousand_small_ones_fit_into_bounded_memory(wire: Wire) -> None:
    count = 10_000
    for number in range(count):
        blob(wire, number, b"%d" % number * 500)
    for number in range(count):
        relative = "".join(f"0x{byte:02x}/" for byte in number.to_bytes(8, "big")) + "0x03f1b2c4d5e6f708.blob"
        assert wire.read(relative, len(b"%d" % number) * 500) == b"%d" % number * 500
    assert wire.memory() < MOST_MEMORY
    wire.has_cached(count)


def test_sixteen_readers_at_a_time(wire: Wire) -> None:
    contents = [os.urandom(500_000 + number) for number in range(4)]
    relatives = [blob(wire, number, content) for number, content in enumerate(contents)]
    readers = []
    for number in range(16):
        handle = wire.open(wire.path(relatives[number % 4]))
        readers.append((wire.read_pieces(handle, len(contents[number % 4])), contents[number % 4], [b""]))
    for _ in range(500_000 // PIECE + 1):
        for pieces, _content, read in readers:
            read[0] += next(pieces)
    for _pieces, content, read in readers:
        assert read[0] == content
    wire.has_cached(4)


@pytest.mark.slow
def test_four_gigabytes_that_are_sparse(wire: Wire) -> None:
    size = (1 << 32) + 5
    relative = blob(wire, 1, b"begin")
    os.truncate(wire.blobs / relative, size - 3)
    with (wire.blobs / relative).open("ab") as file:
        file.write(b"end")
    for _ in range(2):
        handle = wire.open(wire.path(relative))
        total, first, last = 0, b"", b""
        for piece in wire.read_pieces(handle, size):
            first, last, total = first or piece[:5], (last + piece)[-3:], total + len(piece)
        assert (total, first, last) == (size, b"begin", b"end")
        assert wire.memory() < MOST_MEMORY
        wire.has_cached(1)
    assert (wire.cache / "blobstorage" / relative).stat().st_size == size


def test_a_reader_that_does_not_read_its_answers_takes_no_memory(wire: Wire) -> None:
    content = os.urandom(3_000_000)
    relative = blob(wire, 1, content)
    assert wire.read(relative, len(content)) == content
    wire.has_cached(1)
    for way in (relative, "plain"):
        (wire.blobs / "plain").write_bytes(content)
        handle = wire.open(wire.path(way))
        wire.socket.setblocking(False)
        asked = []
        with contextlib.suppress(BlockingIOError):
            while len(asked) < 20_000:
                asked.append(wire.send(READ, text(handle) + struct.pack(">QI", 0, PIECE)))
        wire.socket.settimeout(60)
        assert len(asked) > 100
        for number in asked[:-1]:
            assert wire.wait(number)[1][4:] == content[:PIECE]
        assert wire.memory() < MOST_MEMORY


def test_it_ends_with_sshfs_and_so_does_ssh(wire: Wire) -> None:
    (ssh,) = wire.children()
    wire.socket.close()
    assert wire.process.wait(10) == 0
    until(lambda: not Path(f"/proc/{ssh}").exists(), "ssh has ended")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_ssh(wire: Wire, number: int) -> None:
    os.kill(wire.children()[0], number)
    assert wire.socket.recv(1) == b""
    assert wire.process.wait(10) == 0


def test_ssh_ends_when_it_is_killed_and_the_cache_has_whole_files_only(
    wire: Wire, tmp_path: Path, sftp_server: str, wires: List[Wire]
) -> None:
    (ssh,) = wire.children()
    content = os.urandom(300_000)
    whole, part = blob(wire, 1, content), blob(wire, 2, content)
    wire.read(whole, len(content))
    wire.has_cached(1)
    assert next(wire.read_pieces(wire.open(wire.path(part)), 100)) == content[:PIECE]
    until(lambda: list((wire.cache / "coming").iterdir()), "a file is on its way")
    wire.process.kill()
    assert wire.socket.recv(1) == b""
    until(lambda: not Path(f"/proc/{ssh}").exists(), "ssh has ended")
    wire.has_cached(1)
    wire.process.wait(10)
    again = Wire(tmp_path, sftp_server)
    wires.append(again)
    again.begin()
    assert list((again.cache / "coming").iterdir()) == []
    assert again.read(part, len(content)) == content
    again.has_cached(2)


def test_what_was_read_last_is_in_the_cache_when_sshfs_has_ended(wire: Wire) -> None:
    content = os.urandom(3_000_000)
    relative = blob(wire, 1, content)
    assert wire.read(relative, len(content)) == content
    wire.socket.close()
    wire.process.wait(30)
    assert (wire.cache / "blobstorage" / relative).read_bytes() == content
    counted = saved(str(wire.cache))
    assert counted is not None
    assert (counted.reads, counted.hits, counted.from_production) == (1, 0, len(content))


@pytest.mark.parametrize("banner", ["", "Welcome to this machine.\n"])
def test_what_a_profile_prints_goes_to_sshfs_which_skips_it(banner: str, tmp_path: Path, wires: List[Wire]) -> None:
    wire = Wire(tmp_path, sys.executable, str(SERVER), banner)
    wires.append(wire)
    wire.socket.sendall(packet(INIT, 3))
    expected = banner.encode() + packet(VERSION, 3)
    received = b""
    while len(received) < len(expected):
        received += wire.socket.recv(100)
    assert received == expected


def test_a_program_that_is_missing_is_an_end(tmp_path: Path, wires: List[Wire]) -> None:
    wire = Wire(tmp_path, "/no/such/ssh")
    wires.append(wire)
    assert wire.socket.recv(1) == b""
    assert wire.process.wait(10) == 0
