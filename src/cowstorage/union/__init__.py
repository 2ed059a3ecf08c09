"""How the layers are merged: one small class per union file system, and the table of them."""

from __future__ import annotations

import importlib
import os
from typing import Dict, NamedTuple, Optional, Sequence, Tuple

from cowstorage import mounts
from cowstorage.host import Host
from cowstorage.mounts import Mount
from cowstorage.settings import Settings
from cowstorage.system import Command, package_of

# Name → module and class, in the order that ``auto`` tries them; a new one is a file and a line here.
UNIONS = {
    "overlay": "cowstorage.union.overlay:Overlay",
    "fuse-overlayfs": "cowstorage.union.fuse_overlayfs:FuseOverlayFS",
    "unionfs-fuse": "cowstorage.union.unionfs_fuse:UnionFSFuse",
    "aufs": "cowstorage.union.aufs:Aufs",
}

# What mountinfo shows as source wherever the union lets us say it.
MARK = "cowstorage"


class Layer(NamedTuple):
    """The directories of one union, absolute.

    ``links`` holds symbolic links ``lower0…``, ``upper`` and ``work`` to them: a union that is started there
    with these names copes with every awkward character and every length of the true paths.

    :param storage: ``filestorage`` or ``blobstorage``.
    :param merged: what Plone sees.
    :param upper: takes the writes.
    :param work: overlayfs's scratch directory, on the same file system as upper.
    :param lowers: topmost first; production's is the last.
    """

    storage: str
    merged: str
    upper: str
    work: str
    links: str
    lowers: Tuple[str, ...]

    @property
    def lower_names(self) -> Tuple[str, ...]:
        """The links to the lowers, topmost first."""
        return tuple(f"lower{number}" for number in range(len(self.lowers)))


class Union:
    """A union file system.  Every method is pure unless it says so."""

    name = ""
    program = ""
    #: Mounted by root, for all; else by the developer with FUSE.
    needs_root = False
    #: What mountinfo calls it.
    types: Tuple[str, ...] = ()
    uses_work = True
    #: A copy up that fails in the middle leaves what it has, in the place of production's file.
    cuts_copies_short = False

    def problem(self, settings: Settings, host: Host) -> Optional[str]:
        """Why it can't be used here, with what to install or change; ``None`` when trying is worth it."""
        if self.program not in host.programs:
            return f"not installed: {self.program}. apt install {package_of(self.program)}"
        if self.needs_root and not host.can_be_root:
            return "needs root, and there is no sudo" if settings.sudo != "no" else "needs root, and sudo = no"
        if not self.needs_root and not host.fuse:
            return "/dev/fuse can't be opened by you"
        return None

    def unsuited(self, layer: Layer) -> Optional[str]:
        """Why these very directories can't be merged by it."""
        return None

    def mount(self, layer: Layer, host: Host) -> Command:
        """The command that mounts it."""
        raise NotImplementedError

    def adoption(self, layer: Layer, host: Host) -> Tuple[Command, ...]:
        """What makes an upper that another release of the same program wrote readable for this one; not pure.

        :raises PathUnusable: it can't be made so.
        """
        return ()

    def owns(self, mount: Mount) -> bool:
        """Whether a mount was made by this union for us."""
        return mount.type in self.types and mount.source == MARK


def get(name: str) -> Union:
    """The union file system of that name."""
    cached = _instances.get(name)
    if cached is None:
        module, _, attribute = UNIONS[name].partition(":")
        cached = _instances[name] = getattr(importlib.import_module(module), attribute)()
    return cached


_instances: Dict[str, Union] = {}


def ours(mount: Optional[Mount]) -> bool:
    """Whether a mount was made by any of our unions."""
    return mount is not None and any(get(name).owns(mount) for name in UNIONS)


def layer(settings: Settings, storage: str, lowers: Sequence[str], union: str) -> Layer:
    """The directories of a part's union; ``union`` keeps the work directories of different kinds apart."""
    merged = settings.blob_storage if storage == "blobstorage" else str(settings.file_storage)
    return Layer(
        storage=storage,
        merged=mounts.place(merged),
        upper=merged + ".prod",
        work=os.path.join(settings.location, "work", union, storage),
        links=os.path.join(settings.location, "layers", storage),
        lowers=tuple(lowers),
    )


def storages(settings: Settings) -> Tuple[str, ...]:
    """Which unions a part has, in the order they are mounted.

    BLOBs first: a merged filestorage never waits for its BLOBs, and is the first to go.
    """
    return ("blobstorage", "filestorage") if settings.file_storage else ("blobstorage",)


def preparation(layer: Layer, uses_work: bool, host: Host) -> Tuple[Command, ...]:
    """Makes the directories and links that a mount needs; all of it can be done again."""
    directories = [layer.upper, layer.links, layer.merged]
    links = [("upper", layer.upper), *zip(layer.lower_names, layer.lowers)]
    if uses_work:
        directories.append(layer.work)
        links.append(("work", layer.work))
    return (
        Command(("mkdir", "-p", "-m", "0700", "--", *directories)),
        *given(host, layer.upper, layer.merged),
        *(Command(("ln", "-sfn", "--", path, os.path.join(layer.links, name))) for name, path in links),
    )


def given(host: Host, *paths: str) -> Tuple[Command, ...]:
    """Gives what root made to the developer."""
    if host.euid != 0 or host.uid == 0:
        return ()
    return (Command(("chown", f"{host.uid}:{host.gid}", "--", *paths)),)
