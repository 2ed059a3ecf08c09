"""The local BLOB cache: a lower directory between upper and production, with copies of production's BLOB files.

ZODB never changes a committed BLOB file, so a copy is never stale: the cache is kept by every mount, sync and rollback.
A file gets its name in the lower by rename(2) once it is complete.  Deleting any of the cache costs only the fetching.
The directories and files are those of ``CachePaths``.
"""

from __future__ import annotations

import json
import os
from array import array
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from cowstorage.database.blobs import LAYOUT_MARKER, layout, tid_of
from cowstorage.part import trash
from cowstorage.part.settings import Settings
from cowstorage.system.count import Count
from cowstorage.system.output import counted, human_size
from cowstorage.system.programs import Runner

# Files whose size is checked before a mount leaves production out: 3 ms, whatever there is in the cache.
SAMPLES = 1000

# Bytes; longer than any line of the file ``complete``.
LINE = 256

# The file with the directories of the objects whose BLOBs were read over sshfs, one in a line.
READ_NOTES = "read"

# FileStorage file name → ``[size, tid]`` of the base, as in the journal.
Bases = Dict[str, List[Any]]


class CachePaths(NamedTuple):
    """The paths of the BLOB cache in ``location``/cache, all on one file system.

    :param blobs: the lower directory.
    :param incoming: the directory of files that may not be complete.
    :param complete: the file of ``Complete``.
    :param nothing: an empty directory, the lower of the FileStorage union where production is left out.
    """

    blobs: str
    incoming: str
    complete: str
    nothing: str


def cache_directory(settings: Settings) -> str:
    """Return the directory of all that belongs to the part's BLOB cache."""
    return os.path.join(settings.location, "cache")


def cache_paths(settings: Settings) -> CachePaths:
    """Return the paths of the part's BLOB cache."""
    top = cache_directory(settings)
    return CachePaths(*(os.path.join(top, name) for name in ("blobstorage", "incoming", "complete", "nothing")))


def exists(settings: Settings) -> bool:
    """Tell whether there is a cache that can be a lower: one with ZODB's layout marker."""
    return os.path.isfile(os.path.join(cache_paths(settings).blobs, LAYOUT_MARKER))


