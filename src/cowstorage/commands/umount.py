"""cow-umount: the unions and the network mount go; local changes stay."""

from __future__ import annotations

import argparse
from itertools import chain

from cowstorage.actions import mounting, preflight, production_mount, survey
from cowstorage.actions.context import Context
from cowstorage.actions.plan import Plan, show, without_undo
from cowstorage.actions.survey import Survey
from cowstorage.errors import InUse
from cowstorage.part import trash

LAZY_WARNING = (
    "--lazy takes the mounts out of sight while processes still use them. Stop those processes before you mount "
    "again: two unions on one upper directory can lose what is written."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--lazy``, the last resort."""
    parser.add_argument(
        "--lazy",
        action="store_true",
        help="detach mounts that are in use, for a dead network; stop what uses them before you mount again",
    )
    parser.add_argument(
        "--gone", action="store_true", help="the machine or container that the part was mounted in is gone for good"
    )


def run(context: Context) -> int:
    """Unmount what is ours, in reverse order."""
    seen = survey.take(context, probe=False)
    if context.arguments.dry_run:
        show(plan(context, seen), context.runner, context.output)
        return 0
    if context.arguments.lazy:
        context.output.warn(LAZY_WARNING)
        context.execution().run(plan(context, seen))
    else:
        perform(context, seen)
    trash.empty(context.settings.location, context.runner)
    remote = seen.made_with.remote
    if seen.has_unions or seen.has_network:
        context.output.say(f"{remote} is unmounted.")
        context.output.say(f"Local changes are kept for the next {context.script('mount')}.")
    else:
        context.output.say(f"{remote} was not mounted.")
    return 0


def plan(context: Context, seen: Survey) -> Plan:
    """Return the steps that unmount everything.

    Production is not mounted again when a later step fails: its network may be why it is to go.
    """
    lazy = context.arguments.lazy
    unions = mounting.unmount_unions(context, seen.made_with, lazy, waits=True)
    production = without_undo(production_mount.unmount_production(context, seen.made_with, lazy))
    return chain(unions, production, (mounting.note_unmounted(context),))


def perform(context: Context, seen: Survey) -> None:
    """Unmount, or leave things as they were as far as production is there.

    :raises InUse: naming the processes, and the last resort.
    """
    try:
        preflight.refuse_in_use(context, seen, with_network=True, with_uppers=False)
        context.run(plan(context, seen))
    except InUse as error:
        way_out = (
            f" What can't be stopped, since its network is gone, can be left alone: {context.script('umount')} --lazy"
        )
        raise InUse(error.paths, error.holders, way_out) from None
