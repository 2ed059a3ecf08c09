"""The kernel's own union: overlayfs, Documentation/filesystems/overlayfs.rst."""

from __future__ import annotations

from cowstorage.host import Host
from cowstorage.system import Command
from cowstorage.union import MARK, Layer, Union

# Said explicitly, since distributions change the defaults: an upper must mean the same wherever it is mounted again.
FEATURES = "index=off,metacopy=off,redirect_dir=off,xino=off,nosuid,nodev"


class Overlay(Union):
    """Mounted by root; the fastest, and the only one that costs nothing on local files."""

    name = "overlay"
    program = "mount"
    needs_root = True
    types = ("overlay",)

    def mount(self, layer: Layer, host: Host) -> Command:
        options = f"lowerdir={':'.join(layer.lower_names)},upperdir=upper,workdir=work,{FEATURES}"
        return Command(("mount", "-t", "overlay", "-o", options, "--", MARK, layer.merged), root=True, cwd=layer.links)
