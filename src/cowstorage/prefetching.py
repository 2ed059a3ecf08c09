"""What is to be fetched into the BLOB cache, how big it is, and the ways to fetch it."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple

from cowstorage import blobs, cache, filestorage, refresh, rsync
from cowstorage.children import within
from cowstorage.context import Context
from cowstorage.errors import CommandFailed, PathUnusable, RemoteUnusable

# rsync(1): some files vanished, or could not be read; the others came.
PARTIAL = (23, 24)
# Reading 1,000 BLOBs of 4 kB to 4 MB through overlay on sshfs at 40 ms takes 209 s by one reader, 57 s by four.
READERS = 8
# How many files are handed to the readers at once.
BATCH = 256
LOOK_SECONDS = 60.0


class Selection(NamedTuple):
    """Which of the missing BLOBs are wanted.

    :param max_size: bytes, of one BLOB.
    :param limit: bytes, of all that is fetched; the newest.
    :param newer_than: tid, 16 hex digits.
    :param history: earlier revisions, too.
    """

    max_size: Optional[int] = None
    limit: Optional[int] = None
    newer_than: str = ""
    history: bool = False


class Survey(NamedTuple):
    """What there is to do.

    :param needed: BLOBs that the database refers to.
    :param cached: those in the cache, and ``cached_size`` their bytes.
    :param missing: those that production has and the cache hasn't.
    :param wanted: those of them that the selection takes, and ``wanted_size`` their bytes.
    :param absent: those that production hasn't.
    :param evicted_before: cached BLOBs with a lower tid have to go, for ``cache-size``.
    """

    needed: int
    cached: int
    cached_size: int
    missing: int
    wanted: int
    wanted_size: int
    absent: int
    evicted_before: str


class Lists(NamedTuple):
    """Files that hold names while we work, since a million of them would not fit into our memory.

    :param needed: relative paths, one in a line.
    :param missing: those that are not in the cache, each ended by a zero byte.
    :param sizes: ``SIZE PATH`` of those that production has, one in a line.
    :param wanted: relative paths, each ended by a zero byte.
    """

    needed: str
    missing: str
    sizes: str
    wanted: str


def lists(top: str) -> Lists:
    """Those in a directory."""
    return Lists(*(os.path.join(top, name) for name in Lists._fields))


def tid_of(relative: str) -> str:
    """The tid in a relative path, 16 hex digits."""
    return blobs.tid_of(os.path.basename(relative)) or ""


def prepare(context: Context, layout: str) -> None:
    """Make the directories, and the marker that makes the cache a lower."""
    settings, place, owner = context.settings, cache.paths(context.settings), owner_of(context)
    if cache.exists(settings) and cache.layout(place.blobs) != layout:
        context.output.say(f"Production's BLOBs are laid out as {layout} now: the old cache is dropped.")
        cache.clear(settings, context.runner)
    for directory in (os.path.dirname(place.blobs), place.blobs, place.incoming):
        os.makedirs(directory, 0o700, exist_ok=True)
        if owner:
            os.chown(directory, *owner)
    with open(os.path.join(place.incoming, cache.LAYOUT), "w", encoding="ascii") as marker:
        marker.write(layout)
    cache.adopt(settings, cache.LAYOUT, len(layout), owner)


def clean_incoming(context: Context) -> str:
    """The directory of what is not complete, without what an interrupted run left."""
    incoming = cache.paths(context.settings).incoming
    shutil.rmtree(incoming, ignore_errors=True)
    os.makedirs(incoming, 0o700, exist_ok=True)
    return incoming


def owner_of(context: Context) -> Optional[Tuple[int, int]]:
    """Whose cached files are, where root works for somebody."""
    return context.developer if context.host.euid == 0 and context.host.uid != 0 else None


def list_needed(context: Context, place: Lists, history: bool, layout: str) -> Tuple[int, int, int]:
    """Write ``needed`` and ``missing``; how many are needed, how many of them cached, and the bytes of these.

    Up to the base only: what was written after it is local, and a rollback wants what was there before.
    """
    needed = cached = size = 0
    with open(place.needed, "w", encoding="ascii") as all_of_them, open(place.missing, "wb") as missing:
        for oid, tid in _references(context, history):
            relative = blobs.path_of(oid, tid, layout)
            all_of_them.write(relative + "\n")
            needed += 1
            there = cache.size_of(context.settings, relative)
            if there is None:
                missing.write(relative.encode("ascii") + b"\0")
            else:
                cached, size = cached + 1, size + there
    return needed, cached, size


def _references(context: Context, history: bool) -> Iterator[blobs.Revision]:
    for name in sorted(context.journal.bases):
        path, base = refresh.paths(context, name).local, refresh.base_of(context, name)
        if base is None or not os.path.exists(path) or not filestorage.holds(path, base):
            raise PathUnusable(path, f"is gone or was packed locally. Run {context.script('sync')} first.")

        def reading(done: float, name: str = name) -> None:
            context.output.progress(f"Reading {name}: {done:.0%}")

        yield from blobs.references(path, history, reading, base.size)
    context.output.progress_done()


class Production:
    """Production's BLOB directory: by rsync over the network where it can be had, else through the mount."""

    def __init__(self, context: Context):
        self.context = context
        settings, host = context.settings, context.host
        # A back end names files of the filestorage; the BLOB directory is the file "" of one that lies there.
        aside = settings._replace(remote_file_storage=settings.remote_blob_storage)
        self.source = context.network.source(aside, host, "")
        self.mounted = os.path.join(context.network.root(settings, host), settings.remote_blob_storage)

    def layout(self, scratch: str) -> str:
        """How production's BLOBs are laid out; without a marker ZODB takes a directory that has BLOBs for a lawn.

        :param scratch: a directory of ours.
        """
        directory = self.mounted
        if self.source.remote:
            names = os.path.join(scratch, "names")
            with open(names, "wb") as file:
                file.write(cache.LAYOUT.encode("ascii") + b"\0")
            self._rsync(names, lambda line: None, target=scratch)
            directory = scratch
        found = within(LOOK_SECONDS, f"reading {directory}", lambda: cache.layout(directory)) or "lawn"
        if found not in blobs.LAYOUT_NAMES:
            raise RemoteUnusable(self.context.settings.remote, f"its BLOBs are laid out in an unknown way: {found}.")
        return found

    def sizes(self, names: str, tells: Callable[[int, str], None]) -> None:
        """Tell size and path of each of the named files that is there.

        :param names: a file of relative paths, each ended by a zero byte.
        """
        if self.source.remote:
            self._rsync(names, lambda line: _tell(line, tells), only_sizes=True)
            return
        for relative, size in _in_parallel(self._size, names):
            if size is not None:
                tells(size, relative)

    def fetch(self, names: str, tells: Callable[[int, str], None]) -> None:
        """Bring the named files into ``incoming``, and tell size and path of each, a little after it is complete."""
        if not self.source.remote:
            for relative, size in _in_parallel(self._copy, names):
                if size is not None:
                    tells(size, relative)
            return
        waiting: List[str] = []

        def one_later(line: str) -> None:
            waiting.append(line)
            if len(waiting) > 1:
                _tell(waiting.pop(0), tells)

        # rsync gives a file its name right after it has told of it; the next one comes later still.
        try:
            self._rsync(names, one_later)
        finally:
            for line in waiting:
                _tell(line, tells)

    def _rsync(
        self, names: str, tells: Callable[[str], None], only_sizes: bool = False, target: Optional[str] = None
    ) -> None:
        settings, host = self.context.settings, self.context.host
        shell = self.context.network.remote_shell(settings, host)
        below = rsync.Target(target or cache.paths(settings).incoming)
        options = settings.rsync_options or ()
        command = rsync.fetch_listed(self.source, below, shell, options, names, tells, only_sizes)
        try:
            self.context.runner.run(command)
        except CommandFailed as error:
            if error.exit_code_of_command not in PARTIAL:
                raise
            self.context.output.detail(str(error))

    def _size(self, relative: str) -> Optional[int]:
        try:
            return os.stat(os.path.join(self.mounted, relative)).st_size
        except FileNotFoundError:
            return None

    def _copy(self, relative: str) -> Optional[int]:
        incoming = os.path.join(cache.paths(self.context.settings).incoming, relative)
        os.makedirs(os.path.dirname(incoming), 0o700, exist_ok=True)
        try:
            shutil.copyfile(os.path.join(self.mounted, relative), incoming)
        except FileNotFoundError:
            return None
        os.chmod(incoming, 0o400)
        return self._size(relative)


