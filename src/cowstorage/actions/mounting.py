"""Plans that mount and unmount the unions, over production that is mounted or with it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Iterator, List, Optional, Sequence, Tuple

from cowstorage.actions import preflight, production_mount, survey
from cowstorage.actions.context import Context
from cowstorage.actions.layers import layer_of_part
from cowstorage.actions.plan import Plan, Step
from cowstorage.errors import CowStorageError, RemoteUnusable
from cowstorage.part import blob_cache, eviction
from cowstorage.part.settings import Settings, to_script
from cowstorage.production.look import Production
from cowstorage.system import mounts, whereabouts
from cowstorage.system.output import counted, human_size
from cowstorage.system.programs import Command
from cowstorage.system.time_limits import within
from cowstorage.union import copy_up, kinds, trial
from cowstorage.union.base import (
    Layer,
    Union,
    is_prepared,
    layer_of,
    merged_storages,
    preparation,
    without_links,
)

# What ZODB opens for writing beside each FileStorage, ``FileStorage.__init__``.
OPENED = (".lock", ".tmp")


def mount_production_below(context: Context, seen: survey.Survey) -> Iterator[Step]:
    """Mount production where its mount has gone by itself, and only then unmount the unions that lie over the dead one.

    When production can't be reached the unions stay: their Data.fs is still production's, and not the developer's own.
    What is mounted stays when a later step fails, and the unions are laid over it again.
    """
    for step in production_mount.mount_production(context):
        yield step._replace(keeps=True)
    yield from unmount_unions(context, seen.made_with)


def has_lost_production(seen: survey.Survey) -> bool:
    """Tell whether the unions of these settings are mounted, and production's mount below them is not.

    sshfs ends, and its mount with it, when the connection is lost.
    """
    return seen.as_configured and not seen.offline and seen.has_unions and not seen.has_network and bool(seen.network)


@contextmanager
def unmounting_is_said(context: Context) -> Iterator[None]:
    """Warn when a command fails and leaves unmounted what was mounted: an instance would open another database.

    Which command is to be run first is told with it.
    """
    before = survey.take(context, probe=False)
    try:
        yield
    except BaseException:
        now = mounts.read()
        gone = [one.target for one in before.unions if one.mount and not kinds.ours(mounts.top(now, one.target))]
        if gone:
            unfinished = context.journal.unfinished
            first = f"{unfinished['again']} again" if unfinished else context.script("mount")
            context.output.warn(
                f"nothing of production's is mounted on {' and '.join(gone)} any more: an instance that is started now "
                f"opens your own database. Before anything else run {first}."
            )
        raise


# Unions


def mount_unions(context: Context, union: Union, production: Production) -> Iterator[Step]:
    """Mount the unions, use each once, and hide what was not fetched.

    :param production: its sample is read through the union, its FileStorages are hidden where they have no copy here.
    """
    bases = context.journal.bases
    sample = blob_cache.sample(context.settings, bases, production.sample)
    for storage in merged_storages(context.settings):
        layer = layer_of_part(context, storage, union)
        is_blobs = storage == "blobstorage"
        if is_blobs:
            yield from make_room(context)
            yield Step(f"Look at {layer.upper}", action=partial(_prepare_upper, context, union, layer))
        else:
            yield from _make_opened(context)
        yield Step(
            f"Lay {union.name} over {layer.merged}",
            (
                *(() if is_prepared(layer, union.uses_work) else preparation(layer, union.uses_work)),
                *union.adoption(layer, context.host),
                *mount_commands(context, union, layer),
            ),
            action=partial(_prove, context, union, layer, sample, tuple(production.storages)),
            undo=(mounts.unmount_command(layer.merged, not union.needs_root and context.by_developer),),
            explain=lambda error: production_mount.connection_lost(context) or error,
        )
    if context.settings.file_storage:
        names = sorted(production.storages)
        yield Step("Hide FileStorages that were not fetched", action=partial(_hide_unfetched, context, names))


def mount_commands(context: Context, union: Union, layer: Layer) -> Tuple[Command, ...]:
    """Return the commands that mount one union; where root mounts it, the kernel follows no link below it."""
    mounted = union.mount(layer, context.host)
    by_root = union.needs_root or context.host.euid == 0
    return (mounted, without_links(layer)) if by_root else (mounted,)


def make_room(context: Context) -> Iterator[Step]:
    """Make room in a full BLOB cache, while no union lies over it."""
    settings = context.settings
    if eviction.is_full(settings) and not blob_cache.suffices(settings, context.journal.bases):
        yield Step("Drop the BLOBs that were read least recently", action=partial(_drop_blobs, context))


def _drop_blobs(context: Context) -> None:
    dropped = eviction.make_room(context.settings)
    if dropped.files:
        context.output.say(
            f"Dropped {counted(dropped.files, 'BLOB')} read least recently, {human_size(dropped.size)}, since "
            "cache-size allows no more."
        )


def _make_opened(context: Context) -> Iterator[Step]:
    """Make, empty, what ZODB opens beside a FileStorage, where the upper has none.

    The kernel's overlay copies a file up that is opened for writing: production's, which nobody wants.  Opening Data.fs
    took five round trips so.
    """
    storages = [context.paths(name).local for name in sorted(context.journal.bases)]
    paths = [path + suffix for path in storages if os.path.exists(path) for suffix in OPENED]
    missing = tuple(path for path in paths if not os.path.lexists(path))
    if missing:
        yield Step("Make what ZODB opens beside Data.fs", (Command(("touch", "--", *missing)),))


def _prepare_upper(context: Context, union: Union, layer: Layer) -> None:
    # A copy that was cut short is the writer's, whichever union is laid now.
    writer = kinds.UNIONS.get(context.journal.uppers.get(layer.storage, ""), union)
    for said in copy_up.prepare(writer, layer, context.journal.bases, context.developer):
        context.output.warn(said)


def _prove(context: Context, union: Union, layer: Layer, sample: Optional[str], storages: Tuple[str, ...]) -> None:
    # Those without a local copy are hidden: nobody opens them.
    names = [name for name in storages if os.path.exists(context.paths(name).local)]
    trial.prove(union, layer, trial.use_of(layer.storage, sample, names), context.developer)
    note_writer(context, union.name)
    if layer.storage == "blobstorage" and context.journal.is_outdated and context.journal.mounted:
        context.journal.mounted["outdated"] = False
    if layer.storage == merged_storages(context.settings)[-1]:
        context.save()
    if not context.journal.is_offline:
        for target in context.filesystem.targets:
            production_mount.verify_read_only(target)


def _hide_unfetched(context: Context, storages: List[str]) -> None:
    """Remove each FileStorage that has no local copy, and each link, through the union.

    A FileStorage that is opened by accident would be copied up whole, live, and perhaps torn.  What is written through
    a link of production's, such as a Data.fs.tmp that leads elsewhere, would be written where it leads.
    """
    now = mounts.read()
    merged = mounts.resolve(str(context.settings.file_storage), now)
    if not kinds.ours(mounts.top(now, merged)):
        raise RemoteUnusable(merged, "shows no union any more.")
    hidden = [name for name in storages if not os.path.exists(context.paths(name).local)]
    links: List[str] = []
    # Where the server follows links, production's directory needn't be listed once more.
    if hidden or context.filesystem.shows_links:
        # As the developer for good: FUSE looks at all of a process's user ids, fuse_allow_current_process in
        # fs/fuse/dir.c.
        remove = partial(_remove_from, merged, hidden)
        links = within(trial.TRIAL_SECONDS, f"hiding files in {merged}", remove, context.developer)
    if links:
        context.output.warn(f"Links of production's are hidden, since they lead elsewhere: {', '.join(links)}")
    if context.journal.mounted:
        context.journal.mounted["hidden"] = hidden
        context.save()


def _remove_from(merged: str, names: List[str]) -> List[str]:
    """Remove files of these names, and all links, from a directory; return the names of the links."""
    with os.scandir(merged) as entries:
        found = {entry.name: entry.is_symlink() for entry in entries}
    links = sorted(name for name, is_link in found.items() if is_link and name not in names)
    for name in (*(name for name in names if name in found), *links):
        os.unlink(os.path.join(merged, name))
    return links


def mount_unions_again(context: Context) -> Iterator[Step]:
    """Mount the unions as they were before, without a look at production.

    :raises CowStorageError: the journal doesn't say how they were mounted.
    """
    made = context.journal.mounted or {}
    if context.journal.union not in kinds.UNIONS:
        raise CowStorageError(f"How the unions were laid is not known. Run {context.script('mount')}.")
    known = Production(dict.fromkeys(made["storages"], 0), {}, context.journal.sample)
    yield from mount_unions(context, kinds.UNIONS[context.journal.union], known)


def lay_again(context: Context, seen: survey.Survey) -> Plan:
    """Unmount the unions and mount them again as they were: a union doesn't see what changes below it."""
    return chain(unmount_unions(context, seen.made_with), mount_unions_again(context))


