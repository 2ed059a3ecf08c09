"""Read the mounts in /proc/self/mountinfo, check that mounts answer and are read-only, make commands that unmount."""

import errno
import os
import re
from functools import partial
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from cowstorage.errors import NotReadOnly, TimeLimit
from cowstorage.system.files import is_inside
from cowstorage.system.programs import Command

MOUNTINFO = "/proc/self/mountinfo"

PROBE_SECONDS = 15.0

# To unmount a kernel overlay takes long, since its upper is written to disk first.
UNMOUNT_SECONDS = 120.0

# So many symbolic links does the kernel follow in one path, path_resolution(7).
SYMBOLIC_LINKS = 40


class Mount(NamedTuple):
    """A line of mountinfo, with its paths decoded and its options split, proc_pid_mountinfo(5).

    :param identity: the kernel's number of the mount.
    :param parent: the number of the mount that this mount lies on.
    :param device: ``major:minor``.
    :param root: the directory of the file system that is seen at the mount point.
    :param target: the mount point, absolute.
    :param options: options of this mount alone, such as ``ro``.
    :param type: the file system, such as ``fuse.sshfs``.
    :param super_options: options of the file system, for all of its mounts.
    """

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
    r"""Decode the octal escapes ``\040 \011 \012 \134`` that the kernel writes into a field of mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), field)


def parse(text: str) -> Tuple[Mount, ...]:
    """Return the mounts in the text of a mountinfo file, in the order of its lines; malformed lines are skipped."""
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
    """Return the present mounts of this mount namespace, in the order of mountinfo."""
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return parse(file.read())


def top(mounts: Iterable[Mount], path: str) -> Optional[Mount]:
    """Return the mount whose mount point is ``path``, or ``None``.

    Of several mounts at one mount point the last is returned: a later mount covers an earlier one.
    """
    found = None
    for mount in mounts:
        if mount.target == path:
            found = mount
    return found


def resolve(path: str, mounts: Optional[Iterable[Mount]] = None) -> str:
    """Return a path with its symbolic links resolved, as mountinfo shows paths.

    ``os.path.realpath`` would look at a mount point itself, which hangs when the server of the mount does not answer.

    :param mounts: the mounts of this mount namespace; ``None``: they are read.
    :raises OSError: ELOOP for too many symbolic links, path_resolution(7).
    """
    targets = {mount.target for mount in (read() if mounts is None else mounts)}
    for _ in range(SYMBOLIC_LINKS):
        parent, name = os.path.split(os.path.normpath(path))
        path = os.path.join(os.path.realpath(parent), name)
        if path in targets or not os.path.islink(path):
            return path
        path = os.path.join(parent, os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def at_or_below(mounts: Iterable[Mount], path: str) -> List[Mount]:
    """Return the mounts whose mount points are ``path`` or below, in the order to unmount them: last mounted first."""
    return [mount for mount in mounts if is_inside(mount.target, path)][::-1]


def is_read_only(mount: Mount) -> bool:
    """Return whether the kernel refuses every write through a mount.

    The options of the mount must have ``ro``.  On FUSE and NFS the super options must have ``ro``, too.  On CIFS they
    always have ``rw``, and on a bind mount they are those of the file system that is bound.
    """
    if "ro" not in mount.options:
        return False
    if mount.type.startswith("fuse") or mount.type.startswith("nfs"):
        return "ro" in mount.super_options
    return True


def verify_read_only(path: str) -> None:
    """Check that the mount at ``path`` is read-only.

    :raises NotReadOnly: when nothing is mounted at ``path``, or the mount is writable.
    """
    mount = top(read(), path)
    if mount is None or not is_read_only(mount):
        raise NotReadOnly(path, mount)


def _list(path: str) -> None:
    """Read one entry of a directory."""
    with os.scandir(path) as entries:
        next(entries, None)


def _problem_of(look: Callable[[str], object], path: str) -> Optional[str]:
    """Return the error of a look at a path, or ``None``; may hang."""
    try:
        look(path)
    except OSError as error:
        return f"{os.strerror(error.errno or 0)} ({errno.errorcode.get(error.errno or 0, '?')})"
    return None


def problems(paths: Iterable[str], user: Optional[Tuple[int, int]] = None) -> Dict[str, str]:
    """Return a description of the problem for each mount point that can't be read.

    Each directory is read in a child process, and asked for its free room in another, all at the same time.  stat(2)
    would not tell: the kernel answers it from a cache when the server of the mount is gone.

    :param paths: mount points.
    :param user: (uid, gid) to read as, where we are root; ``None``: as ourselves.
    """
    looks = [(path, look) for path in paths for look in (_list, os.statvfs)]
    if not looks:
        return {}
    from cowstorage.system.time_limits import all_within  # start-up

    functions = {f"{number}": partial(_problem_of, look, path) for number, (path, look) in enumerate(looks)}
    found: Dict[str, str] = {}
    for (path, _), outcome in zip(looks, all_within(PROBE_SECONDS, functions, user).values()):
        if path in found:
            continue
        if isinstance(outcome.error, TimeLimit):
            found[path] = f"no answer after {outcome.error.seconds:g} seconds"
        elif outcome.error or outcome.value:
            found[path] = str(outcome.error or outcome.value)
    return found


def unmount_command(target: str, by_developer: bool, lazy: bool = False) -> Command:
    """Return the command that unmounts a mount point.

    :param by_developer: whether an ordinary user made the mount, with FUSE, and so may unmount it without root,
        fusermount3(1).
    :param lazy: whether the mount point is freed at once, and the mount itself ends with the last process that uses
        it, umount(8).
    """
    if by_developer:
        return Command(("fusermount3", "-uz" if lazy else "-u", "--", target), limit=UNMOUNT_SECONDS)
    options = ("-l",) if lazy else ()
    return Command(("umount", *options, "--", target), root=True, limit=UNMOUNT_SECONDS)


def unmount_in_any_case(target: str, by_developer: bool) -> Command:
    """Return the command that unmounts a mount point, lazily where it is busy; parameters of ``unmount_command``.

    Busy is what nobody but a look at production of ours has used: a server that answers for ever keeps it so.
    """
    lazy = unmount_command(target, by_developer, lazy=True)
    return unmount_command(target, by_developer)._replace(fallback=lazy.argv, fallback_when="busy")


def unmount_of(mount: Mount, euid: int, lazy: bool = False, waits: bool = True) -> Command:
    """Return the command that unmounts a present mount, as the user who made the mount.

    :param euid: our effective user id: a FUSE mount names the user who made it in its super options, mount.fuse(8).
    :param lazy: as in ``unmount_command``.
    :param waits: also for what the kernel does afterwards, when nobody can reach the mount any more: of an overlay it
        writes out the whole file system of the upper, whoever has written there.
    """
    command = unmount_command(mount.target, euid != 0 and f"user_id={euid}" in mount.super_options, lazy)
    return command if waits else command._replace(done=IsGone(mount.identity))


class IsGone:
    """The question whether a mount is not in mountinfo any more; one of the same mount is equal.

    :param identity: the kernel's number of the mount.
    """

    def __init__(self, identity: int):
        self.identity = identity

    def __call__(self) -> bool:
        return all(mount.identity != self.identity for mount in read())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IsGone) and other.identity == self.identity

    def __hash__(self) -> int:
        return hash(self.identity)
