"""cow-prefetch: fetches the BLOBs that the local Data.fs refers to, so that they are read at local speed."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import tempfile
import time
from contextlib import contextmanager
from datetime import datetime
from typing import Iterator, Tuple

from cowstorage.actions import absent_blobs, prefetch, preflight, survey
from cowstorage.actions.context import Context
from cowstorage.actions.mounting import lay_again, unions_unmounted
from cowstorage.actions.prefetch import Comparison, Selection
from cowstorage.actions.production_mount import production_mounted
from cowstorage.errors import CowStorageError, PathUnusable, SettingsError
from cowstorage.part import blob_cache, trash
from cowstorage.production.blob_source import BlobSource
from cowstorage.system import in_use
from cowstorage.system.output import counted, human_seconds, human_size, parse_size, table
from cowstorage.system.pace import Pace
from cowstorage.system.programs import shell_line
from cowstorage.system.room import RESERVE, free_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which BLOBs, and what else can be done with the cache."""
    parser.add_argument("--max-size", type=_size, metavar="SIZE", help="only BLOBs of up to SIZE, such as 1M")
    parser.add_argument("--limit", type=_size, metavar="SIZE", help="no more than SIZE in this run, the newest first")
    parser.add_argument("--newer-than", type=_date, metavar="DATE", help="only BLOBs since then: 2026-01-31, or 90d")
    parser.add_argument("--history", action="store_true", help="earlier revisions, too: what undo wants")
    parser.add_argument("--read", action="store_true", help="only what was read over sshfs before, in its newest state")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--list", action="store_true", help="show what is in the cache, and fetch nothing")
    other.add_argument("--clear", action="store_true", help="delete the cache")
    other.add_argument("--missing", action="store_true", help="list the BLOBs that production lacks; fetch nothing")
    parser.add_argument("--json", action="store_true", help="with --missing: for scripts")


def _size(text: str) -> int:
    try:
        return parse_size("SIZE", text)
    except SettingsError as error:
        raise argparse.ArgumentTypeError(error.problem) from None


def _date(text: str) -> str:
    """Return the first tid of a day, or of that many days ago."""
    from persistent.TimeStamp import TimeStamp  # start-up

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
    preflight.refuse_unfinished(context)
    if arguments.clear:
        return clear(context)
    if not context.journal.bases:
        raise CowStorageError(f"No local Data.fs tells which BLOBs to fetch. Run {context.script('mount')}.")
    preflight.check_rsync()
    if arguments.missing:
        return show_missing(context)
    selection = Selection(
        arguments.max_size, arguments.limit, arguments.newer_than or "", arguments.history, arguments.read
    )
    remote = source_of(context).source.remote
    if arguments.dry_run and remote:
        return show_commands(context, selection)
    with production_mounted(context, needed=not remote), scratch_directory(context) as scratch:
        source, lists = source_of(context), prefetch.lists_in(scratch)
        source.begin()
        import ZODB.FileStorage  # noqa: F401  # start-up: 80 ms, which production needs to answer

        layout = source.layout(scratch)
        if not arguments.dry_run:
            prefetch.prepare(context, layout)
        found = prefetch.compare(context, lists, selection, source, layout)
        report(context, found)
        if arguments.dry_run:
            context.output.result("# They are copied from the mount, not by a command.")
            return 0
        evict(context, found)
        if found.wanted:
            note_outdated(context)
        fetch(context, source, lists, found)
        # Of what was never read it is not known whether it is here.
        complete = not selection.read and settle(context, lists, found)
    prefetch.clean_incoming(context)
    finish(context, found, complete)
    return 0


@contextmanager
def scratch_directory(context: Context) -> Iterator[str]:
    """Make the directory of the lists: a dry run's is elsewhere, since it changes nothing of the part's."""
    if context.arguments.dry_run:
        with tempfile.TemporaryDirectory() as scratch:
            yield scratch
        return
    prefetch.clean_incoming(context)
    os.mkdir(prefetch.lists_directory(context), 0o700)
    yield prefetch.lists_directory(context)


