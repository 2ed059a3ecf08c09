"""A directory tree as comparable data: whatever is done to it shows."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Dict, List, Mapping, NamedTuple, Optional

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


class Entry(NamedTuple):
    """One path; ``ctime_ns`` tells even of a change that was taken back, and of extended attributes."""

    type: str
    mode: int
    uid: int
    gid: int
    size: Optional[int]
    mtime_ns: int
    ctime_ns: int
    sha256: Optional[str]
    target: Optional[str]


Snapshot = Dict[str, Entry]


def sha256_of(path: str) -> str:
    """Of a file's content, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def entry(path: str) -> Entry:
    """What there is at ``path``; symbolic links are not followed."""
    status = os.lstat(path)
    kind = TYPES[stat.S_IFMT(status.st_mode)]
    return Entry(
        type=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind in ("file", "link") else None,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        sha256=sha256_of(path) if kind == "file" else None,
        target=os.readlink(path) if kind == "link" else None,
    )


def snapshot(root: os.PathLike[str]) -> Snapshot:
    """Every path below ``root``, relative to it, and ``root`` itself as ``.``; nothing where there is nothing."""
    top = os.fspath(root)
    if not os.path.lexists(top):
        return {}
    result = {".": entry(top)}
    for directory, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(directory, name)
            result[os.path.relpath(path, top)] = entry(path)
    return result


def differences(before: Mapping[str, Entry], after: Mapping[str, Entry]) -> List[str]:
    """One line per path that came, went or changed, with each field that differs."""
    lines = []
    for path in sorted(set(before) | set(after)):
        old, new = before.get(path), after.get(path)
        if new is None:
            lines.append(f"{path}: gone")
        elif old is None:
            lines.append(f"{path}: new, {_shown(new)}")
        elif old != new:
            fields = (f for f in Entry._fields if getattr(old, f) != getattr(new, f))
            changes = ", ".join(f"{f} {_value(f, old)} -> {_value(f, new)}" for f in fields)
            lines.append(f"{path}: {changes}")
    return lines


def assert_same(before: Mapping[str, Entry], after: Mapping[str, Entry], what: str) -> None:
    """Fail with the list of differences.

    :param what: the tree's name, for the message.
    """
    changed = differences(before, after)
    if changed:
        raise AssertionError(f"{what} was changed:\n    " + "\n    ".join(changed))


def _value(field: str, of: Entry) -> str:
    value = getattr(of, field)
    if field == "mode":
        return f"{value:04o}"
    if field == "sha256" and value:
        return f"{value[:12]}…"
    return str(value)


def _shown(of: Entry) -> str:
    return f"{of.type} {of.mode:04o} {of.uid}:{of.gid} {of.size if of.size is not None else ''}".rstrip()