def _tell(line: str, tells: Callable[[int, str], None]) -> None:
    """One line of rsync's; what isn't about a BLOB is about a directory."""
    words = line.rstrip("\n").split(" ")
    if len(words) == 3 and words[1].isdecimal() and tid_of(words[2]):
        tells(int(words[1]), words[2])


def _in_parallel(function: Callable[[str], Optional[int]], names: str) -> Iterator[Tuple[str, Optional[int]]]:
    """Each name with its result: several wait for the network at once."""
    with ThreadPoolExecutor(READERS) as pool:
        left = names_in(names)
        batch = list(islice(left, BATCH))
        while batch:
            yield from zip(batch, pool.map(function, batch))
            batch = list(islice(left, BATCH))


def names_in(path: str) -> Iterator[str]:
    """The names in a file, each ended by a zero byte."""
    rest = b""
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 16), b""):
            *names, rest = (rest + block).split(b"\0")
            yield from (name.decode("ascii") for name in names)


def survey(context: Context, place: Lists, selection: Selection, production: Production, layout: str) -> Survey:
    """Look at the database, the cache and production; writes the lists."""
    # One BLOB that is larger than all that there is room for would keep every older one out.
    sizes_allowed = (selection.max_size, selection.limit, context.settings.cache_size)
    selection = selection._replace(max_size=min((size for size in sizes_allowed if size is not None), default=None))
    needed, cached, cached_size = list_needed(context, place, selection.history, layout)
    missing = 0
    with open(place.sizes, "w", encoding="ascii") as sizes:

        def note(size: int, relative: str) -> None:
            nonlocal missing
            sizes.write(f"{size} {relative}\n")
            missing += 1

        if needed > cached:
            production.sizes(place.missing, note)
    since, evicted_before = _bounds(context, place, selection)
    wanted = 0
    total = 0
    with open(place.wanted, "wb") as names:
        for size, relative in _selected(place, selection, since):
            names.write(relative.encode("ascii") + b"\0")
            wanted, total = wanted + 1, total + size
    return Survey(needed, cached, cached_size, missing, wanted, total, needed - cached - missing, evicted_before)


