"""A function that is called meanwhile, in a child process: its outcome, its time limit, its end."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from cowstorage.errors import CowStorageError, TimeLimit
from cowstorage.system.time_limits import Begun, within
from harness.polling import until


def hangs(pid: Path) -> None:
    """Write the child's pid, and never return."""
    pid.with_suffix(".new").write_text(str(os.getpid()))
    pid.with_suffix(".new").rename(pid)
    threading.Event().wait()


def is_running(pid: int) -> bool:
    """Tell whether a child of ours runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_is_done_while_something_else_is(tmp_path: Path) -> None:
    begun = Begun(60, "writing", lambda: (tmp_path / "done").touch() or os.getpid())
    until((tmp_path / "done").exists, "the function was called")
    assert begun.result() != os.getpid()


def test_an_error_is_the_outcome() -> None:
    def fails() -> None:
        raise CowStorageError("no")

    with pytest.raises(CowStorageError, match="no"):
        Begun(60, "failing", fails).result()


def test_what_takes_too_long_is_an_error_and_ended(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    begun = Begun(0.2, "hanging", lambda: hangs(pid))
    until(pid.exists, "the function was called")
    with pytest.raises(TimeLimit):
        begun.result()
    until(lambda: not is_running(int(pid.read_text())), "the child has ended")


def test_the_children_of_what_is_given_up_end_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    begun = Begun(60, "waiting", lambda: within(60, "hanging", lambda: hangs(pid)))
    until(pid.exists, "the function was called")
    begun.give_up()
    until(lambda: not is_running(int(pid.read_text())), "the child's child has ended")


def test_what_is_given_up_is_ended_and_not_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    begun = Begun(60, "hanging", lambda: hangs(pid))
    until(pid.exists, "the function was called")
    before = time.monotonic()
    begun.give_up()
    assert time.monotonic() < before + 6
    until(lambda: not is_running(int(pid.read_text())), "the child has ended")
