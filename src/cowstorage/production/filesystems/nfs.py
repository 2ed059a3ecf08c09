"""Production over NFS, version 4 or 3: nfs(5)."""

from __future__ import annotations

import re
from typing import ClassVar, Tuple

from cowstorage.errors import CommandFailed, CowStorageError, SettingsError
from cowstorage.production.filesystems.base import (
    NO_ANSWER,
    NO_HOST,
    NO_WAY,
    ProductionMount,
    RootsMount,
    diagnosed,
    is_this_machine,
    overridden,
    production_directories,
)

MOUNT_SECONDS = 90.0

OPTIONS = (
    # nfs(5) warns of soft for what writes; we only read, and an error is better than a Plone that can't be stopped.
    "soft",
    # With soft: a reader gets its error 15 to 30 seconds after the network is gone, measured; TCP backs off linearly.
    "timeo=50",
    "retrans=2",
    # BLOB files never change, and their directories only ever grow: an hour instead of 30 to 60 seconds. A small BLOB
    # that is read again after a minute takes 83 ms instead of 132 at a round trip of 40 ms, with version 4.2, below
    # overlay. cow-status asks for Data.fs anew, and cow-sync mounts anew.
    "acdirmin=3600",
    "acdirmax=3600",
    "acregmin=3600",
    "acregmax=3600",
    # Without asking at each opening whether a file has changed: a BLOB never does.
    "nocto",
    # A BLOB that was missed once may come into being: names that were not found are asked for each time.
    "lookupcache=positive",
    # Version 3 needs rpc.statd here for locks on the server; locks are taken in the local layer. Version 4 ignores it.
    "nolock",
    # mount.nfs tries for two minutes otherwise; the user can do that.
    "retry=0",
    "nosuid",
    "nodev",
    "noexec",
)

DIAGNOSES = (
    (
        "access denied by server",
        "the server does not export it to this machine, or not as {path}. "
        "Look at /etc/exports and run exportfs -ra there.",
    ),
    (
        "No such file or directory",
        "the server exports no {path}. With version 4 the path is relative to the export "
        "that has fsid=0; showmount -e {host} lists those of version 3.",
    ),
    ("Connection refused", "no NFS server answers there, or a firewall refuses port 2049."),
    ("Connection timed out", NO_ANSWER),
    ("No route to host", NO_WAY),
    ("Name or service not known", NO_HOST),
    ("Failed to resolve server", NO_HOST),
    (
        "requested NFS version or transport protocol is not supported",
        "no NFS server of that version runs there. Start it, or try another: mount-options = vers=3.",
    ),
    ("Protocol not supported", "the server speaks another version of NFS. Try mount-options = vers=3."),
    ("unknown filesystem type", "the kernel of this machine has no NFS."),
    ("No such device", "the kernel of this machine has no NFS."),
)


class NFS(RootsMount):
    """NFS, mounted by root; the server decides who may read.

    Files appear with the owner that they have on production.  FUSE unions cope with that as long as the server lets
    the developer read them; the kernel's overlay wants them to be the developer's.
    """

    name = "nfs"
    types = ("nfs", "nfs4")
    programs: ClassVar = {"mount": "mount", "mount.nfs": "nfs-common"}

    @classmethod
    def check_remote(cls, remote: str) -> None:
        # nfs(5): no user, an absolute path, an IPv6 address in brackets.
        if not re.fullmatch(r"(?:\[[0-9A-Fa-f:.%\w]+\]|[^@/:\s\[\]]+):/.*", remote):
            raise SettingsError("remote", f"{remote!r} is no host:/path, which filesystem = nfs needs.")

    def mounts(self) -> Tuple[ProductionMount, ...]:
        # Caches file contents on disk, across mounts, where the daemon for it runs: cachefilesd(8).
        defaults = (*OPTIONS, "fsc") if self.host.cachefilesd else OPTIONS
        return self.mount_by_root(overridden(defaults, self.settings.mount_options), MOUNT_SECONDS)

    def local_directories(self) -> Tuple[str, ...]:
        server, _, path = self.settings.remote.rpartition(":/")
        return production_directories(self.settings, f"/{path}") if is_this_machine(server.strip("[]")) else ()

    def unreadable(self) -> str:
        return (
            "The server decides who may read, and shows the owners of production. Export to this machine with "
            "ro,all_squash,anonuid=U,anongid=G, where U and G are production's user and group: it then reads for you "
            "as that user. unionfs-fuse and fuse-overlayfs work on that; overlay only where U is your own user id. "
            "With Kerberos or idmapd let the names on both sides agree, idmapd.conf(5)."
        )

    def explain(self, error: CommandFailed) -> CowStorageError:
        server, _, path = self.settings.remote.partition(":")
        return diagnosed(self.settings.remote, DIAGNOSES, error, host=server, path=path)
