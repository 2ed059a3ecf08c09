"""The facts about this machine and its user that every decision of a script is made from."""

import os
import re
import sys
from typing import FrozenSet, Iterable, NamedTuple, Optional, Tuple

from cowstorage.errors import CowStorageError
from cowstorage.part.settings import Settings
from cowstorage.system.installed import find_program

FUSE_CONF = "/etc/fuse.conf"

CACHEFILESD_PID = "/run/cachefilesd.pid"

# Directories of unionfs-fuse's whiteouts in an upper: release 1.0 makes the second one, all others make the first.
UNIONFS_METADATA = (".unionfs", ".unionfs-fuse")

# Where a module of aufs lies below /lib/modules/RELEASE: built with the kernel, or by dkms; kmod(8) may compress it.
AUFS_MODULES = ("kernel/fs/aufs/aufs.ko", "updates/dkms/aufs.ko", "updates/aufs.ko", "extra/aufs.ko")
COMPRESSED = ("", ".xz", ".zst", ".gz")


class Host(NamedTuple):
    """The facts about this machine and its user.

    :param euid: the user id of whoever runs the script; 0: root can be had without sudo.
    :param uid: the developer's user id: when root runs the script that of the owner of ``var``, else that of the user.
    :param gid: the developer's group id, likewise.
    :param sudo: absolute path of the program to become root with; ``None`` when the user is root, when ``sudo = no``,
        and when the program is not installed.
    :param interactive: whether a question can be asked on a terminal.
    :param programs: names of the installed programs, of those that back ends may need.
    :param user_allow_other: whether the user may mount with allow_other and allow_root, mount.fuse3(8).
    :param fuse: whether the user can open /dev/fuse.
    :param cachefilesd: whether cachefilesd(8) runs, which the mount option fsc of a network file system needs.
    :param rclone: the first two numbers of rclone's version; ``(0, 0)`` when unknown, and for other file systems.
    :param unionfs: the first two numbers of unionfs-fuse's version; ``(0, 0)`` when unknown, and where no upper has a
        whiteout of unionfs-fuse.
    :param aufs: whether the kernel has aufs, or can load its module.
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
    aufs: bool = False

    @property
    def for_another(self) -> bool:
        """Whether root runs us for a developer, and acts as the developer but for what needs root."""
        return self.euid == 0 and self.uid != 0

    @property
    def can_be_root(self) -> bool:
        """Whether this process is root's, or there is a program to become root with; sudo may still refuse."""
        return self.euid == 0 or self.sudo is not None


def allows_other(fuse_conf: str) -> bool:
    """Tell whether the text of /etc/fuse.conf has ``user_allow_other`` on a line by itself."""
    return any(line.strip() == "user_allow_other" for line in fuse_conf.splitlines())


def version_in(text: str, name: str) -> Tuple[int, int]:
    """Return the first two numbers of a version that a program prints; ``(0, 0)`` when there is none.

    >>> version_in("rclone v1.60.1-DEV", "rclone")
    (1, 60)
    """
    match = re.search(rf"^{name} (?:version: )?v?(\d+)\.(\d+)", text, re.MULTILINE)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def _text(path: str) -> str:
    """Return the text of a file; empty when the file can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _runs(pid_file: str, program: str) -> bool:
    """Tell whether the process in a pid file runs a program, /proc/PID/comm, proc(5)."""
    pid = _text(pid_file).strip()
    return pid.isdecimal() and _text(f"/proc/{pid}/comm").strip() == program


def _version(name: str, *argv: str) -> Tuple[int, int]:
    """Return the first two numbers of a program's version; ``(0, 0)`` when the program is missing or fails.

    :param name: the word before the version.
    :param argv: the command that prints the version.
    """
    if not find_program(argv[0]):
        return (0, 0)
    from cowstorage.system.processes import run_program  # start-up

    try:
        return version_in(run_program(argv, limit=10), name)
    except CowStorageError:
        return (0, 0)


def _has_unionfs_whiteouts(settings: Settings) -> bool:
    """Tell whether an upper has a directory of unionfs-fuse's whiteouts."""
    uppers = (settings.blob_upper, settings.file_upper)
    return any(os.path.isdir(os.path.join(upper, name)) for upper in uppers for name in UNIONFS_METADATA)


def _has_aufs() -> bool:
    """Tell whether the kernel has aufs, /proc/filesystems, or a module of it."""
    if "\taufs\n" in _text("/proc/filesystems"):
        return True
    modules = os.path.join("/lib/modules", os.uname().release)
    return any(os.path.exists(os.path.join(modules, path + end)) for path in AUFS_MODULES for end in COMPRESSED)


def _developer(settings: Settings) -> Tuple[int, int]:
    euid, egid = os.getuid(), os.getgid()
    if euid != 0:
        return euid, egid
    path = os.path.dirname(settings.blob_storage)
    while not os.path.isdir(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    owner = os.stat(path)
    return owner.st_uid, owner.st_gid


def _sudo(settings: Settings) -> Optional[str]:
    if os.getuid() == 0 or settings.sudo == "no":
        return None
    return find_program("sudo" if settings.sudo == "auto" else settings.sudo)


def is_interactive() -> bool:
    """Tell whether there is a controlling terminal that a question can be asked on."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def facts_about(settings: Settings, programs: Iterable[str]) -> Host:
    """Return the facts about this machine and its user.

    :param programs: names of the programs that back ends may need.
    """
    uid, gid = _developer(settings)
    return Host(
        euid=os.getuid(),
        uid=uid,
        gid=gid,
        sudo=_sudo(settings),
        interactive=is_interactive(),
        programs=frozenset(program for program in programs if find_program(program)),
        user_allow_other=os.getuid() == 0 or allows_other(_text(FUSE_CONF)),
        fuse=os.access("/dev/fuse", os.R_OK | os.W_OK),
        cachefilesd=_runs(CACHEFILESD_PID, "cachefilesd"),
        rclone=_version("rclone", "rclone", "version") if settings.filesystem == "rclone" else (0, 0),
        unionfs=_version("unionfs-fuse", "unionfs", "--version") if _has_unionfs_whiteouts(settings) else (0, 0),
        aufs=_has_aufs(),
    )
