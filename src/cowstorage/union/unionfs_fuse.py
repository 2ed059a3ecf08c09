"""A union without root: unionfs(8) of unionfs-fuse."""

from __future__ import annotations

import os
from typing import Optional, Tuple

from cowstorage.errors import PathUnusable
from cowstorage.host import UNIONFS_METADATA, Host
from cowstorage.system import Command
from cowstorage.union import MARK, Layer, Union


class UnionFSFuse(Union):
    """Mounted by the developer; good over a distance, slow for new BLOBs there."""

    name = "unionfs-fuse"
    program = "unionfs"
    types = ("fuse.unionfs-fuse",)
    uses_work = False
    cuts_copies_short = True

    def mount(self, layer: Layer, host: Host) -> Command:
        # nonempty: the developer's own database lies below, and libfuse 2 asks.
        options = f"cow,hide_meta_files,nonempty,fsname={MARK},subtype=unionfs-fuse"
        if host.euid == 0 and host.uid != 0:
            options += ",allow_other"
        elif host.euid != 0:
            # The same user's own access is what counts, below it; the kernel would go by the owners that are shown,
            # which on NFS are production's. Nobody else can look into the mount.
            options += ",relaxed_permissions"
        branches = ":".join(("upper=RW", *(f"{name}=RO" for name in layer.lower_names)))
        return Command(("unionfs", "-o", options, branches, layer.merged), cwd=layer.links)

    def adoption(self, layer: Layer, host: Host) -> Tuple[Command, ...]:
        # Releases differ in the name only, and the marks of the other one would be passed over.
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
    """Where this release marks deletions; ``None`` when the release is not known."""
    if version == (0, 0):
        return None
    return UNIONFS_METADATA[1] if version == (1, 0) else UNIONFS_METADATA[0]
