"""Scripts start fast: they import what they use, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cowstorage.buildout.options import from_options
from cowstorage.part import settings

# The least of several runs is what the machine can do; more where another program takes the processor's caches.
RUNS = 20
MOST_RUNS = 200
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
import cowstorage.actions.context
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
cowstorage.actions.context.facts_about = timed(cowstorage.actions.context.facts_about)
code = cli.main("status", {options!r}, ["-q"])
import json
print(json.dumps([time.process_time() - sum(inside), sorted(sys.modules), code]))
"""

# argparse of Python 3.14 imports dataclasses and inspect when an argument is added, to colour its help: 8 of 31 ms,
# and no way around them but its private methods.
PARSER = "import argparse; argparse.ArgumentParser().add_argument('-q')\n" if sys.version_info >= (3, 14) else ""

BARE = f"{PARSER}import time, json, sys; print(json.dumps([time.process_time(), sorted(sys.modules), 0]))"


def seconds(code: str) -> float:
    """The seconds of the processor that an interpreter says it took."""
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True)
    return float(json.loads(run.stdout)[0])


@pytest.fixture
def script(tmp_path: Path) -> str:
    options = settings.to_script(from_options(OPTIONS, "cow-storage", str(tmp_path)))
    return STATUS.format(path=sys.path, options=options)


@pytest.mark.idle
def test_status_takes_no_more_than_twice_a_bare_interpreter(script: str) -> None:
    """By turns, so that what else the machine does meets both; to more runs where it met one more than the other."""
    seconds(script)  # Compiles.
    ours, bare = [], []
    for run in range(MOST_RUNS):
        ours.append(seconds(script))
        bare.append(seconds(BARE))
        if run >= RUNS and min(ours) <= 2 * min(bare) + SYSTEM_CALLS_SECONDS:
            return
    pytest.fail(f"{min(ours) * 1000:.1f} ms, {min(ours) / min(bare):.2f} times a bare interpreter")


def test_status_needs_neither_zodb_nor_sh(script: str) -> None:
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    _, modules, code = json.loads(done.stdout)
    assert code == 3
    assert not {"ZODB", "persistent", "BTrees", "sh", "zc.buildout", "cowstorage.actions.fetch"} & set(modules)
