"""cow-umount: the unions and the network mount go; local changes stay."""

from __future__ import annotations

import argparse
from typing import List

from cowstorage import stack, trash
from cowstorage.context import Context
from cowstorage.errors import InUse
from cowstorage.plan import Step, chain, show
from cowstorage.settings import Settings

LAZY_WARNING = (
    "--lazy takes the mounts out of sight while processes still use them. Stop those processes before you mount "
    "again: two unions on one upper directory can lose what is written."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--lazy``, the last resort."""
    parser.add_argument(
        "--lazy",
        action="store_true",
        help="detach mounts that are in use, for a dead network; stop what uses them before you mount again",
    )


def run(context: Context) -> int:
    """Unmount what is ours, in reverse order."""
    lazy = context.arguments.lazy
    made_with = context.mounted or context.settings
    # Production is not mounted again when something fails later: its network may be why it is to go.
    network = (step._replace(undo=()) for step in stack.detach(context, made_with, lazy))
    plan = chain(stack.lift_unions(context, made_with, lazy), network)
    if context.arguments.dry_run:
        show(plan, context.runner, context.output)
        return 0
    steps = list(plan)
    if lazy:
        context.output.warn(LAZY_WARNING)
        context.execution().run(steps)
    else:
        perform(context, made_with, steps)
    context.journal.mounted = None
    context.save()
    trash.empty(context.settings.location, context.runner)
    if not any(step.commands for step in steps):
        context.output.say(f"{made_with.remote} was not mounted.")
    else:
        again = context.script("mount")
        context.output.say(f"{made_with.remote} is unmounted. Local changes are kept for the next {again}.")
    return 0


def perform(context: Context, made_with: Settings, steps: List[Step]) -> None:
    """Unmount, or leave things as they were as far as production is there.

    :raises InUse: naming the processes, and the last resort.
    """
    try:
        stack.refuse_in_use(context, made_with, with_network=True)
        with context.execution() as execution:
            execution.run(steps)
            execution.keep()
    except InUse as error:
        way_out = (
            f" What can't be stopped, since its network is gone, can be left alone: {context.script('umount')} --lazy"
        )
        raise InUse(error.paths, error.holders, way_out) from None
