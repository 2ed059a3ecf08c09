"""The BLOBs that the local database refers to and nobody has: neither production nor this machine.

An upgrade meets them as FileNotFoundError or POSKeyError.  Production has lost them, or was packed since the last sync.
"""

from __future__ import annotations

import os
import random
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from cowstorage.actions import prefetch
from cowstorage.actions.context import Context
from cowstorage.database import blobs, filestorage
from cowstorage.database.blob_referrers import Referrer, referrers
from cowstorage.errors import CowStorageError, TimeLimit
from cowstorage.part import blob_cache
from cowstorage.production.blob_source import BlobSource
from cowstorage.system.time_limits import within

# Seconds for which cow-status and cow-mount look, and BLOBs that they look at; the network may be slow.
COUNT_SECONDS = 4.0
SAMPLES = 2000

# Seconds after which the child that looks is given up.
CHILD_SECONDS = 15.0


class Absent(NamedTuple):
    """A BLOB that is not there.

    :param oid: 8 bytes.
    :param tid: 16 hex digits.
    :param file: its path below the BLOB directory.
    :param referrer: an object that refers to it; ``None`` where none was found.
    """

    oid: bytes
    tid: str
    file: str
    referrer: Optional[Referrer]

    def as_data(self) -> Dict[str, Any]:
        """Return it as plain data."""
        by = self.referrer and {"oid": f"0x{self.referrer.oid.hex()}", "class": self.referrer.kind}
        return {"oid": f"0x{self.oid.hex()}", "tid": self.tid, "file": self.file, "referrer": by}


class Gone(NamedTuple):
    """How many BLOBs of the local database are gone.

    :param gone: of those that were looked at.
    :param looked_at: a random choice of them where there are many, or little time.
    :param needed: how many the database refers to.
    """

    gone: int
    looked_at: int
    needed: int

    def __str__(self) -> str:
        if self.looked_at == self.needed:
            return f"{self.gone:,} of {self.needed:,} BLOBs of the local database are gone"
        return f"{self.gone:,} of {self.looked_at:,} BLOBs that were looked at, of {self.needed:,}, are gone"


def find(context: Context, lists: prefetch.Lists, source: BlobSource, layout: str, history: bool) -> List[Absent]:
    """Return all of them, with who refers to them; asks production for every BLOB that isn't here.

    :param lists: takes the names.
    :param history: earlier revisions, too.
    """
    needed, cached, _ = prefetch.list_needed(context, lists, prefetch.Selection(history=history), layout)
    # A path has a hundred bytes, and there may be a million; two of them alike are as good as impossible.
    there = set()
    source.sizes(lists.missing, needed - cached, lambda size, relative: there.add(hash(relative)))
    files = [name for name in _names(lists.missing) if hash(name) not in there and not _is_local(context, name)]
    oids = {name: _oid(name, layout) for name in files}
    known = _referrers(context, set(oids.values())) if files else {}
    return [
        Absent(oids[name], blobs.tid_of(os.path.basename(name)) or "", name, known.get(oids[name])) for name in files
    ]


def _names(path: str) -> Iterator[str]:
    """Yield the names in a list, each of which a zero byte ends."""
    with open(path, "rb") as file:
        yield from (name.decode("ascii") for name in file.read().split(b"\0")[:-1])


def _is_local(context: Context, relative: str) -> bool:
    """Tell whether the upper has a BLOB: one of production's that a program has touched is copied up."""
    return os.path.isfile(os.path.join(context.settings.blob_upper, relative))


def _oid(relative: str, layout: str) -> bytes:
    """Return the oid, 8 bytes, that a BLOB's path is made of."""
    from ZODB.blob import LAYOUTS  # start-up

    oid: bytes = LAYOUTS[layout].path_to_oid(os.path.dirname(relative))
    return oid


def _referrers(context: Context, oids: set[bytes]) -> Dict[bytes, Referrer]:
    found: Dict[bytes, Referrer] = {}
    for name, base in sorted(context.journal.base_positions().items()):

        def reading(done: float, name: str = name) -> None:
            context.output.progress(f"Looking in {name} who refers to them: {done:.0%}")

        found.update(referrers(context.paths(name).local, oids, reading, base.size))
    context.output.progress_done()
    return found


def count(context: Context, seconds: float = COUNT_SECONDS) -> Optional[Gone]:
    """Count them cheaply, through the mount; ``None`` where the database is too big for that, or production is slow."""
    what = "looking for BLOBs on production"
    try:
        return within(CHILD_SECONDS, what, lambda: _counted(context, time.monotonic() + seconds), context.developer)
    except (CowStorageError, OSError):
        return None


def _counted(context: Context, deadline: float) -> Optional[Gone]:
    directory = os.path.join(context.filesystem.root, context.settings.remote_blob_storage)
    layout = blobs.layout(directory) or "lawn"
    if layout not in blobs.LAYOUT_NAMES:
        return None
    chosen: List[blobs.Revision] = []
    needed = 0
    # The same each time: who looks twice is told the same.
    choice = random.Random(0)
    for revision in _references(context, deadline):
        needed += 1
        if len(chosen) < SAMPLES:
            chosen.append(revision)
        elif choice.randrange(needed) < SAMPLES:
            chosen[choice.randrange(SAMPLES)] = revision
    if time.monotonic() > deadline:
        return None
    choice.shuffle(chosen)
    gone = looked_at = 0
    for oid, tid in chosen:
        if time.monotonic() > deadline:
            break
        relative = blobs.path_of(oid, tid, layout)
        looked_at += 1
        here = blob_cache.size_of(context.settings, relative) is not None or _is_local(context, relative)
        gone += not here and not os.path.exists(os.path.join(directory, relative))
    return Gone(gone, looked_at, needed)


def _references(context: Context, deadline: float) -> Iterator[blobs.Revision]:
    """Yield the BLOBs of each FileStorage's base; none after a deadline."""

    def reading(done: float) -> None:
        if time.monotonic() > deadline:
            raise TimeLimit("reading the local database", COUNT_SECONDS)

    for name, base in sorted(context.journal.base_positions().items()):
        path = context.paths(name).fetched
        if filestorage.holds(path, base):
            yield from blobs.references(path, False, reading, base.size)
