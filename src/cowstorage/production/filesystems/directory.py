"""A local directory as production: a restored backup, a disk mounted by other means."""

from __future__ import annotations

import os
from functools import cached_property
from typing import List, Optional, Sequence, Tuple

from cowstorage.errors import CowStorageError
from cowstorage.production.filesystems.base import (
    FileSystem,
    ProductionMount,
    mount_point,
    overridden,
    production_directories,
)
from cowstorage.system.processes import run_program
from cowstorage.system.programs import Command
from cowstorage.system.time_limits import within

# Of util-linux 2.39 and later, which says "idmapping" with its version; 2.38 ignores the option, as any with X-.
IDMAP = "X-mount.idmap="

LOOK_SECONDS = 10.0


def idmap(owner: Sequence[int], developer: Sequence[int]) -> str:
    """Return the mount option that shows the files of one user and group as those of another, mount(8).

    >>> idmap((500, 500), (1000, 100))
    'X-mount.idmap=u:500:1000:1 g:500:100:1'

    :param owner: uid and gid in the file system.
    :param developer: uid and gid in the mount.
    """
    return IDMAP + " ".join(f"{kind}:{there}:{here}:1" for kind, there, here in zip("ug", owner, developer))


class Directory(FileSystem):
    """Bind mounts, read-only, where root can be had; else the directory itself, below a union that never writes it.

    The two storage directories are bound one by one: a bind mount does not show what is mounted below it, mount(8).
    Where they are another user's, and mount(8) can, the owner's files become the developer's in the mount: below a
    kernel's union a developer could change nothing else.
    """

    name = "directory"
    is_remote = False

    def problem(self) -> Optional[str]:
        """Return why the directory can't be used; not pure: looks for it."""
        if not os.path.isdir(self.settings.remote):
            return f"{self.settings.remote} is not a directory"
        return None

    @property
    def caches_attributes(self) -> bool:
        return False

    @property
    def root(self) -> str:
        return self.settings.mount_point if self.host.can_be_root else self.settings.remote

    @property
    def targets(self) -> Tuple[str, ...]:
        return tuple(os.path.join(self.settings.mount_point, relative) for relative in self._wanted())

    def mounts(self) -> Tuple[ProductionMount, ...]:
        """Return the mounts to make; not pure: asks whose the directory is, and mount(8) what it can."""
        return tuple(self._bind(relative, self._mapping) for relative in self._wanted())

    def _wanted(self) -> List[str]:
        """Return the directories to bind, relative to production's buildout directory."""
        if not self.host.can_be_root:
            return []
        storages = [self.settings.remote_file_storage] if self.settings.file_storage else []
        return [*storages, self.settings.remote_blob_storage]

    @property
    def maps_owner(self) -> bool:
        return bool(self._wanted() and self._mapping)

    @cached_property
    def _mapping(self) -> Tuple[str, ...]:
        """Return the mount options that make the files of production's owner the developer's; none where they are."""
        path = os.path.join(self.settings.remote, self.settings.remote_blob_storage)
        given = any(option.startswith(IDMAP) for option in self.settings.mount_options)
        if self.host.uid == 0 or given:
            return ()
        try:
            owner = within(LOOK_SECONDS, f"looking at {path}", lambda: tuple(os.stat(path)[4:6]))
            known = owner[0] == self.host.uid or "idmapping" not in run_program(("mount", "--version"))
        except (CowStorageError, OSError):
            return ()
        return () if known else (idmap(owner, (self.host.uid, self.host.gid)),)

    def _bind(self, relative: str, mapping: Tuple[str, ...]) -> ProductionMount:
        source = os.path.join(self.settings.remote, relative)
        target = os.path.join(self.settings.mount_point, relative)
        # One command: nobody meets a writable mount in between, or leaves one by killing us. util-linux 2.38 asks
        # the kernel twice, by strace: mount(MS_BIND), which can have no other flags, and a remount with them 0.1 ms
        # later; one of 3,340 looks at mountinfo saw rw, and every second one when these were two commands. From 2.39 on
        # a mount is attached with its flags, mount_setattr(2).
        safe = overridden(("nosuid", "nodev"), self.settings.mount_options)
        mapped, plain = (
            ("mount", "--bind", "-o", ",".join(options), "--", source, target) for options in ((*safe, *mapping), safe)
        )
        # Not every file system can map owners, mount_setattr(2), and no process in a chroot may ask for it.
        bind = Command(mapped, root=True, fallback=plain if mapping else None)
        return ProductionMount(target, (mount_point(target), bind))

    def local_directories(self) -> Tuple[str, ...]:
        return production_directories(self.settings, self.settings.remote)

    def unreadable(self) -> str:
        return (
            "Make it readable for yourself: a copy (cp -a, then chown), a bind mount that maps the owner "
            "(bindfs -r -u you, or mount with X-mount.idmap on util-linux 2.39 and later), or rights for your group."
        )
