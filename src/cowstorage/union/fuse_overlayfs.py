"""overlayfs without root: fuse-overlayfs(1)."""

from __future__ import annotations

import os
from typing import Optional

from cowstorage.host import Host
from cowstorage.mounts import Mount
from cowstorage.system import Command
from cowstorage.union import Layer, Union


class FuseOverlayFS(Union):
    """Mounted by the developer; good on local directories, unusable over a distance."""

    name = "fuse-overlayfs"
    program = "fuse-overlayfs"
    types = ("fuse.fuse-overlayfs",)

    def unsuited(self, layer: Layer) -> Optional[str]:
        # It resolves the links first and splits at colons afterwards.
        for path in (*layer.lowers, layer.upper, layer.work):
            if ":" in os.path.realpath(path):
                return f"can't take a path with a colon in it: {path}"
        return None

    def mount(self, layer: Layer, host: Host) -> Command:
        options = f"lowerdir={':'.join(layer.lower_names)},upperdir=upper,workdir=work"
        if host.euid == 0 and host.uid != 0:
            options += ",allow_other"
        elif host.euid != 0:
            # A file system that shows production's owners (NFS) would have the kernel refuse what the server allows.
            options += f",squash_to_uid={host.uid},squash_to_gid={host.gid}"
        return Command(("fuse-overlayfs", "-o", options, layer.merged), cwd=layer.links)

    def owns(self, mount: Mount) -> bool:
        # It ignores fsname=: the source is always its own name.
        return mount.type in self.types and mount.source == self.name
