"""The lock of a part: one command at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import Iterator, Optional

from cowstorage.errors import Locked, PathUnusable

LOCK = "lock"


class Lock:
    """The lock of a part, held by one command at a time: flock(2) on the directory ``location``.

    Not on a file in it: one that is removed while it is locked, and made anew by the next command, would be locked by
    both.  The file ``lock`` says who holds the lock, and nothing else.
    The lock is free again when the process has ended, and so have the programs that inherited ``descriptor``.

    :param command: the name of the script, which another one shows when it finds the lock taken.
    :param waits: seconds to wait for another command before giving up.
    :ivar descriptor: the open directory while the lock is held, else ``None``.
    :raises Locked: from ``with``, when another command holds the lock.
    :raises PathUnusable: from ``with``, when directory or file can't be opened.
    """

    def __init__(self, location: str, command: str, waits: float = 0.0):
        self.location = location
        self.path = os.path.join(location, LOCK)
        self.command = command
        self.waits = waits
        self.descriptor: Optional[int] = None

    def __enter__(self) -> Lock:
        self.descriptor = self._opened(self.location, os.O_RDONLY | os.O_DIRECTORY)
        for _ in self._tries():
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                continue
        else:
            os.close(self.descriptor)
            self.descriptor = None
            raise Locked(self._holder() or "unknown")
        # sh closes the descriptor in all programs but those that are to inherit the lock.
        os.set_inheritable(self.descriptor, True)
        self._write(f"{self.command} (pid {os.getpid()})\n")
        return self

    def _opened(self, path: str, flags: int) -> int:
        try:
            return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise PathUnusable(path, f"can't be opened: {error.strerror}. It must belong to you.") from None

    def _holder(self) -> str:
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return ""
        with os.fdopen(descriptor, "rb") as file:
            # One line is what a command writes; more would be read as words of ours.
            return file.read(200).decode("utf-8", "replace").strip().partition("\n")[0]

    def _write(self, text: str) -> None:
        # A new file, whatever was put in its place.
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        with os.fdopen(self._opened(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as file:
            file.write(text)

    def _tries(self) -> Iterator[None]:
        """Yield once for each attempt to take the lock, every 0.1 seconds until ``waits`` is over."""
        deadline = time.monotonic() + self.waits
        yield
        while time.monotonic() < deadline:
            time.sleep(0.1)
            yield

    def __exit__(self, *exception: object) -> None:
        if self.descriptor is not None:
            with contextlib.suppress(PathUnusable):
                self._write("")
            os.close(self.descriptor)
            self.descriptor = None
