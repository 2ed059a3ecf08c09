"""Who has the database or a mount open."""

from __future__ import annotations

import fcntl
import os
import pwd
from typing import Iterator, List, NamedTuple, Optional, Sequence, Set

from cowstorage import mounts
from cowstorage.children import within
from cowstorage.errors import InUse, TimeLimit

# A FUSE union holds its layers open: it goes when it is unmounted, and nobody has to stop it.
FUSE_UNIONS = frozenset(("fuse-overlayfs", "unionfs", "unionfs-fuse", "sshfs", "rclone"))


SCAN_SECONDS = 15.0


class Holder(NamedTuple):
    """A process that has something open below a path."""

    pid: int
    user: str
    command: str
    path: str

    def __str__(self) -> str:
        return f"pid {self.pid}, user {self.user}: {self.command} ({self.path})"


def _below(path: str, roots: Sequence[str]) -> bool:
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def _open_paths(process: str) -> Iterator[str]:
    """Paths that a process holds, proc_pid_fd(5); what can't be read is another user's."""
    for name in ("cwd", "root", "exe"):
        try:
            yield os.readlink(f"{process}/{name}")
        except OSError:
            continue
    try:
        descriptors = os.listdir(f"{process}/fd")
    except OSError:
        return
    for descriptor in descriptors:
        try:
            yield os.readlink(f"{process}/fd/{descriptor}")
        except OSError:
            continue
    try:
        with open(f"{process}/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                fields = line.rstrip("\n").split(None, 5)
                if len(fields) == 6:
                    yield fields[5].replace("\\012", "\n")
    except OSError:
        return


def _describe(process: str) -> tuple[str, str]:
    try:
        uid = os.stat(process).st_uid
        with open(f"{process}/cmdline", "rb") as file:
            command = file.read(300).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return "?", "?"
    try:
        return pwd.getpwuid(uid).pw_name, command
    except KeyError:
        return str(uid), command


def _is_fuse_union(process: str) -> bool:
    try:
        with open(f"{process}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip() in FUSE_UNIONS
    except OSError:
        return False


def holders(paths: Sequence[str]) -> List[Holder]:
    """The processes that hold anything at or below ``paths``, as far as we may see; never ourselves.

    By /proc, since fuser(1) and lsof(8) miss a process with a file of a lower open through a kernel overlay.
    """
    now = mounts.read()
    roots = [mounts.resolved(path, now) for path in paths]
    own = {str(os.getpid())}
    # A process that hangs in a dead mount may hang whoever looks at its memory map.
    return within(SCAN_SECONDS, "looking at the processes in /proc", lambda: _holders(roots, own))


def _holders(roots: Sequence[str], own: Set[str]) -> List[Holder]:
    found = []
    own = {*own, str(os.getpid())}
    for pid in os.listdir("/proc"):
        if not pid.isdecimal() or pid in own:
            continue
        process = f"/proc/{pid}"
        path = next((path for path in _open_paths(process) if _below(path, roots)), None)
        if path is not None and not _is_fuse_union(process):
            user, command = _describe(process)
            found.append(Holder(int(pid), user, command, path))
    return found


def is_locked(path: str) -> Optional[bool]:
    """Whether a ``Data.fs.lock`` is held, by trying it as zc.lockfile does; ``None``: there is none, or not for us.

    Its text means nothing: it may be production's, copied up.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _locked(lock_files: Sequence[str]) -> List[str]:
    """Those that are held; none, when a dead network keeps us from trying: unmounting will tell."""
    try:
        return within(SCAN_SECONDS, "trying locks", lambda: [path for path in lock_files if is_locked(path)])
    except TimeLimit:
        return []


def refuse(paths: Sequence[str], lock_files: Sequence[str] = ()) -> None:
    """Stop when anything is in use.

    :param paths: mount points and directories.
    :param lock_files: locks of FileStorages.
    :raises InUse: naming the processes, or the lock when its holder can't be seen.
    """
    found: List[object] = list(holders(paths))
    if not found:
        found = [f"{path} is locked by a process that you may not see" for path in _locked(lock_files)]
    if found:
        raise InUse(paths, found)
