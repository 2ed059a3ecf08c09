"""A local directory as production: a restored backup, a disk mounted by other means."""

from __future__ import annotations

import os
from typing import Optional, Tuple

from cowstorage.host import Host
from cowstorage.network import Attachment, Network
from cowstorage.settings import Settings
from cowstorage.system import Command


class Directory(Network):
    """Bind mounts, read-only, where root can be had; else the directory itself, below a union that never writes it.

    The two storage directories are bound one by one: a bind mount does not show what is mounted below it, mount(8).
    """

    name = "directory"
    types = ()
    remote = False
    keeps_old_news = False

    def root(self, settings: Settings, host: Host) -> str:
        return settings.mount_point if host.can_be_root else settings.remote

    def attachments(self, settings: Settings, host: Host) -> Tuple[Attachment, ...]:
        if not host.can_be_root:
            return ()
        wanted = [settings.remote_blob_storage]
        if settings.file_storage:
            wanted.insert(0, settings.remote_file_storage)
        return tuple(
            self._bind(os.path.join(settings.remote, path), os.path.join(settings.mount_point, path), settings)
            for path in wanted
        )

    def _bind(self, source: str, target: str, settings: Settings) -> Attachment:
        options = ",".join(("remount", "bind", "nosuid", "nodev", *settings.mount_options, "ro"))
        return Attachment(
            target,
            (
                Command(("mkdir", "-p", "-m", "0700", "--", target)),
                Command(("mount", "--bind", "--", source, target), root=True),
                Command(("mount", "-o", options, "--", target), root=True),
            ),
        )

    def unreadable(self, settings: Settings) -> str:
        return (
            "Make it readable for yourself: a copy (cp -a, then chown), a bind mount that maps the owner "
            "(bindfs -r -u you, or mount with X-mount.idmap on util-linux 2.39 and later), or rights for your group."
        )

    def problem(self, settings: Settings, host: Host) -> Optional[str]:
        if not os.path.isdir(settings.remote):
            return f"{settings.remote} is not a directory"
        return None
