"""Take away what a test or a whole run left: mounts, processes, files in /etc, directories."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import List, NamedTuple

from harness import processes
from harness.polling import until

COMMAND_SECONDS = 5


class Mount(NamedTuple):
    """One line of ``/proc/self/mountinfo``."""

    point: str
    device: str
    type: str
    line: str


def mounts_below(directory: Path) -> List[Mount]:
    """What is mounted at or below ``directory``, in the order in which it was mounted."""
    top = os.path.realpath(directory)
    return [mount for mount in _mounts() if mount.point == top or mount.point.startswith(top + "/")]


def _mounts() -> List[Mount]:
    result = []
    text = Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape")
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        result.append(Mount(_unescaped(fields[4]), fields[2], after.split(" ")[0], line))
    return result


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def assert_nothing_mounted(directory: Path) -> None:
    """Fail if a test has not unmounted all that it mounted."""
    left = mounts_below(directory)
    if left:
        raise AssertionError("Still mounted:\n    " + "\n    ".join(mount.line for mount in left))


def assert_nothing_running(directory: Path) -> None:
    """Fail if programs that a test started outlive it; those of a finished mount get the time to see that."""

    def left() -> str:
        return "".join(f"\n    {pid} {processes.command(pid)}" for pid in processes.marked(directory))

    try:
        until(lambda: not left(), "no process left")
    except AssertionError:
        raise AssertionError(f"Still running:{left()}") from None


def unmount_below(directory: Path) -> None:
    """Unmount all below ``directory``, the last mounted first: by asking, then by cutting FUSE off, then lazily."""
    for mount in reversed(mounts_below(directory)):
        if _ends_well(["umount", "-c", "--", mount.point]):
            continue
        if mount.type.startswith("fuse"):
            _abort_fuse(mount)
            if _ends_well(["fusermount3", "-u", "--", mount.point]):
                continue
        _ends_well(["umount", "-c", "-l", "--", mount.point])


def _ends_well(command: List[str]) -> bool:
    """Run a command that may hang in the kernel, where no signal reaches it: then it is left behind."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return process.wait(COMMAND_SECONDS) == 0
    except subprocess.TimeoutExpired:
        process.kill()
        return False


def _abort_fuse(mount: Mount) -> None:
    """Fail whatever waits for this FUSE file system; nothing can hang on it from then on."""
    control = Path("/sys/fs/fuse/connections")
    if not os.path.ismount(control):
        _ends_well(["mount", "-t", "fusectl", "fusectl", str(control)])
    with contextlib.suppress(OSError):  # It has ended already.
        (control / mount.device.partition(":")[2] / "abort").write_text("1")


def end_processes(directory: Path) -> None:
    """End what was started for tests in ``directory``, with all that it started."""
    found = [*processes.recorded(directory), *processes.marked(directory)]
    processes.end({pid for one in found for pid in (one, *processes.descendants(one))})


def remove(directory: Path) -> None:
    """Unmount, end and delete all in ``directory``; nothing is deleted through a mount that would not go."""
    unmount_below(directory)
    end_processes(directory)
    unmount_below(directory)
    assert_nothing_mounted(directory)
    shutil.rmtree(directory)
