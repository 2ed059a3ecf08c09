"""What becomes of each request and each answer of one SFTP connection.

What is not about a BLOB file goes through as it is.  A BLOB file is answered from the cache where it is there; else
production is asked, and what it answers goes into the cache on its way.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Optional

from cowstorage.production.wire import packets
from cowstorage.production.wire.ahead import Ahead
from cowstorage.production.wire.completion import Completion
from cowstorage.production.wire.exchange import Exchange, Sends
from cowstorage.production.wire.fetch import Around, Read
from cowstorage.production.wire.handles import Handles, Local, Remote
from cowstorage.production.wire.keeping import Keeping
from cowstorage.production.wire.knowledge import UNKNOWN, Knowledge
from cowstorage.production.wire.names import BlobNames, bushy_path, oid_of
from cowstorage.production.wire.notes import Notes
from cowstorage.production.wire.packets import Attributes
from cowstorage.production.wire.store import Store
from cowstorage.production.wire.threads import Readers

# Bytes of a file in one answer of ours; sshfs asks for 64 kB at most.
MOST_DATA = 1 << 17


class Session(Exchange):
    """One connection of sshfs to an SFTP server.

    :param to_client: sends bytes to sshfs; ``to_server`` to the server.
    :param knowledge: what the local database tells; ``None`` where there is none.
    :param notes: where it is noted what is read; ``None``: nowhere.
    """

    def __init__(
        self,
        names: BlobNames,
        store: Store,
        readers: Readers,
        to_client: Sends,
        to_server: Sends,
        knowledge: Optional[Knowledge] = None,
        notes: Optional[Notes] = None,
    ):
        super().__init__(to_client, to_server)
        self._names = names
        self._store = store
        self._readers = readers
        self._knowledge = knowledge
        self._notes = notes
        self._handles = Handles()
        self._completion = Completion(store, self._ask, to_server, lambda: self.is_busy)
        self._keeping = Keeping(store, self._handles, self._completion)
        around = Around(
            ask=self._ask,
            send=to_server,
            answer=to_client,
            has_told=self._note_told,
            has_opened=self._note_opened,
            has_closed=self._note_closed,
            keep=self._keeping.keep,
            doubt=self._keeping.doubt,
            pass_on=self._pass_on,
        )
        self._ahead = Ahead(names.path, around)
        self.requests.update(
            {
                packets.OPEN: self._open,
                packets.CLOSE: self._close,
                packets.READ: self._read,
                packets.LSTAT: self._stat,
                packets.FSTAT: self._fstat,
                packets.STAT: self._stat,
            }
        )

    @property
    def is_busy(self) -> bool:
        """Whether sshfs waits for the server, as far as is known."""
        return self._client_waits > 0 or self._ahead.is_busy

    def has_answered(self) -> None:
        self._completion.go_on()

    # BLOB files: requests

    def _stat(self, number: int, packet: memoryview) -> bool:
        relative = self._relative(packet)
        if relative is None:
            return self._stat_directory(number, packet)
        cached = self._store.find(relative)
        if cached:
            os.close(cached.descriptor)
            self._to_client(packets.attributes(number, cached.attributes))
            return True
        if self._ahead.stat(relative, number):
            return True
        self._await(number, partial(self._told_of, relative))
        return False

    def _stat_directory(self, number: int, packet: memoryview) -> bool:
        """Answer a question for an object's directory where the answer is known.

        The kernel asks for it before it asks for a file in it.
        """
        directory = self._names.directory(packets.text(packet)[0]) if self.is_on else None
        if directory is None:
            return False
        if self._store.has_directory(directory):
            self._to_client(packets.directory(number))
            return True
        oid = oid_of(directory)
        known = self._knowledge.of(oid) if oid and self._knowledge else UNKNOWN
        if known.is_absent:
            self._to_client(packets.status(number, packets.NO_SUCH_FILE))
            return True
        if known.tid:
            # Behind the question that sshfs waits for.
            self._to_server(packet)
            self._ahead.begin(bushy_path(directory, known.tid))
        return known.tid is not None

    def _open(self, number: int, packet: memoryview) -> bool:
        relative = self._relative(packet)
        flags = packets.number(packet, packets.text(packet)[1])
        if relative is None or flags != packets.FOR_READING:
            return False
        if self._notes:
            self._notes.add(relative)
        cached = self._store.find(relative)
        if cached:
            self._to_client(packets.made(packets.HANDLE, number, packets.string(self._handles.add(cached))))
            return True
        if self._ahead.open(relative, number):
            return True
        self._ahead.opening(relative)
        self._await(number, partial(self._opened, relative))
        return False

    def _read(self, number: int, packet: memoryview) -> bool:
        handle, behind = packets.text(packet)
        read = Read(number, *packets.range_of(packet, behind))
        local = self._handles.local.get(handle)
        if local:
            self._read_local(local, read)
            return True
        remote = self._handles.remote.get(handle)
        if remote is None:
            return False
        if self._ahead.read(handle, remote.relative, read):
            return True
        if self.is_on:
            self._await(number, partial(self._has_read, remote, read))
        return False

    def _fstat(self, number: int, packet: memoryview) -> bool:
        local = self._handles.local.get(packets.text(packet)[0])
        if local:
            self._to_client(packets.attributes(number, local.attributes))
        return local is not None

    def _close(self, number: int, packet: memoryview) -> bool:
        handle = packets.text(packet)[0]
        local = self._handles.local.pop(handle, None)
        if local:
            local.close()
            self._to_client(packets.status(number, packets.OK))
            return True
        remote = self._handles.remote.get(handle)
        if remote is None:
            return False
        under_way = self._ahead.close(handle, remote.relative)
        if not self._keeping.takes_over(remote, under_way):
            return False
        self._to_client(packets.status(number, packets.OK))
        self._completion.go_on()
        return True

    def _relative(self, packet: memoryview) -> Optional[str]:
        return self._names.relative(packets.text(packet)[0]) if self.is_on else None

    def _pass_on(self, handle: bytes, read: Read) -> None:
        remote = self._handles.remote.get(handle)
        if remote:
            self._await(read.number, partial(self._has_read, remote, read))
        self._to_server(packets.read(read.number, handle, read.offset, read.length))

    def expire(self) -> bool:
        """Do what is due, and tell whether more may be in a second."""
        return self._ahead.expire()

    # BLOB files: answers of ours

    def _read_local(self, local: Local, read: Read) -> None:
        number, offset = read.number, read.offset
        wanted = min(read.length, MOST_DATA, local.size - offset)
        if wanted <= 0:
            self._to_client(packets.status(number, packets.EOF))
            return
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

    # BLOB files: answers of production's

    def _told_of(self, relative: str, kind: int, packet: memoryview) -> bool:
        told = packets.attributes_of(packet) if kind == packets.ATTRS else None
        if told and told.regular:
            self._note_told(relative, told, packet)
        return False

    def _note_told(self, relative: str, told: Attributes, packet: packets.Buffer) -> None:
        self._keeping.tell(relative, told)
        self._ahead.told(relative, told, packet)

    def _opened(self, relative: str, kind: int, packet: memoryview) -> bool:
        handle = packets.text(packet)[0] if kind == packets.HANDLE else None
        if handle is not None:
            self._note_opened(handle, relative)
        self._ahead.opened(relative, handle if self.is_on else None)
        return False

    def _note_opened(self, handle: bytes, relative: str) -> bool:
        if self._handles.add_remote(handle, relative):
            return True
        # Whose bytes come by it, can't be told.
        for doubtful in (relative, self._handles.remote[handle].relative):
            self._keeping.doubt(doubtful)
        self.turn_off()
        return False

    def _note_closed(self, handle: bytes, relative: str) -> None:
        remote = self._handles.remote.get(handle)
        if remote:
            self._handles.remove_remote(remote)
        self._keeping.let_go(relative)

    def _has_read(self, remote: Remote, read: Read, kind: int, packet: memoryview) -> bool:
        """Keep what has come for a READ of sshfs's; what is missing inside of the file is asked for.

        A short answer is right in SFTP, but to sshfs, and to the kernel, it is the end of the file.
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
