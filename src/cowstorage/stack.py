"""The mounts of a part, from production up to what Plone sees: what is there, and plans to lay and lift them."""

from __future__ import annotations

import os
from functools import partial
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from cowstorage import mounts, network, union
from cowstorage.context import Context
from cowstorage.errors import CommandFailed, CowStorageError, InUse, PathUnusable, RemoteUnusable
from cowstorage.mounts import Mount
from cowstorage.plan import Step
from cowstorage.settings import Settings, check_separate, local_paths
from cowstorage.system import Command

# The daemon of a FUSE union closes its lower a moment after its unmounting.
LETTING_GO_SECONDS = 3.0

MOUNTED, NOT_MOUNTED, BROKEN = "mounted", "not mounted", "broken"


class Piece(NamedTuple):
    """One mount that a part has when it is mounted.

    :param name: ``network``, ``filestorage`` or ``blobstorage``.
    :param target: its mount point.
    :param mount: what the kernel shows there.
    :param state: ``mounted``, ``not mounted`` or ``broken``.
    :param ailment: why it is broken.
    """

    name: str
    target: str
    mount: Optional[Mount]
    state: str
    ailment: str = ""


def network_targets(context: Context, settings: Settings) -> List[str]:
    """Where a part's network file system is mounted, in the order of mounting."""
    back_end = network.get(settings.filesystem)
    return [attachment.target for attachment in back_end.attachments(settings, context.host)]


def union_targets(settings: Settings) -> List[Tuple[str, str]]:
    """(storage, mount point) of each union, in the order of mounting."""
    return [
        (storage, mounts.place(settings.blob_storage if storage == "blobstorage" else str(settings.file_storage)))
        for storage in union.storages(settings)
    ]


def survey(context: Context, settings: Optional[Settings] = None, probe: bool = True) -> List[Piece]:
    """What is mounted of a part, and whether it is alive.

    :param settings: those that the mounts were made with; default: the journal's, else the part's.
    :param probe: use it, within a time limit; else only look at mountinfo.
    """
    settings = settings or context.mounted or context.settings
    now = mounts.read()
    attached = [] if is_offline(context) else network_targets(context, settings)
    seen = [("network", target, mounts.top(now, mounts.resolved(target, now))) for target in attached]
    for storage, target in union_targets(settings):
        mount = mounts.top(now, target)
        seen.append((storage, target, mount if union.ours(mount) else None))
    there = [target for _, target, mount in seen if mount]
    ailments = mounts.ailments(there, context.developer) if probe else {}
    if probe and len(there) == len(seen) and not any(ailments.values()):
        ailments = {
            target: _upper_ailment(context) for storage, target in union_targets(settings) if storage == "blobstorage"
        }
    return [_piece(name, target, mount, ailments.get(target, "")) for name, target, mount in seen]


def _piece(name: str, target: str, mount: Optional[Mount], ailment: str) -> Piece:
    if mount is None:
        return Piece(name, target, None, NOT_MOUNTED)
    if name == "network" and not ailment and not mounts.is_read_only(mount):
        ailment = "is mounted writable"
    return Piece(name, target, mount, BROKEN if ailment else MOUNTED, ailment)


def _upper_ailment(context: Context) -> str:
    from cowstorage.union import copying_up

    kind = (context.journal.mounted or {}).get("union")
    if not kind:
        return ""
    layer = union.layer(context.settings, "blobstorage", lowers(context, "blobstorage"), kind)
    return copying_up.ailment(union.get(kind), layer, context.journal.bases, context.developer)


def state_of(pieces: Sequence[Piece]) -> str:
    """The state of the whole: broken as soon as the pieces don't agree."""
    states = {piece.state for piece in pieces}
    if states == {MOUNTED}:
        return MOUNTED
    return NOT_MOUNTED if states <= {NOT_MOUNTED} else BROKEN


def lowers(context: Context, storage: str) -> Tuple[str, ...]:
    """The read-only directories below a union, topmost first: the BLOB cache, then production's.

    Production is left out where the cache has everything.
    """
    from cowstorage import cache

    local, both, production = choices_of_lowers(context, storage)
    if cache.suffices(context.settings, context.journal.bases):
        return local
    return both if cache.exists(context.settings) else production


