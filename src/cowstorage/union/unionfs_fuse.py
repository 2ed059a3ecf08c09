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

    def mount(self, layer: Layer, host: Host) -> Command:
        # nonempty: the developer's own database lies below, and libfuse 2 asks.
        options = f"cow,hide_meta_files,nonempty,fsname={MARK},subtype=unionfs-fuse"
        if host.euid == 0 and host.uid != 0:
            options += ",allow_other"
        branches = ":".join(("upper=RW", *(f"{name}=RO" for name in layer.lower_names)))
        return Command(("unionfs", "-o", options, branches, layer.merged), cwd=layer.links)