def unmount_unions(context: Context, made_with: Settings, lazy: bool = False, waits: bool = False) -> Iterator[Step]:
    """Unmount the unions, those of an interrupted trial included; whatever isn't ours stays.

    :param waits: until the kernel has let go of what lies below them, too, which takes as long as the disk is busy.
    """
    trials = os.path.join(os.path.realpath(trial.trial_directory(made_with.location)), "merged")
    targets = [*survey.union_targets(made_with), ("trial", trials)]
    for storage, target in targets[::-1]:
        for mount in mounts.at_or_below(mounts.read(), target):
            if mount.target == target and kinds.ours(mount):
                undo = _mount_command(context, made_with, storage)
                step = production_mount.unmount(
                    context, made_with, mount, lazy, undo, waits=waits or not kinds.writes_out(mount)
                )
                yield step._replace(undo_unless=partial(_why_not_mounted_again, context, made_with, target))


def _mount_command(context: Context, made_with: Settings, storage: str) -> Tuple[Command, ...]:
    """Return the command that mounted a union, as far as the journal knows; its links are still in place."""
    union = kinds.UNIONS.get(context.journal.union)
    if not union or storage == "trial":
        return ()
    lowers = layer_of_part(context, storage, union).lowers
    return mount_commands(context, union, layer_of(made_with, storage, lowers, union.name))


