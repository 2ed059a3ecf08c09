"""A program that has done what it is for is left to end by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cowstorage.errors import CommandFailed, TimeLimit
from cowstorage.system.processes import run_program
from harness.polling import until

SCRIPT = """
import os, sys
from cowstorage.system.processes import run_program

pid = os.path.join(sys.argv[1], "pid")
run_program(("sh", "-c", f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 60"), done=lambda: os.path.exists(pid))
print(open(pid).read())
"""


def test_it_is_not_waited_for_neither_then_nor_at_our_end(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    begun = time.monotonic()
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    pid = int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert time.monotonic() - begun < 30
    # What is in the kernel is not hurried by a signal; all else ends with us.
    until(lambda: not os.path.exists(f"/proc/{pid}"), "it has ended with us")


def test_one_that_fails_before_has_failed() -> None:
    with pytest.raises(CommandFailed, match="exit code 3"):
        run_program(("sh", "-c", "exit 3"), done=lambda: False)


def test_one_that_does_not_do_it_is_ended_at_its_limit() -> None:
    with pytest.raises(TimeLimit):
        run_program(("sleep", "60"), limit=0.2, done=lambda: False)


def test_one_that_ends_has_done_it() -> None:
    assert run_program(("echo", "said"), done=lambda: False) == "said\n"
