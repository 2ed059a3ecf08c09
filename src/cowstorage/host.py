"""What this machine and this user can do: the facts that the pure planning functions decide on."""

from __future__ import annotations

import os
import re
from typing import FrozenSet, NamedTuple, Optional, Tuple

from cowstorage.errors import CowStorageError
from cowstorage.settings import Settings
from cowstorage.system import find_program, run_program

FUSE_CONF = "/etc/fuse.conf"
CACHEFILESD_PID = "/run/cachefilesd.pid"

# Where unionfs-fuse marks deletions in an upper: release 1.0 in the second one, all others in the first.
UNIONFS_METADATA = (".unionfs", ".unionfs-fuse")

PROGRAMS = (
    "fuse-overlayfs",
    "fusermount3",
    "mount",
    "mount.cifs",
    "mount.nfs",
    "rclone",
    "rsync",
    "sftp",
    "ssh",
    "sshfs",
    "umount",
    "unionfs",
)


class Host(NamedTuple):
    """Facts about the machine and the user.

    :param euid: of this process.
    :param uid, gid: of the developer: whoever owns ``var`` when root runs us, else ourselves.
    :param sudo: absolute path of the program to become root with; ``None`` when there is none or it is not wanted.
    :param interactive: somebody sits at a terminal.
    :param programs: names of the installed ones among those we may need.
    :param user_allow_other: /etc/fuse.conf lets ordinary users use allow_other and allow_root, mount.fuse3(8).
    :param fuse: /dev/fuse can be opened.
    :param cachefilesd: cachefilesd(8) runs, so that a network file system may cache on disk, mount option fsc.
    :param rclone: the version of rclone, its first two numbers; asked for only where rclone is the file system.
    :param unionfs: the same of unionfs-fuse; asked for only where it has marked deletions.
    """

    euid: int
    uid: int
    gid: int
    sudo: Optional[str]
    interactive: bool
    programs: FrozenSet[str]
    user_allow_other: bool
    fuse: bool
    cachefilesd: bool = False
    rclone: Tuple[int, int] = (0, 0)
    unionfs: Tuple[int, int] = (0, 0)

    @property
    def can_be_root(self) -> bool:
        """Whether there is a way to run a command as root; sudo may still refuse it."""
        return self.euid == 0 or self.sudo is not None


def allows_other(fuse_conf: str) -> bool:
    """Whether the text of /etc/fuse.conf has ``user_allow_other`` on a line by itself."""
    return any(line.strip() == "user_allow_other" for line in fuse_conf.splitlines())


def version_in(text: str, name: str) -> Tuple[int, int]:
    """The version in what a program prints: ``rclone v1.60.1-DEV`` gives ``(1, 60)``; zeros for other words."""
    match = re.search(rf"^{name} (?:version: )?v?(\d+)\.(\d+)", text, re.MULTILINE)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _runs(pid_file: str, program: str) -> bool:
    pid = _text(pid_file).strip()
    return pid.isdecimal() and _text(f"/proc/{pid}/comm").strip() == program


def _version(name: str, *argv: str) -> Tuple[int, int]:
    if not find_program(argv[0]):
        return (0, 0)
    try:
        return version_in(run_program(argv, limit=10), name)
    except CowStorageError:
        return (0, 0)


def _has_unionfs_marks(settings: Settings) -> bool:
    places = filter(None, (settings.blob_storage, settings.file_storage))
    return any(os.path.isdir(os.path.join(f"{place}.prod", name)) for place in places for name in UNIONFS_METADATA)


def _developer(settings: Settings) -> Tuple[int, int]:
    euid, egid = os.geteuid(), os.getegid()
    if euid != 0:
        return euid, egid
    path = os.path.dirname(settings.blob_storage)
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    owner = os.stat(path)
    return owner.st_uid, owner.st_gid


def _sudo(settings: Settings) -> Optional[str]:
    if os.geteuid() == 0 or settings.sudo == "no":
        return None
    return find_program("sudo" if settings.sudo == "auto" else settings.sudo)


def is_interactive() -> bool:
    """Whether there is a controlling terminal that a question can be asked on."""
    import sys

    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def look(settings: Settings) -> Host:
    """The facts, gathered now."""
    uid, gid = _developer(settings)
    return Host(
        euid=os.geteuid(),
        uid=uid,
        gid=gid,
        sudo=_sudo(settings),
        interactive=is_interactive(),
        programs=frozenset(program for program in PROGRAMS if find_program(program)),
        user_allow_other=os.geteuid() == 0 or allows_other(_text(FUSE_CONF)),
        fuse=os.access("/dev/fuse", os.R_OK | os.W_OK),
        cachefilesd=_runs(CACHEFILESD_PID, "cachefilesd"),
        rclone=_version("rclone", "rclone", "version") if settings.filesystem == "rclone" else (0, 0),
        unionfs=_version("unionfs-fuse", "unionfs", "--version") if _has_unionfs_marks(settings) else (0, 0),
    )
