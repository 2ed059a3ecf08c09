"""Calls functions in child processes that are given up after a time, for whatever may block on a dead network."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple, TypeVar

from cowstorage.errors import CowStorageError, TimeLimit
from cowstorage.system import INTERRUPTS

T = TypeVar("T")


class Outcome(NamedTuple):
    """What a function returned, or the exception that it ended with."""

    value: Any
    error: Optional[Exception] = None


def within(seconds: float, what: str, function: Callable[[], T], user: Optional[Tuple[int, int]] = None) -> T:
    """Call ``function`` in a child process that is given up after a time; one in state D is left to die alone.

    :param what: said in the error: what did not answer.
    :param function: its result or exception must be picklable.
    :param user: (uid, gid) to be for it; needs root.
    :raises TimeLimit: after ``seconds``.
    """
    (value,) = values_within(seconds, {what: function}, user)
    result: T = value
    return result


def values_within(
    seconds: float, functions: Mapping[str, Callable[[], Any]], user: Optional[Tuple[int, int]] = None
) -> List[Any]:
    """Call several functions at the same time, as ``within`` does: their results, in order, or the first's error."""
    outcomes = all_within(seconds, functions, user).values()
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return [outcome.value for outcome in outcomes]


def all_within(
    seconds: float, functions: Mapping[str, Callable[[], Any]], user: Optional[Tuple[int, int]] = None
) -> Dict[str, Outcome]:
    """Call several functions at the same time, each as ``within`` does: together they take no longer than one.

    :param functions: what it is that did not answer → the function.
    :returns: the same keys; the outcome of one that did not answer is a ``TimeLimit``.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    started: List[_Child] = []
    try:
        started += (_Child(function, user) for function in functions.values())
        _collect(started, time.monotonic() + seconds)
    finally:
        for child in started:
            child.end()
    return {what: _outcome(what, seconds, child) for what, child in zip(functions, started)}


class _Child:
    """A child process at work.

    :ivar answer: what it has written; whole when ``complete``.
    """

    def __init__(self, function: Callable[[], Any], user: Optional[Tuple[int, int]]):
        self.answer = b""
        self.complete = False
        self.reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _answer(writing, function, user)
        os.close(writing)

    def read(self) -> None:
        """Take what is there to be read."""
        chunk = os.read(self.reading, 65536)
        self.answer += chunk
        self.complete = not chunk

    def end(self) -> None:
        """Be rid of it."""
        os.close(self.reading)
        if not self.complete:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0 if self.complete else os.WNOHANG)


def _collect(children: List[_Child], deadline: float) -> None:
    """Read what they write, until they have ended or time runs out."""
    while True:
        waiting = {child.reading: child for child in children if not child.complete}
        if not waiting:
            return
        ready, _, _ = select.select(list(waiting), [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return
        for descriptor in ready:
            waiting[descriptor].read()


def _outcome(what: str, seconds: float, child: _Child) -> Outcome:
    if not child.complete:
        return Outcome(None, TimeLimit(what, seconds))
    if not child.answer:
        return Outcome(None, CowStorageError(f"A check ended without an answer: {what}."))
    import pickle

    return Outcome(*pickle.loads(child.answer))


def _answer(writing: int, function: Callable[[], Any], user: Optional[Tuple[int, int]]) -> None:
    """The child's side; never returns, and runs none of the parent's clean-up."""
    import pickle

    try:
        for number in INTERRUPTS:
            signal.signal(number, signal.SIG_DFL)
        # A child that hangs for ever must not keep our lock with it.
        os.closerange(3, writing)
        os.closerange(writing + 1, 1024)
        if user and os.geteuid() == 0 and user[0] != 0:
            os.setgroups([user[1]])
            os.setgid(user[1])
            os.setuid(user[0])
        try:
            answer = pickle.dumps((function(), None))
        except Exception as error:
            try:
                answer = pickle.dumps((None, error))
                pickle.loads(answer)
            except Exception:
                answer = pickle.dumps((None, CowStorageError(str(error))))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)
