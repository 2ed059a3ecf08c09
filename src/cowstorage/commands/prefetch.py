"""cow-prefetch: fetches the BLOBs that the local Data.fs refers to, so that they are read at local speed."""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import time
from contextlib import contextmanager
from datetime import datetime
from typing import Iterator, Tuple

from cowstorage import cache, in_use, mounts, prefetching, stack, trash
from cowstorage.commands import mount as mounting
from cowstorage.context import Context
from cowstorage.errors import CowStorageError, PathUnusable, SettingsError
from cowstorage.output import counted, human_size, human_span, table
from cowstorage.prefetching import Production, Selection, Survey
from cowstorage.settings import parse_size

# Left over on the file system of the cache.
RESERVE = 50_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which BLOBs, and what else can be done with the cache."""
    parser.add_argument("--max-size", type=_size, metavar="SIZE", help="only BLOBs of up to SIZE, such as 1M")
    parser.add_argument("--limit", type=_size, metavar="SIZE", help="no more than SIZE in this run, the newest first")
    parser.add_argument("--newer-than", type=_date, metavar="DATE", help="only BLOBs since then: 2026-01-31, or 90d")
    parser.add_argument("--history", action="store_true", help="earlier revisions, too: what undo wants")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--list", action="store_true", help="show what is in the cache, and fetch nothing")
    other.add_argument("--clear", action="store_true", help="delete the cache")


def _size(text: str) -> int:
    try:
        return parse_size("SIZE", text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(error.problem) from None


def _date(text: str) -> str:
    """The first tid of a day, or of that many days ago."""
    from persistent.TimeStamp import TimeStamp

    days = re.fullmatch(r"(\d+)d", text)
    try:
        since = time.time() - 86400 * int(days.group(1)) if days else datetime.fromisoformat(text).timestamp()
        moment = time.gmtime(since)
        return str(TimeStamp(*moment[:5], float(moment[5])).raw().hex())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date such as 2026-01-31, nor days such as 90d") from None


def run(context: Context) -> int:
    """Look, say what there is to do, and do it."""
    arguments = context.arguments
    if arguments.list:
        return show(context)
    mounting.refuse_unfinished(context)
    if arguments.clear:
        return clear(context)
    if not context.journal.bases:
        raise CowStorageError(f"No local Data.fs tells which BLOBs to fetch. Run {context.script('mount')}.")
    selection = Selection(arguments.max_size, arguments.limit, arguments.newer_than or "", arguments.history)
    # In the place that the next run clears, for one that is killed.
    directory = None if arguments.dry_run else prefetching.clean_incoming(context)
    with reachable(context), tempfile.TemporaryDirectory(dir=directory) as scratch:
        production, place = Production(context), prefetching.lists(scratch)
        layout = production.layout(scratch)
        if not arguments.dry_run:
            prefetching.prepare(context, layout)
        found = prefetching.survey(context, place, selection, production, layout)
        report(context, found)
        if arguments.dry_run:
            return 0
        evict(context, found)
        fetch(context, production, place, found)
        complete = settle(context, place, found)
    prefetching.clean_incoming(context)
    finish(context, found, complete)
    return 0


@contextmanager
def reachable(context: Context) -> Iterator[None]:
    """Production mounted for the time, where it is read through the mount and isn't there yet."""
    now, targets = mounts.read(), stack.network_targets(context, context.settings)
    if Production(context).source.remote or all(mounts.top(now, os.path.realpath(target)) for target in targets):
        yield
        return
    if context.arguments.dry_run:
        raise CowStorageError(f"Production has to be looked at, and is not mounted. Run {context.script('mount')}.")
    context.execution().run(stack.attach(context))
    try:
        yield
    finally:
        context.execution().run(stack.detach(context, context.settings))


def report(context: Context, found: Survey) -> None:
    """The numbers."""
    say = context.output.result if context.arguments.dry_run else context.output.say
    here = f"{found.cached:,} are here, {human_size(found.cached_size)}"
    say(f"The database refers to {counted(found.needed, 'BLOB')}; {here}.")
    if found.absent:
        say(f"Not on production: {found.absent:,}. It was packed since ({context.script('sync')}), or has lost them.")
    if found.missing:
        say(f"To fetch: {found.wanted:,} of {counted(found.missing, 'missing BLOB')}, {human_size(found.wanted_size)}.")


def evict(context: Context, found: Survey) -> None:
    """Make room for newer BLOBs where ``cache-size`` says so; nothing is taken from below a union."""
    limit = context.settings.cache_size
    if limit is None:
        return
    old = [path for path, tid, size in cache.files(context.settings) if tid < found.evicted_before or size > limit]
    if not old:
        return
    cache.Complete(context.settings).forget()
    with unions_away(context):
        for path in old:
            os.unlink(path)
    context.output.say(f"Dropped {counted(len(old), 'old BLOB')}, since cache-size allows no more.")


