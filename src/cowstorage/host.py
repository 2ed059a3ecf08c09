"""What this machine and this user can do: the facts that the pure planning functions decide on."""

from __future__ import annotations

import os
from typing import FrozenSet, NamedTuple, Optional

from cowstorage.settings import Settings
from cowstorage.system import find_program

FUSE_CONF = "/etc/fuse.conf"

PROGRAMS = (
    "fuse-overlayfs",
    "fusermount3",
    "mount",
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
    """

    euid: int
    uid: int
    gid: int
    sudo: Optional[str]
    interactive: bool
    programs: FrozenSet[str]
    user_allow_other: bool
    fuse: bool

    @property
    def can_be_root(self) -> bool:
        """Whether there is a way to run a command as root; sudo may still refuse it."""
        return self.euid == 0 or self.sudo is not None


def allows_other(fuse_conf: str) -> bool:
    """Whether the text of /etc/fuse.conf has ``user_allow_other`` on a line by itself."""
    return any(line.strip() == "user_allow_other" for line in fuse_conf.splitlines())


def _fuse_conf() -> str:
    try:
        with open(FUSE_CONF, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _developer(settings: Settings) -> "tuple[int, int]":
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
        user_allow_other=os.geteuid() == 0 or allows_other(_fuse_conf()),
        fuse=os.access("/dev/fuse", os.R_OK | os.W_OK),
    )
