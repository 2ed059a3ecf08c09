"""Upper directories as the unions leave them: new BLOBs, and marks of deletion."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, List, Tuple

import pytest

Mark = Callable[[str, str], None]


def make_upper(directory: Path) -> str:
    """Make an upper directory with two new BLOBs, and return its name."""
    upper = directory / "upper"
    for oid, tid in (("0x01", "0x03f0000000000001"), ("0x02", "0x03f0000000000002")):
        (upper / "0x00" / oid).mkdir(parents=True)
        (upper / "0x00" / oid / f"{tid}.blob").write_bytes(b"x")
    (upper / "tmp").mkdir()
    (upper / "tmp" / "BUCabc").write_bytes(b"x")
    return str(upper)


def mark_device(directory: str, name: str) -> None:
    """Mark by a character device 0:0."""
    try:
        os.mknod(os.path.join(directory, name), 0o020000, os.makedev(0, 0))
    except PermissionError:
        pytest.skip("may not make character devices here")


def mark_name(directory: str, name: str) -> None:
    """Mark by a file with a prefix."""
    touch(os.path.join(directory, ".wh." + name))


def hide(metadata: str, kind: Callable[[str], None]) -> Mark:
    """Return a mark in a directory of its own below upper."""

    def mark(directory: str, name: str) -> None:
        upper = directory[: directory.index("upper") + len("upper")]
        hidden = os.path.join(upper, metadata, os.path.relpath(directory, upper))
        os.makedirs(hidden, exist_ok=True)
        kind(os.path.join(hidden, name + "_HIDDEN~"))

    return mark


def touch(path: str) -> None:
    """Make an empty file."""
    open(path, "w").close()


# Each union with a mark that it writes.
MARKS: List[Tuple[str, Mark]] = [
    ("overlay", mark_device),
    ("fuse-overlayfs", mark_device),
    ("fuse-overlayfs", mark_name),
    ("unionfs-fuse", hide(".unionfs-fuse", touch)),
    ("unionfs-fuse", hide(".unionfs", touch)),
    ("unionfs-fuse", hide(".unionfs-fuse", os.mkdir)),
    ("aufs", mark_name),
]