def choices_of_lowers(context: Context, storage: str) -> Tuple[Tuple[str, ...], ...]:
    """The lowers with a cache that has everything, with one that hasn't, and without one."""
    from cowstorage import cache

    settings, place = context.settings, cache.paths(context.settings)
    root = context.network.root(settings, context.host)
    if storage == "filestorage":
        production = (os.path.join(root, settings.remote_file_storage),)
        return (place.nothing,), production, production
    production = (os.path.join(root, settings.remote_blob_storage),)
    return (place.blobs,), (place.blobs, *production), production


def is_offline(context: Context) -> bool:
    """Whether the present mounts are made without production."""
    return bool(context.journal.mounted and context.journal.mounted.get("offline"))


def by_developer(context: Context) -> bool:
    """Whether FUSE mounts are an ordinary user's, who takes them away without root."""
    return context.host.euid != 0


def attach(context: Context) -> Iterator[Step]:
    """Mount production read-only, and make sure of it."""
    settings, host, back_end = context.settings, context.host, context.network

    def explain(error: CowStorageError) -> CowStorageError:
        if isinstance(error, CommandFailed):
            return back_end.explain(settings, host, context.runner, error)
        return error

    for attachment in back_end.attachments(settings, host):
        fuse = any(kind.startswith("fuse") for kind in back_end.types)
        yield Step(
            f"Mount {settings.remote} read-only on {attachment.target}",
            attachment.commands,
            action=verifier(attachment.target),
            undo=(mounts.unmount_command(attachment.target, fuse and by_developer(context)),),
            explain=explain,
        )


def verifier(target: str) -> Callable[[], None]:
    """The first wall, as a step's action."""
    return lambda: mounts.verify_read_only(mounts.place(target))


def merge(context: Context, kind: union.Union, sample: Optional[str]) -> Iterator[Step]:
    """Lay the unions, and use them once.

    :param sample: a BLOB of production's.
    """
    from cowstorage import cache

    sample = cache.sample(context.settings, context.journal.bases, sample)
    for storage in union.storages(context.settings):
        layer = union.layer(context.settings, storage, lowers(context, storage), kind.name)
        if storage == "blobstorage":
            yield Step(f"Look at {layer.upper}", action=_upper_preparer(context, kind, layer))
        yield Step(
            f"Lay {kind.name} over {layer.merged}",
            (
                *union.preparation(layer, kind.uses_work, context.host),
                *kind.adoption(layer, context.host),
                kind.mount(layer, context.host),
            ),
            action=_prover(context, kind, layer, sample if storage == "blobstorage" else None),
            undo=(mounts.unmount_command(layer.merged, not kind.needs_root and by_developer(context)),),
            explain=lambda error: connection_lost(context) or error,
        )


def _upper_preparer(context: Context, kind: union.Union, layer: union.Layer) -> Callable[[], None]:
    def action() -> None:
        from cowstorage.union import copying_up

        for said in copying_up.prepare(kind, layer, context.journal.bases, context.developer):
            context.output.warn(said)

    return action


def _prover(context: Context, kind: union.Union, layer: union.Layer, sample: Optional[str]) -> Callable[[], None]:
    def action() -> None:
        from cowstorage.union.choice import prove

        prove(kind, layer, sample, context.developer)
        context.journal.uppers[layer.storage] = kind.name
        for target in () if is_offline(context) else network_targets(context, context.settings):
            mounts.verify_read_only(mounts.place(target))

    return action


def check_room(layer: union.Layer) -> None:
    """overlayfs wants upper and work on one file system; a rename into the upper wants it, too.

    :raises PathUnusable: they are on two.
    """
    upper, location = existing(layer.upper), existing(layer.links)
    if os.stat(upper).st_dev != os.stat(location).st_dev:
        raise PathUnusable(
            layer.upper, f"is not on the file system of {location}. Set location to a directory beside it."
        )


def check_places(context: Context) -> None:
    """The part's directories are apart from each other whatever links lead to them, and its uppers are the developer's.

    :raises SettingsError: two are one, or lie in each other.
    :raises PathUnusable: an upper belongs to somebody else.
    """
    now = mounts.read()
    paths = {option: mounts.resolved(path, now) for option, path in local_paths(context.settings).items()}
    check_separate(paths)
    for storage in union.storages(context.settings):
        upper = union.layer(context.settings, storage, (), "").upper
        owner = os.stat(upper).st_uid if os.path.exists(upper) else context.host.uid
        if owner not in (context.host.uid, context.host.euid):
            raise PathUnusable(upper, f"belongs to {user_name(owner)}. What is in it is not yours: move it away.")


