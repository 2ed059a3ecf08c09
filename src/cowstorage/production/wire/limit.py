"""Count the bytes of a BLOB cache that is limited, and tell whether more fit in."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Dict, NamedTuple, Optional

from cowstorage.part.eviction import FULL
from cowstorage.production.wire.threads import Worker
from cowstorage.system.files import walk

# How long what is in the cache counts as known.
COUNTED_SECONDS = 60.0


class Spare(NamedTuple):
    """What is to be left free besides: bytes of ``room`` on the disk, and one of so many parts of the limit."""

    room: int
    part: int


class Limit:
    """The limit of a cache.

    :param directory: ``cache`` in the part's ``location``.
    :param most: bytes that the cache may have; ``None``: no limit.
    :param writer: the thread that writes.
    """

    def __init__(self, directory: str, most: Optional[int], writer: Worker):
        self._blobs = os.path.join(directory, "blobstorage")
        self._full = os.path.join(directory, FULL)
        self._most = most
        self._writer = writer
        self._counter = Worker() if most is not None else None
        self.counted: Optional[int] = None
        self._count_until = 0.0
        # Bytes of those that are not in the cache yet, by their paths, and of all that were ever kept.
        self._settling: Dict[str, int] = {}
        self._kept = 0
        self.is_full = os.path.exists(self._full)
        # A second note might be written after room was made, and have it made once more.
        self._is_noting = False
        self._count()

    def allows(self, size: int, reserved: int, spare: Optional[Spare]) -> bool:
        """Tell whether a file fits in; not before it is known what is there.

        :param reserved: bytes of the files on their way.
        :param spare: what is to be left.
        """
        if self._most is None:
            return True
        self._count()
        most = self._most - (self._most // spare.part if spare else 0)
        if self.counted is None:
            return False
        if self.counted + reserved + size <= most:
            return True
        if spare is None and size <= most and not (self.is_full or self._is_noting):
            self._is_noting = True
            self._writer.give(self._note_full)
        return False

    def keep(self, path: str, size: int) -> None:
        """Count a file that will be in the cache."""
        self._settling[path] = size
        self._kept += size
        if self.counted is not None:
            self.counted += size

    def settled(self, path: str) -> None:
        """Take note that a file is in the cache, or will not be; called by any thread."""
        del self._settling[path]

    def _note_full(self) -> None:
        """Have room made when the unions are laid the next time."""
        self.is_full = _touch(self._full)
        self._is_noting = False

    def _count(self) -> None:
        """Have the bytes in the cache counted anew, where room was made, or they were not counted lately."""
        if self.is_full and not os.path.exists(self._full):
            self.is_full, self.counted, self._count_until = False, None, 0.0
        now = time.monotonic()
        if self._counter and now > self._count_until:
            self._count_until = now + COUNTED_SECONDS
            self._counter.give(self._count_files)

    def _count_files(self) -> None:
        # Rather one too often than not at all: what is kept while it is counted.
        kept, settling = self._kept, sum(list(self._settling.values()))
        with contextlib.suppress(OSError):
            found = walk(self._blobs) if os.path.isdir(self._blobs) else ()
            size = sum(one.stat(follow_symlinks=False).st_size for one in found if one.name.endswith(".blob"))
            self.counted = size + settling + self._kept - kept


def _touch(path: str) -> bool:
    """Make an empty file, where there is none, and tell whether there is one."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError:
        return False
    return True
