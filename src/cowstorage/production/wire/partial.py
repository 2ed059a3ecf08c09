"""A BLOB file that comes in pieces: what of it has come, and where the pieces are kept until it is complete."""

from __future__ import annotations

import bisect
import contextlib
import os
import time
from typing import Callable, List, Tuple

from cowstorage.production.wire.packets import Buffer
from cowstorage.production.wire.threads import Worker

# A file that is read in more pieces that do not touch is not kept.
MOST_GAPS = 10_000

# Bytes that are written at once: to wake the writer for each piece costs more than the writing.
BATCH = 1 << 18


class Coverage:
    """Which bytes of a file have come, as intervals that neither touch nor overlap."""

    def __init__(self) -> None:
        self._begins: List[int] = []
        self._ends: List[int] = []

    def add(self, begin: int, end: int) -> None:
        """Add the bytes from ``begin`` to before ``end``."""
        if begin >= end:
            return
        first = bisect.bisect_left(self._ends, begin)
        last = bisect.bisect_right(self._begins, end)
        if first < last:
            begin, end = min(begin, self._begins[first]), max(end, self._ends[last - 1])
        self._begins[first:last], self._ends[first:last] = [begin], [end]

    def has(self, begin: int, end: int) -> bool:
        """Tell whether all bytes from ``begin`` to before ``end`` have come."""
        at = bisect.bisect_right(self._begins, begin) - 1
        return begin >= end or (at >= 0 and end <= self._ends[at])

    def add_all(self, other: Coverage) -> None:
        """Add all that another one has."""
        for begin, end in zip(other._begins, other._ends):
            self.add(begin, end)

    def first_gap(self, size: int) -> Tuple[int, int]:
        """Return begin and end of the first bytes that have not come of a file of ``size`` bytes; equal: none."""
        begin = self._ends[0] if self._begins and not self._begins[0] else 0
        after = bisect.bisect_left(self._begins, begin)
        return min(begin, size), min(size, self._begins[after] if after < len(self._begins) else size)

    @property
    def intervals(self) -> int:
        """How many there are."""
        return len(self._begins)

    @property
    def length(self) -> int:
        """How many bytes have come."""
        return sum(self._ends) - sum(self._begins)


class Partial:
    """One BLOB file on its way into the cache.

    :param relative: its path below the BLOB directory.
    :param path: the file that takes the pieces.
    :param size: bytes, as production has told.
    :param modified: Unix seconds, likewise.
    :param writer: the thread that writes.
    :ivar coverage: what has come.
    :ivar failed: whether it will not be kept: it could not be written, or is not what production told.
    """

    def __init__(self, relative: str, path: str, size: int, modified: int, writer: Worker):
        self.relative = relative
        self.path = path
        self.size = size
        self.modified = modified
        self.failed = False
        self.coverage = Coverage()
        self._writer = writer
        self._batch: List[bytes] = []
        self._batch_begin = self._batch_end = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path, flags, 0o600)

    @property
    def is_complete(self) -> bool:
        """Whether every byte has come."""
        return not self.failed and self.coverage.has(0, self.size)

    def add(self, offset: int, content: Buffer, more: bool = False) -> None:
        """Take bytes of the file, a copy of those that may change.

        None are taken when the disk is slower than the line: then they have not come.

        :param more: whether more is under way, which may be written with them.
        """
        end = offset + len(content)
        if self.failed or self.coverage.has(offset, end):
            return
        if end > self.size or self.coverage.intervals > MOST_GAPS:
            self.failed = True
            return
        if not self._writer.take(len(content)):
            return
        self.coverage.add(offset, end)
        if self._batch and (offset != self._batch_end or end - self._batch_begin > BATCH):
            self._write_batch()
        if not self._batch:
            self._batch_begin = offset
        self._batch.append(bytes(content))
        self._batch_end = end
        if not more:
            self._write_batch()

    def finish(self, then: Callable[[Partial], None]) -> None:
        """Have the file closed once all is written, or thrown away as ``failed``; then ``then`` called with this.

        It is called by the writer.
        """

        def close() -> None:
            try:
                if not self.failed:
                    os.ftruncate(self._descriptor, self.size)
                    os.utime(self._descriptor, (time.time(), self.modified))
                    os.fchmod(self._descriptor, 0o400)
                    os.close(self._descriptor)
            except OSError:
                self.failed = True
            if self.failed:
                self._throw_away()
            then(self)

        self._write_batch()
        self._writer.give(close)

    def discard(self) -> None:
        """Have the file thrown away."""
        self.failed = True
        self._write_batch()
        self._writer.give(self._throw_away)

    def _write_batch(self) -> None:
        """Have the pieces written that have come and touch."""
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        begin, size = self._batch_begin, self._batch_end - self._batch_begin

        def write() -> None:
            self._write(begin, batch)
            self._writer.done(size)

        self._writer.give(write)

    def _write(self, offset: int, pieces: List[bytes]) -> None:
        left = [memoryview(piece) for piece in pieces if piece]
        if all(map(_is_zero, pieces)):
            # It stays a hole: a sparse file stays sparse.
            return
        try:
            while left and not self.failed:
                written = os.pwritev(self._descriptor, left, offset)
                offset += written
                while left and written >= len(left[0]):
                    written -= len(left.pop(0))
                if written:
                    left[0] = left[0][written:]
        except OSError:
            self.failed = True

    def _throw_away(self) -> None:
        for function in (lambda: os.close(self._descriptor), lambda: os.unlink(self.path)):
            with contextlib.suppress(OSError):
                function()


def _is_zero(content: bytes) -> bool:
    return not content or (not content[0] and content == bytes(len(content)))
