"""Plans that mount production read-only, and unmount it."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import Iterator, Optional, Tuple

from cowstorage.actions import survey
from cowstorage.actions.context import Context
from cowstorage.actions.plan import Step
from cowstorage.errors import CommandFailed, CowStorageError, InUse, RemoteUnusable
from cowstorage.part.settings import Settings
from cowstorage.production.filesystems.base import FileSystem
from cowstorage.system import mounts, refusals
from cowstorage.system.mounts import Mount
from cowstorage.system.programs import Command

# The daemon of a FUSE union closes its lower a moment after its unmounting.
LETTING_GO_SECONDS = 3.0


def mount_production(context: Context) -> Iterator[Step]:
    """Mount production read-only, and make sure that it is read-only."""
    filesystem = context.filesystem

    def explain(error: CowStorageError) -> CowStorageError:
        return refusals.explained(error) or filesystem.explain(error) if isinstance(error, CommandFailed) else error

    by_developer = context.host.euid != 0 and any(kind.startswith("fuse") for kind in filesystem.types)
    # A local directory is not waited for.
    connects = f"Connecting to {context.settings.remote}" if context.settings.filesystem != "directory" else ""
    for mount in filesystem.mounts():
        yield Step(
            f"Mount {context.settings.remote} read-only on {mount.target}",
            mount.commands,
            action=partial(verify_read_only, mount.target),
            undo=(mounts.unmount_in_any_case(mount.target, by_developer),),
            explain=explain,
            after_undo=filesystem.abandon,
            connects=connects,
        )
        connects = ""


def verify_read_only(target: str) -> None:
    """Make sure that production is mounted read-only on a directory.

    :raises NotReadOnly: it is not.
    """
    mounts.verify_read_only(mounts.resolve(target))


def unmount_production(
    context: Context, made_with: Settings, lazy: bool = False, stays_connected: bool = False
) -> Iterator[Step]:
    """Unmount production.

    :param made_with: the settings that the mounts were made with.
    :param lazy: out of sight at once, gone when the last process lets go.
    :param stays_connected: production is mounted again at once, over the connection that is there.
    """
    filesystem = context.filesystem_of(made_with)
    for one in filesystem.mounts()[::-1]:
        for mount in mounts.at_or_below(mounts.read(), mounts.resolve(one.target)):
            step = unmount(context, made_with, mount, lazy, undo=one.commands)
            yield step._replace(patience=LETTING_GO_SECONDS, undo_unless=partial(_still_mounted, mount.target))
    if not lazy:
        yield Step(
            f"Wait for {made_with.filesystem} to end", action=partial(_end, filesystem, disconnects=not stays_connected)
        )


def _end(filesystem: FileSystem, disconnects: bool) -> None:
    """Wait for what outlives production's mounts; end the connection that they had, too."""
    filesystem.after_unmount()
    if disconnects:
        filesystem.disconnect()


@contextmanager
def production_mounted(context: Context, needed: bool) -> Iterator[None]:
    """Mount production for the time, where it is needed and not mounted yet."""
    now = mounts.read()
    if not needed or all(mounts.top(now, mounts.resolve(target, now)) for target in context.filesystem.targets):
        yield
        return
    if context.arguments.dry_run:
        raise CowStorageError(f"Production has to be looked at, and is not mounted. Run {context.script('mount')}.")
    context.execution().run(mount_production(context))
    try:
        yield
    finally:
        context.execution().run(unmount_production(context, context.settings))


def connection_lost(context: Context) -> Optional[RemoteUnusable]:
    """Return the error that is the reason for others: production can't be seen any more; ``None`` when it can."""
    reason = lost(context, context.settings)
    if not reason:
        return None
    return RemoteUnusable(
        context.settings.remote, f"the connection was lost: {reason}. Run the same command again when it is back."
    )


def lost(context: Context, made_with: Settings) -> str:
    """Return why production can't be seen through its mount; empty when it can, or is not needed."""
    now = mounts.read()
    wanted = () if context.journal.is_offline else context.filesystem_of(made_with).targets
    targets = [mounts.resolve(path, now) for path in wanted]
    if not all(mounts.top(now, target) for target in targets):
        return "production is not mounted any more"
    return "; ".join(mounts.problems(targets, context.developer).values())


def unmount(
    context: Context, made_with: Settings, mount: Mount, lazy: bool, undo: Tuple[Command, ...], waits: bool = True
) -> Step:
    """Return the step that unmounts one mount of ours; where it is in use, its error names the processes.

    :param undo: the commands that mount it again.
    :param waits: until the kernel has let go of what lies below it.
    """

    def explain(error: CowStorageError) -> Optional[CowStorageError]:
        if mounts.top(mounts.read(), mount.target) is None:
            # Without reconnect, sshfs unmounts itself when the connection is lost.
            return None
        if isinstance(error, CommandFailed) and "busy" in error.output.lower():
            from cowstorage.system import in_use  # start-up

            unions = [target for _, target in survey.union_targets(made_with)]
            return InUse([mount.target], in_use.reasons(mount.target, unions, context.daemons))
        return error

    command = mounts.unmount_of(mount, context.host.uid, lazy, waits)
    return Step(f"Unmount {mount.target}", (command,), undo=undo, explain=explain)


def _still_mounted(target: str) -> str:
    return "it is still mounted" if mounts.top(mounts.read(), target) else ""
