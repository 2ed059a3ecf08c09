"""The program between sshfs and ssh: OpenSSH's sftp-server takes the part of ssh, the test that of sshfs."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import sys
from pathlib import Path
from typing import List

import pytest

from cowstorage.part.counters import saved
from harness.polling import until
from harness.sshd import SFTP_SERVERS
from production.wire.program import PIECE, Wire, blob
from production.wire.server import (
    INIT,
    READ,
    VERSION,
    packet,
    text,
)

# Kilobytes of memory; the goal is 64 MB.
MOST_MEMORY = 64_000
SERVER = Path(__file__).parent / "server.py"


@pytest.fixture
def sftp_server() -> str:
    """OpenSSH's sftp-server."""
    return next(path for path in SFTP_SERVERS if Path(path).exists())


@pytest.fixture
def wire(tmp_path: Path, sftp_server: str, wires: List[Wire]) -> Wire:
    """One that has begun, on a server of OpenSSH's."""
    made = Wire(tmp_path, sftp_server)
    wires.append(made)
    made.begin()
    return made


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
    # What a disk that is slower than the line doesn't take is passed by: then it comes the next time.
    for wait in (60, 240, 240):
        handle = wire.open(wire.path(relative))
        total, first, last = 0, b"", b""
        for piece in wire.read_pieces(handle, size):
            first, last, total = first or piece[:5], (last + piece)[-3:], total + len(piece)
        assert (total, first, last) == (size, b"begin", b"end")
        assert wire.memory() < MOST_MEMORY
        with contextlib.suppress(AssertionError):
            wire.has_cached(1, seconds=wait)
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
