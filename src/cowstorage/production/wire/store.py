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
from cowstorage.part.eviction import FULL
from cowstorage.production.wire.names import layout_of
from cowstorage.production.wire.packets import Attributes
from cowstorage.production.wire.partial import Partial
from cowstorage.production.wire.threads import Worker
from cowstorage.system.files import walk
from cowstorage.system.room import RESERVE, free_bytes

# Bytes that wait to be written; when there are more, the disk is slower than the line.
WAITING = 16_000_000

# BLOB files on their way at a time.
MOST_PARTIALS = 256

# Threads that wait until a file is on the disk: what several wait for at once, a journal commits at once.
SETTLERS = 8

# How long what is in the cache counts as known, where it is limited.
COUNTED_SECONDS = 60.0


# How exactly it is known when a BLOB was read last.
READ_SECONDS = 600.0


class Cached(NamedTuple):
    """A BLOB file of the cache, open.

    :param descriptor: to be closed by whoever asked.
    """

    descriptor: int
    size: int
    modified: int

    @property
    def attributes(self) -> Attributes:
        """What a server would tell of it."""
        return Attributes(self.size, self.modified, regular=True)


class Spare(NamedTuple):
    """What is to be left free besides: bytes of ``room`` on the disk, and one of so many parts of the limit."""

    room: int
    part: int


class Store:
    """The BLOB cache of a part.

    :param directory: ``cache`` in the part's ``location``.
    :param limit: bytes that the cache may have; ``None``: no limit.
    :ivar writer: the thread that writes into it.
    """

    def __init__(self, directory: str, limit: Optional[int] = None):
        self._blobs = os.path.join(directory, "blobstorage")
        self._coming = os.path.join(directory, "coming")
        self._full = os.path.join(directory, FULL)
        self._is_full = False
        self._limit = limit
        self.writer = Worker(WAITING)
        self._settlers = [Worker() for _ in range(SETTLERS)]
        self._counter = Worker() if limit is not None else None
        self._counted: Optional[int] = None
        self._count_until = 0.0
        self._number = 0
        self._reserved = 0
        self.partials: Dict[str, Partial] = {}
        self._unsettled: Dict[str, str] = {}
        self._refused: Set[str] = set()
        with contextlib.suppress(OSError):
            self._clean()
        self._count()

    def find(self, relative: str) -> Optional[Cached]:
        """Open a BLOB file of the cache; ``None`` where it has none."""
        for path in (os.path.join(self._blobs, relative), self._unsettled.get(relative)):
            cached = _opened(path) if path else None
            if cached:
                return cached
        return None

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
        if self._counted is not None:
            self._counted += complete.size
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
        needed = self._reserved + size
        if self._limit is not None:
            self._count()
            limit = self._limit - (self._limit // spare.part if spare else 0)
            if self._counted is None or self._counted + needed > limit:
                if spare is None and self._counted is not None and size <= limit:
                    self._note_full()
                return False
        try:
            return free_bytes(self._coming) - needed >= RESERVE + (spare.room if spare else 0)
        except OSError:
            return False

    def _note_full(self) -> None:
        """Have room made when the unions are laid the next time; where it was, count anew."""
        if self._is_full and not os.path.exists(self._full):
            self._is_full, self._counted, self._count_until = False, None, 0.0
        elif not self._is_full:
            self._is_full = True
            self.writer.give(partial(_touch, self._full))

    def _count(self) -> None:
        """Have the bytes in the cache counted anew, where they are limited and were not counted lately."""
        now = time.monotonic()
        if self._counter and now > self._count_until:
            self._count_until = now + COUNTED_SECONDS
            self._counter.give(self._count_files)

    def _count_files(self) -> None:
        with contextlib.suppress(OSError):
            found = walk(self._blobs) if os.path.isdir(self._blobs) else ()
            self._counted = sum(one.stat(follow_symlinks=False).st_size for one in found if one.name.endswith(".blob"))

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
    now = time.time()
    if now - status.st_atime > READ_SECONDS:
        with contextlib.suppress(OSError):
            os.utime(descriptor, ns=(int(now * 1e9), status.st_mtime_ns))
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        return None
    return Cached(descriptor, status.st_size, int(status.st_mtime))


def _write_out(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _touch(path: str) -> None:
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
