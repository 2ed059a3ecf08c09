"""The older kernel union: aufs(5), where the kernel has it."""

from __future__ import annotations

from typing import ClassVar, Optional

from cowstorage.part.host import Host
from cowstorage.part.settings import Settings
from cowstorage.system.programs import Command
from cowstorage.union.base import MARK, SAFE_OPTIONS, Layer, Union

# nolwh: whiteouts are no hard links, so that nothing of root's lies in an upper but an empty directory, which its
# developer can remove. noplink: nor do the files there that had more than one name on production, as in a backup of
# hard links. noxino: the table of inode numbers would lie on the upper's disk, and when that is full production can't
# be read, ENOSPC for 1,796 of 2,000 files, measured; its price is that inode numbers change when caches are dropped.
UPPER = "upper=rw+nolwh"
OPTIONS = ("noplink", "noxino")

# What mount(8) says when aufs refuses, before and from util-linux 2.39 on.
REFUSAL_WORDS = ("wrong fs type, bad option", "fsconfig", "mount(2) system call failed")
REFUSED = "aufs refused these directories; the kernel says why: dmesg | tail"


class Aufs(Union):
    """The union aufs, mounted by root; for kernels that carry aufs and have no overlayfs.

    Production's branch is ``ro``, which is right for a branch without whiteouts.  With the default ``udba=reval`` aufs
    checks for changes below the union at each access, aufs(5).  The characters that a branch can't have in its path,
    aufs(5), do no harm behind the links, tried.
    """

    name = "aufs"
    programs: ClassVar = {"mount": "mount"}
    needs_root = True
    types = ("aufs",)
    uses_work = False
    meanings: ClassVar = dict.fromkeys(REFUSAL_WORDS, REFUSED)

    def problem(self, settings: Settings, host: Host) -> Optional[str]:
        problem = super().problem(settings, host)
        return problem or (None if host.aufs else "not in this kernel")

    def mount(self, layer: Layer, host: Host) -> Command:
        # br= and not br:, which fsconfig(2) of util-linux 2.39 and later can't hand over.
        branches = ":".join((UPPER, *(f"{name}=ro" for name in layer.lower_names)))
        options = ",".join((f"br={branches}", *OPTIONS, *SAFE_OPTIONS))
        return Command(("mount", "-t", "aufs", "-o", options, "--", MARK, layer.merged), root=True, cwd=layer.links)
