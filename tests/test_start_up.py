"""Scripts start fast: they import what they use, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cowstorage import settings

RUNS = 20
# To find and to read the files of some 30 modules more than the bare one.
SYSTEM_CALLS_SECONDS = 0.0015
OPTIONS = {"remote": "plone@host:/srv", "file-storage": "var/filestorage", "blob-storage": "var/blobstorage"}

# Prints the seconds of the processor it took without what it found out by system calls, the imported modules, and the
# exit code.
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
        begun = time.process_time()
        try:
            return function(*arguments)
        finally:
            inside.append(time.process_time() - begun)
    return run
status.run = timed(status.run)
cowstorage.context.look = timed(cowstorage.context.look)
code = cli.main("status", {options!r}, ["-q"])
import json
print(json.dumps([time.process_time() - sum(inside), sorted(sys.modules), code]))
"""

BARE = "import time, json, sys; print(json.dumps([time.process_time(), sorted(sys.modules), 0]))"


def least(code: str) -> float:
    """The seconds of the processor that an interpreter says it took, the least of several runs."""
    runs = (subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True) for _ in range(RUNS))
    return min(float(json.loads(run.stdout)[0]) for run in runs)


@pytest.fixture
def script(tmp_path: Path) -> str:
    options = settings.to_script(settings.from_options(OPTIONS, "cow-storage", str(tmp_path)))
    return STATUS.format(path=sys.path, options=options)


def test_status_takes_no_more_than_twice_a_bare_interpreter(script: str) -> None:
    least(script)  # Compiles.
    ours, bare = least(script), least(BARE)
    assert ours <= 2 * bare + SYSTEM_CALLS_SECONDS, f"{ours / bare:.2f} times a bare interpreter"


def test_status_needs_neither_zodb_nor_sh(script: str) -> None:
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    _, modules, code = json.loads(done.stdout)
    assert code == 3
    assert not {"ZODB", "persistent", "BTrees", "sh", "zc.buildout", "cowstorage.refresh"} & set(modules)