def user_name(uid: int) -> str:
    """For people."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def existing(path: str) -> str:
    """The path, or the nearest directory above it that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.path.realpath(path)


def lift_unions(context: Context, settings: Settings, lazy: bool = False) -> Iterator[Step]:
    """Take the unions away, those of an interrupted trial included; whatever isn't ours stays."""
    from cowstorage.union.choice import trial_directory

    targets = union_targets(settings)
    targets.append(("trial", os.path.join(os.path.realpath(trial_directory(settings.location)), "merged")))
    for storage, target in targets[::-1]:
        for mount in mounts.at_or_below(mounts.read(), target):
            if mount.target == target and union.ours(mount):
                step = _lift(context, mount, lazy, laid_again(context, settings, storage))
                yield step._replace(undo_unless=partial(_why_not_laid, context, settings, target))


def laid_again(context: Context, settings: Settings, storage: str) -> Tuple[Command, ...]:
    """The command that laid a union of ours, as far as the journal knows; its links are still in place."""
    kind = (context.journal.mounted or {}).get("union")
    if not kind or storage == "trial":
        return ()
    return (union.get(kind).mount(union.layer(settings, storage, lowers(context, storage), kind), context.host),)


def _why_not_laid(context: Context, settings: Settings, target: str) -> str:
    """Why a union can't, or needn't, be laid again; empty when it is to be."""
    if union.ours(mounts.top(mounts.read(), target)):
        return "it is still mounted"
    return lost(context, settings)


def _why_not_mounted(target: str) -> str:
    return "it is still mounted" if mounts.top(mounts.read(), target) else ""


def lost(context: Context, settings: Settings) -> str:
    """Why production can't be seen through its mount; empty when it can, or is not needed."""
    now = mounts.read()
    targets = [] if is_offline(context) else [mounts.resolved(path, now) for path in network_targets(context, settings)]
    if not all(mounts.top(now, target) for target in targets):
        return "production is not mounted any more"
    return "; ".join(mounts.ailments(targets, context.developer).values())


def connection_lost(context: Context) -> Optional[RemoteUnusable]:
    """The error that is the reason for others."""
    reason = lost(context, context.settings)
    if not reason:
        return None
    return RemoteUnusable(
        context.settings.remote, f"the connection was lost: {reason}. Run the same command again when it is back."
    )


def detach(context: Context, settings: Settings, lazy: bool = False) -> Iterator[Step]:
    """Take production's mounts away."""
    back_end = network.get(settings.filesystem)
    for attachment in back_end.attachments(settings, context.host)[::-1]:
        for mount in mounts.at_or_below(mounts.read(), mounts.place(attachment.target)):
            step = _lift(context, mount, lazy, attachment.commands)
            yield step._replace(
                patience=LETTING_GO_SECONDS,
                undo_unless=partial(_why_not_mounted, mount.target),
            )
    if not lazy:
        yield Step(
            f"Wait for {settings.filesystem} to end",
            action=lambda: network.get(settings.filesystem).after_unmount(settings),
        )


def _lift(context: Context, mount: Mount, lazy: bool, undo: Tuple[Command, ...]) -> Step:
    def explain(error: CowStorageError) -> Optional[CowStorageError]:
        if mounts.top(mounts.read(), mount.target) is None:
            # Without reconnect, sshfs unmounts itself when the connection is lost.
            return None
        if isinstance(error, CommandFailed) and "busy" in error.output.lower():
            from cowstorage import in_use

            unions = [target for _, target in union_targets(context.mounted or context.settings)]
            return InUse([mount.target], in_use.reasons(mount.target, unions))
        return error

    command: Command = mounts.unmount_of(mount, context.host.euid, lazy)
    return Step(f"Unmount {mount.target}", (command,), undo=undo, explain=explain)


def refuse_in_use(context: Context, settings: Settings, with_network: bool) -> None:
    """Stop before anything is touched when something is open.

    :raises InUse: naming the processes.
    """
    now = mounts.read()
    targets = [target for _, target in union_targets(settings)]
    if with_network:
        targets += [mounts.resolved(target, now) for target in network_targets(context, settings)]
    mounted = [target for target in targets if mounts.top(now, target)]
    locks = []
    if settings.file_storage and mounts.place(settings.file_storage) in mounted:
        locks = [os.path.join(settings.file_storage, name + ".lock") for name in context.journal.bases]
    if mounted:
        from cowstorage import in_use

        in_use.refuse(mounted, locks)