def _why_not_mounted_again(context: Context, made_with: Settings, target: str) -> str:
    """Return why a union can't, or needn't, be mounted again; empty when it is to be."""
    if kinds.ours(mounts.top(mounts.read(), target)):
        return "it is still mounted"
    return production_mount.lost(context, made_with)


# Both


def unmount_all(context: Context, made_with: Settings, stays_connected: bool = False) -> Plan:
    """Unmount the unions, then production; parameters are those of ``unmount_production``.

    Production's mount ends when no union lies over it any more: mounted anew before, NFS and CIFS would show what they
    have in their caches.
    """
    production = production_mount.unmount_production(context, made_with, stays_connected=stays_connected)
    return chain(unmount_unions(context, made_with, waits=True), production)


def note_writer(context: Context, union: str) -> None:
    """Note in the journal, with its next writing, which union writes the uppers."""
    context.journal.uppers.update(dict.fromkeys(merged_storages(context.settings), union))


def note_mounted(
    context: Context,
    production: Production,
    union: str = "",
    tried: Sequence[Tuple[str, str]] = (),
    offline: bool = False,
    alone: bool = False,
) -> Step:
    """Write into the journal how the mounts are made, before they are: whatever happens, they can be unmounted.

    :param tried: unions before the chosen one, and why not.
    :param alone: production without unions.
    """

    def action() -> None:
        context.journal.mounted = {
            "settings": to_script(context.settings),
            "union": union,
            "tried": [list(pair) for pair in tried],
            "sample": production.sample,
            "storages": sorted(production.storages),
            "hidden": [],
            "offline": offline,
            "alone": alone,
            "where": whereabouts.here(),
        }
        if union:
            note_writer(context, union)
        context.save()

    return Step("Note how the mounts are made", action=action)


def note_unmounted(context: Context) -> Step:
    """Write into the journal that nothing is mounted."""

    def action() -> None:
        context.journal.mounted = None
        context.save()

    return Step("Note that nothing is mounted", action=action)


@contextmanager
def unions_unmounted(context: Context) -> Iterator[None]:
    """Unmount the unions for the time, and mount them again: a union doesn't see what changes below it.

    :raises InUse: naming the processes.
    """
    seen = survey.take(context, probe=False)
    if not seen.has_unions:
        yield
        return
    preflight.refuse_in_use(context, seen, with_network=False)
    context.execution().run(unmount_unions(context, seen.made_with))
    try:
        yield
    finally:
        context.run(mount_unions_again(context))
