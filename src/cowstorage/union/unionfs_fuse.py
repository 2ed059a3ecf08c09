"""A union without root: unionfs(8) of unionfs-fuse."""

from __future__ import annotations

from cowstorage.host import Host
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
