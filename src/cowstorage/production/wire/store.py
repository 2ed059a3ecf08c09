"""The BLOB cache as the wire has it: looks for BLOB files in it, and puts those into it that came whole.

A file gets its name there by rename(2), when every byte of the size that production told has come and is on the disk.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from functools import partial
from typing import Dict, NamedTuple, Optional, Set

from cowstorage.database.blobs import LAYOUT_MARKER, layout
from cowstorage.production.wire.limit import Limit, Spare
from cowstorage.production.wire.names import layout_of
from cowstorage.production.wire.packets import Attributes
from cowstorage.production.wire.partial import Partial
from cowstorage.production.wire.threads import Worker
from cowstorage.system.room import RESERVE, free_bytes

# Bytes that wait to be written; when there are more, the disk is slower than the line.
WAITING = 16_000_000

# BLOB files on their way at a time.
MOST_PARTIALS = 256

# Threads that wait until a file is on the disk: what several wait for at once, a journal commits at once.
SETTLERS = 8


# How exactly it is known when a BLOB was read last.
READ_SECONDS = 600.0


class Cached(NamedTuple):
    """A BLOB file of the cache, open.

    :param descriptor: to be closed by whoever asked.
    :param read: when it was read last, Unix seconds.
    """

    descriptor: int
    size: int
    modified: int
    read: float

    @property
    def attributes(self) -> Attributes:
        """What a server would tell of it."""
        return Attributes(self.size, self.modified, regular=True)


class Store:
    """The BLOB cache of a part.

    :param directory: ``cache`` in the part's ``location``.
    :param limit: bytes that the cache may have; ``None``: no limit.
    :ivar writer: the thread that writes into it.
    """

    def __init__(self, directory: str, limit: Optional[int] = None):
        self._blobs = os.path.join(directory, "blobstorage")
        self._coming = os.path.join(directory, "coming")
        self.writer = Worker(WAITING)
        self.limit = Limit(directory, limit, self.writer)
        self._settlers = [Worker() for _ in range(SETTLERS)]
        self._number = 0
        self._reserved = 0
        self.partials: Dict[str, Partial] = {}
        self._unsettled: Dict[str, str] = {}
        self._refused: Set[str] = set()
        with contextlib.suppress(OSError):
            self._clean()

    def find(self, relative: str) -> Optional[Cached]:
        """Open a BLOB file of the cache; ``None`` where it has none."""
        # In this order: it may be renamed between the two.
        for path in (self._unsettled.get(relative), os.path.join(self._blobs, relative)):
            cached = _opened(path) if path else None
            if cached:
                return cached
        return None

    def open(self, relative: str) -> Optional[Cached]:
        """Open a BLOB file of the cache that is read: what was read last stays longest."""
        cached = self.find(relative)
        if cached and time.time() - cached.read > READ_SECONDS:
            self.writer.give(partial(_note_read, os.path.join(self._blobs, relative), cached.modified))
        return cached

    def has_directory(self, relative: str) -> bool:
        """Tell whether the cache has a directory of objects, so that production had it, with a BLOB in it."""
        return os.path.isdir(os.path.join(self._blobs, relative))

    def has(self, relative: str) -> bool:
        """Tell whether the cache has a BLOB file, or will have it in a moment."""
        return relative in self._unsettled or os.path.exists(os.path.join(self._blobs, relative))

    def has_revision(self, directory: str) -> bool:
        """Tell whether the cache has any BLOB file of an object.

        :param directory: the object's, below the BLOB directory.
        """
        try:
            return any(name.endswith(".blob") for name in os.listdir(os.path.join(self._blobs, directory)))
        except OSError:
            return False

    @property
    def is_behind(self) -> bool:
        """Whether the disk is slower than the line."""
        return self.writer.waiting > WAITING // 4

    def begin(self, relative: str, told: Attributes, spare: Optional[Spare] = None) -> Optional[Partial]:
        """Return the file that takes the pieces of a BLOB; ``None`` where there is no room for it.

        :param told: what production told of it.
        :param spare: what it must leave free.
        """
        coming = self.partials.get(relative)
        if coming:
            return coming
        if relative in self._refused:
            return None
        if not told.regular or len(self.partials) >= MOST_PARTIALS or not self._has_room(told.size, spare):
            return None
        self._number += 1
        path = os.path.join(self._coming, f"{os.getpid()}-{self._number}")
        with contextlib.suppress(OSError):
            os.makedirs(self._coming, 0o700, exist_ok=True)
            made = Partial(relative, path, told.size, told.modified, self.writer)
            self.partials[relative] = made
            self._reserved += told.size
            return made
        return None

    def check(self, relative: str, told: Attributes) -> None:
        """Do not keep a file that is on its way when production tells something else of it than before."""
        coming = self.partials.get(relative)
        if coming and (coming.size, coming.modified) != (told.size, told.modified):
            coming.failed = True

    def keep(self, complete: Partial) -> None:
        """Put a complete file into the cache; it is found from when it is written."""
        self._let_go(complete)
        self.limit.keep(complete.path, complete.size)
        complete.finish(self._settle)

    def drop(self, incomplete: Partial) -> None:
        """Throw away what has come of a file."""
        if self.partials.get(incomplete.relative) is incomplete:
            self._let_go(incomplete)
            incomplete.discard()

    def finish(self, seconds: float) -> None:
        """Throw away what is incomplete, and wait until the rest is in the cache, for a number of seconds at most."""
        for one in list(self.partials.values()):
            self.drop(one)
        deadline = time.monotonic() + seconds
        for worker in (self.writer, *self._settlers):
            worker.finish(max(0.0, deadline - time.monotonic()))

    def _let_go(self, one: Partial) -> None:
        del self.partials[one.relative]
        self._reserved -= one.size

    def _settle(self, complete: Partial) -> None:
        if complete.failed:
            self.limit.settled(complete.path)
            return
        self._unsettled[complete.relative] = complete.path
        settler = self._settlers[hash(complete.path) % SETTLERS]
        settler.give(partial(self._adopt, complete.relative, complete.path))

    def _adopt(self, relative: str, path: str) -> None:
        """Give a file its name, once its bytes are on the disk: after a power failure it would be shorter."""
        cached = os.path.join(self._blobs, relative)
        try:
            _write_out(path)
            os.makedirs(self._blobs, 0o700, exist_ok=True)
            if not self._is_of(layout_of(relative), path + "-layout"):
                raise FileExistsError(self._blobs)
            os.makedirs(os.path.dirname(cached), 0o700, exist_ok=True)
            os.rename(path, cached)
        except OSError:
            # It would be read again and again, each time that it is closed.
            self._refused.add(relative)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
            self._unsettled.pop(relative, None)
            self.limit.settled(path)

    def _is_of(self, wanted: str, new: str) -> bool:
        """Tell whether the cache has a layout, which an empty one gets: its marker makes it a lower of the unions.

        :param new: a path that the marker is written to first.
        """
        found = layout(self._blobs)
        if found is None:
            with open(new, "w", encoding="ascii") as marker:
                marker.write(wanted)
            os.rename(new, os.path.join(self._blobs, LAYOUT_MARKER))
        return (found or wanted) == wanted

    def _has_room(self, size: int, spare: Optional[Spare]) -> bool:
        if not self.limit.allows(size, self._reserved, spare):
            return False
        try:
            left = free_bytes(self._coming) - self._reserved - size
        except OSError:
            return False
        return left >= RESERVE + (spare.room if spare else 0)

    def _clean(self) -> None:
        """Delete what a wire that was killed has left."""
        with os.scandir(self._coming) as entries:
            for entry in entries:
                owner = entry.name.partition("-")[0]
                if not os.path.exists(f"/proc/{owner}") or int(owner) == os.getpid():
                    os.unlink(entry.path)


def _opened(path: str) -> Optional[Cached]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    return Cached(descriptor, status.st_size, int(status.st_mtime), status.st_atime)


def _note_read(path: str, modified: int) -> None:
    with contextlib.suppress(OSError):
        os.utime(path, (time.time(), modified), follow_symlinks=False)


def _write_out(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
