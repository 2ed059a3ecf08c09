"""Remember for a moment how much room production has: each mount of a union asks for it, which is a round trip."""

from __future__ import annotations

import time
from functools import partial
from typing import Callable, Dict, NamedTuple

from cowstorage.production.wire import packets
from cowstorage.production.wire.exchange import Sends, Takes

# What OpenSSH's server calls the question, PROTOCOL, 4.4.
QUESTION = b"statvfs@openssh.com"

# From the look at production to the last union is about as long; who wants to know whether production answers lists a
# directory, too.
SECONDS = 5.0

# Paths that are asked for.
MOST = 16


class Answer(NamedTuple):
    """What production has answered, and when, by ``time.monotonic()``."""

    packet: bytes
    came: float


class Room:
    """The answers of late, by what was asked.

    :param wait: has the answer to a request of sshfs's looked at.
    :param answer: sends an answer to sshfs.
    """

    def __init__(self, wait: Callable[[int, Takes], None], answer: Sends):
        self._wait = wait
        self._answer = answer
        self._answers: Dict[bytes, Answer] = {}

    def ask(self, number: int, packet: memoryview) -> bool:
        """Answer a question for what production's file system has room for; tell whether that was done.

        :param number: the request's id.
        """
        name, behind = packets.text(packet)
        if name != QUESTION:
            return False
        path = bytes(packet[behind:])
        known = self._answers.get(path)
        if known and time.monotonic() < known.came + SECONDS:
            self._answer(packets.renumbered(known.packet, number))
            return True
        self._wait(number, partial(self._takes, path))
        return False

    def _takes(self, path: bytes, kind: int, packet: memoryview) -> bool:
        if kind == packets.EXTENDED_REPLY:
            self._answers.pop(path, None)
            self._answers[path] = Answer(bytes(packet), time.monotonic())
            if len(self._answers) > MOST:
                del self._answers[next(iter(self._answers))]
        return False
