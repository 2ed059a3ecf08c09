"""Call functions in child processes with a time limit, for I/O that may hang on a mount whose server does not answer.

A child in uninterruptible sleep (state D, proc_pid_stat(5)) can't be killed: it is left behind, and ends by itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple, TypeVar

from cowstorage.errors import CowStorageError, TimeLimit
from cowstorage.system import identity
from cowstorage.system.processes import INTERRUPTS

T = TypeVar("T")

# The name of each child process, proc_pid_comm(5).
CHILD = "cow-look"

# The user of a child that has to see what is everybody's, such as the open files of all processes.
ROOT = (0, 0)


class Outcome(NamedTuple):
    """The result of one function.

    :param value: what the function returned; ``None`` with an error.
    :param error: the exception that the function raised, a ``TimeLimit``, or ``None``.
    """

    value: Any
    error: Optional[Exception] = None


def within(seconds: float, what: str, function: Callable[[], T], user: Optional[Tuple[int, int]] = None) -> T:
    """Call a function in a child process and return its result.

    :param what: describes the function in the error.
    :param function: must return a value that can be pickled.
    :param user: (uid, gid) of the child process, where we are root; ``None``: ours, ``ROOT``: root's.
    :raises TimeLimit: when the function takes longer than ``seconds``.
    :raises CowStorageError: when the child process ends without an answer, or can't pickle the function's exception.
    :raises Exception: the exception that the function raises.
    """
    (value,) = values_within(seconds, {what: function}, user)
    result: T = value
    return result


def values_within(
    seconds: float, functions: Mapping[str, Callable[[], Any]], user: Optional[Tuple[int, int]] = None
) -> List[Any]:
    """Call several functions at the same time, each in a child process, and return their results in order.

    Parameters are those of ``all_within``.

    :raises Exception: the error of the first function, in order, that has one; as ``within`` does.
    """
    outcomes = all_within(seconds, functions, user).values()
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return [outcome.value for outcome in outcomes]


def all_within(
    seconds: float, functions: Mapping[str, Callable[[], Any]], user: Optional[Tuple[int, int]] = None
) -> Dict[str, Outcome]:
    """Call several functions at the same time, each in a child process, and return their outcomes.

    :param seconds: the time limit for all of them together.
    :param functions: maps a description, used in the error, to a function.
    :param user: as in ``within``.
    :returns: the same keys; a function that took too long has a ``TimeLimit`` as its error.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    started: List[_Child] = []
    try:
        for function in functions.values():
            started.append(_Child(function, user))
        _collect(started, time.monotonic() + seconds)
    finally:
        for child in started:
            child.end()
    return {what: _outcome(what, seconds, child) for what, child in zip(functions, started)}


class Begun:
    """A function that is called while we do something else; parameters are those of ``within``.

    The function's child processes end with its own.
    """

    def __init__(self, seconds: float, what: str, function: Callable[[], Any], user: Optional[Tuple[int, int]] = None):
        sys.stdout.flush()
        sys.stderr.flush()
        self._seconds = seconds
        self._what = what
        self._deadline = time.monotonic() + seconds
        self._child = _Child(function, user, leads=True)

    def result(self) -> Any:
        """Wait for the function's result, as ``within`` returns it, or raises; to be called once."""
        try:
            _collect([self._child], self._deadline)
        finally:
            self._child.end()
        outcome = _outcome(self._what, self._seconds, self._child)
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def give_up(self) -> None:
        """Wait no more for the function, which need not end at once."""
        self._child.end()


class _Child:
    """A child process that calls one function and writes the pickled outcome to a pipe.

    :param leads: whether the child leads a process group of its own, which is killed with it.
    :ivar answer: the bytes read from the pipe so far.
    :ivar complete: whether the child has closed the pipe, so that ``answer`` is whole.
    """

    def __init__(self, function: Callable[[], Any], user: Optional[Tuple[int, int]], leads: bool = False):
        self.answer = b""
        self.complete = False
        self.reading, writing = os.pipe()
        self._kill = os.killpg if leads else os.kill
        self.pid = os.fork()
        if leads:
            # By both, since either may be the first to need it, setpgid(2).
            with contextlib.suppress(OSError):
                os.setpgid(self.pid, self.pid)
        if self.pid == 0:
            _answer(writing, function, user)
        os.close(writing)

    def read(self) -> None:
        """Read from the pipe once; blocks until the child has written or ended."""
        chunk = os.read(self.reading, 65536)
        self.answer += chunk
        self.complete = not chunk

    def end(self) -> None:
        """Close the pipe, and kill the child unless it is complete; only a complete child is waited for."""
        os.close(self.reading)
        if not self.complete:
            with contextlib.suppress(ProcessLookupError):
                self._kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0 if self.complete else os.WNOHANG)


def _collect(children: List[_Child], deadline: float) -> None:
    """Read the answers of the children until all are complete or the deadline has passed.

    :param deadline: a time of ``time.monotonic``.
    """
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
    """Return the outcome of a child that has ended or was given up; parameters are those of ``within``."""
    if not child.complete:
        return Outcome(None, TimeLimit(what, seconds))
    if not child.answer:
        return Outcome(None, CowStorageError(f"A check ended without an answer: {what}."))
    import pickle  # start-up

    return Outcome(*pickle.loads(child.answer))


def _answer(writing: int, function: Callable[[], Any], user: Optional[Tuple[int, int]]) -> None:
    """Call the function in the child, write its pickled outcome, and exit without the parent's clean-up.

    :param writing: the descriptor of the pipe's end to write to.
    """
    import pickle  # start-up

    try:
        # One that hangs in the kernel outlives its command: no later one is to take it for a user's process.
        with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as comm:
            comm.write(CHILD)
        for number in INTERRUPTS:
            signal.signal(number, signal.SIG_DFL)
        # A child that hangs for ever must not keep a lock of ours: all inherited files are closed.
        os.closerange(3, writing)
        os.closerange(writing + 1, 1024)
        if user == ROOT:
            identity.root_again()
        else:
            identity.become(*(user or (os.geteuid(), os.getegid())))
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