def noted(path: str) -> Iterator[str]:
    """Yield the directories that a file of notes has, below the BLOB directory; none where it can't be read."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            for line in file:
                if line.endswith("\n") and len(line) < LINE:
                    yield line[:-1]
    except OSError:
        return


def notes_path(settings: Settings) -> str:
    """Return the path of the file of notes of what was read."""
    return os.path.join(cache_directory(settings), READ_NOTES)


def adopt(settings: Settings, relative: str, size: int) -> bool:
    """Move a fetched file from ``incoming`` into the cache, and tell whether the file was there with the right size.

    :param relative: the BLOB's path, relative to the BLOB directory.
    :param size: the bytes that the file must have.
    """
    cache = cache_paths(settings)
    fetched, cached = os.path.join(cache.incoming, relative), os.path.join(cache.blobs, relative)
    try:
        if os.lstat(fetched).st_size != size:
            return False
    except FileNotFoundError:
        return False
    os.makedirs(os.path.dirname(cached), 0o700, exist_ok=True)
    os.rename(fetched, cached)
    return True


def size_of(settings: Settings, relative: str) -> Optional[int]:
    """Return the size of a cached file in bytes; ``None`` when there is no such file.

    :param relative: the BLOB's path, relative to the BLOB directory.
    """
    try:
        return os.lstat(os.path.join(cache_paths(settings).blobs, relative)).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def files(settings: Settings) -> Iterator[Tuple[str, str, int]]:
    """Yield the path, the tid (16 hex digits) and the size in bytes of each BLOB file in the cache."""
    waiting = [cache_paths(settings).blobs]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                tid = tid_of(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif tid is not None:
                    yield entry.path, tid, entry.stat(follow_symlinks=False).st_size


class Held(NamedTuple):
    """What the cache holds.

    :param files: how many BLOB files, and ``size`` their bytes.
    :param complete: all of them were counted, within the time given.
    :param read: of how many objects BLOBs were read over sshfs, ever.
    """

    files: int
    size: int
    complete: bool
    read: int

    def __str__(self) -> str:
        text = f"{counted(self.files, 'BLOB', self.complete)}, {human_size(self.size)}"
        return f"{text}; {counted(self.read, 'object')} read over sshfs" if self.read else text


def held(settings: Settings, seconds: float) -> Held:
    """Count what the cache holds, as far as ``seconds`` allow; what is deleted meanwhile makes it incomplete."""
    count, total, complete = Count(seconds), 0, True
    try:
        for _, _, size in files(settings) if os.path.isdir(cache_paths(settings).blobs) else ():
            total += size
            if not count.add():
                complete = False
                break
    except OSError:
        complete = False
    read = sum(1 for _ in noted(notes_path(settings)))
    return Held(count.number, total, complete, read)


class Sizes:
    """The ages and sizes of many BLOBs, in 16 bytes of memory for each.

    An age is 16 hex digits, a tid or a time; the higher one is newer.
    """

    def __init__(self) -> None:
        self._ages = array("Q")
        self._sizes = array("Q")

    def add(self, age: str, size: int) -> None:
        """Add a BLOB.

        :param size: bytes.
        """
        self._ages.append(int(age, 16))
        self._sizes.append(size)

    def oldest_within(self, limit: int) -> str:
        """Return the oldest age from which on the BLOBs together have no more than ``limit`` bytes.

        :returns: 16 hex digits; zeros when all BLOBs are within the limit.
        """
        left = limit
        for number in sorted(range(len(self._ages)), key=self._ages.__getitem__, reverse=True):
            left -= self._sizes[number]
            if left < 0:
                return f"{self._ages[number] + 1:016x}"
        return "0" * 16


class Complete:
    """The file ``complete``, which says that the cache has every BLOB that the FileStorages refer to at their bases.

    The first line has the bases as JSON, each further line the size and the relative path of a BLOB file.  A user may
    have deleted BLOB files, so ``gap`` checks them.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._path = cache_paths(settings).complete

    def write(self, bases: Bases, entries: Iterator[Tuple[int, str]]) -> None:
        """Write the file whole or not at all: a new file, renamed.

        :param entries: size in bytes and relative path of each BLOB.
        """
        os.makedirs(cache_paths(self._settings).nothing, 0o700, exist_ok=True)
        with open(self._path + ".new", "w", encoding="ascii") as file:
            file.write(json.dumps(bases, sort_keys=True) + "\n")
            for size, relative in entries:
                file.write(f"{size} {relative}\n")
        os.rename(self._path + ".new", self._path)

    def forget(self) -> None:
        """Delete the file: the cache is no longer complete."""
        if os.path.exists(self._path):
            os.unlink(self._path)

    def sample(self) -> Optional[str]:
        """Return the relative path of a BLOB in the cache; ``None`` when there is none."""
        with open(self._path, encoding="ascii") as file:
            file.readline()
            return file.readline().partition(" ")[2].strip() or None

    def gap(self, bases: Bases, samples: Optional[int] = None) -> Optional[str]:
        """Return what the cache lacks for these bases, as a clause for people; ``None`` when the cache is complete.

        :param samples: how many files are checked; ``None``: all.
        """
        if not exists(self._settings) or not os.path.isdir(cache_paths(self._settings).nothing):
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
    """Tell whether production can be left out of the unions: all BLOBs that the database refers to are in the cache.

    With production in the unions each lookup of a new name, and of each directory, goes to production: one or two round
    trips for a BLOB that is in the cache.  Without production ZODB can't undo a transaction of production's that wrote
    a BLOB, since undo reads the BLOB's previous revision.
    """
    return bool(bases and settings.file_storage) and Complete(settings).gap(bases, SAMPLES) is None


def sample(settings: Settings, bases: Bases, on_production: Optional[str]) -> Optional[str]:
    """Return a BLOB that can be read through the union, as a relative path; ``None`` when there is none.

    :param on_production: a BLOB of production's; where production is left out, one of the cache is returned instead.
    """
    return Complete(settings).sample() if suffices(settings, bases) else on_production


def _sampled(file: Any, samples: int) -> Iterator[bytes]:
    """Yield about ``samples`` lines of a file from its position on, evenly spread; all of them when there are few."""
    begin, end = file.tell(), os.fstat(file.fileno()).st_size
    if end - begin <= samples * LINE:
        yield from file
        return
    for number in range(samples):
        file.seek(begin + (end - begin - LINE) * number // samples)
        file.readline()
        yield file.readline()


def match(settings: Settings, productions: Optional[str], runner: Runner) -> None:
    """Clear a cache with another BLOB layout than production's, whose layout marker the cache's would hide.

    :param productions: what production's marker says; ``None``: there is none.
    """
    # Without a marker ZODB takes a directory that has BLOBs for a lawn, and so does what writes the cache's marker.
    if exists(settings) and (productions or "lawn") != layout(cache_paths(settings).blobs):
        clear(settings, runner)


def clear(settings: Settings, runner: Runner) -> None:
    """Move the cache's BLOBs into the trash, which is deleted in the background later."""
    Complete(settings).forget()
    if os.path.isdir(cache_paths(settings).blobs):
        for command in trash.aside(cache_paths(settings).blobs, settings.location):
            runner.run(command)