def _selected(place: Lists, selection: Selection, since: str) -> Iterator[Tuple[int, str]]:
    for size, relative in entries(place.sizes):
        if tid_of(relative) >= since and (selection.max_size is None or size <= selection.max_size):
            yield size, relative


def _bounds(context: Context, place: Lists, selection: Selection) -> Tuple[str, str]:
    """The tid from which on BLOBs are fetched, and that from which on they stay in the cache."""
    since, keep = selection.newer_than, ""
    if selection.limit is not None:
        since = max(since, _sizes(_selected(place, selection, since)).oldest_within(selection.limit))
    if context.settings.cache_size is not None and cache.exists(context.settings):
        sizes = _sizes(_selected(place, selection, since))
        for _, tid, size in cache.files(context.settings):
            if size <= context.settings.cache_size:
                sizes.add(tid, size)
        keep = sizes.oldest_within(context.settings.cache_size)
    return max(since, keep), keep


def _sizes(selected: Iterator[Tuple[int, str]]) -> cache.Sizes:
    sizes = cache.Sizes()
    for size, relative in selected:
        sizes.add(tid_of(relative), size)
    return sizes


def entries(path: str) -> Iterator[Tuple[int, str]]:
    """Size and path of each line."""
    with open(path, encoding="ascii") as file:
        for line in file:
            size, _, relative = line.rstrip("\n").partition(" ")
            yield int(size), relative
