"""Throws directories away: renamed aside at once, deleted afterwards in the background."""

from __future__ import annotations

import os
import time
from typing import List, Tuple

from cowstorage import mounts
from cowstorage.errors import PathUnusable
from cowstorage.system import Command, Runner, find_program


def directory(location: str) -> str:
    """Where directories on their way out are."""
    return os.path.join(location, "trash")


def aside(path: str, location: str) -> Tuple[Command, ...]:
    """The commands that rename a directory into the trash: constant time, whatever it holds."""
    name = f"{os.path.basename(path)}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    return (
        Command(("mkdir", "-p", "-m", "0700", "--", directory(location))),
        Command(("mv", "-T", "--", path, os.path.join(directory(location), name))),
    )


def empty(location: str, runner: Runner) -> None:
    """Start deleting what is in the trash, and don't wait: 100,000 files take 20 seconds.

    :raises PathUnusable: when something is mounted in there, which deleting would empty.
    """
    path = directory(location)
    if not os.path.isdir(path) or not os.listdir(path):
        return
    inside = mounts.at_or_below(mounts.read(), os.path.realpath(path))
    if inside:
        raise PathUnusable(path, f"{inside[0].target} is mounted in it. Unmount it first.")
    nice: List[str] = ["nice"] if find_program("nice") else []
    entries = [os.path.join(path, name) for name in os.listdir(path)]
    runner.run(Command(("setsid", "-f", *nice, "rm", "-rf", "--one-file-system", "--", *entries), detached=True))
