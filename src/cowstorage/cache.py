"""The local BLOB cache: a lower directory between upper and production, with copies of production's BLOB files.

A committed BLOB file is never changed, so a copy is never stale: the cache survives everything, and nothing in it is
ever written but whole files under their names.  In ``location``/cache: ``blobstorage`` (the lower), ``incoming``
(files that are not complete), ``complete`` (see ``Complete``), ``nothing`` (an empty lower for the filestorage where
production is left out); deleting any of it costs only the fetching.
"""

from __future__ import annotations

import json
import os
from array import array
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from cowstorage import trash
from cowstorage.children import within
from cowstorage.settings import Settings
from cowstorage.system import Runner

LAYOUT = ".layout"
# Files that are looked at before a mount leaves production out: 3 ms, whatever there is in the cache.
SAMPLES = 1000
LAYOUT_SECONDS = 60.0
# Longer than any line of ``complete``.
LINE = 256

Bases = Dict[str, List[Any]]


class Paths(NamedTuple):
    """Where the cache lies; all on one file system."""

    blobs: str
    incoming: str
    complete: str
    nothing: str


def paths(settings: Settings) -> Paths:
    """See ``Paths``."""
    top = os.path.join(settings.location, "cache")
    return Paths(*(os.path.join(top, name) for name in ("blobstorage", "incoming", "complete", "nothing")))


def exists(settings: Settings) -> bool:
    """Whether there is a cache that can be a lower."""
    return os.path.isfile(os.path.join(paths(settings).blobs, LAYOUT))


def layout(directory: str) -> Optional[str]:
    """How a BLOB directory is laid out, in the words of its marker."""
    try:
        with open(os.path.join(directory, LAYOUT), encoding="ascii", errors="replace") as marker:
            return marker.read(100).strip()
    except FileNotFoundError:
        return None


def adopt(settings: Settings, relative: str, size: int, owner: Optional[Tuple[int, int]]) -> bool:
    """Give a file that was fetched into ``incoming`` its name in the cache, if it has the size that it should.

    :param owner: whose it will be, where root works for somebody.
    """
    place = paths(settings)
    fetched, cached = os.path.join(place.incoming, relative), os.path.join(place.blobs, relative)
    try:
        if os.lstat(fetched).st_size != size:
            return False
    except FileNotFoundError:
        return False
    if owner:
        os.chown(fetched, *owner)
    _make_directories(place.blobs, os.path.dirname(relative), owner)
    os.rename(fetched, cached)
    return True


def _make_directories(top: str, relative: str, owner: Optional[Tuple[int, int]]) -> None:
    path = os.path.join(top, relative)
    if not os.path.isdir(path):
        if relative:
            _make_directories(top, os.path.dirname(relative), owner)
        os.mkdir(path, 0o700)
        if owner:
            os.chown(path, *owner)


