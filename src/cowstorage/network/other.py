"""Production by any other type that mount(8) knows: davfs, ceph, glusterfs, 9p, an image of a disk."""

from __future__ import annotations

from typing import Optional, Tuple

from cowstorage.errors import CommandFailed, CowStorageError
from cowstorage.host import Host
from cowstorage.network import Attachment, Network, diagnosed, mount_command, mount_point, needs_root, overridden
from cowstorage.settings import Settings
from cowstorage.system import Runner

MOUNT_SECONDS = 90.0

# Those that every file system takes, since the kernel itself minds them, mount(8).
OPTIONS = ("nosuid", "nodev")

DIAGNOSES = (
    (
        "unknown filesystem type",
        "neither the kernel of this machine nor a program mount.{kind} knows filesystem = "
        "{kind}. Install what brings it, or look at how it is spelled.",
    ),
    (
        "special device",
        "there is no such file or device here; and if it is the name of something on a network, then no "
        "program mount.{kind} is installed that knows it. Look at remote and filesystem.",
    ),
    ("bad option", "a helper program mount.{kind} is missing, or an option is wrong. Install what brings the helper."),
)


class Other(Network):
    """Mounted by root with the safe options that all types share; the rest is for ``mount-options`` to say."""

    name = "other"
    programs = ("mount",)

    def problem(self, settings: Settings, host: Host) -> Optional[str]:
        return super().problem(settings, host) or needs_root(host)

    def attachments(self, settings: Settings, host: Host) -> Tuple[Attachment, ...]:
        options = overridden(OPTIONS, settings.mount_options)
        command = mount_command(settings.filesystem, options, settings.remote, settings.mount_point, MOUNT_SECONDS)
        return (Attachment(settings.mount_point, (mount_point(settings), command)),)

    def unreadable(self, settings: Settings) -> str:
        return (
            "They must be yours, or readable for you: many file systems take your uid= and gid= in mount-options; "
            "FUSE ones need allow_other."
        )

    def explain(self, settings: Settings, host: Host, runner: Runner, error: CommandFailed) -> CowStorageError:
        return diagnosed(settings, DIAGNOSES, error, kind=settings.filesystem)
