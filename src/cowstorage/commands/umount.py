"""cow-umount: the unions and the network mount go; local changes stay."""

from __future__ import annotations

import argparse

from cowstorage import stack, trash
from cowstorage.context import Context
from cowstorage.plan import chain, show

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
    plan = chain(stack.lift_unions(context, made_with, lazy), stack.detach(context, made_with, lazy))
    if context.arguments.dry_run:
        show(plan, context.runner, context.output)
        return 0
    if not lazy:
        stack.refuse_in_use(context, made_with, with_network=True)
    else:
        context.output.warn(LAZY_WARNING)
    steps = list(plan)
    execution = context.execution()
    if lazy:
        execution.run(steps)
    else:
        with execution:
            execution.run(steps)
            execution.keep()
    context.journal.mounted = None
    context.save()
    trash.empty(context.settings.location, context.runner)
    if not any(step.commands for step in steps):
        context.output.say(f"{made_with.remote} was not mounted.")
    else:
        again = context.script("mount")
        context.output.say(f"{made_with.remote} is unmounted. Local changes are kept for the next {again}.")
    return 0
