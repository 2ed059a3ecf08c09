"""The program between sshfs and ssh, and requests to it as sshfs makes them."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

from cowstorage.production.wire import __main__ as program
from harness.polling import until
from harness.tree import Snapshot
from production.wire.server import CLOSE, DATA, HANDLE, INIT, OPEN, READ, STAT, packet, split, text

PIECE = 32768


class Wire:
    """The program, and requests to it.

    :param ssh: what it starts in the place of ssh: an SFTP server.
    :param shown: the BLOB directory as this server shows it.
    :ivar before: the BLOB directory as the test has made it.
    """

    def __init__(self, top: Path, *ssh: str, shown: str = ""):
        self.top = top
        self.blobs = top / "blobs"
        self.cache = top / "cache"
        self.shown = shown or str(self.blobs)
        words = ["--blobs", f"{self.shown}/", "--cache", str(self.cache), "--", *ssh]
        command = [sys.executable, "-I", "-S", "-X", "utf8", program.__file__, *words]
        self.socket, its = socket.socketpair()
        self.process = subprocess.Popen(command, stdin=its, stdout=its, cwd="/")
        its.close()
        self.socket.settimeout(60)
        self.before: Snapshot = {}
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
        return os.fsencode(f"{self.shown}/{relative}")

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

    def has_cached(self, count: int, seconds: float = 60) -> None:
        """Wait until so many BLOBs are in the cache, for as long as a disk may take."""
        cached = self.cache / "blobstorage"
        until(lambda: len(list(cached.rglob("*.blob"))) == count, f"{count} BLOBs in the cache", seconds)


def blob(wire: Wire, number: int, content: bytes) -> str:
    """Make a BLOB file on production; its path below the BLOB directory."""
    relative = "".join(f"0x{byte:02x}/" for byte in number.to_bytes(8, "big")) + "0x03f1b2c4d5e6f708.blob"
    path = wire.blobs / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return relative
