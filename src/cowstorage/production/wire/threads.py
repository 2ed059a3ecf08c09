"""Threads that do what may wait for a disk, so that no request waits behind it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from queue import SimpleQueue
from typing import Any, Callable, Deque, List, Optional

Job = Callable[[], Any]


class Worker:
    """A thread that does one job after the other; a job must not raise.

    :param most: bytes that may wait to be done.
    """

    def __init__(self, most: int = 0):
        self._most = most
        self._jobs: SimpleQueue[Optional[Job]] = SimpleQueue()
        # Each is changed by one thread only.
        self._given = self._done = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def give(self, job: Job) -> None:
        """Have a job done."""
        self._jobs.put(job)

    @property
    def waiting(self) -> int:
        """Bytes that wait to be done."""
        return self._given - self._done

    def take(self, size: int) -> bool:
        """Reserve room for bytes that wait for a job, which calls ``done``; return whether there was room for them."""
        if self.waiting + size > self._most:
            return False
        self._given += size
        return True

    def done(self, size: int) -> None:
        """Free what was reserved for a job; to be called by the job."""
        self._done += size

    def finish(self, seconds: float) -> None:
        """Wait until all jobs are done, for a number of seconds at most."""
        self._jobs.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        for job in iter(self._jobs.get, None):
            job()


class Readers:
    """Threads that read, and what they have read for the thread that asked.

    :ivar wakes: a descriptor that becomes readable when there are results.
    """

    COUNT = 4

    def __init__(self) -> None:
        self._workers: List[Worker] = []
        self._apart: Optional[Worker] = None
        self._next = 0
        self._results: Deque[Job] = deque()
        self.wakes, self._wake = os.pipe()
        for descriptor in (self.wakes, self._wake):
            os.set_blocking(descriptor, False)

    def ask(self, function: Callable[[], Any], take: Callable[[Any], None]) -> None:
        """Have ``function`` called by a thread, and ``take``, with its result, when ``take_results`` is called."""
        if not self._workers:
            self._workers = [Worker() for _ in range(self.COUNT)]
        self._next = (self._next + 1) % self.COUNT
        self._give(self._workers[self._next], function, take)

    def ask_apart(self, function: Callable[[], Any], take: Callable[[Any], None]) -> None:
        """Do the same by a thread that nobody waits for: ``function`` may take long."""
        self._apart = self._apart or Worker()
        self._give(self._apart, function, take)

    def _give(self, worker: Worker, function: Callable[[], Any], take: Callable[[Any], None]) -> None:
        def job() -> None:
            result = function()
            self._results.append(lambda: take(result))
            # Full: the pipe is readable as it is.
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake, b"\0")

        worker.give(job)

    def take_results(self) -> None:
        """Hand on what has been read."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wakes, 1 << 16)
        while self._results:
            self._results.popleft()()
