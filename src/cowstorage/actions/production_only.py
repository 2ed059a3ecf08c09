"""``cow-mount --production-only``: production read-only, over a development of its own, without unions and Data.fs."""

from __future__ import annotations

import os
from typing import Iterator

from cowstorage.actions import mounting, preflight, production_mount, survey
from cowstorage.actions.context import Context
from cowstorage.actions.plan import Step, show, without_undo
from cowstorage.actions.survey import Survey
from cowstorage.production import look
from cowstorage.system import mounts


def mount(context: Context) -> int:
    """Mount production alone, or find that it is; unions that lie over it are unmounted before."""
    preflight.refuse_unfinished(context)
    problem = context.filesystem.problem()
    if problem:
        raise preflight.unusable(context, problem)
    preflight.check_directories(context)
    preflight.refuse_others(context)
    seen = survey.take(context)
    if seen.state == survey.ALONE and seen.as_configured and not context.journal.operation:
        context.output.say(f"{context.settings.remote} is mounted already, alone.")
        tell(context)
        return 0
    if context.arguments.dry_run:
        show(plan(context, seen), context.runner, context.output)
        return 0
    preflight.refuse_in_use(context, seen, with_network=True, with_uppers=False)
    context.run(plan(context, seen))
    context.output.say(f"{context.settings.remote} is mounted, read-only, and nothing lies over it.")
    tell(context)
    return 0


def plan(context: Context, seen: Survey) -> Iterator[Step]:
    """Yield the steps: what is mounted otherwise is unmounted, then production is mounted and looked at."""
    if seen.has_unions or seen.has_network:
        yield from without_undo(mounting.unmount_all(context, seen.made_with))
    yield mounting.note_mounted(context, look.NOTHING, alone=True)
    yield from production_mount.mount_production(context)
    yield Step("Look at production", action=lambda: _look(context))


def _look(context: Context) -> None:
    """See that production is what the part says; its objects may be elsewhere."""
    look.look(context.filesystem, context.filesystem.root)


def tell(context: Context) -> None:
    """Say where production's BLOBs are now, for who reads them by path."""
    root = mounts.resolve(context.filesystem.root)
    # Whole: it is copied into other programs' settings.
    context.output.result(f"  BLOBs: {os.path.join(root, context.settings.remote_blob_storage)}")
    context.output.say(f"Your own database is what an instance opens. To take it away: {context.script('umount')}")
