"""The part's directories here are apart from production's, and are what they are called: no links.

Whoever may write into var can put a link, or a bind mount, in the place of a directory, and a script would then change
what is behind it.  So this is looked at by each command that changes anything, not only when the part is built.
"""

from __future__ import annotations

import os
import stat
from typing import Iterator, Sequence, Tuple

from cowstorage.actions.context import Context
from cowstorage.errors import PathUnusable
from cowstorage.part.settings import Settings, local_paths
from cowstorage.system import mounts
from cowstorage.system.files import is_inside, user_name
from cowstorage.system.mounts import Mount
from cowstorage.union import kinds
from cowstorage.union.base import merged_path, merged_storages

# What the part has in location, below which files are written, moved or removed.
OWN_DIRECTORIES = (
    *("base", "cache", "cache/blobstorage", "cache/incoming", "cache/nothing", "cache/rclone", "incoming", "layers"),
    *("savepoints", "trash", "trial", "trial/layers", "trial/upper", "work"),
)


def refuse_links_and_production(context: Context, location_only: bool = False) -> None:
    """Refuse directories of the part that are links, are production's, or, for root, are not the developer's.

    :param location_only: look at no other directory.
    :raises PathUnusable: for the first such directory.
    """
    for path in (context.settings.location,) if location_only else own_directories(context.settings):
        if os.path.islink(path):
            leads = os.readlink(path)
            raise PathUnusable(
                path,
                f"is a link, to {leads}, where things would be moved and removed. Put a directory in its place; to use "
                "another disk, set location, or file-storage and blob-storage, to a directory there.",
            )
    _refuse_production(context, mounts.read(), location_only)
    if context.host.for_another and not location_only:
        _refuse_mount_points_of_others(context)


def own_directories(settings: Settings) -> Iterator[str]:
    """Yield the directories that the part writes, moves or removes in, and the files that it cuts."""
    yield settings.location
    for name in OWN_DIRECTORIES:
        yield os.path.join(settings.location, name)
    yield settings.blob_upper
    if settings.file_storage:
        yield settings.file_upper
        for directory in (
            settings.file_upper,
            *(os.path.join(settings.location, name) for name in ("base", "incoming")),
        ):
            for name in os.listdir(directory) if os.path.isdir(directory) else ():
                if name.endswith((".fs", ".fs.index")):
                    yield os.path.join(directory, name)


def _refuse_production(context: Context, now: Sequence[Mount], location_only: bool) -> None:
    # The part's own mounts lie over its directories: what is below them counts.
    ours = set(context.filesystem_of(context.made_with).targets)
    below = [mount for mount in now if mount.target not in ours and not kinds.ours(mount)]
    productions = {
        path: device_and_path(mounts.resolve(path, now), now) for path in context.filesystem.local_directories()
    }
    for option, path in local_paths(context.settings).items():
        if location_only and option != "location":
            continue
        # Resolved by all mounts: nobody is asked what a mount point of ours is, which takes a round trip, or hangs.
        here = device_and_path(mounts.resolve(path, now), below)
        for production, there in productions.items():
            if _overlap(here, there):
                raise PathUnusable(
                    path,
                    f"the {option} of the part, is production's {production} or lies in it, by a link or a mount: it "
                    "would be changed. Give the part directories of its own.",
                )


def device_and_path(path: str, now: Sequence[Mount]) -> Tuple[str, str]:
    """Return the device of a path, and its path on that device: the same by whatever link or bind mount it is reached.

    :param path: with its symbolic links resolved.
    :param now: the mounts that count, proc_pid_mountinfo(5).
    """
    # The later of two at one place covers the earlier.
    under = [mount for mount in now if is_inside(path, mount.target)]
    deepest = max(enumerate(under), key=lambda item: (len(item[1].target), item[0]), default=None)
    if deepest is None:
        return "", path
    mount = deepest[1]
    relative = os.path.relpath(path, mount.target)
    return mount.device, os.path.normpath(os.path.join(mount.root, relative))


def _overlap(one: Tuple[str, str], other: Tuple[str, str]) -> bool:
    return one[0] == other[0] and (is_inside(one[1], other[1]) or is_inside(other[1], one[1]))


def _refuse_mount_points_of_others(context: Context) -> None:
    """Refuse to have root mount on what isn't the developer's: it would hide it from everybody."""
    settings = context.settings
    points = [merged_path(settings, storage) for storage in merged_storages(settings)]
    now = mounts.read()
    for path in (*points, settings.mount_point):
        target = mounts.resolve(path, now)
        if mounts.top(now, target):
            continue
        try:
            status = os.lstat(target)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != context.host.uid:
            raise PathUnusable(
                path, f"leads to {target}, of {user_name(status.st_uid)}: root does not mount there for somebody else."
            )
