"""Find the processes that have the database or a mount open."""

from __future__ import annotations

import fcntl
import os
import pwd
from functools import partial
from typing import Callable, Iterable, Iterator, List, NamedTuple, Optional, Sequence

from cowstorage.errors import InUse, TimeLimit
from cowstorage.system import mounts
from cowstorage.system.files import is_inside
from cowstorage.system.output import one_line
from cowstorage.system.time_limits import CHILD, ROOT, all_within, within

# The kernel keeps so many bytes of a program's name, proc_pid_comm(5).
PROGRAM_LENGTH = 15

SCAN_SECONDS = 15.0


class Holder(NamedTuple):
    """A process that keeps a mount busy.

    :param user: the name of the process's user, the uid as text for a user without a name, ``?`` when unknown.
    :param command: the command line, at most 300 bytes of it; ``?`` when unknown.
    :param path: the path that the process has open, or a text that says how else the process keeps the mount.
    :param program: the program's name as the kernel keeps it; empty when unknown.
    """

    pid: int
    user: str
    command: str
    path: str
    program: str = ""

    def __str__(self) -> str:
        return one_line(f"pid {self.pid}, user {self.user}: {self.command} ({self.path})")


def _open_paths(process: str) -> Iterator[str]:
    """Yield the paths that a process has open, proc_pid_fd(5); of another user's process nothing can be read.

    :param process: the directory of the process in /proc.
    """
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
    """Yield the paths that a process has mapped into its memory, proc_pid_maps(5).

    :param process: the directory of the process in /proc.
    """
    try:
        with open(f"{process}/maps", encoding="utf-8", errors="surrogateescape") as maps:
            for line in maps:
                fields = line.rstrip("\n").split(None, 5)
                if len(fields) == 6:
                    yield fields[5].replace("\\012", "\n")
    except OSError:
        return


def _describe(process: str) -> tuple[str, str]:
    """Return user and command of a process, as ``Holder`` has them."""
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


