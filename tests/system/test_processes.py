"""Programs are ended at their time limit, and so is what they have started as root."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import needs, processes
from harness.developer import Developers
from harness.polling import until
from harness.runtime import Runtime

LIMIT = 1.0

# Tells what happened to a program that sudo runs longer than it may.
SCRIPT = """
import json, sys
from cowstorage.errors import TimeLimit
from cowstorage.system.processes import run_program

try:
    run_program(tuple(json.loads(sys.argv[1])), limit=float(sys.argv[2]), root=True, by_sudo=sys.argv[3] == "by sudo")
except TimeLimit as error:
    print(error.seconds)
"""

STUBBORN = "trap '' TERM; echo $$ >'{path}'; while :; do sleep 1; done"
WILLING = "echo $$ >'{path}'; exec sleep 77"


@pytest.mark.parametrize("script", [WILLING, STUBBORN], ids=["willing", "stubborn"])
@pytest.mark.parametrize("sudo", ["sudo", "sudo-rs"])
def test_what_sudo_runs_does_not_outlive_its_time_limit(
    sudo: str, script: str, scratch: Path, developers: Developers, runtime: Runtime
) -> None:
    pid_file = scratch / "pid"
    argv = [needs.program(sudo, sudo), "-n", "sh", "-c", script.format(path=pid_file)]
    command = [*runtime.code(SCRIPT), json.dumps(argv), str(LIMIT), "by sudo"]
    said = developers.dev.run(command, timeout=30, check=True).stdout
    assert float(said) == LIMIT
    pid = int(pid_file.read_text())
    until(lambda: processes.status(pid) is None, "what sudo has started is gone", 1)


# Says each time that it is run, and how.
TELLING = """#!/bin/sh
echo "$*" >>'{path}'
trap '' TERM
while :; do sleep 1; done
"""


def test_what_no_sudo_runs_is_not_asked_to_become_root(scratch: Path, developers: Developers, runtime: Runtime) -> None:
    """A program of root's, where root works for a developer, may be the user's own: ssh is."""
    told, program = scratch / "told", scratch / "program"
    told.touch()
    told.chmod(0o666)
    program.write_text(TELLING.format(path=told))
    program.chmod(0o755)
    command = [*runtime.code(SCRIPT), json.dumps([str(program), "once"]), str(LIMIT), "alone"]
    assert float(developers.alone.run(command, timeout=30, check=True).stdout) == LIMIT
    assert told.read_text() == "once\n"
