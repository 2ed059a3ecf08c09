"""The kernel's own union: overlayfs, kernel document Documentation/filesystems/overlayfs.rst."""

from __future__ import annotations

from typing import ClassVar

from cowstorage.part.host import Host
from cowstorage.system.programs import Command
from cowstorage.union.base import MARK, SAFE_OPTIONS, Layer, Union

# Set explicitly, since distributions change the defaults: an upper must mean the same wherever it is mounted again.
# With redirect_dir=off a kernel whose redirect_always_follow is on follows redirects, measured, though it makes none;
# an upper that was written with off has none, and is read the same with nofollow, measured.
FEATURES = "index=off,metacopy=off,redirect_dir=nofollow,xino=off"


class Overlay(Union):
    """The union overlay, mounted by root; the fastest, and the only one without overhead on local files."""

    name = "overlay"
    programs: ClassVar = {"mount": "mount"}
    needs_root = True
    types = ("overlay",)
    # fs/overlayfs/super.c, ovl_sync_fs: 0.4 s became 3.4 beside a program that was writing.
    writes_out = True

    def mount(self, layer: Layer, host: Host) -> Command:
        directories = f"lowerdir={':'.join(layer.lower_names)},upperdir=upper,workdir=work"
        options = ",".join((directories, FEATURES, *SAFE_OPTIONS))
        return Command(("mount", "-t", "overlay", "-o", options, "--", MARK, layer.merged), root=True, cwd=layer.links)
