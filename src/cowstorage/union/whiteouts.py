"""Whiteouts, the marks of deletion in an upper: which unions make which, and so who wrote an upper."""

from __future__ import annotations

import os
import stat
from typing import Callable, Dict, Tuple

from cowstorage.system.files import walk

# Names that aufs keeps for itself at the top of a writable branch, aufs(5): no whiteouts, and root's alone.
AUFS_OWN = ".wh..wh."

# In a directory that hides production's of the same name, as aufs and fuse-overlayfs make it.
OPAQUE = ".wh..wh..opq"

IsWhiteout = Callable[["os.DirEntry[str]"], bool]


def _is_device(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a character device 0:0.

    Kernel document Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories".
    """
    if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
        return False  # known from readdir(3), without an lstat(2) for each of 100,000 files
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_named(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is ``.wh.<name>``: of aufs, and of fuse-overlayfs where it may not make devices."""
    return entry.name.startswith(".wh.") and (entry.name == OPAQUE or not entry.name.startswith(AUFS_OWN))


def _is_hidden(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is ``<name>_HIDDEN~``, file or directory, as unionfs-fuse's own directory has them."""
    return entry.name.endswith("_HIDDEN~")


# Union → the whiteouts that it makes and reads.
WHITEOUTS: Dict[str, Tuple[IsWhiteout, ...]] = {
    "overlay": (_is_device,),
    "fuse-overlayfs": (_is_device, _is_named),
    "unionfs-fuse": (_is_hidden,),
    "aufs": (_is_named,),
}

# Unions that mark a directory which hides production's by an extended attribute, most often one that root alone sees,
# kernel document overlayfs.rst, "whiteouts and opaque directories".
MARK_DIRECTORIES = ("overlay", "fuse-overlayfs")

# ZODB's directory of BLOBs that are not committed yet, ``ZODB.blob.FilesystemHelper``: what it hides is nobody's.
SCRATCH = "tmp"


def is_whiteout(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry of an upper is a whiteout of any union."""
    return any(test(entry) for tests in WHITEOUTS.values() for test in tests)


def is_plain(upper: str, union: str) -> bool:
    """Tell whether an upper that a union wrote means the same to every union: there is no whiteout in the upper.

    :raises OSError: when a directory can't be read.
    """
    if not os.path.isdir(upper):
        return True
    if writers(upper):
        return False
    return union not in MARK_DIRECTORIES or not any(
        entry.is_dir(follow_symlinks=False) and (entry.name != SCRATCH or os.listdir(entry.path))
        for entry in os.scandir(upper)
    )


def writers(upper: str) -> Tuple[str, ...]:
    """Return the unions that make and read the first whiteout found in an upper; ``()`` when there is none.

    Every union can read an upper without whiteouts.  overlay and fuse-overlayfs both make devices 0:0, which any user
    may since Linux 5.8, and read each other's.  aufs leaves a directory of its own at the top, and nobody else does.
    """
    for entry in walk(upper, AUFS_OWN) if os.path.isdir(upper) else ():
        found = tuple(union for union, tests in WHITEOUTS.items() if any(test(entry) for test in tests))
        if found:
            return ("aufs",) if "aufs" in found and _has_aufs_own(upper) else found
    return ()


def _has_aufs_own(upper: str) -> bool:
    """Tell whether aufs was mounted with an upper as its writable branch."""
    return any(name.startswith(AUFS_OWN) and name != OPAQUE for name in os.listdir(upper))
