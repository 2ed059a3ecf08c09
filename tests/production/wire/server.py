"""An SFTP server in few lines, by itself or as a program, which can answer late, short, wrong, or out of order.

The protocol is that of draft-ietf-secsh-filexfer-02.
"""

from __future__ import annotations

import os
import random
import struct
import sys
from typing import Dict, List, Optional, Tuple

INIT, OPEN, CLOSE, READ, LSTAT, FSTAT, STAT, REALPATH = 1, 3, 4, 5, 7, 8, 17, 16
VERSION, STATUS, HANDLE, DATA, NAME, ATTRS = 2, 101, 102, 103, 104, 105
OK, END, NO_SUCH_FILE, FAILURE, UNSUPPORTED = 0, 1, 2, 4, 8
TIME = 1_600_000_000


def text(value: bytes) -> bytes:
    """A string as the protocol has it."""
    return struct.pack(">I", len(value)) + value


def packet(kind: int, number: int, body: bytes = b"") -> bytes:
    """A packet."""
    return struct.pack(">IBI", 5 + len(body), kind, number) + body


def split(stream: bytes) -> Tuple[List[Tuple[int, int, bytes]], bytes]:
    """Type, id and body of the whole packets, and what is left."""
    found = []
    while len(stream) >= 9:
        length, kind, number = struct.unpack_from(">IBI", stream)
        if len(stream) < 4 + length:
            break
        found.append((kind, number, stream[9 : 4 + length]))
        stream = stream[4 + length :]
    return found, stream


def attributes(size: int, modified: int = TIME, mode: int = 0o100644) -> bytes:
    """What a server tells of a file."""
    return struct.pack(">IQIIIII", 15, size, 1, 1, mode, modified, modified)


class Server:
    """Files, by their paths in requests.

    :param short: the most bytes that one DATA has.
    :param lies: path → the size that is told of it.
    :param mode: what is told of each file.
    :param version: what the server says first.
    :ivar asked: type and subject of each request: a path, or the path that a handle was opened for.
    """

    def __init__(
        self,
        files: Dict[bytes, bytes],
        short: int = 1 << 20,
        lies: Optional[Dict[bytes, int]] = None,
        version: int = 3,
        mode: int = 0o100644,
    ):
        self.files = files
        self.short = short
        self.lies = lies or {}
        self.version = version
        self.mode = mode
        self.asked: List[Tuple[int, bytes]] = []
        self.opened: Dict[bytes, bytes] = {}
        self._number = 0

    def answer(self, kind: int, number: int, body: bytes) -> bytes:
        """The answer to a request."""
        if kind == INIT:
            return packet(VERSION, self.version)
        (length,) = struct.unpack_from(">I", body)
        subject, rest = body[4 : 4 + length], body[4 + length :]
        if kind in (READ, CLOSE, FSTAT):
            handle, subject = subject, self.opened.get(subject, b"?")
            self.asked.append((kind, subject))
            if kind == CLOSE:
                return self._status(number, OK if self.opened.pop(handle, None) else FAILURE)
        else:
            self.asked.append((kind, subject))
        if kind == REALPATH:
            return packet(NAME, number, struct.pack(">I", 1) + text(subject) + text(b"") + attributes(0, mode=0o40755))
        if subject in (b".", b"/srv"):
            return packet(ATTRS, number, attributes(0, mode=0o40755))
        if subject not in self.files:
            return self._status(number, NO_SUCH_FILE)
        content = self.files[subject]
        if kind in (STAT, LSTAT, FSTAT):
            return packet(ATTRS, number, attributes(self.lies.get(subject, len(content)), mode=self.mode))
        if kind == OPEN:
            self._number += 1
            handle = b"h%d" % self._number
            self.opened[handle] = subject
            return packet(HANDLE, number, text(handle))
        if kind == READ:
            offset, wanted = struct.unpack(">QI", rest)
            found = content[offset : offset + min(wanted, self.short)]
            return packet(DATA, number, text(found)) if found else self._status(number, END)
        return self._status(number, UNSUPPORTED)

    def _status(self, number: int, code: int) -> bytes:
        return packet(STATUS, number, struct.pack(">I", code) + text(b"") + text(b""))


def serve(server: Server, shuffle: bool = False, banner: bytes = b"") -> None:
    """Serve by standard input and output; with ``shuffle`` what has come at once is answered in any order."""
    stream = b""
    os.write(1, banner)
    chance = random.Random(1)
    while True:
        read = os.read(0, 1 << 16)
        if not read:
            return
        requests, stream = split(stream + read)
        if shuffle:
            chance.shuffle(requests)
        for request in requests:
            answer = server.answer(*request)
            while answer:
                answer = answer[os.write(1, answer) :]


if __name__ == "__main__":
    serve(Server({b"/srv/file": b"content"}), banner=sys.argv[1].encode() if len(sys.argv) > 1 else b"")
