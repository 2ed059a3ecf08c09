"""cow-rollback: back to production's state as last synced, to a savepoint, or to a local transaction."""

from __future__ import annotations

import argparse
import time
from functools import partial
from itertools import chain
from typing import Iterator, List, Optional

from cowstorage.actions import drop, local_changes, mounting, preflight, preparation, savepoints, survey
from cowstorage.actions.context import Context
from cowstorage.actions.cut_back import cut_back
from cowstorage.actions.plan import Plan, Step, show, without_undo
from cowstorage.actions.savepoints import Target
from cowstorage.actions.survey import Survey
from cowstorage.errors import CowStorageError, Unfinished
from cowstorage.part import trash
from cowstorage.system.output import human_seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where to go back to."""
    parser.add_argument(
        "target",
        nargs="?",
        metavar="NAME_OR_TID",
        help="a savepoint, or a transaction of the log; production: the last sync; "
        "default: that, with what the part prepares on it",
    )


def run(context: Context) -> int:
    """Go back; the time it takes does not depend on the size of the database, and no network is needed."""
    refuse_elsewhere(context)
    target = savepoints.find(context, leads_to(context))
    prepares = target.is_base and not context.arguments.target and bool(context.settings.prepare)
    if prepares:
        preparation.check(context)
    seen = survey.take(context, probe=False)
    lost = losses(context, target)
    if context.arguments.dry_run:
        for line in lost:
            context.output.result(f"# This would be dropped, after a question: {line}")
        prepared = preparation.prepare(context) if prepares and must_mount(context, seen) else ()
        show(chain(plan(context, seen, target), prepared), context.runner, context.output)
        return 0
    if not lost and not context.journal.unfinished and not prepares:
        context.output.say(f"The database is at {target.label} already.")
        return 0
    preflight.refuse_in_use(context, seen, with_network=False)
    local_changes.agree(context, lost, f"Back to {target.label}. This drops:")
    mounts = must_mount(context, seen)
    begun = time.monotonic()
    perform(context, seen, target)
    context.output.say(f"The database is back at {target.label}. ({human_seconds(time.monotonic() - begun)})")
    if mounts:
        preparation.run_due(context)
    context.output.say(f"Next: {'start your instance' if mounts else context.script('mount')}.")
    return 0


def leads_to(context: Context) -> Optional[str]:
    """Return the savepoint or tid that this rollback leads to; ``None``: production's state as last synced.

    Without a name that is what the part has prepared, unless another command was cut off, which may have dropped BLOBs
    of that.
    """
    given: Optional[str] = context.arguments.target
    if given:
        return None if given == savepoints.PRODUCTION else given
    unfinished = context.journal.unfinished
    other = unfinished is not None and unfinished["again"] != as_typed(context)
    return savepoints.PREPARED if savepoints.PREPARED in context.journal.savepoints and not other else None


def refuse_elsewhere(context: Context) -> None:
    """Refuse a target where an interrupted command may have dropped BLOBs already that the target needs.

    :raises Unfinished: naming what can be done instead.
    """
    unfinished, given = context.journal.unfinished, context.arguments.target
    if unfinished and given not in (None, savepoints.PRODUCTION) and unfinished["again"] != as_typed(context):
        raise Unfinished(
            unfinished["command"], f"Run {unfinished['again']} again, or bin/{context.command} without a name."
        )


def as_typed(context: Context) -> str:
    """Return this command as it was typed."""
    return " ".join(filter(None, (f"bin/{context.command}", context.arguments.target)))


def losses(context: Context, target: Target) -> List[str]:
    """Return what goes, a line each."""
    if target.is_base:
        lines = local_changes.losses(context)
    else:
        lines = [line for name in sorted(target.positions) for line in _cut_off(context, name, target)]
    return lines + [f"savepoint {name}" for name in savepoints.later_than(context, target)]


def _cut_off(context: Context, name: str, target: Target) -> Iterator[str]:
    path = context.paths(name).local
    change = local_changes.since(name, path, target.positions[name], target.magics.get(name))
    if change.size:
        yield from local_changes.named(change, ", and their BLOBs")
    elif change.magics:
        yield f"{name}: {change}"


def plan(context: Context, seen: Survey, target: Target) -> Plan:
    """Return all steps of a rollback."""
    return chain(go_back(context, seen, target), mounting.mount_unions_again(context) if seen.has_unions else ())


def go_back(context: Context, seen: Survey, target: Target) -> Iterator[Step]:
    """Yield the steps that end with the unions unmounted and the database at the target; each can be run again."""
    begin = partial(context.begin, as_typed(context), must_mount(context, seen))
    yield Step("Give up the present state", action=begin)
    yield from without_undo(mounting.unmount_unions(context, seen.made_with))
    if target.is_base:
        yield from drop.drop_blobs(context)
        yield from drop.drop_unknown_files(context)
    else:
        yield from drop.drop_later_blobs(context, target.positions)
    yield from cut_back(context, target)
    later = savepoints.later_than(context, target)
    if later:
        yield Step("Forget later savepoints", action=partial(savepoints.forget, context, later))
    yield Step("Note that the database is whole", action=partial(_finish, context, seen, target))


def _finish(context: Context, seen: Survey, target: Target) -> None:
    if target.is_base:
        preparation.note_due(context, not context.arguments.target)
    if must_mount(context, seen):
        # Noted with what else is: each writing waits for the disk.
        mounting.note_writer(context, context.journal.union)
    context.finish()


def must_mount(context: Context, seen: Survey) -> bool:
    """Tell whether the unions are to be mounted again: they are there, or an interrupted command unmounted them."""
    return seen.has_unions or bool((context.journal.unfinished or {}).get("mounted"))


def perform(context: Context, seen: Survey, target: Target) -> None:
    """Go back, and mount the unions again as they were; whether production is there shows here for the first time.

    :raises CowStorageError: saying that the rollback itself is done.
    """
    mount = must_mount(context, seen)
    context.execution().run(go_back(context, seen, target))
    trash.empty(context.settings.location, context.runner)
    if not mount:
        return
    try:
        context.run(mounting.mount_unions_again(context))
    except CowStorageError as error:
        raise CowStorageError(
            f"The database is back at {target.label}, but the unions could not be laid again:\n{error}\n"
            f"When production answers, run {context.script('mount')}."
        ) from None
