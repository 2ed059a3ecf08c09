"""cow-rollback: back to production's state as last synced, to a savepoint, or to a local transaction."""

from __future__ import annotations

import argparse
from typing import Iterator, List

from cowstorage import local, refresh, reset, savepoints, stack, trash
from cowstorage.commands import mount as mounting
from cowstorage.context import Context
from cowstorage.errors import CowStorageError, Unfinished
from cowstorage.output import confirm
from cowstorage.plan import Step, chain, show
from cowstorage.savepoints import Place


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to."""
    parser.add_argument(
        "target", nargs="?", metavar="NAME_OR_TID", help="a savepoint, or a transaction of the log; default: last sync"
    )


def run(context: Context) -> int:
    """Constant time, and no network."""
    made_with = context.mounted or context.settings
    refuse_elsewhere(context)
    place = savepoints.find(context, context.arguments.target)
    lost = losses(context, place)
    plan = chain(stack.lift_unions(context, made_with), back(context, place))
    if context.arguments.dry_run:
        for line in lost:
            context.output.result(f"# This would be dropped, after a question: {line}")
        show(plan, context.runner, context.output)
        return 0
    if not lost and not context.journal.unfinished:
        context.output.say(f"The database is at {place.label} already.")
        return 0
    stack.refuse_in_use(context, made_with, with_network=False)
    if lost:
        question = "\n".join([f"Back to {place.label}. This drops:", *(f"  {line}" for line in lost)])
        confirm(question, context.arguments.yes, context.host.interactive)
    return perform(context, place)


def again(context: Context) -> str:
    """This command as it was typed."""
    return " ".join(filter(None, (f"bin/{context.command}", context.arguments.target)))


def refuse_elsewhere(context: Context) -> None:
    """An interrupted command may have dropped BLOBs already that a savepoint or transaction needs.

    :raises Unfinished: naming what can be done instead.
    """
    unfinished = context.journal.unfinished
    if unfinished and context.arguments.target and unfinished["again"] != again(context):
        raise Unfinished(
            unfinished["command"], f"Run {unfinished['again']} again, or bin/{context.command} without a name."
        )


def perform(context: Context, place: Place) -> int:
    """Drop, and lay the unions again as they were."""
    made_with = context.mounted or context.settings
    unfinished = context.journal.unfinished or {}
    pieces = stack.survey(context, made_with, probe=False)
    had_unions = any(piece.name != "network" and piece.mount for piece in pieces) or bool(unfinished.get("mounted"))
    context.begin(again(context), had_unions)
    context.execution().run(chain(stack.lift_unions(context, made_with), back(context, place)))
    context.finish()
    trash.empty(context.settings.location, context.runner)
    if had_unions:
        lay_again(context, place)
    context.output.say(f"The database is back at {place.label}. Next: start your instance.")
    return 0


def lay_again(context: Context, place: Place) -> None:
    """The unions; whether production is there shows here for the first time.

    :raises CowStorageError: saying that the rollback itself is done.
    """
    try:
        with context.execution() as execution:
            mounting.lay_again(context, execution)
            execution.keep()
    except CowStorageError as error:
        raise CowStorageError(
            f"The database is back at {place.label}, but the unions could not be laid again:\n{error}\n"
            f"When production answers, run {context.script('mount')}."
        ) from None


def losses(context: Context, place: Place) -> List[str]:
    """What goes, a line each."""
    if place.is_base:
        lines = local.losses(context)
    else:
        lines = [line for name in sorted(place.positions) for line in _cut_off(context, name, place)]
    return lines + [f"savepoint {name}" for name in savepoints.lost_by(context, place)]


def _cut_off(context: Context, name: str, place: Place) -> Iterator[str]:
    change = local.since(name, refresh.paths(context, name).local, place.positions[name])
    if change.size:
        yield f"{name}: {change}, and their BLOBs"


def back(context: Context, place: Place) -> Iterator[Step]:
    """The steps; each can be run again."""
    if place.is_base:
        yield from reset.drop_blobs(context)
        yield from reset.drop_strangers(context)
    else:
        yield from reset.drop_later_blobs(context, place.positions)
    yield from reset.cut_back(context, place.positions, place.is_base)
    lost = savepoints.lost_by(context, place)
    if lost:
        yield Step("Forget later savepoints", action=lambda: savepoints.forget(context, lost))
