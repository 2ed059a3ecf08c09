"""The trash of a part: directories are renamed into it at once, and deleted in the background afterwards."""

from __future__ import annotations

import os
import time
from typing import List, Tuple

from cowstorage.errors import PathUnusable
from cowstorage.system import mounts
from cowstorage.system.installed import find_program
from cowstorage.system.programs import Command, Runner


def directory(location: str) -> str:
    """Return the trash directory of the part whose state is in ``location``."""
    return os.path.join(location, "trash")


def aside(path: str, location: str) -> Tuple[Command, ...]:
    """Return the commands that rename a directory into the trash, in constant time whatever the directory holds."""
    name = f"{os.path.basename(path)}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    return (
        Command(("mkdir", "-p", "-m", "0700", "--", directory(location))),
        Command(("mv", "-T", "--", path, os.path.join(directory(location), name))),
    )


def empty(location: str, runner: Runner) -> None:
    """Start to delete what is in the trash, and don't wait for the end: 100,000 files take 20 seconds.

    :raises PathUnusable: when something is mounted in the trash, which deleting would empty.
    """
    path = directory(location)
    if os.path.islink(path) or os.path.islink(location):
        raise PathUnusable(path, "is reached by a link, so nothing in it is deleted. Put a directory in its place.")
    if not os.path.isdir(path) or not os.listdir(path):
        return
    inside = mounts.at_or_below(mounts.read(), os.path.realpath(path))
    if inside:
        raise PathUnusable(path, f"{inside[0].target} is mounted in it. Unmount it first.")
    nice: List[str] = ["nice"] if find_program("nice") else []
    entries = [os.path.join(path, name) for name in os.listdir(path)]
    runner.run(Command(("setsid", "-f", *nice, "rm", "-rf", "--one-file-system", "--", *entries), detached=True))
