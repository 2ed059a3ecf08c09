"""Brings the local FileStorages to production's state: the appended part where that is all there is, else the whole."""

from __future__ import annotations

import os
import time
from typing import Iterator, List, NamedTuple, Optional, Tuple

from cowstorage import filestorage, rsync
from cowstorage.children import within
from cowstorage.context import Context
from cowstorage.errors import CowStorageError, DamagedDatabase, PathUnusable, RemoteUnusable
from cowstorage.filestorage import Position
from cowstorage.fsreader import MAGIC_SIZE, NO_TID, Reader
from cowstorage.output import human_size, local_time
from cowstorage.plan import Step
from cowstorage.production import Production
from cowstorage.system import Command
from cowstorage.union import given

CURRENT, GROWN, PACKED, REPLACED, MISSING = "current", "grown", "packed", "replaced", "missing"

START = Position(MAGIC_SIZE, NO_TID)
COMPARE_SECONDS = 60.0
# ZODB reads what an index lacks from Data.fs when it opens it, about 100 MB in a second.
INDEX_LAG = 64_000_000
# Left over on a file system that a whole file is fetched to.
RESERVE = 50_000_000


class Finding(NamedTuple):
    """How production's file relates to the local one.

    :param name: file name of the FileStorage.
    :param state: ``current``, ``grown``, ``packed``, ``replaced`` (another database) or ``missing`` (locally).
    :param base: what both have in common, where production still has it.
    :param remote_size: bytes.
    :param remark: what made it ``replaced``.
    """

    name: str
    state: str
    base: Optional[Position]
    remote_size: int
    remark: str = ""

    @property
    def moves(self) -> int:
        """Bytes to fetch, at the most."""
        if self.state == CURRENT:
            return 0
        return self.remote_size - (self.base.size if self.base and self.state == GROWN else 0)


class Paths(NamedTuple):
    """Where one FileStorage lies.

    :param local: in the upper.
    :param incoming: where a whole file is fetched to, on the same file system.
    :param kept: a second name (hard link) of the fetched file, since a local pack puts another one in its place;
        missing where the file system has no hard links.
    :param base_index: the index that goes with the base.
    :param remote: as the mount shows it.
    """

    local: str
    incoming: str
    kept: str
    base_index: str
    remote: str

    @property
    def is_replaced(self) -> bool:
        """Whether the local file is another one than was fetched: it was packed, or removed."""
        if not os.path.exists(self.kept):
            return False
        if not os.path.exists(self.local):
            # With another name elsewhere it is what was changed locally when the part had other paths.
            return os.stat(self.kept).st_nlink == 1
        return not os.path.samefile(self.kept, self.local)

    @property
    def fetched(self) -> str:
        """The file that was fetched and has the base, whatever a local pack put in its place."""
        return self.kept if self.is_replaced else self.local


def paths(context: Context, name: str) -> Paths:
    """See ``Paths``."""
    settings = context.settings
    root = context.network.root(settings, context.host)
    return Paths(
        local=os.path.join(f"{settings.file_storage}.prod", name),
        incoming=os.path.join(settings.location, "incoming", name),
        kept=os.path.join(settings.location, "base", name),
        base_index=os.path.join(settings.location, "base", name + ".index"),
        remote=os.path.join(root, settings.remote_file_storage, name),
    )


def base_of(context: Context, name: str) -> Optional[Position]:
    """The base of a FileStorage as the journal has it."""
    value = context.journal.bases.get(name)
    return Position(*value) if value else None


def find(context: Context, names: List[str], production: Production) -> List[Finding]:
    """Compare each FileStorage with production's; a few small reads through the mount.

    :raises TimeLimit: production doesn't answer.
    """
    return [_find(context, name, production.storages[name]) for name in names]


def _find(context: Context, name: str, remote_size: int) -> Finding:
    place, base = paths(context, name), base_of(context, name)
    local = place.fetched
    if not os.path.exists(local):
        return Finding(name, MISSING, None, remote_size)
    if base is None or not filestorage.holds(local, base):
        # The base is gone: what production has can only be had whole.
        return Finding(name, PACKED, None, remote_size, "the local file was packed, or changed by other means")
    what = f"reading {place.remote}"
    try:
        if remote_size >= base.size and within(
            COMPARE_SECONDS, what, lambda: filestorage.same_base(local, place.remote, base)
        ):
            return Finding(name, CURRENT if remote_size == base.size else GROWN, base, remote_size)
        first, last = within(COMPARE_SECONDS, what, lambda: _ends(place.remote))
    except OSError as error:
        problem = f"can't read {place.remote}: {error.strerror}. Run the same command again."
        raise RemoteUnusable(context.settings.remote, problem) from None
    remark = _otherness(local, base, first, last)
    return Finding(name, REPLACED if remark else PACKED, base, remote_size, remark or "")


