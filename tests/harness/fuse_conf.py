"""``user_allow_other`` in /etc/fuse.conf, on or off for the time of a test."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Iterator

from harness.polling import until

CONFIGURATION = Path("/etc/fuse.conf")
ORIGINAL = Path("/etc/fuse.conf.before-cowstorage-tests")
LOCK = Path("/run/lock/cowstorage-tests.fuse-conf")

LINE = re.compile(r"^[ \t]*user_allow_other[ \t]*$\n?", re.MULTILINE)

# Another run may be in the middle of a test that needs the opposite.
SECONDS_TO_WAIT = 120


def allows_other() -> bool:
    """Whether an ordinary user may let others look into a FUSE mount."""
    return CONFIGURATION.exists() and bool(LINE.search(CONFIGURATION.read_text(encoding="utf-8")))


@contextmanager
def user_allow_other(allowed: bool = True) -> Iterator[None]:
    """Set or remove the line, and put the file back afterwards.

    Runs at the same time wait for each other here: hold it no longer than one test takes.
    """
    with _locked() as lock:
        until(lambda: _try(lock), "no other test run keeps /etc/fuse.conf", SECONDS_TO_WAIT)
        _restore()
        if allows_other() != allowed:
            _change(allowed)
        try:
            yield
        finally:
            _restore()


def restore_left_behind() -> None:
    """Put back what a run that was killed has changed; a run that is alive keeps its own."""
    with _locked() as lock:
        if _try(lock):
            _restore()


@contextmanager
def _locked() -> Iterator[IO[str]]:
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        yield lock


def _try(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _change(allowed: bool) -> None:
    text = CONFIGURATION.read_text(encoding="utf-8") if CONFIGURATION.exists() else ""
    _write(ORIGINAL, text)
    without = LINE.sub("", text)
    _write(CONFIGURATION, f"{without.rstrip()}\nuser_allow_other\n".lstrip() if allowed else without)


def _restore() -> None:
    if ORIGINAL.exists():
        os.replace(ORIGINAL, CONFIGURATION)


def _write(path: Path, text: str) -> None:
    """At once or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o644)
    os.replace(new, path)
