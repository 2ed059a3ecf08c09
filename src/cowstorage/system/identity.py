"""Who we are: root that works for a developer is the developer, but for mount(2), umount(2) and a look at /proc.

credentials(7): the real user id stays root's, the effective one, which files are made and opened with, is the
developer's; a process whose real user id is root's may take the effective one back.
"""

from __future__ import annotations

import os


def is_root() -> bool:
    """Tell whether we are root, or can be again."""
    return os.getuid() == 0


def act_as(uid: int, gid: int) -> None:
    """Be a user for all that follows in this process; ``root_again`` takes it back.

    In a process that is not root's nothing changes.
    """
    if is_root():
        os.setgroups([gid])
        os.setegid(gid)
        os.seteuid(uid)


def root_again() -> None:
    """Be root again, where ``act_as`` was called by root."""
    if is_root():
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([])


def become(uid: int, gid: int) -> None:
    """Be a user for good: for a child process, which can't be root again.

    In a process that is not root's nothing changes.
    """
    if is_root() and uid != 0:
        root_again()
        os.setgroups([gid])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
