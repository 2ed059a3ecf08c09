"""Plans that fetch FileStorages: what was appended where that is all, else the whole file."""

from __future__ import annotations

import os
import time
from functools import partial
from types import MappingProxyType
from typing import Iterator, List, Mapping, Optional, Tuple

from cowstorage.actions import preparation
from cowstorage.actions.compare import COMPARE_SECONDS, CURRENT, GROWN, Finding
from cowstorage.actions.context import Context
from cowstorage.actions.cut_back import copy_index, cut_back_to, separate, undo_local_pack
from cowstorage.actions.fetch_file import Wanted, fetch_by_rsync, fetch_little
from cowstorage.actions.plan import Step
from cowstorage.database import filestorage
from cowstorage.database.conversion import magic_of
from cowstorage.database.format import Position, magic_problem
from cowstorage.database.index import index_position, write_for_python_3
from cowstorage.errors import CowStorageError, DamagedDatabase, PathUnusable, RemoteUnusable
from cowstorage.part.paths import StoragePaths
from cowstorage.production.look import Production
from cowstorage.system.files import existing
from cowstorage.system.output import human_size
from cowstorage.system.programs import Command
from cowstorage.system.room import RESERVE, free_bytes, size_of
from cowstorage.system.time_limits import within

# ZODB reads what an index lacks from Data.fs when it opens it, about 100 MB in a second.
INDEX_LAG = 64_000_000

NOTHING_READ: Mapping[str, bytes] = MappingProxyType({})


def is_first(context: Context, names: List[str]) -> bool:
    """Tell whether a mount is to fetch the FileStorages: there are none (any more), or a first fetch was cut off.

    :param names: those that would be fetched.  One that lies here and was never fetched is the developer's own.
    """
    bases = context.journal.bases
    own = [name for name in names if name not in bases and os.path.exists(context.paths(name).local)]
    here = [name for name in bases if os.path.exists(context.paths(name).local)]
    return not own and not (context.journal.synced and here)


def note_synced(context: Context) -> Step:
    """Return the step that notes, for the journal's next writing, that all FileStorages are at production's state."""

    def action() -> None:
        context.journal.synced = time.time()
        context.journal.remote = context.settings.remote
        preparation.note_due(context, True)

    return Step("Remember when, and from where", action=action)


def check_space(context: Context, findings: List[Finding]) -> None:
    """Refuse to fetch more than there is room for, before anything is touched.

    :raises PathUnusable: with both numbers.
    """
    needed = sum(max(0, finding.moves - size_of(context.paths(finding.name).incoming)) for finding in findings)
    if not needed:
        return
    directory = existing(context.settings.file_upper)
    free = free_bytes(directory)
    reserve = RESERVE if needed > RESERVE else 0
    if free < needed + reserve:
        raise PathUnusable(
            directory,
            f"has no room: {human_size(needed)} are to be fetched, {human_size(free)} are free. "
            "Make room, or put the directory on another file system.",
        )


def plan(
    context: Context, findings: List[Finding], production: Production, added: Mapping[str, bytes] = NOTHING_READ
) -> Iterator[Step]:
    """Yield the steps that fetch; each can be run again after it was cut off anywhere.

    :param added: what was read already: name of a FileStorage → what production has behind our base; name of an index →
        all of it.
    """
    yield Step("Make room for what is fetched", _make_directories(context))
    for finding in findings:
        if finding.state in (CURRENT, GROWN) and finding.base:
            yield from undo_local_pack(context, finding.name)
            yield from separate(context, finding.name)
            saved = context.paths(finding.name).base_index
            yield cut_back_to(context, finding.name, finding.base, saved, finding.magic)
        if finding.state == CURRENT and finding.converted:
            yield Step(f"Note the magic of {finding.name}", action=partial(_note_magic, context, finding.name))
        if finding.state == GROWN and finding.base:
            yield from _append(context, finding, finding.base, production, added.get(finding.name))
        elif finding.state != CURRENT:
            yield from _whole(context, finding, production, added.get(finding.name + ".index"))


def _make_directories(context: Context) -> Tuple[Command, ...]:
    location, upper = context.settings.location, context.settings.file_upper
    wanted = (os.path.join(location, "incoming"), os.path.join(location, "base"), upper)
    return (Command(("mkdir", "-p", "-m", "0700", "--", *wanted)),)


def _append(
    context: Context, finding: Finding, base: Position, production: Production, added: Optional[bytes]
) -> Iterator[Step]:
    paths = context.paths(finding.name)
    lag = base.size - (index_position(paths.base_index) or 0)
    if lag > INDEX_LAG and _index_helps(finding, production):
        yield _fetch_index(context, finding.name, paths.local + ".index", production)
    yield fetch_little(
        context,
        f"Fetch what was added to {finding.name}{_size(finding.moves)}",
        Wanted(finding.name, paths.local, finding.remote_size, behind=base.size),
        check=lambda: _check(context, finding, paths.local, base, base.size),
        content=added,
    )
    yield _settle(context, finding.name, paths.local)


