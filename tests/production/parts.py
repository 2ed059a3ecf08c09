"""Parts over each network file system, and the commands that they give."""

from __future__ import annotations

from typing import Dict, Tuple

from cowstorage.buildout.options import from_options
from cowstorage.part import settings
from cowstorage.part.host import Host
from cowstorage.production import filesystems
from cowstorage.production.filesystems.base import FileSystem
from cowstorage.system.programs import Command
from cowstorage.union import kinds

DIRECTORY = "/srv/büild, out's"
DEVELOPER = Host(
    euid=1000,
    uid=1000,
    gid=100,
    sudo="/usr/bin/sudo",
    interactive=False,
    programs=frozenset(("mount", "mount.nfs", "mount.cifs", "rclone", "fusermount3")),
    user_allow_other=True,
    fuse=True,
    rclone=(1, 75),
)
ALONE = DEVELOPER._replace(sudo=None, user_allow_other=False)
ROOT = DEVELOPER._replace(euid=0, sudo=None)

NFS = {"filesystem": "nfs", "remote": "server:/export/plone"}
CIFS = {"remote": "//server/share/plo ne", "mount-options": "credentials=~/.smb"}
RCLONE = {"filesystem": "rclone", "remote": "my remote:srv/plo ne"}
OTHER = {"filesystem": "9p", "remote": "-tag"}


def part(**options: str) -> settings.Settings:
    """Make the settings of a part with these options; underscores stand for hyphens."""
    return from_options(
        {
            "file-storage": "var/filestorage",
            "blob-storage": "var/blobstorage",
            **{name.replace("_", "-"): value for name, value in options.items()},
        },
        "cow-storage",
        DIRECTORY,
    )


def made_of(options: Dict[str, str]) -> settings.Settings:
    """Make the settings of a part with these options, spelled as the user spells them."""
    return part(**{name.replace("-", "_"): value for name, value in options.items()})


def filesystem_of(made: settings.Settings, host: Host = DEVELOPER) -> FileSystem:
    """Make the network file system of these settings, below a union of root's where the option ``union`` allows one."""
    by_root = any(union.needs_root for union in kinds.candidates(made.union))
    return filesystems.make(made, host, by_root)


def mounting(options: Dict[str, str], host: Host = DEVELOPER, **more: str) -> Command:
    """Return the command that mounts production."""
    made = made_of({**options, **{name.replace("_", "-"): value for name, value in more.items()}})
    (mount,) = filesystem_of(made, host).mounts()
    assert mount.target == f"{DIRECTORY}/var/prod"
    assert mount.commands[0].argv == ("mkdir", "-p", "-m", "0700", "--", mount.target)
    return mount.commands[-1]


def options_of(command: Command) -> Tuple[str, ...]:
    """Return what a mount command has after -o."""
    return tuple(command.argv[command.argv.index("-o") + 1].split(","))