def size_of(settings: Settings, relative: str) -> Optional[int]:
    """Bytes of a cached file; ``None`` when it isn't there."""
    try:
        return os.lstat(os.path.join(paths(settings).blobs, relative)).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def files(settings: Settings) -> Iterator[Tuple[str, str, int]]:
    """Path, tid (16 hex digits) and bytes of each BLOB file in the cache."""
    from cowstorage.blobs import tid_of

    waiting = [paths(settings).blobs]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                tid = tid_of(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif tid is not None:
                    yield entry.path, tid, entry.stat(follow_symlinks=False).st_size


class Sizes:
    """Tids and sizes of many BLOBs, 16 bytes for each."""

    def __init__(self) -> None:
        self._tids = array("Q")
        self._sizes = array("Q")

    def add(self, tid: str, size: int) -> None:
        self._tids.append(int(tid, 16))
        self._sizes.append(size)

    def __len__(self) -> int:
        return len(self._tids)

    @property
    def total(self) -> int:
        return sum(self._sizes)

    def oldest_within(self, limit: int) -> str:
        """The tid from which on all of them together are no more than ``limit`` bytes."""
        left = limit
        for number in sorted(range(len(self._tids)), key=self._tids.__getitem__, reverse=True):
            left -= self._sizes[number]
            if left < 0:
                return f"{self._tids[number] + 1:016x}"
        return "0" * 16


class Complete:
    """The file ``complete``: every BLOB that the FileStorages refer to at their bases is in the cache.

    Its first line says which bases these are, each further one has size and path of a file.  It is the whole truth
    only together with the files, so these are looked at before it is believed.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._path = paths(settings).complete

    def write(self, bases: Bases, entries: Iterator[Tuple[int, str]]) -> None:
        """Whole or not at all: a new file, renamed."""
        os.makedirs(paths(self._settings).nothing, 0o700, exist_ok=True)
        with open(self._path + ".new", "w", encoding="ascii") as file:
            file.write(json.dumps(bases, sort_keys=True) + "\n")
            for size, relative in entries:
                file.write(f"{size} {relative}\n")
        os.rename(self._path + ".new", self._path)

    def forget(self) -> None:
        """The cache is no longer complete."""
        if os.path.exists(self._path):
            os.unlink(self._path)

    def seems(self, bases: Bases) -> bool:
        """Whether the cache is complete for these bases, as far as a thousand of its files tell: constant time."""
        return self.gap(bases, SAMPLES) is None

    def sample(self) -> Optional[str]:
        """The relative path of a BLOB that is there."""
        with open(self._path, encoding="ascii") as file:
            file.readline()
            return file.readline().partition(" ")[2].strip() or None

    def gap(self, bases: Bases, samples: Optional[int] = None) -> Optional[str]:
        """What is missing for these bases; ``None`` when nothing is.

        :param samples: how many files are looked at; ``None``: all.
        """
        if not exists(self._settings) or not os.path.isdir(paths(self._settings).nothing):
            return "there is no BLOB cache"
        try:
            with open(self._path, "rb") as file:
                if json.loads(file.readline()) != bases:
                    return "the database was refreshed since the BLOBs were fetched"
                for line in _sampled(file, samples) if samples else file:
                    size, _, relative = line.decode("ascii").strip().partition(" ")
                    if size_of(self._settings, relative) != int(size):
                        return f"{relative} is not in the BLOB cache"
        except FileNotFoundError:
            return "not all BLOBs were fetched"
        except ValueError:
            return f"{self._path} is damaged"
        return None


def suffices(settings: Settings, bases: Bases) -> bool:
    """Whether production can be left out of the unions: all that the database refers to is here.

    Each look-up of a new name, and of each directory, would go to production otherwise: one or two round trips for a
    BLOB that is in the cache.  What is lost is to undo a transaction of production's, which wants the BLOB before it.
    """
    return bool(bases and settings.file_storage) and Complete(settings).seems(bases)


def sample(settings: Settings, bases: Bases, on_production: Optional[str]) -> Optional[str]:
    """A BLOB that can be read through the union: production's, or one of the cache where production is left out."""
    return Complete(settings).sample() if suffices(settings, bases) else on_production


def _sampled(file: Any, samples: int) -> Iterator[bytes]:
    """Some lines of a file, evenly spread; all of them when there are few."""
    begin, end = file.tell(), os.fstat(file.fileno()).st_size
    if end - begin <= samples * LINE:
        yield from file
        return
    for number in range(samples):
        file.seek(begin + (end - begin - LINE) * number // samples)
        file.readline()
        yield file.readline()


def match(settings: Settings, production: str, runner: Runner) -> None:
    """Throw a cache away that is laid out otherwise than production: its marker would hide production's.

    :param production: its BLOB directory, as the mount shows it.
    """
    if not exists(settings):
        return
    theirs = within(LAYOUT_SECONDS, f"reading {production}", lambda: layout(production))
    if theirs != layout(paths(settings).blobs):
        clear(settings, runner)


def clear(settings: Settings, runner: Runner) -> None:
    """An end to all of it; what was in it is deleted in the background."""
    Complete(settings).forget()
    if os.path.isdir(paths(settings).blobs):
        for command in trash.aside(paths(settings).blobs, settings.location):
            runner.run(command)
