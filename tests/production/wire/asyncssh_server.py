"""asyncssh's SFTP server on standard input and output: each request is a task, so answers come in any order.

Arguments: the seconds by which each READ is late at most, and the most bytes that one answer has.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from types import SimpleNamespace
from typing import Any

import asyncssh
from asyncssh.logging import logger
from asyncssh.sftp import run_sftp_server

LATE, SHORT = float(sys.argv[1]), int(sys.argv[2])


class Late(asyncssh.SFTPServer):
    """A server whose disk takes its time, and that answers short where it likes."""

    def __init__(self, channel: Any):
        super().__init__(channel)
        self._chance = random.Random(1)

    async def read(self, file_obj: Any, offset: int, size: int) -> bytes:
        """Read late, and short."""
        await asyncio.sleep(self._chance.random() * LATE)
        return super().read(file_obj, offset, min(size, SHORT))  # type: ignore[return-value]


class Writer:
    """What asyncssh writes to, as far as its SFTP server does."""

    def __init__(self, writer: asyncio.StreamWriter):
        self.write = writer.write
        self.close = writer.close
        self.channel = SimpleNamespace(is_closing=lambda: False, get_connection=lambda: None)


async def serve() -> None:
    """Serve until the input ends."""
    # The wire's ssh has one socket for both.
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=0))
    reader.logger, reader.get_extra_info = logger, lambda name, default=None: default  # type: ignore[attr-defined]
    server = Late(SimpleNamespace(get_connection=lambda: None, logger=logger))
    await run_sftp_server(server, reader, Writer(writer), 3)  # type: ignore[arg-type]


asyncio.run(serve())
