"""A union without root: unionfs(8) of unionfs-fuse."""

from __future__ import annotations

import os
from typing import ClassVar, Optional, Tuple

from cowstorage.errors import PathUnusable
from cowstorage.part.host import UNIONFS_METADATA, Host
from cowstorage.system.programs import Command
from cowstorage.union.base import MARK, SAFE_OPTIONS, Layer, Union


class UnionFSFuse(Union):
    """The union unionfs-fuse, mounted by the developer; good over a distance, but slow for new BLOBs there."""

    name = "unionfs-fuse"
    programs: ClassVar = {"unionfs": "unionfs-fuse"}
    daemons = ("unionfs", "unionfs-fuse")
    types = ("fuse.unionfs-fuse",)
    uses_work = False
    cuts_copies_short = True

    def mount(self, layer: Layer, host: Host) -> Command:
        # nonempty: the developer's own database is in the directory, and libfuse 2 refuses such one without the option.
        # libfuse 3, of release 3, knows no such option and allows what it said: a fallback does without.
        ours: Tuple[str, ...] = ("cow", "hide_meta_files", f"fsname={MARK}", "subtype=unionfs-fuse", *SAFE_OPTIONS)
        if host.uid != 0:
            # Access to the lowers is checked for the developer, whose process serves the mount.  The kernel would check
            # by the owners that are shown, which on NFS are production's.  Other users can't access the mount at all.
            ours = (*ours, "relaxed_permissions")
        branches = ":".join(("upper=RW", *(f"{name}=RO" for name in layer.lower_names)))
        old, new = (
            ("unionfs", "-o", ",".join(options), branches, layer.merged) for options in ((*ours, "nonempty"), ours)
        )
        return Command(old, cwd=layer.links, fallback=new, fallback_when="nonempty")

    def adoption(self, layer: Layer, host: Host) -> Tuple[Command, ...]:
        # Releases differ in the directory's name only, and each ignores the whiteouts of the other.
        there = [name for name in UNIONFS_METADATA if os.path.isdir(os.path.join(layer.upper, name))]
        name = metadata_name(host.unionfs)
        if name is None or there in ([], [name]):
            return ()
        if len(there) > 1:
            raise PathUnusable(
                layer.upper,
                f"holds {' and '.join(there)}: two releases of unionfs-fuse have marked deletions in it. "
                "Run cow-sync, which gives local changes up.",
            )
        return (Command(("mv", "-T", "--", *(os.path.join(layer.upper, one) for one in (there[0], name)))),)


def metadata_name(version: Tuple[int, int]) -> Optional[str]:
    """Return the name of the directory with a release's whiteouts; ``None`` when the release is not known.

    :param version: the first two numbers of the release, ``Host.unionfs``.
    """
    if version == (0, 0):
        return None
    return UNIONFS_METADATA[1] if version == (1, 0) else UNIONFS_METADATA[0]
