"""cow-mount: production read-only, Data.fs if there is none yet, the unions, and proof that they work."""

from __future__ import annotations

import argparse
import os
from typing import Callable, Iterator, List, Optional

from cowstorage import cache, production, refresh, settings, stack, trash, union
from cowstorage.context import Context
from cowstorage.errors import CowStorageError, PathUnusable, RemoteUnusable, Unfinished, UnionUnusable
from cowstorage.mounts import read, resolved, top
from cowstorage.output import human_size
from cowstorage.plan import Execution, Plan, Step, show
from cowstorage.system import require_program
from cowstorage.union.choice import Choice, assumed, choose


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be had instead of mounting, and mounting without a network."""
    parser.add_argument(
        "--offline", action="store_true", help="without production, where cow-prefetch has fetched all of it"
    )
    parser.add_argument(
        "--check", action="store_true", help="try everything, leave nothing mounted, show what works here"
    )
    parser.add_argument(
        "--sudoers", action="store_true", help="print the sudoers lines for exactly this part's commands"
    )


def run(context: Context) -> int:
    """Mount, or find that all is mounted."""
    if context.arguments.check or context.arguments.sudoers:
        from cowstorage import check as checking

        return checking.sudoers(context) if context.arguments.sudoers else checking.run(context)
    refuse_unfinished(context)
    (check_offline if context.arguments.offline else check)(context)
    pieces = stack.survey(context)
    state = stack.state_of(pieces)
    as_wanted = settings.mounted_alike(context.mounted, context.settings) and not context.journal.operation
    as_wanted = as_wanted and stack.is_offline(context) == context.arguments.offline
    if state == stack.MOUNTED and as_wanted:
        context.output.say(f"{context.settings.remote} is mounted already.")
        return 0
    if context.arguments.dry_run:
        show(dry_plan(context, state), context.runner, context.output)
        return 0
    if state != stack.NOT_MOUNTED:
        lift(context, state)
    with context.execution() as execution:
        mount(context, execution)
        execution.keep()
    trash.empty(context.settings.location, context.runner)
    summary(context)
    return 0


def refuse_unfinished(context: Context) -> None:
    """A database in the middle of a change is not shown to Plone.

    :raises Unfinished: naming the command that finishes it.
    """
    unfinished = context.journal.unfinished
    if unfinished:
        raise Unfinished(
            unfinished["command"],
            f"Run {unfinished['again']} again; or {context.script('rollback')}, which needs no network.",
        )


def check(context: Context) -> None:
    """What must be there before anything is touched."""
    require_program("rsync")
    problem = context.network.problem(context.settings, context.host)
    if problem:
        raise CowStorageError(f"filesystem = {context.settings.filesystem}: {problem}")
    stack.check_places(context)
    refuse_others(context)
    for storage in union.storages(context.settings):
        stack.check_room(union.layer(context.settings, storage, (), ""))
    if not context.network.remote:
        # Local, so it can be looked at before anything is mounted.
        production.look(context.settings, context.settings.remote, context.developer)


def check_offline(context: Context) -> None:
    """Everything must be here.

    :raises CowStorageError: what is missing.
    """
    refuse_others(context)
    bases = context.journal.bases
    # Each of 1,000,000 files takes 105 s; cow-prefetch has looked at each.
    gap = cache.Complete(context.settings).gap(bases, cache.SAMPLES)
    if not bases or not all(os.path.exists(refresh.paths(context, name).local) for name in bases):
        gap = "Data.fs is not"
    if gap:
        advice = f"Run {context.script('prefetch')} while production can be reached."
        raise CowStorageError(f"--offline needs everything to be here, but {gap}. {advice}")


def refuse_others(context: Context) -> None:
    """Another buildout's directories are left alone.

    :raises PathUnusable: ``location`` is another's, or its unions lie where ours belong.
    """
    made = context.journal.mounted
    if made:
        theirs, ours = str(made["settings"]["directory"]), context.settings.directory
        location = os.path.join(theirs, str(made["settings"]["location"]))
        # A buildout that was moved has left nothing where it was; a copied one has a location of its own.
        is_another = os.path.isdir(theirs) and not os.path.samefile(theirs, ours) and os.path.isdir(location)
        if is_another and os.path.samefile(location, context.settings.location):
            raise PathUnusable(location, f"is used by the buildout {theirs}. Set location to another directory.")
    elif not context.journal.operation:
        now = read()
        for storage, target in stack.union_targets(context.settings):
            if union.ours(top(now, target)):
                raise PathUnusable(
                    target,
                    "is mounted already, and not by this part: by another buildout with the same directories. "
                    f"Run cow-umount there, or set {storage.replace('storage', '-storage')} here.",
                )


def lift(context: Context, state: str) -> None:
    """Take away mounts that are broken or were made with other settings."""
    made_with = context.mounted or context.settings
    reason = "is broken" if state == stack.BROKEN else "was made with other options"
    if state == stack.MOUNTED and context.journal.operation:
        reason = f"was left by an interrupted {context.journal.operation['command']}"
    context.output.say(f"What is mounted {reason}: unmounting it first.")
    stack.refuse_in_use(context, made_with, with_network=True)
    execution = context.execution()
    execution.run(stack.lift_unions(context, made_with))
    execution.run(stack.detach(context, made_with))


def dry_plan(context: Context, state: str) -> Plan:
    """What would be run, as far as it can be told without running it."""
    if state != stack.NOT_MOUNTED:
        made_with = context.mounted or context.settings
        yield from stack.lift_unions(context, made_with)
        yield from stack.detach(context, made_with)
    if not context.arguments.offline:
        yield from stack.attach(context)
    choice = assumed(context, stack.lowers(context, "blobstorage"))
    if context.settings.union == "auto":
        yield Step(f"union = auto: each union would be tried here; shown is the first candidate, {choice.union.name}")
    names = list(context.settings.storages) or list(context.journal.bases) or ["Data.fs"]
    findings = [
        refresh.Finding(name, refresh.MISSING, None, 0)
        for name in names
        if context.settings.file_storage and not os.path.exists(refresh.paths(context, name).local)
    ]
    if findings:
        seen = production.Production({}, {finding.name: 0 for finding in findings}, None)
        yield from refresh.plan(context, findings, seen)
    yield from stack.merge(context, choice.union, None)


def mount(context: Context, execution: Execution) -> None:
    """All of it, from nothing mounted."""
    offline = context.arguments.offline
    note_mounted(context, production.NOTHING, None, offline)
    if not offline:
        execution.run(stack.attach(context))
    seen = remembered(context) if offline else look(context)
    choice = chosen(context, lambda: choose(context, stack.lowers(context, "blobstorage"), seen.sample))
    for name, reason in choice.tried:
        context.output.detail(f"Passed over {name}: {reason}")
    if context.settings.file_storage and not offline:
        warn_of_another_state(context, seen)
        execution.run(first_fetch(context, seen))
    lay(context, execution, seen, choice, offline)


def chosen(context: Context, choosing: Callable[[], Choice]) -> Choice:
    """The union that works here; that none does may be the network's fault.

    :raises RemoteUnusable, UnionUnusable: which of the two it is.
    """
    try:
        return choosing()
    except UnionUnusable as error:
        raise stack.connection_lost(context) or error from None


def look(context: Context, known: Optional[str] = None) -> production.Production:
    """Production, through its mount; a cache that is laid out otherwise is of no use any more.

    :param known: see ``production.look``.
    """
    root = context.network.root(context.settings, context.host)
    seen = production.look(context.settings, root, context.developer, known=known)
    cache.match(context.settings, os.path.join(root, context.settings.remote_blob_storage), context.runner)
    return seen


def remembered(context: Context) -> production.Production:
    """What is known of production without asking it."""
    return production.Production({name: size for name, (size, _) in context.journal.bases.items()}, {}, None)


def note_mounted(
    context: Context, seen: production.Production, choice: Optional[Choice], offline: bool = False
) -> None:
    """Write down how the mounts are made, before they are, so that whatever happens they can be taken away."""
    context.journal.mounted = {
        "settings": settings.to_script(context.settings),
        "union": choice.union.name if choice else "",
        "tried": [list(pair) for pair in choice.tried] if choice else [],
        "sample": seen.sample,
        "storages": sorted(seen.storages),
        "hidden": [],
        "offline": offline,
    }
    context.save()


def warn_of_another_state(context: Context, seen: production.Production) -> None:
    """Production no longer has all BLOBs of the local database where its own is no later state of the same."""
    names = [name for name in sorted(context.journal.bases) if name in seen.storages]
    for finding in refresh.find(context, names, seen):
        if finding.base is None or finding.state not in (refresh.PACKED, refresh.REPLACED):
            continue
        why = finding.remark or "it was packed since, and what was deleted there is gone"
        context.output.warn(
            f"production's {finding.name} is not what was fetched before: {why}. "
            f"BLOBs may be missing here until {context.script('sync')}, which drops local changes."
        )


def first_fetch(context: Context, seen: production.Production) -> Iterator[Step]:
    """Fetch the FileStorages when there are none (any more), or a first fetch was cut off; one base for all."""
    names = production.chosen(context.settings, seen)
    strange = [
        name
        for name in names
        if name not in context.journal.bases and os.path.exists(refresh.paths(context, name).local)
    ]
    here = [name for name in context.journal.bases if os.path.exists(refresh.paths(context, name).local)]
    if strange or (context.journal.synced and here):
        return
    findings = refresh.find(context, names, seen)
    refresh.check_space(context, findings)
    total = sum(finding.moves for finding in findings)
    context.output.say(f"Fetching {', '.join(names)}: {human_size(total)}")
    yield from refresh.plan(context, findings, seen)
    yield Step("Remember what was fetched", action=lambda: refresh.remember_sync(context))


def lay(
    context: Context, execution: Execution, seen: production.Production, choice: Choice, offline: bool = False
) -> None:
    """The unions, proven, with what was not fetched hidden."""
    note_mounted(context, seen, choice, offline)
    execution.run(stack.merge(context, choice.union, seen.sample))
    if context.settings.file_storage:
        execution.run(hiding(context, sorted(seen.storages)))


def lay_again(context: Context, execution: Execution) -> None:
    """The unions as they were before, without a look at production.

    :raises CowStorageError: the journal doesn't say how they were.
    """
    made = context.journal.mounted or {}
    if not made.get("union"):
        raise CowStorageError(f"How the unions were laid is not known. Run {context.script('mount')}.")
    execution.run(stack.merge(context, union.get(made["union"]), made["sample"]))
    if context.settings.file_storage:
        execution.run(hiding(context, made["storages"]))


def hiding(context: Context, storages: List[str]) -> Iterator[Step]:
    """See ``hide``."""
    yield Step("Hide FileStorages that were not fetched", action=lambda: hide(context, storages))


def hide(context: Context, storages: List[str]) -> None:
    """Take each FileStorage that has no local copy out of sight, through the union.

    Opened by accident it would be copied up whole, live, and perhaps torn.
    """
    now = read()
    merged = resolved(str(context.settings.file_storage), now)
    if not union.ours(top(now, merged)):
        raise RemoteUnusable(merged, "shows no union any more.")
    hidden = [name for name in storages if not os.path.exists(refresh.paths(context, name).local)]
    for name in hidden:
        if os.path.lexists(os.path.join(merged, name)):
            os.unlink(os.path.join(merged, name))
    if context.journal.mounted:
        context.journal.mounted["hidden"] = hidden
        context.save()


def summary(context: Context) -> None:
    """What is there now, and what to do next."""
    journal, part = context.journal, context.settings
    kind = (journal.mounted or {}).get("union", "")
    how = "served from here, without a network" if stack.is_offline(context) else "mounted, read-only"
    context.output.say(f"{part.remote} is {how}, with {kind} on top.")
    if cache.suffices(part, journal.bases):
        context.output.say("  Every BLOB is local: Plone asks nothing of production.")
    for _, target in stack.union_targets(part):
        context.output.say(f"  {target}: writes stay in {os.path.basename(target)}.prod")
    for name in (journal.mounted or {}).get("hidden", ()):
        context.output.warn(
            f"{name} of production was not fetched and is hidden. "
            f"To have it, name it in storages (or leave storages out) and run {context.script('sync')}."
        )
    context.output.say(f"Next: start your instance. Back to a clean state: {context.script('sync')}")