def _program(process: str) -> str:
    """Return the program's name as the kernel keeps it, proc_pid_comm(5); empty when it can't be read."""
    try:
        with open(f"{process}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except OSError:
        return ""


def _parent(process: str) -> int:
    """Return the pid of a process's parent, proc_pid_stat(5); 0 when it can't be read."""
    try:
        with open(f"{process}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _is_below(process: str, own: int) -> bool:
    """Tell whether a process is a child of ours, or of one of these."""
    parent = _parent(process)
    while parent > 1 and parent != own:
        parent = _parent(f"/proc/{parent}")
    return parent == own


def holders(paths: Sequence[str], daemons: Iterable[str]) -> List[Holder]:
    """Return the processes that have a path at or below ``paths`` open or mapped, sorted by pid.

    We ourselves, our children and theirs are left out, and so are other users' processes unless we are root.
    /proc is read, since fuser(1) and lsof(8) miss a process that has a file of a lower open through a kernel overlay.

    :param paths: mount points and directories.
    :param daemons: names of programs that serve FUSE mounts; their processes are left out.  Such a process has the
        directories below its mount open, and ends when the mount is unmounted.
    :raises TimeLimit: when reading the open files takes longer than ``SCAN_SECONDS``.
    """
    return [holder for holder in _found(paths) if not _serves(holder, daemons)]


def _serves(holder: Holder, daemons: Iterable[str]) -> bool:
    """Return whether a process runs one of the programs that serve FUSE mounts, or is a look of ours that hangs."""
    return holder.program in {CHILD, *(daemon[:PROGRAM_LENGTH] for daemon in daemons)}


def _found(paths: Sequence[str]) -> List[Holder]:
    """Return the processes as ``holders`` does, with the daemons of FUSE mounts."""
    now = mounts.read()
    roots = [mounts.resolve(path, now) for path in paths]
    opened, mapped = all_within(
        SCAN_SECONDS,
        {
            "looking at the open files in /proc": partial(_holders, roots, os.getpid(), _open_paths),
            "looking at the mapped files in /proc": partial(_holders, roots, os.getpid(), _mapped_paths),
        },
        ROOT,
    ).values()
    if opened.error:
        raise opened.error
    # To read the memory map of a process that hangs in a mount may hang, too: without an answer the open files suffice.
    found = {holder.pid: holder for outcome in (mapped, opened) for holder in outcome.value or ()}
    return sorted(found.values())


def _holders(roots: Sequence[str], own: int, paths: Callable[[str], Iterator[str]]) -> List[Holder]:
    """Return the processes with a path at or below ``roots``, one path for each process.

    :param own: the pid of the script, whose process and children are left out; this function runs in such a child.
    :param paths: yields the paths that a process has open or mapped.
    """

    def held(process: str) -> Optional[str]:
        return next((path for path in paths(process) if any(is_inside(path, root) for root in roots)), None)

    found = []
    for pid in os.listdir("/proc"):
        if not pid.isdecimal() or int(pid) == own:
            continue
        process = f"/proc/{pid}"
        path = held(process)
        if path is None or _is_below(process, own):
            continue
        holder = Holder(int(pid), *_describe(process), path, _program(process))
        # A look of a script that was killed ends a moment later, and then has no name to know it by.
        if held(process) is not None:
            found.append(holder)
    return found


def reasons(target: str, unions: Sequence[str], daemons: Iterable[str]) -> List[object]:
    """Return what keeps a mount point busy: processes, mounts, or a hint; always one line at least.

    :param target: the mount point that could not be unmounted.
    :param unions: mount points of the unions that may have been laid over ``target``.
    :param daemons: as in ``holders``.  A daemon is named when nothing else is found: its union may still be mounted
        in a container.
    :raises TimeLimit: when reading /proc takes longer than ``SCAN_SECONDS``.
    """
    now, found = mounts.read(), _found([target])
    gone = [path for path in unions if not mounts.top(now, path)]
    copies = within(SCAN_SECONDS, "looking at the mounts in /proc", lambda: _copies(gone), ROOT)
    inside = [f"{mount} is mounted in it" for mount in mounts.at_or_below(now, target) if mount.target != target]
    lines: List[object] = [*(holder for holder in found if not _serves(holder, daemons)), *copies, *inside]
    if not lines:
        lines += (f"{daemon}: it serves a union that is gone here, and that a container may keep" for daemon in found)
    return lines or ["a process that you may not see (root: fuser -vm, or look for an open shell)"]


def _copies(gone: Sequence[str]) -> List[Holder]:
    """Return one process for each union and each other mount namespace where the union is still mounted.

    A mount in another mount namespace, such as a container's, keeps the daemon of the union running.

    :param gone: mount points of unions that are not mounted in our own mount namespace.
    """
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
    """Return the name of a process's mount namespace, mount_namespaces(7); empty when it can't be read."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return ""


def is_locked(path: str) -> Optional[bool]:
    """Return whether a ``Data.fs.lock`` is held, by trying to lock the file as zc.lockfile does.

    The pid inside the file is not looked at: the file may be a copy of production's.

    :returns: ``None`` when the file does not exist or can't be opened.
    """
    try:
        # NFS locks nothing for writing that is open for reading, flock(2).
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
    """Return the lock files that are held; none when a mount does not answer: a busy mount fails to unmount anyway."""
    try:
        return within(SCAN_SECONDS, "trying locks", lambda: [path for path in lock_files if is_locked(path)])
    except TimeLimit:
        return []


def refuse(paths: Sequence[str], daemons: Iterable[str], lock_files: Sequence[str] = ()) -> None:
    """Check that no process uses the paths or holds a lock.

    :param paths: mount points and directories.
    :param daemons: as in ``holders``.
    :param lock_files: paths of FileStorages' lock files; tried when no process is found.
    :raises InUse: with the processes, or with the lock files when their processes can't be seen.
    :raises TimeLimit: as ``holders`` does.
    """
    found: List[object] = list(holders(paths, daemons))
    if not found:
        found = [f"{path} is locked by a process that you may not see" for path in _locked(lock_files)]
    if found:
        raise InUse(paths, found)
