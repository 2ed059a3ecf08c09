"""An SFTP server whose directories have no end: READDIR is answered with ever more names, for as long as one asks.

Run by sshd as a forced command; the protocol is that of draft-ietf-secsh-filexfer-02.
"""

from __future__ import annotations

import struct
import sys
import time
from typing import Optional

INIT, CLOSE, LSTAT, FSTAT, OPENDIR, READDIR, REALPATH, STAT = 1, 4, 7, 8, 11, 12, 16, 17
VERSION, STATUS, HANDLE, NAME, ATTRS = 2, 101, 102, 104, 105
OK, NO_SUCH_FILE, UNSUPPORTED = 0, 2, 8

# Flags for size and permissions, then a directory's.
DIRECTORY = struct.pack(">IQI", 5, 4096, 0o40755)
# An answer of more than 128 kB is refused by sshfs.
NAMES = 400


def text(value: bytes) -> bytes:
    """Return a string as the protocol has it."""
    return struct.pack(">I", len(value)) + value


def names(count: int) -> bytes:
    """Return names that were not told before."""
    entries = (text(b"%0200d" % number) + text(b"") + DIRECTORY for number in range(count, count + NAMES))
    return struct.pack(">I", NAMES) + b"".join(entries)


class Server:
    """The answers.

    :param pause: seconds before each answer to READDIR.
    :ivar told: the number of names so far.
    """

    def __init__(self, pause: float):
        self.pause = pause
        self.told = 0

    def answer(self, kind: int, content: bytes) -> bytes:
        """Return the answer to a request, without its length."""
        number, rest = content[:4], content[4:]
        if kind == INIT:
            return struct.pack(">BI", VERSION, 3)
        if kind in (LSTAT, FSTAT, STAT):
            return struct.pack(">B", ATTRS) + number + DIRECTORY
        if kind == OPENDIR:
            return struct.pack(">B", HANDLE) + number + text(b"handle")
        if kind == READDIR:
            time.sleep(self.pause)
            self.told += NAMES
            return struct.pack(">B", NAME) + number + names(self.told)
        if kind == REALPATH:
            return struct.pack(">B", NAME) + number + struct.pack(">I", 1) + rest + text(b"") + DIRECTORY
        status = OK if kind == CLOSE else UNSUPPORTED
        return struct.pack(">B", STATUS) + number + struct.pack(">I", status) + text(b"") + text(b"")


def packet() -> Optional[bytes]:
    """Return the next request; ``None`` at the end."""
    length = sys.stdin.buffer.read(4)
    return sys.stdin.buffer.read(*struct.unpack(">I", length)) if len(length) == 4 else None


def main() -> None:
    """Answer until the client goes."""
    server = Server(float(sys.argv[1]))
    for request in iter(packet, None):
        sys.stdout.buffer.write(text(server.answer(request[0], request[1:])))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
