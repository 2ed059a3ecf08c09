"""The directory of one test run, which every user can look into, on a real disk.

Several runs can work at the same time; what a run that was killed has left is removed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import List

import pytest

from harness import cleanup, fuse_conf, processes

LOCK = Path("/run/lock/cowstorage-tests.left-behind")
BASE_VARIABLE = "COWSTORAGE_TEST_BASE"
PREFIX = "cowstorage-tests-"

# A kernel overlay can't have its upper directory on these.
UNSUITABLE = ("overlay", "fuse", "nfs", "cifs")


def base() -> Path:
    """Where the directories of test runs are: ``/var/tmp``, or what the environment says."""
    path = Path(os.environ.get(BASE_VARIABLE) or "/var/tmp").resolve()
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", str(path)]
    kind = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if kind.startswith(UNSUITABLE):
        pytest.fail(
            f"{path} is on a {kind} file system, where copy-on-write can't be tested. "
            f"Set {BASE_VARIABLE} to a directory on a disk that every user can look into.",
            pytrace=False,
        )
    closed = [str(one) for one in (path, *path.parents) if not one.stat().st_mode & 0o001]
    if closed:
        pytest.fail(f"Other users can't look into {closed[-1]}: set {BASE_VARIABLE} to another place.", pytrace=False)
    return path


class Workspace:
    """One run's directory and its files in /etc, which are named after it."""

    def __init__(self, path: Path):
        self.path = path

    @classmethod
    def create(cls) -> Workspace:
        """A new one, after removing those of runs that are no more."""
        where = base()
        LOCK.parent.mkdir(parents=True, exist_ok=True)
        # One worker of a run removes them, the others find nothing; nor do they find one that says half of whose it is.
        with LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            remove_left_behind(where)
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=str(where)))
            processes.record(path, os.getpid())
        path.chmod(0o755)
        return cls(path)

    def scratch(self, name: str) -> Path:
        """A new directory for one test."""
        short = re.sub(r"\W+", "-", name)[:30].strip("-")
        path = Path(tempfile.mkdtemp(prefix=f"{short}-", dir=str(self.path)))
        path.chmod(0o755)
        return path

    @property
    def ssh_config(self) -> Path:
        """Read by every user's ssh, before the rest of the system's configuration."""
        return Path("/etc/ssh/ssh_config.d") / f"{self.path.name}.conf"

    @property
    def sudoers(self) -> Path:
        """Who may use sudo in this run."""
        return Path("/etc/sudoers.d") / self.path.name

    def remove(self) -> None:
        """Everything of this run."""
        for file in (self.ssh_config, self.sudoers):
            if file.exists():
                file.unlink()
        (self.path / "pids").unlink()
        cleanup.remove(self.path)


def remove_left_behind(where: Path) -> None:
    """Clean up after runs whose pytest is gone."""
    for path in _left_behind(where):
        Workspace(path).remove()
    fuse_conf.restore_left_behind()


def _left_behind(where: Path) -> List[Path]:
    def alive(path: Path) -> bool:
        file = path / "pids"
        if not file.exists():
            return True  # Being made or being removed just now.
        pid, start = map(int, file.read_text(encoding="utf-8").split()[:2])
        found = processes.status(pid)
        return found is not None and found.start == start

    return [path for path in where.glob(f"{PREFIX}*") if path.is_dir() and not alive(path)]
