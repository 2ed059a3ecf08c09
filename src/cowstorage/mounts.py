"""What is mounted, read from /proc/self/mountinfo, and whether it is alive and read-only."""

from __future__ import annotations

import errno
import os
import re
from functools import partial
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from cowstorage.children import all_within
from cowstorage.errors import NotReadOnly, TimeLimit
from cowstorage.system import Command

MOUNTINFO = "/proc/self/mountinfo"
PROBE_SECONDS = 15.0
# Unmounting a kernel overlay writes its upper directory out first.
UNMOUNT_SECONDS = 120.0
# What the kernel follows, path_resolution(7).
SYMBOLIC_LINKS = 40


class Mount(NamedTuple):
    """One line of mountinfo, proc_pid_mountinfo(5); paths are decoded, options are split."""

    identity: int
    parent: int
    device: str
    root: str
    target: str
    options: Tuple[str, ...]
    type: str
    source: str
    super_options: Tuple[str, ...]

    def __str__(self) -> str:
        options = ",".join(self.options)
        return f"{self.source} on {self.target} type {self.type} ({options}; {','.join(self.super_options)})"


def decode(field: str) -> str:
    r"""Undo the kernel's octal escapes ``\040 \011 \012 \134``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)


def parse(text: str) -> Tuple[Mount, ...]:
    """The mounts in the text of a mountinfo file, in its order; lines that don't have its form are passed over."""
    mounts = []
    for line in text.split("\n"):
        before, separator, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if not separator or len(left) < 6 or len(right) < 3 or not (left[0].isdecimal() and left[1].isdecimal()):
            continue
        mounts.append(
            Mount(
                identity=int(left[0]),
                parent=int(left[1]),
                device=left[2],
                root=decode(left[3]),
                target=decode(left[4]),
                options=tuple(left[5].split(",")),
                type=decode(right[0]),
                source=decode(right[1]),
                super_options=tuple(decode(" ".join(right[2:])).split(",")),
            )
        )
    return tuple(mounts)


def read() -> Tuple[Mount, ...]:
    """What is mounted now, in this mount namespace."""
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return parse(file.read())


def top(mounts: Iterable[Mount], path: str) -> Optional[Mount]:
    """The mount that is seen at exactly ``path``: the last one there, since later ones cover earlier ones."""
    found = None
    for mount in mounts:
        if mount.target == path:
            found = mount
    return found


def resolved(path: str, mounts: Iterable[Mount]) -> str:
    """The path without symbolic links, as mountinfo has it, and without a look at any mount: that may hang."""
    targets = {mount.target for mount in mounts}
    for _ in range(SYMBOLIC_LINKS):
        parent, name = os.path.split(os.path.normpath(path))
        path = os.path.join(os.path.realpath(parent), name)
        if path in targets or not os.path.islink(path):
            return path
        path = os.path.join(parent, os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def place(path: str) -> str:
    """``resolved`` among what is mounted now."""
    return resolved(path, read())


def at_or_below(mounts: Iterable[Mount], path: str) -> List[Mount]:
    """The mounts at ``path`` and below it, in the order to unmount them: last mounted first."""
    prefix = path.rstrip("/") + "/"
    return [mount for mount in mounts if mount.target == path or mount.target.startswith(prefix)][::-1]


def is_read_only(mount: Mount) -> bool:
    """Whether no write can pass.

    The per-mount options must say ``ro``; so must the super options, except on CIFS, which says ``rw`` there
    however it is mounted, and on bind mounts, whose super options are those of the file system they show.
    """
    if "ro" not in mount.options:
        return False
    if mount.type.startswith("fuse") or mount.type.startswith("nfs"):
        return "ro" in mount.super_options
    return True


def verify_read_only(path: str) -> None:
    """The first wall: what is seen at ``path`` can't be written.

    :raises NotReadOnly: when nothing is mounted there, or it is writable.
    """
    mount = top(read(), path)
    if mount is None or not is_read_only(mount):
        raise NotReadOnly(path, mount)


def _listed(path: str) -> Optional[str]:
    try:
        with os.scandir(path) as entries:
            next(entries, None)
        os.statvfs(path)
    except OSError as error:
        return f"{os.strerror(error.errno or 0)} ({errno.errorcode.get(error.errno or 0, '?')})"
    return None


def ailments(paths: Iterable[str], user: Optional[Tuple[int, int]] = None) -> Dict[str, str]:
    """Which mounts don't answer, and what is wrong with them; together they take no longer than one.

    Real I/O in children: a plain stat is answered from a cache on a dead mount.
    """
    found = {}
    for path, outcome in all_within(PROBE_SECONDS, {path: partial(_listed, path) for path in paths}, user).items():
        if isinstance(outcome.error, TimeLimit):
            found[path] = f"no answer after {outcome.error.seconds:g} seconds"
        elif outcome.error or outcome.value:
            found[path] = str(outcome.error or outcome.value)
    return found


def unmount_command(target: str, by_developer: bool, lazy: bool = False) -> Command:
    """Takes one mount away.

    :param by_developer: a FUSE mount of an ordinary user, who needs no root for it, fusermount3(1).
    :param lazy: out of sight at once, gone when the last process lets go.
    """
    if by_developer:
        return Command(("fusermount3", "-uz" if lazy else "-u", "--", target), limit=UNMOUNT_SECONDS)
    return Command(("umount", *(("-l",) if lazy else ()), "--", target), root=True, limit=UNMOUNT_SECONDS)


def unmount_of(mount: Mount, euid: int, lazy: bool = False) -> Command:
    """Takes away a mount that is there, by whoever made it."""
    return unmount_command(mount.target, euid != 0 and f"user_id={euid}" in mount.super_options, lazy)
