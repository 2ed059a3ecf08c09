"""The table of unions; each is one module with one class, a subclass of ``base.Union``.

To add one, write its module in this room and its line in ``UNIONS``: all other modules ask the object for its
programs, packages, daemons and whether it needs root.
"""

from __future__ import annotations

from typing import Dict, Optional, Tuple

from cowstorage.system.mounts import Mount
from cowstorage.union.aufs import Aufs
from cowstorage.union.base import Union
from cowstorage.union.fuse_overlayfs import FuseOverlayFS
from cowstorage.union.overlay import Overlay
from cowstorage.union.unionfs_fuse import UnionFSFuse

# Name → union, in the order in which ``auto`` tries them.
UNIONS: Dict[str, Union] = {union.name: union for union in (Overlay(), Aufs(), FuseOverlayFS(), UnionFSFuse())}


def candidates(option: str) -> Tuple[Union, ...]:
    """Return the unions that a value of the option ``union`` allows, in the order to try them.

    :param option: for ``auto``, and for a union that only another release knows, all are returned.
    """
    return (UNIONS[option],) if option in UNIONS else tuple(UNIONS.values())


def ours(mount: Optional[Mount]) -> bool:
    """Tell whether a mount was made by any of our unions."""
    return mount is not None and any(union.owns(mount) for union in UNIONS.values())


def writes_out(mount: Mount) -> bool:
    """Tell whether a mount was made by one of our unions that writes out a whole file system when it is unmounted."""
    return any(union.owns(mount) and union.writes_out for union in UNIONS.values())
