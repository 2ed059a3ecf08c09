"""What sshfs asks for beside BLOB files: answered where production need not be asked, else passed on."""

from __future__ import annotations

from typing import Callable

from cowstorage.production.wire import packets
from cowstorage.production.wire.directories import Directories
from cowstorage.production.wire.exchange import Sends, Takes
from cowstorage.production.wire.listings import Listings
from cowstorage.production.wire.momentary import Momentary
from cowstorage.production.wire.names import BlobNames
from cowstorage.production.wire.room import Room


class Beside:
    """All that is known of what is no BLOB file.

    :param directories: those that BLOB files are in.
    :param wait: has the answer to a request of sshfs's looked at.
    :param answer: sends an answer to sshfs.
    """

    def __init__(self, names: BlobNames, directories: Directories, wait: Callable[[int, Takes], None], answer: Sends):
        self._names = names
        self._directories = directories
        self._answer = answer
        self._momentary = Momentary(wait)
        self.listings = Listings(wait)
        self.room = Room(wait, answer)

    def stat(self, path: bytes, number: int, packet: memoryview) -> bool:
        """Answer a question for a path, at once or when ours is answered; tell whether that will be.

        :param number: the request's id.
        :param packet: the request.
        """
        if self._lacks(path, number):
            self._answer(packets.status(number, packets.NO_SUCH_FILE))
            return True
        return self._directories.stat(path, number, packet)

    def _lacks(self, path: bytes, number: int) -> bool:
        # A BLOB may be newer than the listing, and the object that has it be here already.
        if self._names.is_below(path):
            return False
        return self.listings.lacks(path) or self._momentary.lacks(path, number)
