"""Scripts start fast: they import what they use, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import List

import pytest

from cowstorage import settings

RUNS = 15
OPTIONS = {"remote": "plone@host:/srv", "file-storage": "var/filestorage", "blob-storage": "var/blobstorage"}

# Prints the seconds that it spent in our own code, that is in system calls, the imported modules, and the exit code.
STATUS = """
import sys
sys.path[0:0] = {path!r}
from cowstorage import cli, commands
import cowstorage.commands.status as status
import cowstorage.context
import time
inside = []
def timed(function):
    def run(*arguments):
        begun = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            inside.append(time.perf_counter() - begun)
    return run
status.run = timed(status.run)
cowstorage.context.look = timed(cowstorage.context.look)
code = cli.main("status", {options!r}, ["-q"])
import json
print(json.dumps([sum(inside), sorted(sys.modules), code]))
"""

BARE = "import time, json, sys; print(json.dumps([0, sorted(sys.modules), 0]))"


def timed(code: str) -> List[float]:
    """The seconds of several runs of an interpreter, less what its own printed number says."""
    import time

    seconds = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - begun - json.loads(done.stdout)[0])
    return seconds


@pytest.fixture
def script(tmp_path: Path) -> str:
    options = settings.to_script(settings.from_options(OPTIONS, "cow-storage", str(tmp_path)))
    return STATUS.format(path=sys.path, options=options)


def test_status_takes_little_more_than_twice_a_bare_interpreter(script: str) -> None:
    timed(script)  # Compiles.
    # The least of several: what is more is other work on the machine.
    assert min(timed(script)) <= 2.5 * min(timed(BARE))


def test_status_needs_neither_zodb_nor_sh(script: str) -> None:
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    _, modules, code = json.loads(done.stdout)
    assert code == 3
    assert not {"ZODB", "persistent", "BTrees", "sh", "zc.buildout", "cowstorage.refresh"} & set(modules)
