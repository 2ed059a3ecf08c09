"""Who has the database or a mount open."""

from __future__ import annotations

import fcntl
import os
import pwd
from functools import partial
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence

from cowstorage import mounts
from cowstorage.children import all_within, within
from cowstorage.errors import InUse, TimeLimit

# The daemon of a FUSE mount holds what lies below it open: it goes when it is unmounted, and nobody has to stop it.
DAEMONS = frozenset(("fuse-overlayfs", "unionfs", "unionfs-fuse", "sshfs", "rclone"))


SCAN_SECONDS = 15.0


class Holder(NamedTuple):
    """A process that keeps a mount from going.

    :param path: what it has open, or how else it does.
    :param daemon: it serves a FUSE mount.
    """

    pid: int
    user: str
    command: str
    path: str
    daemon: bool = False

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


def _mapped_paths(process: str) -> Iterator[str]:
    """Paths that a process has mapped into its memory, proc_pid_maps(5)."""
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


def _is_daemon(process: str) -> bool:
    try:
        with open(f"{process}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip() in DAEMONS
    except OSError:
        return False


def _parent(process: str) -> int:
    try:
        with open(f"{process}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def holders(paths: Sequence[str]) -> List[Holder]:
    """The processes that hold anything at or below ``paths``, as far as we may see; never ourselves, nor daemons.

    By /proc, since fuser(1) and lsof(8) miss a process with a file of a lower open through a kernel overlay.
    """
    return [holder for holder in _found(paths) if not holder.daemon]


def _found(paths: Sequence[str]) -> List[Holder]:
    now = mounts.read()
    roots = [mounts.resolved(path, now) for path in paths]
    opened, mapped = all_within(
        SCAN_SECONDS,
        {
            "looking at the open files in /proc": partial(_holders, roots, os.getpid(), _open_paths),
            "looking at the mapped files in /proc": partial(_holders, roots, os.getpid(), _mapped_paths),
        },
    ).values()
    if opened.error:
        raise opened.error
    # A process that hangs in a dead mount may hang whoever looks at its memory map.
    found = {holder.pid: holder for outcome in (mapped, opened) for holder in outcome.value or ()}
    return sorted(found.values())


def _holders(roots: Sequence[str], own: int, paths: Callable[[str], Iterator[str]]) -> List[Holder]:
    found = []
    for pid in os.listdir("/proc"):
        if not pid.isdecimal() or int(pid) == own:
            continue
        process = f"/proc/{pid}"
        path = next((path for path in paths(process) if _below(path, roots)), None)
        if path is not None and _parent(process) != own:
            found.append(Holder(int(pid), *_describe(process), path, _is_daemon(process)))
    return found


def reasons(target: str, unions: Sequence[str]) -> List[object]:
    """What keeps a mount point busy; at least one line.

    :param unions: mount points of what may have been laid over it.
    """
    now, found = mounts.read(), _found([target])
    gone = [path for path in unions if not mounts.top(now, path)]
    copies = within(SCAN_SECONDS, "looking at the mounts in /proc", lambda: _copies(gone))
    inside = [f"{mount} is mounted in it" for mount in mounts.at_or_below(now, target) if mount.target != target]
    lines: List[object] = [*(holder for holder in found if not holder.daemon), *copies, *inside]
    if not lines:
        lines += (f"{daemon}: it serves a union that is gone here, and that a container may keep" for daemon in found)
    return lines or ["a process that you may not see (root: fuser -vm, or look for an open shell)"]


def _copies(gone: Sequence[str]) -> List[Holder]:
    """A process of each other mount namespace where a union is still mounted: it keeps the union's daemon alive."""
    namespaces = {_namespace("self"), ""}
    found = []
    for pid in sorted(filter(str.isdecimal, os.listdir("/proc")), key=int):
        namespace = _namespace(pid)
        if namespace in namespaces:
            continue
        namespaces.add(namespace)
        try:
            with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                there = mounts.parse(file.read())
        except OSError:
            continue
        for path in gone:
            if mounts.top(there, path):
                found.append(Holder(int(pid), *_describe(f"/proc/{pid}"), f"{path} in a mount namespace of its own"))
    return found


def _namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return ""


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
