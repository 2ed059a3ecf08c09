"""Production by any other type that mount(8) knows: davfs, ceph, glusterfs, 9p, an image of a disk."""

from __future__ import annotations

from typing import ClassVar, Tuple

from cowstorage.errors import CommandFailed, CowStorageError, SettingsError
from cowstorage.production.filesystems.base import ProductionMount, RootsMount, diagnosed, overridden

MOUNT_SECONDS = 90.0

# Those that every file system takes, since the kernel itself minds them, mount(8).
OPTIONS = ("nosuid", "nodev")

NO_DEVICE = (
    "there is no such file or device here; and if it is the name of something on a network, then no "
    "program mount.{kind} is installed that knows it. Look at remote and filesystem."
)

# util-linux 2.39 and later, which mount by fsconfig(2), use other words; both were seen, with 2.38.1 and 2.41.5.
DIAGNOSES = (
    (
        "unknown filesystem type",
        "neither the kernel of this machine nor a program mount.{kind} knows filesystem = "
        "{kind}. Install what brings it, or look at how it is spelled.",
    ),
    ("special device", NO_DEVICE),
    ("Can't lookup blockdev", NO_DEVICE),
    (
        "Unknown parameter",
        "{kind} has no such option. Look at mount-options; or a helper program mount.{kind} is missing.",
    ),
    ("bad option", "a helper program mount.{kind} is missing, or an option is wrong. Install what brings the helper."),
)


class Other(RootsMount):
    """Any type, mounted by root with the safe options that all types share; ``mount-options`` says the rest."""

    name = "other"
    programs: ClassVar = {"mount": "mount"}
    # A helper that is root's shows its FUSE mount to nobody else without it, mount.fuse3(8).
    allowed_options = ("allow_other",)

    @classmethod
    def check_options(cls, options: Tuple[str, ...], filesystem: str) -> None:
        super().check_options(options, filesystem)
        if "allow_other" in options and "default_permissions" not in options:
            raise SettingsError(
                "mount-options",
                "allow_other would let everybody here read production's data. Write allow_other,default_permissions.",
            )

    def mounts(self) -> Tuple[ProductionMount, ...]:
        return self.mount_by_root(overridden(OPTIONS, self.settings.mount_options), MOUNT_SECONDS)

    def unreadable(self) -> str:
        return (
            "They must be yours, or readable for you: many file systems take your uid= and gid= in mount-options; "
            "FUSE ones need allow_other,default_permissions."
        )

    def explain(self, error: CommandFailed) -> CowStorageError:
        return diagnosed(self.settings.remote, DIAGNOSES, error, kind=self.settings.filesystem)