def _ends(path: str) -> Tuple[Optional[str], Optional[str]]:
    """The tids of the first transaction and of the last; ``None`` for a last one that is torn."""
    first = next(iter(filestorage.transactions(path, START)), None)
    with Reader(path) as reader:
        return first and first.tid, reader.whole(reader.size)


def _otherness(local: str, base: Position, first: Optional[str], last: Optional[str]) -> Optional[str]:
    """Why production's file is no packed form of ours; ``None`` when it is one.

    Packing keeps transactions in their order with their tids, so the first of a packed file is one of ours; and a
    file whose end is inside ours is an earlier state, put back from a backup.

    :param first, last: tids of production's file.
    """
    if first is None:
        return "it has no transactions"
    if first > base.tid or filestorage.boundary(local, START, first) is None:
        return "it begins with a transaction that was never here: another database"
    if last is not None and last < base.tid:
        when = local_time(filestorage.last_transactions_time(last))
        return f"its last transaction is of {when}, older than what was fetched before: a restored backup"
    return None


def remember_sync(context: Context) -> None:
    """All FileStorages are at production's state of now."""
    context.journal.synced = time.time()
    context.journal.remote = context.settings.remote
    context.save()


def check_space(context: Context, findings: List[Finding]) -> None:
    """There must be room for what will be fetched; said before anything is touched.

    :raises PathUnusable: with both numbers.
    """
    needed = 0
    for finding in findings:
        place = paths(context, finding.name)
        needed += max(0, finding.moves - _size(place.incoming))
    if not needed:
        return
    from cowstorage.stack import existing

    directory = existing(f"{context.settings.file_storage}.prod")
    free = _free(directory)
    reserve = RESERVE if needed > RESERVE else 0
    if free < needed + reserve:
        raise PathUnusable(
            directory,
            f"has no room: {human_size(needed)} are to be fetched, {human_size(free)} are free. "
            "Make room, or put the directory on another file system.",
        )


def plan(context: Context, findings: List[Finding], production: Production) -> Iterator[Step]:
    """The steps that fetch; each can be run again after it was cut off anywhere."""
    yield Step("Make room for what is fetched", directories(context))
    for finding in findings:
        if finding.state in (CURRENT, GROWN) and finding.base:
            yield from unpacked(context, finding.name)
            yield back_to(context, finding.name, finding.base, paths(context, finding.name).base_index)
        if finding.state == GROWN and finding.base:
            yield from _append(context, finding, finding.base, production)
        elif finding.state != CURRENT:
            yield from _whole(context, finding, production)


def directories(context: Context) -> Tuple[Command, ...]:
    """Makes the directories that fetching needs."""
    location, upper = context.settings.location, f"{context.settings.file_storage}.prod"
    wanted = (os.path.join(location, "incoming"), os.path.join(location, "base"), upper)
    return (Command(("mkdir", "-p", "-m", "0700", "--", *wanted)), *given(context.host, *wanted))


def unpacked(context: Context, name: str) -> Iterator[Step]:
    """Put the file that was fetched back in the place of the one that a local pack made."""
    place = paths(context, name)
    if place.is_replaced:
        yield Step(f"Take back the local pack of {name}", (Command(("ln", "-f", "--", place.kept, place.local)),))


def back_to(context: Context, name: str, position: Position, index: Optional[str]) -> Step:
    """Cut a FileStorage, and put the index of then in the place of the present one.

    :param index: a copy of one that is not ahead of ``position``; where none fits, ZODB makes its own.
    """
    local = paths(context, name).local

    def action() -> None:
        filestorage.cut(local, position)
        # ZODB warns of an index that doesn't fit, and fails on some.
        if os.path.exists(local + ".index") and not filestorage.index_fits(local, local + ".index"):
            os.unlink(local + ".index")

    command = Command(("rm", "-f", "--", local + ".index"))
    if index is not None and os.path.exists(index):
        command = Command(("cp", "--reflink=auto", "-p", "-T", "--", index, local + ".index"))
    return Step(f"Cut {name} back to {position.size} bytes", (command,), action=action)


