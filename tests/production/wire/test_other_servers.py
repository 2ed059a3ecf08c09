"""SFTP servers of other makes: what the wire takes for granted holds with them, too.

asyncssh answers in any order, late and short; rclone's is that of Go's pkg/sftp.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest

from harness import needs, tree
from harness.sshd import SFTP_SERVERS
from production.wire.program import PIECE, Wire, blob
from production.wire.server import (
    ATTRS,
    CLOSE,
    DATA,
    HANDLE,
    NAME,
    NO_SUCH_FILE,
    OPEN,
    READ,
    REALPATH,
    STAT,
    STATUS,
    text,
)

# Their servers are Debian packages, and one of PyPI's that the quick tests of any user are not to need.
pytestmark = pytest.mark.slow

OPENDIR, READDIR = 11, 12
SIZES = (0, 1, PIECE, 100_000, 3_000_000)
ASYNCSSH = Path(__file__).parent / "asyncssh_server.py"
RCLONE = ("--config=", "serve", "sftp", "--stdio", "--read-only", "--copy-links")


@pytest.fixture(
    params=[
        "openssh",
        pytest.param(
            "asyncssh", marks=pytest.mark.skipif(sys.version_info < (3, 10), reason="asyncssh needs Python 3.10")
        ),
        pytest.param("rclone", marks=pytest.mark.package("rclone")),
    ]
)
def wire(request: pytest.FixtureRequest, tmp_path: Path, wires: List[Wire]) -> Iterator[Wire]:
    """The program on a server, which has begun; production stays as the test has made it."""
    (tmp_path / "blobs").mkdir()
    if request.param == "openssh":
        made = Wire(tmp_path, next(path for path in SFTP_SERVERS if Path(path).exists()))
    elif request.param == "asyncssh":
        made = Wire(tmp_path, sys.executable, str(ASYNCSSH), "0.005", "20000")
    else:
        made = Wire(tmp_path, needs.program("rclone", "rclone"), *RCLONE, str(tmp_path), shown="/blobs")
    wires.append(made)
    made.begin()
    yield made
    assert tree.snapshot(str(made.blobs)) == made.before


def begun(wire: Wire) -> Wire:
    """Remember production as it is."""
    wire.before = tree.snapshot(str(wire.blobs))
    return wire


def code(answer: Tuple[int, bytes]) -> int:
    """The code of a STATUS."""
    kind, body = answer
    assert kind == STATUS
    return int(struct.unpack_from(">I", body)[0])


def test_all_sizes_are_read_and_kept(wire: Wire) -> None:
    contents = {blob(wire, number, os.urandom(size)): size for number, size in enumerate(SIZES)}
    begun(wire)
    for relative, size in contents.items():
        kind, body = wire.wait(wire.send(STAT, text(wire.path(relative))))
        assert (kind, struct.unpack_from(">Q", body, 4)[0]) == (ATTRS, size)
        assert wire.read(relative, size) == (wire.blobs / relative).read_bytes()
    wire.has_cached(len(SIZES))
    for relative in contents:
        cached, original = wire.cache / "blobstorage" / relative, wire.blobs / relative
        assert cached.read_bytes() == original.read_bytes()
        assert int(cached.stat().st_mtime) == int(original.stat().st_mtime)


def test_many_readers_at_once_have_the_right_bytes(wire: Wire) -> None:
    contents = [os.urandom(200_000 + number) for number in range(4)]
    relatives = [blob(wire, number, content) for number, content in enumerate(contents)]
    begun(wire)
    readers = [
        (wire.read_pieces(wire.open(wire.path(relatives[n % 4])), len(contents[n % 4])), n % 4) for n in range(8)
    ]
    read = [b""] * len(readers)
    for _ in range(200_000 // PIECE + 1):
        for number, (pieces, _) in enumerate(readers):
            read[number] += next(pieces)
    assert [contents[number] for _, number in readers] == read
    wire.has_cached(4)


def test_the_rest_of_what_is_read_in_part_comes(wire: Wire) -> None:
    relative = blob(wire, 1, os.urandom(500_000))
    handle = begun(wire).open(wire.path(relative))
    kind, body = wire.wait(wire.send(READ, text(handle) + struct.pack(">QI", 300_000, 1000)))
    assert (kind, body[4:]) == (DATA, (wire.blobs / relative).read_bytes()[300_000:301_000])
    wire.wait(wire.send(CLOSE, text(handle)))
    wire.has_cached(1)
    assert (wire.cache / "blobstorage" / relative).read_bytes() == (wire.blobs / relative).read_bytes()


def test_what_is_not_there_is_said_and_nothing_is_kept(wire: Wire) -> None:
    relative = blob(wire, 1, b"content")
    (wire.blobs / relative).unlink()
    begun(wire)
    path = wire.path(relative)
    for _ in range(2):
        stat, opened = wire.send(STAT, text(path)), wire.send(OPEN, text(path) + struct.pack(">II", 1, 0))
        assert code(wire.wait(stat)) == code(wire.wait(opened)) == NO_SUCH_FILE
    assert not (wire.cache / "blobstorage").exists()
    # The connection goes on.
    assert wire.wait(wire.send(REALPATH, text(b".")))[0] == NAME


def test_a_directory_with_the_name_of_a_blob_is_none(wire: Wire) -> None:
    relative = blob(wire, 1, b"content")
    (wire.blobs / relative).unlink()
    (wire.blobs / relative).mkdir()
    path = begun(wire).path(relative)
    assert wire.wait(wire.send(STAT, text(path)))[0] == ATTRS
    kind, body = wire.wait(wire.send(OPEN, text(path) + struct.pack(">II", 1, 0)))
    if kind == HANDLE:
        assert wire.wait(wire.send(READ, text(body[4:]) + struct.pack(">QI", 0, 100)))[0] == STATUS
        wire.wait(wire.send(CLOSE, text(body[4:])))
    assert not (wire.cache / "blobstorage").exists()


def test_a_link_is_what_it_leads_to(wire: Wire) -> None:
    """The server follows it, as sshfs's follow_symlinks has it."""
    relative = blob(wire, 1, b"content")
    os.rename(wire.blobs / relative, wire.blobs / "elsewhere")
    os.symlink(wire.blobs / "elsewhere", wire.blobs / relative)
    assert begun(wire).read(relative, 7) == b"content"
    wire.has_cached(1)
    assert not (wire.cache / "blobstorage" / relative).is_symlink()


def test_what_is_no_blob_goes_through(wire: Wire) -> None:
    (wire.blobs / "Data.fs").write_bytes(os.urandom(10_000))
    begun(wire)
    assert wire.read("Data.fs", 10_000) == (wire.blobs / "Data.fs").read_bytes()
    kind, body = wire.wait(wire.send(OPENDIR, text(wire.shown.encode())))
    assert kind == HANDLE
    kind, names = wire.wait(wire.send(READDIR, text(body[4:])))
    assert (kind, b"Data.fs" in names) == (NAME, True)
    wire.wait(wire.send(CLOSE, text(body[4:])))
    assert not (wire.cache / "blobstorage").exists()
