"""Processes as /proc tells them: whose they are, what they started, and how to end them."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional

from harness.polling import until

# Every program that the harness starts for a developer has this in its environment, and so has what that starts.
MARKER = "COWSTORAGE_TEST_DIRECTORY"


class Status(NamedTuple):
    """The fields of ``/proc/PID/stat`` that are of use here; pid and start together name a process for good."""

    state: str
    parent: int
    session: int
    start: int


def status(pid: int) -> Optional[Status]:
    """``None`` for a process that is gone, or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else Status(fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def all_pids() -> List[int]:
    """Of every process that can be seen."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command(pid: int) -> str:
    """The command line, for people."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "?"


def descendants(pid: int) -> List[int]:
    """Children, their children and so on; parents come first."""
    children: Dict[int, List[int]] = {}
    for other in all_pids():
        found = status(other)
        if found:
            children.setdefault(found.parent, []).append(other)
    result: List[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        result += below
        waiting += below
    return result


def of_session(leader: int) -> List[int]:
    """What a leader of a session, see setsid(2), has started, also when it has ended; daemons have their own."""
    found = {pid: status(pid) for pid in all_pids()}
    return [pid for pid, one in found.items() if one and one.session == leader]


def marked(directory: Path) -> List[int]:
    """What was started for a developer by a test that works in ``directory`` or below it, daemons included."""
    return [pid for pid in all_pids() if pid != os.getpid() and _is_marked(pid, os.fsencode(directory))]


def _is_marked(pid: int, directory: bytes) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    start = MARKER.encode() + b"="
    values = (variable[len(start) :] for variable in environment.split(b"\0") if variable.startswith(start))
    return any(value == directory or value.startswith(directory + b"/") for value in values)


def send(pids: Iterable[int], number: int) -> None:
    """A signal to each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def stop(pid: int) -> None:
    """SIGSTOP to a process and all that it started, also while it goes on starting more."""

    def family() -> List[int]:
        return [pid, *descendants(pid)]

    def still() -> bool:
        send(family(), signal.SIGSTOP)
        found = [status(member) for member in family()]
        return all(one is None or one.state in "Tt" for one in found)

    until(still, f"process {pid} and its children stopped")


def resume(pid: int) -> None:
    """Undo ``stop``."""
    send([pid, *descendants(pid)], signal.SIGCONT)


def end(pids: Iterable[int], number: int = signal.SIGKILL) -> None:
    """A signal to each of these very processes, and a wait until they are gone; stopped ones are woken."""
    started = {pid: found.start for pid in pids for found in [status(pid)] if found}

    def left() -> List[int]:
        found = {pid: status(pid) for pid in started}
        return [pid for pid, one in found.items() if one and one.start == started[pid]]

    send(left(), number)
    send(left(), signal.SIGCONT)
    until(lambda: not left(), f"ended: {', '.join(f'{pid} ({command(pid)})' for pid in started)}")


def record(directory: Path, pid: int) -> None:
    """Write down a process in ``directory``, so that a later run can end it if this one can't."""
    found = status(pid)
    if found:
        with (directory / "pids").open("a", encoding="utf-8") as file:
            file.write(f"{pid} {found.start}\n")


def recorded(directory: Path) -> List[int]:
    """Those written down in ``directory`` and the two levels below it that still run."""
    result = []
    for pattern in ("pids", "*/pids", "*/*/pids"):
        for file in directory.glob(pattern):
            for line in file.read_text(encoding="utf-8").splitlines():
                pid, start = map(int, line.split())
                found = status(pid)
                if found and found.start == start:
                    result.append(pid)
    return result