def _whole(context: Context, finding: Finding, production: Production, index: Optional[bytes]) -> Iterator[Step]:
    paths = context.paths(finding.name)
    if _copy_helps(paths, finding):
        # What both files share need not cross the network; cut off in the middle, the copy is as good a start.
        yield Step(
            f"Copy {finding.name}, to fetch differences only",
            (Command(("cp", "--reflink=auto", "-T", "--", paths.fetched, paths.incoming), limit=None, locks=True),),
        )
    # The index before the data, so that the index is never ahead of the data.
    if _index_helps(finding, production):
        yield _fetch_index(context, finding.name, paths.incoming + ".index", production, index)
    before = size_of(paths.incoming)
    yield fetch_by_rsync(
        context,
        f"Fetch {finding.name}{_size(finding.remote_size)}",
        Wanted(finding.name, paths.incoming, finding.remote_size),
        check=lambda: _check_whole(context, finding, before),
    )
    yield _settle(context, finding.name, paths.incoming)
    # If it is interrupted before this the next sync finds no base, and compares what is incoming once more.
    yield Step(
        f"Put {finding.name} into place, its index first",
        (
            Command(("mv", "-T", "--", paths.incoming + ".index", paths.local + ".index")),
            Command(("mv", "-T", "--", paths.incoming, paths.local)),
            _second_name(paths),
        ),
    )


def _size(size: int) -> str:
    """Return a size as the end of a title; nothing where it isn't known, as in a dry run."""
    return f", {human_size(size)}" if size else ""


def _copy_helps(paths: StoragePaths, finding: Finding) -> bool:
    """Tell whether there is something to copy, and room where the local file is larger than production's."""
    if not os.path.exists(paths.fetched) or os.path.exists(paths.incoming):
        return False
    size = os.path.getsize(paths.fetched)
    return size <= finding.remote_size or size + RESERVE <= free_bytes(paths.fetched)


def _index_helps(finding: Finding, production: Production) -> bool:
    """Tell whether production has an index that may be of this file: nothing is fetched that can't be used."""
    size = production.indexes.get(finding.name)
    return size is not None and filestorage.index_is_possible(size, finding.remote_size)


def _fetch_index(
    context: Context, name: str, target: str, production: Production, content: Optional[bytes] = None
) -> Step:
    wanted = Wanted(name + ".index", target, production.indexes[name])
    return fetch_little(context, f"Fetch {name}.index", wanted, check=lambda: None, content=content)


def _check_whole(context: Context, finding: Finding, before: int) -> None:
    """Check what was fetched whole, which may have taken long: production may have been converted meanwhile."""
    paths = context.paths(finding.name)
    try:
        magic = within(COMPARE_SECONDS, f"reading {paths.remote}", lambda: magic_of(paths.remote))
    except OSError as error:
        problem = f"can't read {paths.remote}: {error.strerror}. Run the same command again."
        raise RemoteUnusable(context.settings.remote, problem) from None
    _check(context, finding, paths.incoming, None, before)
    if magic_problem(magic) is None:
        filestorage.cut(paths.incoming, filestorage.complete_end(paths.incoming), magic)


def _check(context: Context, finding: Finding, fetched: str, base: Optional[Position], before: int) -> None:
    """Cut a torn transaction off what was fetched, and make sure that it has an index which fits.

    :param base: what was appended to; only what comes after it has to be looked at.
    :param before: how many bytes were here already.
    :raises CowStorageError: what was fetched is not whole.
    """
    name, index = finding.name, fetched + ".index"
    if size_of(fetched) == before < finding.remote_size:
        # rsync passes a link over without an error.
        raise CowStorageError(
            f"{name}: nothing of it came. If it is a link on production, rrsync does not follow it there: "
            "set rsync-remote to where it leads; else run the same command again."
        )
    try:
        if base is not None:
            end = filestorage.check_chain(fetched, base)
        else:
            end = filestorage.complete_end(fetched, index if os.path.exists(index) else None)
    except DamagedDatabase as error:
        raise CowStorageError(
            f"{error}\nWhat was fetched is not whole: production was packed meanwhile, or is damaged. "
            "The same command again fetches it anew."
        ) from None
    filestorage.cut(fetched, end)
    if filestorage.index_fits(fetched, index):
        write_for_python_3(index)
    else:
        size = human_size(os.path.getsize(fetched))
        context.output.say(f"Building the index of {name}: production has none that fits. Reads all {size} once.")
        filestorage.rebuild_index(fetched, lambda done: context.output.progress(f"  {done:.0%}"))
        context.output.progress_done()


def _settle(context: Context, name: str, fetched: str) -> Step:
    """Return the step that makes what was fetched the base: a copy of its index, and its end in the journal."""
    paths = context.paths(name)

    def action() -> None:
        context.journal.bases[name] = list(filestorage.complete_end(fetched))
        context.journal.magics[name] = magic_of(fetched).decode("ascii")
        context.save()

    copy = copy_index(fetched + ".index", paths.base_index)
    return Step(f"Keep {name} as the base", (copy,), action=action)


def _note_magic(context: Context, name: str) -> None:
    """Note the magic that production has given to a base, in which nothing else has changed."""
    context.journal.magics[name] = magic_of(context.paths(name).local).decode("ascii")
    context.save()


def _second_name(paths: StoragePaths) -> Command:
    """Return the command that makes ``StoragePaths.kept``."""
    return Command(("ln", "-f", "--", paths.local, paths.kept), fallback=("rm", "-f", "--", paths.kept))