def show_missing(context: Context) -> int:
    """Print the BLOBs that the database refers to and neither production nor this machine has."""
    remote = source_of(context).source.remote
    with production_mounted(context, needed=not remote), tempfile.TemporaryDirectory() as scratch:
        source, lists = source_of(context), prefetch.lists_in(scratch)
        found = absent_blobs.find(context, lists, source, source.layout(scratch), context.arguments.history)
    if context.arguments.json:
        context.output.result(json.dumps([one.as_data() for one in found], indent=1))
        return 0
    rows = [
        (f"0x{one.oid.hex()}", one.tid, one.referrer.kind or "?" if one.referrer else "no object refers to it")
        for one in found
    ]
    for line in table([("OID", "TID", "REFERRED TO BY"), *rows]) if rows else ():
        context.output.result(line)
    context.output.result(f"Not on production, nor here: {counted(len(found), 'BLOB')}.")
    return 0


def show_commands(context: Context, selection: Selection) -> int:
    """Print what is needed and here, and the commands that ask production for the rest and fetch it; run none."""
    found = prefetch.foretell(context, selection)
    report(context, found)
    scratch = prefetch.lists_directory(context)
    lists = prefetch.lists_in(scratch)
    marker, sizes, wanted = source_of(context).commands(scratch, lists.missing, lists.wanted)
    steps = [("Ask production how its BLOBs are laid out", marker)]
    missing = found.needed - found.cached
    if missing:
        context.output.result(
            f"# {counted(missing, 'BLOB')} to ask for. Which of them production has, and how big, is not known without "
            f"asking it. The lists of names are made in {scratch}, by {context.script('prefetch')} alone."
        )
        steps += [("Ask for the sizes of what is not here", sizes), ("Fetch what is wanted of it", wanted)]
    for title, command in steps:
        context.output.result(f"# {title}")
        context.output.result(shell_line(command, context.runner.sudo, context.runner.euid))
    return 0


def source_of(context: Context) -> BlobSource:
    """Return production's BLOB directory, as files are fetched from it."""
    incoming = blob_cache.cache_paths(context.settings).incoming
    seen = survey.take(context, probe=False)
    is_mounted = seen.as_configured and seen.has_network
    return BlobSource(context.filesystem, incoming, context.runner, context.output.detail, is_mounted)


def report(context: Context, found: Comparison) -> None:
    """Say how many BLOBs are needed, here, and to be fetched."""
    say = context.output.result if context.arguments.dry_run else context.output.say
    here = f"{found.cached:,} {'is' if found.cached == 1 else 'are'} here, {human_size(found.cached_size)}"
    if context.arguments.read:
        be = "is" if found.needed == 1 else "are"
        say(f"{counted(found.needed, 'BLOB')} of those that were read {be} in use; {here}.")
    else:
        say(f"The database refers to {counted(found.needed, 'BLOB')}; {here}.")
    if found.absent:
        say(
            f"Not on production: {found.absent:,}. It was packed since ({context.script('sync')}), or has lost them: "
            f"{context.script('prefetch')} --missing lists them."
        )
    if found.missing:
        say(f"To fetch: {found.wanted:,} of {counted(found.missing, 'missing BLOB')}, {human_size(found.wanted_size)}.")


def evict(context: Context, found: Comparison) -> None:
    """Make room for newer BLOBs where ``cache-size`` says so; nothing is taken from below a union."""
    limit = context.settings.cache_size
    if limit is None:
        return
    old = [path for path, tid, size in blob_cache.files(context.settings) if tid < found.evicted_before or size > limit]
    if not old:
        return
    blob_cache.Complete(context.settings).forget()
    with unions_unmounted(context):
        for path in old:
            os.unlink(path)
    context.output.say(f"Dropped {counted(len(old), 'old BLOB')}, since cache-size allows no more.")


def note_outdated(context: Context) -> None:
    """Note in the journal that the present unions won't show what is fetched, until they are laid again."""
    if context.journal.mounted:
        context.journal.mounted["outdated"] = True
        context.save()


