"""Two sides that exchange requests and answers: which of them are looked at, and whose they are, by their ids."""

from __future__ import annotations

from typing import Callable, Dict, NamedTuple

from cowstorage.production.wire import packets
from cowstorage.production.wire.packets import Malformed

_HALF_OF_IDS, _IDS = 1 << 31, 1 << 32

# Takes type and packet of an answer, and tells whether the answer is not to be passed on.
Takes = Callable[[int, memoryview], bool]
Sends = Callable[[packets.Buffer], None]


class SameId(Exception):
    """Two requests with one id: whose answer comes, can't be told."""


class Waiting(NamedTuple):
    """A request whose answer is looked at.

    :param ours: whether it is a request of ours, of which sshfs knows nothing.
    """

    takes: Takes
    ours: bool = False


class Exchange:
    """One connection of sshfs to an SFTP server; by itself it passes everything on.

    :param to_client: sends bytes to sshfs; ``to_server`` to the server.
    :ivar is_on: whether more is looked at than what is under way; not with another version of SFTP, nor behind what is
        no packet.
    :ivar has_begun: whether the server has answered; nothing may be asked before.
    :ivar requests: type → what answers a request of that type, or tells that it is to be passed on.
    """

    def __init__(self, to_client: Sends, to_server: Sends):
        self._to_client = to_client
        self._to_server = to_server
        self._waiting: Dict[int, Waiting] = {}
        self._newest = self._client_waits = 0
        self.is_on, self.has_begun = True, False
        self.requests: Dict[int, Callable[[int, memoryview], bool]] = {packets.INIT: self._check_version}

    def looks_at_request(self, kind: int, number: int) -> bool:
        """Tell whether ``request`` is to be called for a request."""
        return kind in self.requests or number in self._waiting

    def looks_at_answer(self, kind: int, number: int) -> bool:
        """Tell whether ``answer`` is to be called for an answer."""
        return number in self._waiting or kind == packets.VERSION

    def request(self, kind: int, packet: memoryview) -> None:
        """Answer a request of sshfs's, or pass it on."""
        number = packets.id_of(packet)
        answers = self.requests.get(kind)
        if kind != packets.INIT:
            if number in self._waiting and self._waiting[number].ours:
                raise SameId(f"sshfs has used the id {number} of a request of ours")
            self._newest = number
        try:
            is_done = answers is not None and answers(number, packet)
        except Malformed:
            self.turn_off()
            is_done = False
        if not is_done:
            self._to_server(packet)

    def answer(self, kind: int, packet: memoryview) -> None:
        """Take an answer of the server's, and pass it on where it is sshfs's."""
        if kind == packets.VERSION and packets.id_of(packet) not in self._waiting:
            self._check_version(packets.id_of(packet), packet)
            self.has_begun = True
            self._to_client(packet)
            return
        waiting = self._waiting.pop(packets.id_of(packet))
        self._client_waits -= not waiting.ours
        try:
            is_done = waiting.takes(kind, packet)
        except Malformed:
            self.turn_off()
            is_done = False
        if not is_done and not waiting.ours:
            self._to_client(packet)
        self.has_answered()

    def has_answered(self) -> None:
        """Do what comes after each answer."""

    def turn_off(self) -> None:
        """Look at nothing any more but at what is open already."""
        self.is_on = False

    def _check_version(self, version: int, packet: memoryview) -> bool:
        if version != packets.VERSION_3:
            self.turn_off()
        return False

    def _await(self, number: int, takes: Takes) -> None:
        """Have the answer to a request of sshfs's looked at."""
        self._client_waits += number not in self._waiting
        self._waiting[number] = Waiting(takes)

    def _ask(self, takes: Takes) -> int:
        """Return the id for a request of ours.

        sshfs counts its ids up, so at the other side of all ids, seen from the newest, it has none under way.
        """
        number = (self._newest + _HALF_OF_IDS) % _IDS
        while number in self._waiting:
            number = (number + 1) % _IDS
        self._waiting[number] = Waiting(takes, ours=True)
        return number