def _append(context: Context, finding: Finding, base: Position, production: Production) -> Iterator[Step]:
    place = paths(context, finding.name)
    lag = base.size - (filestorage.index_position(place.base_index) or 0)
    if lag > INDEX_LAG and finding.name in production.indexes:
        yield _fetch_index(context, finding.name, place.local + ".index")
    yield Step(
        f"Fetch what was added to {finding.name}, {human_size(finding.moves)}",
        (_fetch(context, finding.name, place.local, append=True),),
        action=lambda: _check(context, finding, place.local, base, base.size),
    )
    yield _settle(context, finding.name, place.local)


def _whole(context: Context, finding: Finding, production: Production) -> Iterator[Step]:
    place = paths(context, finding.name)
    if _copy_helps(place, finding):
        # What both files share need not cross the network; cut off in the middle, the copy is as good a start.
        yield Step(
            f"Copy {finding.name}, to fetch differences only",
            (Command(("cp", "--reflink=auto", "-T", "--", place.fetched, place.incoming), limit=None, locks=True),),
        )
    # Before the data, so that it is never ahead of it.
    if finding.name in production.indexes:
        yield _fetch_index(context, finding.name, place.incoming + ".index")
    before = _size(place.incoming)
    yield Step(
        f"Fetch {finding.name}, {human_size(finding.remote_size)}",
        (_fetch(context, finding.name, place.incoming),),
        action=lambda: _check(context, finding, place.incoming, None, before),
    )
    yield _settle(context, finding.name, place.incoming)
    # If it is interrupted before this the next sync finds no base, and compares what is incoming once more.
    yield Step(
        f"Put {finding.name} into place, its index first",
        (
            Command(("mv", "-T", "--", place.incoming + ".index", place.local + ".index")),
            Command(("mv", "-T", "--", place.incoming, place.local)),
            _second_name(place),
        ),
    )


def _copy_helps(place: Paths, finding: Finding) -> bool:
    """Whether there is something to copy, and room for it where the local file is larger than production's."""
    if not os.path.exists(place.fetched) or os.path.exists(place.incoming):
        return False
    size = os.path.getsize(place.fetched)
    return size <= finding.remote_size or size + RESERVE <= _free(place.fetched)


def _size(path: str) -> int:
    """Bytes; none for a file that isn't there."""
    return os.path.getsize(path) if os.path.exists(path) else 0


def _free(path: str) -> int:
    """Bytes that are free for us on the file system of ``path``."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def _fetch_index(context: Context, name: str, target: str) -> Step:
    return Step(f"Fetch {name}.index", (_fetch(context, name + ".index", target),))


def _fetch(context: Context, name: str, target: str, append: bool = False) -> Command:
    settings = context.settings
    return rsync.fetch(
        context.network.source(settings, context.host, name),
        rsync.Target(target),
        context.network.remote_shell(settings, context.host),
        settings.rsync_options,
        append=append,
        progress=not context.output.quiet and context.output.is_terminal,
    )


def _check(context: Context, finding: Finding, fetched: str, base: Optional[Position], before: int) -> None:
    """What was fetched ends with a complete transaction, a torn one cut off, and has an index that fits.

    :param base: what was appended to; only what comes after it has to be looked at.
    :param before: how many bytes were here already.
    """
    name, index = finding.name, fetched + ".index"
    if _size(fetched) == before < finding.remote_size:
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
    if not filestorage.index_fits(fetched, index):
        size = human_size(os.path.getsize(fetched))
        context.output.say(f"Building the index of {name}: production has none that fits. Reads all {size} once.")
        filestorage.rebuild_index(fetched, lambda done: context.output.progress(f"  {done:.0%}"))
        context.output.progress_done()


def _settle(context: Context, name: str, fetched: str) -> Step:
    """The base from now on: a copy of the index, and in the journal where the fetched file ends."""
    place = paths(context, name)

    def action() -> None:
        context.journal.bases[name] = list(filestorage.complete_end(fetched))
        context.save()

    copy = Command(("cp", "--reflink=auto", "-p", "-T", "--", fetched + ".index", place.base_index))
    owned = given(context.host, fetched, fetched + ".index", place.base_index)
    return Step(f"Keep {name} as the base", (copy, *owned), action=action)


def _second_name(place: Paths) -> Command:
    """Makes ``Paths.kept``."""
    return Command(("ln", "-f", "--", place.local, place.kept), fallback=("rm", "-f", "--", place.kept))
