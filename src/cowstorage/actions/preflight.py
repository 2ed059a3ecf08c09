"""What must be so before a command touches anything; each function refuses with the reason and the way out."""

from __future__ import annotations

import os
from typing import List

from cowstorage.actions.context import Context
from cowstorage.actions.survey import Survey, union_targets
from cowstorage.errors import CowStorageError, MountedElsewhere, PathUnusable, Unfinished
from cowstorage.part import blob_cache
from cowstorage.part.settings import check_separate, local_paths
from cowstorage.production.look import look
from cowstorage.system import mounts, whereabouts
from cowstorage.system.files import existing, user_name
from cowstorage.system.installed import require_program
from cowstorage.system.time_limits import ROOT, within
from cowstorage.union import kinds
from cowstorage.union.base import Layer, layer_of, merged_storages

LOOK_SECONDS = 15.0


def refuse_unfinished(context: Context) -> None:
    """Refuse while the database is in the middle of a change: it is not shown to Plone.

    :raises Unfinished: naming the command that finishes the change.
    """
    unfinished = context.journal.unfinished
    if unfinished:
        raise Unfinished(
            unfinished["command"],
            f"Run {unfinished['again']} again; or {context.script('rollback')}, which needs no network.",
        )


def refuse_mounted_elsewhere(context: Context) -> None:
    """Refuse while the part is mounted on another machine, or in a container, and may be in use there.

    Two unions on one upper, and two ZODBs on one Data.fs, each believe that nobody else writes.

    :raises MountedElsewhere: naming where, and the ways out.
    """
    noted = (context.journal.mounted or {}).get("where")
    if not noted:
        return
    # Root sees the namespaces of all processes.
    others = within(LOOK_SECONDS, "looking at mount namespaces in /proc", lambda: whereabouts.others_in(noted), ROOT)
    if others:
        raise MountedElsewhere(context.made_with.remote, others, context.script("umount"))


def check(context: Context) -> None:
    """Refuse where something is missing that mounting or fetching needs.

    :raises CowStorageError: naming what is missing.
    """
    check_rsync()
    problem = context.filesystem.problem()
    if problem:
        raise unusable(context, problem)
    check_directories(context)
    refuse_others(context)
    for storage in merged_storages(context.settings):
        check_one_disk(layer_of(context.settings, storage, (), ""))
    if not context.filesystem.is_remote and not context.filesystem.maps_owner:
        # Local, so it can be looked at before anything is mounted.
        look(context.filesystem, context.settings.remote)


def unusable(context: Context, problem: str) -> CowStorageError:
    """Return the error that says why production can't be mounted here."""
    return CowStorageError(f"filesystem = {context.settings.filesystem}: {problem}")


def check_rsync() -> None:
    """Refuse where rsync is missing, or would take options from elsewhere than from us.

    :raises CowStorageError: naming what is missing, or in the way.
    """
    from cowstorage.production import rsync  # start-up

    require_program("rsync")
    rsync.refuse_aliases()


def check_offline(context: Context) -> None:
    """Refuse to do without production where anything is missing here.

    :raises CowStorageError: naming what is missing.
    """
    refuse_others(context)
    bases = context.journal.bases
    # Each of 1,000,000 files takes 105 s; cow-prefetch has looked at each.
    gap = blob_cache.Complete(context.settings).gap(bases, blob_cache.SAMPLES)
    if not bases or not all(os.path.exists(context.paths(name).local) for name in bases):
        gap = "Data.fs is not"
    if gap:
        advice = f"Run {context.script('prefetch')} while production can be reached."
        raise CowStorageError(f"--offline needs everything to be here, but {gap}. {advice}")


def check_one_disk(layer: Layer) -> None:
    """Refuse an upper on another file system than ``location``: overlayfs wants upper and work on one.

    So does a rename into the upper.

    :raises PathUnusable: upper and work are on two.
    """
    upper, location = existing(layer.upper), existing(layer.links)
    if os.stat(upper).st_dev != os.stat(location).st_dev:
        raise PathUnusable(
            layer.upper, f"is not on the file system of {location}. Set location to a directory beside it."
        )


def check_directories(context: Context) -> None:
    """Refuse directories of the part that are not apart, whatever links lead to them, and uppers of somebody else.

    :raises SettingsError: two are one, or lie in each other.
    :raises PathUnusable: an upper belongs to somebody else.
    """
    now = mounts.read()
    check_separate({option: mounts.resolve(path, now) for option, path in local_paths(context.settings).items()})
    for storage in merged_storages(context.settings):
        upper = layer_of(context.settings, storage, (), "").upper
        owner = os.stat(upper).st_uid if os.path.exists(upper) else context.host.uid
        if owner not in (context.host.uid, context.host.euid):
            raise PathUnusable(upper, f"belongs to {user_name(owner)}. What is in it is not yours: move it away.")


def refuse_others(context: Context) -> None:
    """Refuse to touch another buildout's directories.

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
        now = mounts.read()
        for storage, target in union_targets(context.settings):
            if kinds.ours(mounts.top(now, target)):
                raise PathUnusable(
                    target,
                    "is mounted already, and not by this part: by another buildout with the same directories. "
                    f"Run cow-umount there, or set {storage.replace('storage', '-storage')} here.",
                )


def refuse_in_use(context: Context, seen: Survey, with_network: bool, with_uppers: bool = True) -> None:
    """Refuse before anything is touched when something is open.

    :param with_network: production's mounts, too.
    :param with_uppers: the uppers, too, which are to be changed, and may be open without a union.
    :raises InUse: naming the processes.
    """
    from cowstorage.system import in_use  # start-up

    now = mounts.read()
    targets = [one.target for one in seen.unions]
    if with_network:
        targets += [mounts.resolve(target, now) for target in context.filesystem_of(seen.made_with).targets]
    mounted = [target for target in targets if mounts.top(now, target)]
    file_storage = seen.made_with.file_storage
    uppers: List[str] = []
    directories: List[str] = []
    if with_uppers:
        found = (layer_of(seen.made_with, storage, (), "").upper for storage in merged_storages(seen.made_with))
        uppers = [upper for upper in found if os.path.isdir(upper)]
        # Who opens the upper without any union locks the file there.
        directories = [seen.made_with.file_upper] if file_storage else []
    if file_storage and mounts.resolve(file_storage, now) in mounted:
        directories.append(file_storage)
    # Who locks one through a union has it in the upper; to open it there would copy production's.
    names = [f"{name}.lock" for name in context.journal.bases]
    here = [name for name in names if os.path.exists(os.path.join(seen.made_with.file_upper, name))]
    locks = [os.path.join(path, name) for path in directories for name in here]
    in_use.refuse([*mounted, *uppers], context.daemons, locks)
