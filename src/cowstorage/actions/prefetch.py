"""What is to be fetched into the BLOB cache: the database, the cache and production compared."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Iterator, NamedTuple, Optional, Tuple

from cowstorage.actions.context import Context
from cowstorage.database import blobs, filestorage
from cowstorage.errors import PathUnusable
from cowstorage.part import blob_cache
from cowstorage.production.blob_source import BlobSource


class Selection(NamedTuple):
    """Which of the missing BLOBs are wanted.

    :param max_size: bytes, of one BLOB.
    :param limit: bytes, of all that is fetched; the newest.
    :param newer_than: tid, 16 hex digits.
    :param history: earlier revisions, too.
    :param read: only those of objects whose BLOBs were read.
    """

    max_size: Optional[int] = None
    limit: Optional[int] = None
    newer_than: str = ""
    history: bool = False
    read: bool = False


class Comparison(NamedTuple):
    """The BLOBs that the database refers to, and where they are.

    :param needed: how many the database refers to.
    :param cached: how many of them are in the cache, and ``cached_size`` their bytes.
    :param missing: how many production has and the cache has not.
    :param wanted: how many of these the selection takes, and ``wanted_size`` their bytes.
    :param largest: the bytes of the largest of these.
    :param absent: how many neither has.
    :param evicted_before: cached BLOBs with a lower tid have to go, for ``cache-size``.
    """

    needed: int
    cached: int
    cached_size: int
    missing: int
    wanted: int
    wanted_size: int
    largest: int
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


def lists_in(top: str) -> Lists:
    """Return the lists in a directory."""
    return Lists(*(os.path.join(top, name) for name in Lists._fields))


def lists_directory(context: Context) -> str:
    """Return where the lists are: below the directory that the next run empties, should this one be killed."""
    return os.path.join(blob_cache.cache_paths(context.settings).incoming, "lists")


def prepare(context: Context, layout: str) -> None:
    """Make the directories of the cache, and the marker that makes it a lower."""
    settings, cache = context.settings, blob_cache.cache_paths(context.settings)
    if blob_cache.exists(settings) and blobs.layout(cache.blobs) != layout:
        context.output.say(f"Production's BLOBs are laid out as {layout} now: the old cache is dropped.")
        blob_cache.clear(settings, context.runner)
    for directory in (os.path.dirname(cache.blobs), cache.blobs, cache.incoming):
        os.makedirs(directory, 0o700, exist_ok=True)
    with open(os.path.join(cache.incoming, blobs.LAYOUT_MARKER), "w", encoding="ascii") as marker:
        marker.write(layout)
    blob_cache.adopt(settings, blobs.LAYOUT_MARKER, len(layout))


def clean_incoming(context: Context) -> str:
    """Return the directory of files that are not complete, emptied of what an interrupted run left."""
    incoming = blob_cache.cache_paths(context.settings).incoming
    shutil.rmtree(incoming, ignore_errors=True)
    os.makedirs(incoming, 0o700, exist_ok=True)
    return incoming


def foretell(context: Context, selection: Selection) -> Comparison:
    """Return what the database refers to and the cache has; production is not asked, and has none in the result."""
    cached_layout = blobs.layout(blob_cache.cache_paths(context.settings).blobs) or "bushy"
    with tempfile.TemporaryDirectory() as scratch:
        needed, cached, size = list_needed(context, lists_in(scratch), selection, cached_layout)
    return Comparison(needed, cached, size, missing=0, wanted=0, wanted_size=0, largest=0, absent=0, evicted_before="")


def list_needed(context: Context, lists: Lists, selection: Selection, layout: str) -> Tuple[int, int, int]:
    """Write ``needed`` and ``missing``; return how many BLOBs are needed, how many of them cached, and their bytes.

    Up to the base only: what was written after the base is local, and a rollback wants what was there before.
    """
    needed = cached = size = 0
    read = set(blob_cache.noted(blob_cache.notes_path(context.settings))) if selection.read else None
    with open(lists.needed, "w", encoding="ascii") as all_of_them, open(lists.missing, "wb") as missing:
        for oid, tid in _references(context, selection.history):
            relative = blobs.path_of(oid, tid, layout)
            if read is not None and os.path.dirname(relative) not in read:
                continue
            all_of_them.write(relative + "\n")
            needed += 1
            there = blob_cache.size_of(context.settings, relative)
            if there is None:
                missing.write(relative.encode("ascii") + b"\0")
            else:
                cached, size = cached + 1, size + there
    return needed, cached, size


def _references(context: Context, history: bool) -> Iterator[blobs.Revision]:
    for name in sorted(context.journal.bases):
        path, base = context.paths(name).local, context.journal.base_of(name)
        if base is None or not os.path.exists(path) or not filestorage.holds(path, base):
            raise PathUnusable(path, f"is gone or was packed locally. Run {context.script('sync')} first.")

        def reading(done: float, name: str = name) -> None:
            context.output.progress(f"Reading {name}: {done:.0%}")

        yield from blobs.references(path, history, reading, base.size)
    context.output.progress_done()


def compare(context: Context, lists: Lists, selection: Selection, source: BlobSource, layout: str) -> Comparison:
    """Compare what the database refers to with the cache and production; writes the lists."""
    # A BLOB larger than all that there is room for would keep every older BLOB out.
    sizes_allowed = (selection.max_size, selection.limit, context.settings.cache_size)
    selection = selection._replace(max_size=min((size for size in sizes_allowed if size is not None), default=None))
    needed, cached, cached_size = list_needed(context, lists, selection, layout)
    missing = 0
    with open(lists.sizes, "w", encoding="ascii") as sizes:

        def note(size: int, relative: str) -> None:
            nonlocal missing
            sizes.write(f"{size} {relative}\n")
            missing += 1

        if needed > cached:
            source.sizes(lists.missing, needed - cached, note)
    since, evicted_before = _bounds(context, lists, selection)
    wanted = total = largest = 0
    with open(lists.wanted, "wb") as names:
        for size, relative in _selected(lists, selection, since):
            names.write(relative.encode("ascii") + b"\0")
            wanted, total, largest = wanted + 1, total + size, max(largest, size)
    absent = needed - cached - missing
    return Comparison(needed, cached, cached_size, missing, wanted, total, largest, absent, evicted_before)


def _selected(lists: Lists, selection: Selection, since: str) -> Iterator[Tuple[int, str]]:
    for size, relative in entries(lists.sizes):
        if _tid_of(relative) >= since and (selection.max_size is None or size <= selection.max_size):
            yield size, relative


def _bounds(context: Context, lists: Lists, selection: Selection) -> Tuple[str, str]:
    """Return the tid from which on BLOBs are fetched, and the tid from which on they stay in the cache."""
    since, keep = selection.newer_than, ""
    if selection.limit is not None:
        since = max(since, _sizes(_selected(lists, selection, since)).oldest_within(selection.limit))
    if context.settings.cache_size is not None and blob_cache.exists(context.settings):
        sizes = _sizes(_selected(lists, selection, since))
        for _, tid, size in blob_cache.files(context.settings):
            if size <= context.settings.cache_size:
                sizes.add(tid, size)
        keep = sizes.oldest_within(context.settings.cache_size)
    return max(since, keep), keep


def _sizes(selected: Iterator[Tuple[int, str]]) -> blob_cache.Sizes:
    sizes = blob_cache.Sizes()
    for size, relative in selected:
        sizes.add(_tid_of(relative), size)
    return sizes


def _tid_of(relative: str) -> str:
    """Return the tid in a relative path, 16 hex digits."""
    return blobs.tid_of(os.path.basename(relative)) or ""


def entries(path: str) -> Iterator[Tuple[int, str]]:
    """Yield size and path of each line."""
    with open(path, encoding="ascii") as file:
        for line in file:
            size, _, relative = line.rstrip("\n").partition(" ")
            yield int(size), relative
