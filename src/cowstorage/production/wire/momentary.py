"""Remember that a name isn't there which ZODB makes for a moment: sshfs asks for it at each closing of a FileStorage.

Production makes and removes a file of that name, too; what is in it is for nobody.
"""

from __future__ import annotations

from functools import partial
from typing import Callable, Set

from cowstorage.production.wire import packets
from cowstorage.production.wire.exchange import Takes

# The new index, until it is renamed, ``FileStorage._save_index``.
SUFFIX = b".index_tmp"

# Names that are remembered.
MOST_NAMES = 16


class Momentary:
    """The names that have been absent once.

    :param wait: has the answer to a request of sshfs's looked at.
    """

    def __init__(self, wait: Callable[[int, Takes], None]):
        self._wait = wait
        self._absent: Set[bytes] = set()

    def lacks(self, path: bytes, number: int) -> bool:
        """Tell whether a path is known to be absent; one that is asked for may be from its answer on.

        :param number: the request's id.
        """
        if path.endswith(SUFFIX) and path not in self._absent and len(self._absent) < MOST_NAMES:
            self._wait(number, partial(self._told, path))
        return path in self._absent

    def _told(self, path: bytes, kind: int, packet: memoryview) -> bool:
        if kind == packets.STATUS and packets.number(packet, packets.HEADER.size) == packets.NO_SUCH_FILE:
            self._absent.add(path)
        return False
