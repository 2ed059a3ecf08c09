"""Who wrote an upper that no journal tells of: read off the marks of deletion in it."""

from __future__ import annotations

import os
from typing import Tuple

from cowstorage.blobs import MARKS, entries
from cowstorage.host import UNIONFS_METADATA


def writers(upper: str) -> Tuple[str, ...]:
    """The unions that read marks like the first one found; none where there are none, and every union reads the same.

    overlay and fuse-overlayfs both make a device 0:0, which anybody may since Linux 5.8, and read each other's.
    """
    if any(os.path.isdir(os.path.join(upper, name)) for name in UNIONFS_METADATA):
        return ("unionfs-fuse",)
    for entry in entries(upper) if os.path.isdir(upper) else ():
        kinds = tuple(kind for kind, marks in MARKS.items() if any(mark(entry) is not None for mark in marks))
        if kinds:
            return kinds
    return ()
