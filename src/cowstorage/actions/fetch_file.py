"""Make the steps that fetch one file of production's filestorage: a little through the mount, more by rsync."""

from __future__ import annotations

import os
from functools import partial
from typing import Callable, NamedTuple, Optional

from cowstorage.actions.context import Context
from cowstorage.actions.plan import Step
from cowstorage.errors import CowStorageError, RemoteUnusable
from cowstorage.production import rsync, through_mount
from cowstorage.system.files import write_behind
from cowstorage.system.output import human_size
from cowstorage.system.pace import Pace
from cowstorage.system.programs import Command
from cowstorage.system.time_limits import within

# For what is read through the mount: a line of 1 Mbit/s takes 12 of them.
READ_SECONDS = 60.0


class Wanted(NamedTuple):
    """What is fetched.

    :param name: the file's name in production's filestorage.
    :param target: the local file's path.
    :param size: bytes that production has shown of the file.
    :param behind: bytes that the local file has already, and begins with; 0: all of it is fetched.
    """

    name: str
    target: str
    size: int
    behind: int = 0


def fetch_little(
    context: Context, title: str, wanted: Wanted, check: Callable[[], None], content: Optional[bytes] = None
) -> Step:
    """Return the step that fetches what is most often little.

    :param check: called with what was fetched in place.
    :param content: what is wanted, where it was read already.
    """
    if not (context.filesystem.reads_little and through_mount.is_little(wanted.size - wanted.behind)):
        return fetch_by_rsync(context, title, wanted, check)

    def action() -> None:
        write_behind(wanted.target, wanted.behind, _read(context, wanted) if content is None else content)
        check()

    return Step(title, action=action)


def fetch_by_rsync(context: Context, title: str, wanted: Wanted, check: Callable[[], None]) -> Step:
    """Return the step that fetches by rsync; parameters are those of ``fetch_little``."""
    return Step(title, (_by_rsync(context, wanted),), action=check, explain=partial(_without_excess, context, wanted))


def _read(context: Context, wanted: Wanted) -> bytes:
    """Return what is wanted, read through the mount.

    The child process, which may hang, writes nothing: it may outlive this command, and its lock.
    """
    path = os.path.join(context.filesystem.root, context.settings.remote_file_storage, wanted.name)
    try:
        read = partial(through_mount.read, path, wanted.behind, wanted.size)
        return within(READ_SECONDS, f"reading {path}", read)
    except OSError as error:
        problem = f"can't read {path}: {error.strerror}. Run the same command again."
        raise RemoteUnusable(context.settings.remote, problem) from None


def _by_rsync(context: Context, wanted: Wanted) -> Command:
    """Return the command that fetches by rsync, and shows its pace on a terminal."""
    filesystem, settings, output = context.filesystem, context.settings, context.output
    pace = Pace(wanted.name, max(0, wanted.size - wanted.behind))

    def tell(position: int) -> None:
        output.progress(pace.line(position - wanted.behind))

    return rsync.fetch(
        filesystem.source(f"{settings.remote_file_storage}/{wanted.name}"),
        rsync.Target(wanted.target),
        filesystem.remote_shell(),
        settings.rsync_options,
        wanted.size,
        append=wanted.behind > 0,
        tells=tell if output.shows_progress else None,
    )


def _without_excess(context: Context, wanted: Wanted, error: CowStorageError) -> CowStorageError:
    """Return what an error of rsync's means; when production sent too much, nothing of that is kept."""
    if not rsync.sent_too_much(error):
        return error
    if wanted.behind:
        os.truncate(wanted.target, wanted.behind)
    elif os.path.lexists(wanted.target):
        os.unlink(wanted.target)
    size = human_size(wanted.size)
    problem = f"sends far more than the {size} that it showed of {wanted.name}; nothing of it was kept."
    return RemoteUnusable(context.settings.remote, f"{problem} Look on the server, and run the same command again.")
