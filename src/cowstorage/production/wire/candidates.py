"""Choose the BLOB files that are worth fetching before anybody asks: new revisions of what was read, and neighbours.

ZODB counts oids up, so what was made together, such as the pictures of one import, has oids that lie close together.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from typing import Deque, Iterator, List, NamedTuple, Optional, Set

from cowstorage.part.blob_cache import READ_NOTES, noted
from cowstorage.production.wire.knowledge import Files, Knowledge
from cowstorage.production.wire.names import blob_path, directory_of, object_of
from cowstorage.production.wire.store import Store

# The oids after one that was read that are looked at, some 20 µs each, and how many BLOBs of them are wanted at most.
REACH = 64
MOST_NEIGHBOURS = 8

# Objects whose neighbours are still to be looked for; those that were read first are forgotten first.
MOST_READ = 64

# Objects that are looked at before the thread hands on what it has found.
STEPS = 256

# Oids that are known to have been looked at; behind so many the first are forgotten, which costs looking again.
MOST_SEEN = 1 << 16

OIDS = 1 << 64


class Candidate(NamedTuple):
    """A BLOB file that production should have and the cache has not.

    :param relative: its path below the BLOB directory.
    :param was_read: whether an earlier revision of it was read.
    """

    relative: str
    was_read: bool


class Found(NamedTuple):
    """What ``Candidates.find`` has found.

    :param more: whether there is more to look at.
    :param is_new: whether the local database is another one than before.
    """

    candidates: List[Candidate]
    more: bool = False
    is_new: bool = False


class Candidates:
    """What is worth fetching, as far as the local database knows its name.

    :param directory: ``cache`` in the part's ``location``.
    """

    def __init__(self, directory: str, store: Store, knowledge: Knowledge):
        self._notes = os.path.join(directory, READ_NOTES)
        self._store = store
        self._knowledge = knowledge
        self._bases: Optional[Files] = None
        self._noted: Iterator[str] = iter(())
        self._read: Deque[str] = deque(maxlen=MOST_READ)
        self._seen: Set[int] = set()

    def add(self, relative: str) -> None:
        """Have the neighbours of a BLOB file that is read looked for."""
        self._read.append(os.path.dirname(relative))

    def find(self) -> Found:
        """Look at some objects; to be called by one thread at a time, which may wait for the disk.

        What was read comes first.  It is looked at once for each state of the local database.
        """
        bases = self._knowledge.bases()
        if bases is None:
            return Found([])
        is_new = bases != self._bases
        if is_new:
            self._bases, self._noted = bases, noted(self._notes)
            self._seen.clear()
        directories = list(itertools.islice(self._noted, STEPS))
        found = [one for directory in directories for one in self._revision(directory)]
        if not directories and self._read:
            found = self._neighbours(self._read.pop())
        return Found(found, more=bool(directories or self._read), is_new=is_new)

    def _revision(self, directory: str) -> Iterator[Candidate]:
        """Yield the newest revision of what was read, where the cache has an earlier one.

        Where it has none, nobody wanted all of the file, or the user has deleted it.
        """
        oid = object_of(directory)
        if oid is not None and self._store.has_revision(directory):
            yield from self._missing(oid, directory, was_read=True)

    def _neighbours(self, directory: str) -> List[Candidate]:
        oid = object_of(directory)
        found: List[Candidate] = []
        if len(self._seen) > MOST_SEEN:
            self._seen.clear()
        for near in range(oid + 1, min(oid + 1 + REACH, OIDS)) if oid is not None else ():
            if near not in self._seen and len(found) < MOST_NEIGHBOURS:
                self._seen.add(near)
                found += self._missing(near, directory_of(near, directory), was_read=False)
        return found

    def _missing(self, oid: int, directory: str, was_read: bool) -> Iterator[Candidate]:
        tid = self._knowledge.of(oid.to_bytes(8, "big")).tid
        relative = blob_path(directory, tid) if tid else None
        if relative and not self._store.has(relative):
            yield Candidate(relative, was_read)
