"""Answer questions for what is no BLOB file: directories of BLOBs, and names that production can't have.

The kernel asks for each directory on the way to a BLOB before it asks for the next one: each is a round trip.
"""

from __future__ import annotations

import os
import time
from typing import Callable, Dict, List, NamedTuple, Optional

from cowstorage.database.format import FIRST_DIRECTORIES
from cowstorage.production.wire import packets
from cowstorage.production.wire.completion import Asks
from cowstorage.production.wire.knowledge import UNKNOWN, Knowledge
from cowstorage.production.wire.names import BlobNames, blob_path, oid_of
from cowstorage.production.wire.packets import Buffer
from cowstorage.production.wire.store import Store
from cowstorage.system.files import TRIED

# How long what was asked ahead may be answered with, in seconds.
AHEAD_SECONDS = 3.0

_TRIED = os.fsencode(TRIED)


class Around(NamedTuple):
    """What ``Directories`` needs of the session.

    :param ask: makes the id of a request of ours, from what takes the answer.
    :param send: sends a request to the server.
    :param answer: sends an answer to sshfs.
    :param begin: asks for a BLOB file ahead.
    :param is_there: tells whether a BLOB file is asked for, and production has told that it has it.
    """

    ask: Asks
    send: Callable[[Buffer], None]
    answer: Callable[[Buffer], None]
    begin: Callable[[str], None]
    is_there: Callable[[str], bool]


class Asked:
    """A directory that production was asked for before sshfs has.

    :ivar packet: the answer; empty until it has come.
    :ivar waiting: ids of sshfs's questions for the directory.
    """

    def __init__(self) -> None:
        self.born = time.monotonic()
        self.packet = b""
        self.waiting: List[int] = []


class Directories:
    """What is known of the directories below production's BLOB directory."""

    def __init__(self, names: BlobNames, store: Store, knowledge: Optional[Knowledge], around: Around):
        self._names = names
        self._store = store
        self._knowledge = knowledge
        self._around = around
        self._asked: Dict[str, Asked] = {}

    def stat(self, path: bytes, number: int, packet: Buffer) -> bool:
        """Answer a question for what is no BLOB file, at once or when ours is answered; tell whether that will be.

        :param number: the request's id.
        :param packet: the request.
        """
        if path.rpartition(b"/")[2].startswith(_TRIED):
            # Made in the uppers only: overlay asks for each such name below them, up to six times in a trial.
            self._around.answer(packets.status(number, packets.NO_SUCH_FILE))
            return True
        directory = self._names.directory(path)
        if directory is None:
            return False
        return self._is_known(directory, number, packet) or self._is_asked(directory, number)

    def _is_known(self, directory: str, number: int, packet: Buffer) -> bool:
        """Answer from the cache, or by what the local database tells."""
        if self._store.has_directory(directory):
            self._around.answer(packets.directory(number))
            return True
        oid = oid_of(directory)
        known = self._knowledge.of(oid) if oid and self._knowledge else UNKNOWN
        if known.is_absent:
            self._around.answer(packets.status(number, packets.NO_SUCH_FILE))
            return True
        if known.tid is None:
            return False
        relative = blob_path(directory, known.tid)
        if self._around.is_there(relative):
            self._around.answer(packets.directory(number))
            return True
        # Behind the question that sshfs waits for.
        self._around.send(packet)
        self._around.begin(relative)
        return True

    # Ahead

    def _is_asked(self, directory: str, number: int) -> bool:
        """Answer by what was asked ahead, and ask for the directories that are most often below this one."""
        now = time.monotonic()
        for name in [name for name, one in self._asked.items() if one.packet and now > one.born + AHEAD_SECONDS]:
            del self._asked[name]
        asked = self._asked.get(directory)
        if asked and asked.packet:
            self._around.answer(packets.renumbered(asked.packet, number))
        elif asked:
            asked.waiting.append(number)
        elif directory in FIRST_DIRECTORIES:
            for below in FIRST_DIRECTORIES[FIRST_DIRECTORIES.index(directory) + 1 :]:
                self._ask(below)
        return asked is not None

    def _ask(self, directory: str) -> None:
        if directory in self._asked or self._store.has_directory(directory):
            return
        asked = self._asked[directory] = Asked()

        def takes(kind: int, packet: memoryview) -> bool:
            if kind == packets.ATTRS:
                asked.packet = bytes(packet)
            else:
                # It may be there when it is asked for again.
                del self._asked[directory]
            for number in asked.waiting:
                self._around.answer(packets.renumbered(packet, number))
            return True

        path = packets.string(self._names.path(directory))
        self._around.send(packets.made(packets.STAT, self._around.ask(takes), path))
