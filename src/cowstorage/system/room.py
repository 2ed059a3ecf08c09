"""Room on a disk: what is free, and what is left free."""

from __future__ import annotations

import os

from cowstorage.system.files import existing

# Bytes that are left over where much is fetched to, and below which a warning is due: a BLOB that is made, or copied
# up by a chmod, is most often smaller.
RESERVE = 50_000_000


def free_bytes(path: str) -> int:
    """Return the bytes that are free for us on the file system of a path, or of its nearest parent that exists."""
    status = os.statvfs(existing(path))
    return status.f_bavail * status.f_frsize


def size_of(path: str) -> int:
    """Return the bytes of a file; 0 for one that isn't there."""
    return os.path.getsize(path) if os.path.exists(path) else 0