def fetch(context: Context, production: Production, place: prefetching.Lists, found: Survey) -> None:
    """All that is wanted, each file checked against the size that production tells."""
    top = os.path.dirname(cache.paths(context.settings).blobs)
    status = os.statvfs(top)
    if found.wanted_size + RESERVE > status.f_bavail * status.f_frsize:
        free = human_size(status.f_bavail * status.f_frsize)
        raise PathUnusable(top, f"has no room: {free} are free. Use --limit or --max-size, or set location.")
    owner, begun = prefetching.owner_of(context), time.monotonic()
    count = moved = refused = 0

    def came(bytes_: int, relative: str) -> None:
        nonlocal count, moved, refused
        if not cache.adopt(context.settings, relative, bytes_, owner):
            refused += 1
            return
        count, moved = count + 1, moved + bytes_
        context.output.progress(pace(count, moved, found, time.monotonic() - begun))

    if found.wanted:
        try:
            production.fetch(place.wanted, came)
        finally:
            context.output.progress_done()
            context.output.say(f"Fetched {counted(count, 'BLOB')}, {human_size(moved)}.")
    if refused:
        context.output.warn(f"{counted(refused, 'BLOB')} came with another size than production has: not kept.")


def pace(count: int, moved: int, found: Survey, seconds: float) -> str:
    """How far it is, how fast, and how long it will take."""
    rate = moved / (seconds or 1)
    left = human_span((found.wanted_size - moved) / rate) if rate else "?"
    done = f"{human_size(moved)} of {human_size(found.wanted_size)}"
    return f"{count:,} of {found.wanted:,} BLOBs, {done}, {human_size(rate)}/s, {left} left"


def settle(context: Context, place: prefetching.Lists, found: Survey) -> bool:
    """Write down whether all is here now; nothing but a look at the files counts."""
    settings, gaps = context.settings, 0

    def here() -> Iterator[Tuple[int, str]]:
        nonlocal gaps
        with open(place.needed, encoding="ascii") as names:
            for line in names:
                relative = line.rstrip("\n")
                there = cache.size_of(settings, relative)
                if there is None:
                    gaps += 1
                else:
                    yield there, relative

    state = cache.Complete(settings)
    state.write(context.journal.bases, here())
    if gaps > found.absent:
        state.forget()
    return gaps <= found.absent


def finish(context: Context, found: Survey, complete: bool) -> None:
    """Have the unions show what came, and say what is now."""
    if complete:
        context.output.say(f"Everything is here: {context.script('mount')} --offline does without the network.")
    pieces = [piece for piece in stack.survey(context, probe=False) if piece.name != "network" and piece.mount]
    if not pieces or not found.wanted:
        return
    if in_use.holders([piece.target for piece in pieces]):
        again = f"{context.script('umount')} and {context.script('mount')}"
        context.output.say(f"The database is in use: stop it, and run {again}; then all this is read from the cache.")
        return
    with unions_away(context):
        pass
    trash.empty(context.settings.location, context.runner)


@contextmanager
def unions_away(context: Context) -> Iterator[None]:
    """The unions lifted for the time, and laid again: a union doesn't see what changes below it.

    :raises InUse: naming the processes.
    """
    made_with = context.mounted or context.settings
    had = any(piece.name != "network" and piece.mount for piece in stack.survey(context, made_with, probe=False))
    if had:
        stack.refuse_in_use(context, made_with, with_network=False)
        context.execution().run(stack.lift_unions(context, made_with))
    try:
        yield
    finally:
        if had:
            with context.execution() as execution:
                mounting.lay_again(context, execution)
                execution.keep()


def clear(context: Context) -> int:
    """Delete the cache, in the background."""
    place = cache.paths(context.settings)
    if context.arguments.dry_run:
        commands = trash.aside(place.blobs, context.settings.location)
        context.output.result("\n".join(" ".join(command.argv) for command in commands))
        return 0
    if stack.is_offline(context):
        raise CowStorageError(f"It is mounted offline, from this very cache. Run {context.script('umount')} first.")
    with unions_away(context):
        cache.clear(context.settings, context.runner)
    trash.empty(context.settings.location, context.runner)
    context.output.say("The BLOB cache is deleted.")
    return 0


def show(context: Context) -> int:
    """What is in the cache."""
    settings, place = context.settings, cache.paths(context.settings)
    count = total = 0
    if cache.exists(settings):
        for _, _, bytes_ in cache.files(settings):
            count, total = count + 1, total + bytes_
    gap = cache.Complete(settings).gap(context.journal.bases)
    rows = [
        ("BLOBs", f"{count:,}"),
        ("size", human_size(total)),
        ("cache-size", human_size(settings.cache_size) if settings.cache_size is not None else "no limit"),
        ("complete", f"no: {gap}" if gap else "yes"),
        ("directory", place.blobs),
    ]
    for line in table(rows):
        context.output.result(line)
    return 0
