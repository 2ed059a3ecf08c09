"""What the local Data.fs tells of production's BLOBs: which file an object has, and which objects there are not."""

from __future__ import annotations

import os
import threading
from typing import List, NamedTuple, Optional, Tuple

from cowstorage.database.blob_lookup import BlobLookup
from cowstorage.database.format import Position
from cowstorage.errors import CowStorageError
from cowstorage.part import journal
from cowstorage.production.wire.threads import Worker

# For how long the first question behind a change of the journal waits. cow-rollback leaves the bases as they are, which
# is seen in a millisecond: what is known already would else cost a round trip in each run of an upgrade.
AGAIN_SECONDS = 0.02

Signature = Tuple[int, int]
# Path, base, and what tells that path and index are still the same files.
File = Tuple[str, Position, int, int, int]
Files = Tuple[File, ...]


class Known(NamedTuple):
    """What is known of an object.

    :param is_absent: whether production's database had no such object at the last sync.
    :param tid: that of its BLOB's file, 8 bytes; ``None``: not known.
    """

    is_absent: bool = False
    tid: Optional[bytes] = None


UNKNOWN = Known()


class Knowledge:
    """The bases of a part's FileStorages, which are read again when the journal changes.

    :param location: the part's own directory.
    """

    def __init__(self, location: str):
        self._location = location
        self._worker = Worker()
        # A lookup moves the position of a file that it reads.
        self._lock = threading.Lock()
        self._has_read = threading.Event()
        self._has_read.set()
        self._loaded: Tuple[Optional[Signature], List[BlobLookup]] = (None, [])
        self._files: Files = ()
        self._asked: Optional[Signature] = None
        self.of(bytes(8))

    def of(self, oid: bytes) -> Known:
        """Return what is known of an object; nothing while the bases are being read, or in doubt.

        Any thread may ask; it waits for what another one has asked.
        """
        with self._lock:
            return self._look_up(oid)

    def bases(self) -> Optional[Files]:
        """Return what tells the bases that are known from others, once they have been read; ``None``: in doubt."""
        self._current()
        self._has_read.wait()
        return self._files if self._current() else None

    def _current(self) -> List[BlobLookup]:
        """Return what to look up in; none where the bases are being read, or in doubt."""
        signature = self._signature()
        if signature is None:
            return []
        if signature not in (self._loaded[0], self._asked):
            self._begin(signature)
        loaded, lookups = self._loaded
        return lookups if signature == loaded else []

    def _begin(self, signature: Signature) -> None:
        """Have the bases read, and wait a moment for those that may have stayed."""
        self._asked = signature
        self._has_read.clear()
        self._worker.give(lambda: self._load(signature))
        if self._loaded[0] is not None:
            self._has_read.wait(AGAIN_SECONDS)

    def _look_up(self, oid: bytes) -> Known:
        lookups = self._current()
        missing = 0
        for lookup in lookups:
            try:
                tid = lookup.tid(oid)
            except KeyError:
                missing += 1
            except (ValueError, OSError):
                return UNKNOWN
            else:
                return Known(tid=tid)
        return Known(is_absent=bool(lookups) and missing == len(lookups))

    def finish(self, seconds: float) -> None:
        """Wait until what is to be read has been, for a number of seconds at most."""
        self._worker.finish(seconds)

    def _signature(self) -> Optional[Signature]:
        """Return what changes with the journal, which is a new file each time; ``None`` where there is none."""
        try:
            status = os.stat(os.path.join(self._location, journal.JOURNAL))
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _load(self, signature: Signature) -> None:
        lookups: List[BlobLookup] = []
        files: Files = ()
        try:
            written = journal.load(self._location)
            bases = {} if written.unfinished else written.bases
            files = tuple(self._file(name, Position(*base)) for name, base in sorted(bases.items()))
            if files == self._files:
                lookups = self._loaded[1]
            else:
                lookups = [BlobLookup(path, path + ".index", base) for path, base, *_ in files]
        except (CowStorageError, ValueError, OSError):
            # One that can't be read may have what the others have not.
            lookups, files = [], ()
        self._files = files
        self._loaded = (signature, lookups)
        self._has_read.set()

    def _file(self, name: str, base: Position) -> File:
        path = os.path.join(self._location, "base", name)
        file, index = os.stat(path), os.stat(path + ".index")
        return path, base, file.st_ino, index.st_ino, index.st_mtime_ns