def fetch(context: Context, source: BlobSource, lists: prefetch.Lists, found: Comparison) -> None:
    """Fetch all that is wanted, each file checked against the size that production tells.

    :raises PathUnusable: there is no room.
    """
    top = os.path.dirname(blob_cache.cache_paths(context.settings).blobs)
    free = free_bytes(top)
    if found.wanted_size + RESERVE > free:
        raise PathUnusable(
            top, f"has no room: {human_size(free)} are free. Use --limit or --max-size, or set location."
        )
    pace = Pace("BLOBs", found.wanted_size)
    count = moved = refused = 0

    def came(bytes_: int, relative: str) -> None:
        nonlocal count, moved, refused
        # All of them together are no more than production has told before; what isn't kept takes no room.
        if moved + bytes_ > found.wanted_size or not blob_cache.adopt(context.settings, relative, bytes_):
            refused += 1
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(source.incoming, relative))
            return
        count, moved = count + 1, moved + bytes_
        context.output.progress(pace.line(moved, f"{count:,} of {found.wanted:,} BLOBs"))

    if found.wanted:
        try:
            source.fetch(lists.wanted, found.wanted, came, found.largest)
        finally:
            context.output.progress_done()
            took = human_seconds(pace.seconds)
            context.output.say(f"Fetched {counted(count, 'BLOB')}, {human_size(moved)}. ({took})")
    if refused:
        context.output.warn(f"{counted(refused, 'BLOB')} came with another size than production has: not kept.")


def settle(context: Context, lists: prefetch.Lists, found: Comparison) -> bool:
    """Write down whether all is here now, and return that; nothing but a look at the files counts."""
    settings, gaps = context.settings, 0

    def here() -> Iterator[Tuple[int, str]]:
        nonlocal gaps
        with open(lists.needed, encoding="ascii") as names:
            for line in names:
                relative = line.rstrip("\n")
                there = blob_cache.size_of(settings, relative)
                if there is None:
                    gaps += 1
                else:
                    yield there, relative

    state = blob_cache.Complete(settings)
    state.write(context.journal.bases, here())
    if gaps > found.absent:
        state.forget()
    return gaps <= found.absent


def finish(context: Context, found: Comparison, complete: bool) -> None:
    """Have the unions show what came, and say what to do next."""
    if complete:
        context.output.say(f"Everything is here: {context.script('mount')} --offline does without the network.")
    seen = survey.take(context, probe=False)
    if not seen.has_unions or not found.wanted:
        return
    if in_use.holders([one.target for one in seen.unions if one.mount], context.daemons):
        again = context.script("mount")
        if context.made_with.filesystem == "sshfs" and context.made_with.read_through:
            context.output.say(f"All this is read from the cache from now on; after {again} it needs no sshfs, either.")
        else:
            context.output.say(
                f"The database is in use: stop it, and run {again}; then all this is read from the cache."
            )
        return
    context.run(lay_again(context, seen))
    trash.empty(context.settings.location, context.runner)


def clear(context: Context) -> int:
    """Delete the cache, in the background."""
    cache = blob_cache.cache_paths(context.settings)
    if context.arguments.dry_run:
        commands = trash.aside(cache.blobs, context.settings.location)
        context.output.result("\n".join(" ".join(command.argv) for command in commands))
        return 0
    if context.journal.is_offline:
        raise CowStorageError(f"It is mounted offline, from this very cache. Run {context.script('umount')} first.")
    with unions_unmounted(context):
        blob_cache.clear(context.settings, context.runner)
    trash.empty(context.settings.location, context.runner)
    context.output.say("The BLOB cache is deleted.")
    return 0


def show(context: Context) -> int:
    """Print what is in the cache."""
    settings, cache = context.settings, blob_cache.cache_paths(context.settings)
    count = total = 0
    if blob_cache.exists(settings):
        for _, _, bytes_ in blob_cache.files(settings):
            count, total = count + 1, total + bytes_
    gap = blob_cache.Complete(settings).gap(context.journal.bases)
    rows = [
        ("BLOBs", f"{count:,}"),
        ("size", human_size(total)),
        ("cache-size", human_size(settings.cache_size) if settings.cache_size is not None else "no limit"),
        ("complete", f"no: {gap}" if gap else "yes"),
        ("directory", cache.blobs),
    ]
    for line in table(rows):
        context.output.result(line)
    return 0
