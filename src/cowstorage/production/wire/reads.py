"""Answer READs: with bytes of the cache, or production's, of which none may be missing inside of a file."""

from __future__ import annotations

from functools import partial
from typing import Optional

from cowstorage.part.counters import Counters
from cowstorage.production.wire import packets
from cowstorage.production.wire.completion import Asks
from cowstorage.production.wire.exchange import Sends
from cowstorage.production.wire.handles import Local, Remote
from cowstorage.production.wire.keeping import Keeping
from cowstorage.production.wire.pieces import Read
from cowstorage.production.wire.threads import Readers

# Bytes of a file in one answer of ours; sshfs asks for 64 kB at most.
MOST_DATA = 1 << 17


class Reads:
    """The READs of sshfs's that are not answered by what was asked ahead.

    :param readers: the threads that read what is not in memory.
    :param ask: makes the id of a request of ours, from what takes the answer.
    :param to_client: sends bytes to sshfs; ``to_server`` to the server.
    """

    def __init__(
        self,
        readers: Readers,
        keeping: Keeping,
        counters: Counters,
        ask: Asks,
        to_client: Sends,
        to_server: Sends,
    ):
        self._readers = readers
        self._keeping = keeping
        self._counters = counters
        self._ask = ask
        self._to_client = to_client
        self._to_server = to_server

    def local(self, local: Local, read: Read) -> None:
        """Answer with bytes of the cache, at once where they are in memory."""
        number, offset = read.number, read.offset
        wanted = min(read.length, MOST_DATA, local.size - offset)
        if wanted <= 0:
            self._to_client(packets.status(number, packets.EOF))
            return
        self._counters.from_cache += wanted if local.is_hit else 0
        content = local.read_now(offset, wanted)
        if content is not None:
            self._to_client(packets.data(number, content))
            return

        def take(content: Optional[bytes]) -> None:
            local.reading -= 1
            local.settle()
            failed = packets.status(number, packets.FAILURE, b"the BLOB cache can't be read")
            self._to_client(failed if content is None else packets.data(number, content))

        local.reading += 1
        self._readers.ask(partial(local.read, offset, wanted), take)

    def come(self, remote: Remote, read: Read, kind: int, packet: memoryview) -> bool:
        """Keep what production has answered; what is missing inside of the file is asked for.

        A short answer is right in SFTP, but to sshfs, and to the kernel, it is the end of the file.

        :returns: whether sshfs has been answered, or will be.
        """
        told = self._keeping.told(remote.relative)
        if told is None:
            return False
        wanted = min(read.length, told.size - read.offset)
        if wanted <= 0:
            return False
        if kind == packets.DATA:
            content = packets.data_of(packet)
            if len(content) >= wanted:
                self._keeping.keep(remote.relative, read.offset, content)
                return False
            if read.length <= MOST_DATA:
                self._ask_for_rest(remote, read._replace(length=wanted), bytes(content))
                return True
        elif kind != packets.STATUS or packets.number(packet, packets.HEADER.size) != packets.EOF:
            return False
        self._is_shorter(remote, read)
        return True

    def _ask_for_rest(self, remote: Remote, read: Read, have: bytes) -> None:
        def takes(kind: int, packet: memoryview) -> bool:
            content = packets.data_if_any(kind, packet)
            if not content or len(have) + len(content) > read.length:
                self._is_shorter(remote, read)
            elif len(have) + len(content) < read.length:
                self._ask_for_rest(remote, read, have + bytes(content))
            else:
                whole = have + bytes(content)
                self._keeping.keep(remote.relative, read.offset, memoryview(whole))
                self._to_client(packets.data(read.number, whole))
            return True

        if have:
            rest = (remote.handle, read.offset + len(have), read.length - len(have))
            self._to_server(packets.read(self._ask(takes), *rest))
        else:
            self._is_shorter(remote, read)

    def _is_shorter(self, remote: Remote, read: Read) -> None:
        """Answer with an error: production has less of the file than it told, and never the end where it is not."""
        self._keeping.doubt(remote.relative)
        self._to_client(packets.status(read.number, packets.FAILURE, b"the file is shorter than it was"))
