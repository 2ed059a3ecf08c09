"""The older kernel union: aufs(5), where the kernel has it."""

from __future__ import annotations

import os
from typing import Optional

from cowstorage.host import Host
from cowstorage.system import Command
from cowstorage.union import MARK, Layer, Union


class Aufs(Union):
    """Mounted by root; for kernels that carry it and have no overlayfs.

    A branch is ``ro`` when it has no marks of deletion, which production's never has.  The default ``udba=reval``
    looks for changes below it at each access.
    """

    name = "aufs"
    program = "mount"
    needs_root = True
    types = ("aufs",)
    uses_work = False

    def unsuited(self, layer: Layer) -> Optional[str]:
        # Branch Syntax: not allowed in a path, and there is no escape; it shows the links' targets to its own tools.
        for path in (layer.upper, *layer.lowers):
            if any(character in os.path.realpath(path) for character in ",:="):
                return f"can't take a path with a comma, a colon or an equals sign in it: {path}"
        return None

    def mount(self, layer: Layer, host: Host) -> Command:
        branches = ":".join(("upper=rw", *(f"{name}=ro" for name in layer.lower_names)))
        options = f"br:{branches},nosuid,nodev"
        return Command(("mount", "-t", "aufs", "-o", options, "--", MARK, layer.merged), root=True, cwd=layer.links)
