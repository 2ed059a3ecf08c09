"""What becomes of each request and each answer of one SFTP connection.

What is not about a BLOB file goes through as it is.  A BLOB file is answered from the cache where it is there; else
production is asked, and what it answers goes into the cache on its way.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Optional

from cowstorage.part.counters import Counters
from cowstorage.production.wire import packets
from cowstorage.production.wire.ahead import Ahead
from cowstorage.production.wire.beside import Beside
from cowstorage.production.wire.candidates import Candidates
from cowstorage.production.wire.completion import WINDOW, Completion
from cowstorage.production.wire.counting import Counting
from cowstorage.production.wire.directories import Around as DirectoriesAround
from cowstorage.production.wire.directories import Directories
from cowstorage.production.wire.exchange import Exchange, Sends
from cowstorage.production.wire.fetch import Around
from cowstorage.production.wire.filling import Around as FillingAround
from cowstorage.production.wire.filling import Filling
from cowstorage.production.wire.following import Following, Opened
from cowstorage.production.wire.handles import Handles
from cowstorage.production.wire.keeping import Keeping
from cowstorage.production.wire.knowledge import Knowledge
from cowstorage.production.wire.names import BlobNames
from cowstorage.production.wire.notes import Notes
from cowstorage.production.wire.packets import Attributes
from cowstorage.production.wire.partial import Coverage
from cowstorage.production.wire.pieces import Read
from cowstorage.production.wire.reads import Reads
from cowstorage.production.wire.sequence import Sequence
from cowstorage.production.wire.store import Store
from cowstorage.production.wire.threads import Readers
from cowstorage.production.wire.window import Steady

# Seconds between two looks whether a file that was opened ahead is wanted.
TICK = 1.0


class Session(Exchange):
    """One connection of sshfs to an SFTP server.

    :param to_client: sends bytes to sshfs; ``to_server`` to the server.
    :param knowledge: what the local database tells; ``None`` where there is none.
    :param notes: where it is noted what is read; ``None``: nowhere.
    :param candidates: what is worth fetching before it is read; ``None``: nothing.
    :param counting: where it is counted what is read; ``None``: nowhere that anybody sees.
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
        candidates: Optional[Candidates] = None,
        counting: Optional[Counting] = None,
    ):
        super().__init__(to_client, to_server)
        self._counting = counting
        self.counters = counting.counters if counting else Counters()
        self._names = names
        self._store = store
        self._readers = readers
        self._notes = notes
        self._handles = Handles()
        self._completion = Completion(store, self._ask, to_server, lambda: self.is_busy, Steady(WINDOW), self.counters)
        self._keeping = Keeping(store, self._handles, self._completion, self.counters)
        around = Around(
            ask=self._ask,
            send=to_server,
            answer=to_client,
            has_told=self._note_told,
            has_opened=self._note_opened,
            has_closed=self._note_closed,
            completes=self._completes,
            keep=self._keeping.keep,
            doubt=self._keeping.doubt,
            pass_on=self._pass_on,
        )
        self._ahead = Ahead(names.path, around)
        around_directories = DirectoriesAround(
            ask=self._ask, send=to_server, answer=to_client, begin=self._begin, is_there=self._ahead.is_there
        )
        directories = Directories(names, store, knowledge, around_directories)
        self._beside = Beside(names, directories, self._await, to_client)
        self._reads = Reads(readers, self._keeping, self.counters, self._ask, to_client, to_server)
        self._filling = Filling(
            candidates,
            store,
            readers,
            self.counters,
            FillingAround(
                ask=self._ask,
                send=to_server,
                path=names.path,
                is_busy=self._is_in_use,
                is_open=lambda relative: self._handles.is_open(relative) or self._ahead.has(relative),
                believes=self._believes,
            ),
        )
        self._following = (
            Following(Sequence(store, knowledge), readers, partial(self._begin, follows=True), self._filling.has_read)
            if knowledge
            else None
        )
        self.requests.update(
            {
                packets.OPEN: self._open,
                packets.CLOSE: self._close,
                packets.READ: self._read,
                packets.LSTAT: self._stat,
                packets.FSTAT: self._fstat,
                packets.STAT: self._stat,
                packets.OPENDIR: self._beside.listings.open,
                packets.READDIR: self._beside.listings.read,
                packets.EXTENDED: self._extended,
            }
        )

    @property
    def is_busy(self) -> bool:
        """Whether sshfs waits for the server, as far as is known."""
        return self._client_waits > 0 or self._ahead.is_busy

    def _is_in_use(self) -> bool:
        """Tell whether sshfs waits for the server, or will not have what nobody waits for."""
        return not (self.is_on and self.has_begun) or self.is_busy or self._completion.is_busy

    def has_asked(self) -> None:
        """Take note that sshfs has sent something."""
        self._filling.interrupt()

    def has_answered(self) -> None:
        self._completion.go_on()
        self._filling.go_on()

    # BLOB files: requests

    def _stat(self, number: int, packet: memoryview) -> bool:
        relative = self._relative(packet)
        if relative is None:
            return self.is_on and self._beside.stat(packets.text(packet)[0], number, packet)
        cached = self._store.find(relative)
        if cached:
            os.close(cached.descriptor)
            self._to_client(packets.attributes(number, cached.attributes))
            return True
        self._take_over(relative)
        if self._ahead.stat(relative, number):
            return True
        self._await(number, partial(self._told_of, relative))
        return False

    def _open(self, number: int, packet: memoryview) -> bool:
        relative = self._relative(packet)
        flags = packets.number(packet, packets.text(packet)[1])
        if relative is None or flags != packets.FOR_READING:
            return False
        if self._notes:
            self._notes.add(relative)
        cached = self._store.open(relative)
        # A small file that was asked for ahead may be there already.
        is_hit = cached is not None and not self._ahead.has(relative)
        self.counters.reads += 1
        self.counters.hits += is_hit
        if self._following:
            self._following.has_opened(Opened(relative, is_hit, cached is not None, self._ahead.is_crowded))
        if cached:
            self._ahead.pass_by(relative)
            handle = self._handles.add(cached, is_hit)
            self._to_client(packets.made(packets.HANDLE, number, packets.string(handle)))
            return True
        self._take_over(relative)
        if self._ahead.open(relative, number):
            return True
        self._ahead.opening(relative)
        self._await(number, partial(self._opened, relative))
        return False

    def _begin(self, relative: str, follows: bool = False) -> None:
        """Ask for a BLOB file ahead."""
        if self.is_on:
            self._take_over(relative)
            self._ahead.begin(relative, follows)

    def _take_over(self, relative: str) -> None:
        """Let sshfs have a file that was being fetched before it has asked for it."""
        taken = self._filling.give_up(relative)
        if taken is None:
            return
        handle, told = taken
        self._handles.add_remote(handle, relative)
        self._keeping.tell(relative, told)
        self._ahead.adopt(relative, handle, told)

    def _read(self, number: int, packet: memoryview) -> bool:
        handle, behind = packets.text(packet)
        read = Read(number, *packets.range_of(packet, behind))
        local = self._handles.local.get(handle)
        if local:
            self._reads.local(local, read)
            return True
        remote = self._handles.remote.get(handle)
        if remote is None:
            return False
        if self._ahead.read(handle, remote.relative, read):
            return True
        if self.is_on:
            self._await(number, partial(self._reads.come, remote, read))
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
        self._beside.listings.close(handle)
        remote = self._handles.remote.get(handle)
        if remote is None:
            return False
        under_way = self._ahead.close(handle, remote.relative)
        if not self._keeping.takes_over(remote, under_way):
            return False
        self._to_client(packets.status(number, packets.OK))
        self._completion.go_on()
        return True

    def _extended(self, number: int, packet: memoryview) -> bool:
        return self.is_on and self._beside.room.ask(number, packet)

    def _relative(self, packet: memoryview) -> Optional[str]:
        return self._names.relative(packets.text(packet)[0]) if self.is_on else None

    def _pass_on(self, handle: bytes, read: Read) -> None:
        remote = self._handles.remote.get(handle)
        if remote:
            self._await(read.number, partial(self._reads.come, remote, read))
        self._to_server(packets.read(read.number, handle, read.offset, read.length))

    def expire(self) -> Optional[float]:
        """Do what is due, and return in how many seconds more may be; ``None``: not before something comes."""
        waiting = TICK if self._ahead.expire() else None
        following = self._following.expire() if self._following else None
        self._filling.go_on()
        counting = self._counting.expire() if self._counting else None
        dues = (waiting, following, self._filling.due, counting)
        return min((due for due in dues if due is not None), default=None)

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
        return self._believes(handle, relative) and self._handles.add_remote(handle, relative)

    def _believes(self, handle: bytes, relative: str) -> bool:
        """Tell whether a handle of the server's can be that of a file; else whose bytes come by it, can't be told."""
        remote = self._handles.remote.get(handle)
        users = (remote.relative if remote else None, self._completion.uses(handle), self._filling.uses(handle))
        others = [other for other in users if other not in (None, relative)]
        for doubtful in (relative, *others) if others else ():
            self._keeping.doubt(doubtful)
            self.turn_off()
        return not others

    def _completes(self, handle: bytes, relative: str, under_way: Coverage) -> bool:
        remote = self._handles.remote.get(handle)
        if remote is None or remote.relative != relative or not self._keeping.takes_over(remote, under_way):
            return False
        self._completion.go_on()
        return True

    def _note_closed(self, handle: bytes, relative: str) -> None:
        remote = self._handles.remote.get(handle)
        if remote:
            self._handles.remove_remote(remote)
        self._keeping.let_go(relative)
