"""Who holds a directory: by /proc, without root, a process of the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

from cowstorage.system import in_use
from cowstorage.system.time_limits import CHILD, within

NAMED = "open('/proc/self/comm', 'w').write({name!r}); print('ready', flush=True); input()"


@pytest.fixture
def named(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A process of that name, in the directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", NAMED.format(name=request.param)],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    yield process
    process.communicate("\n")


def holders(path: Path) -> list[int]:
    # As a later command sees it: the test itself is its parent.
    return within(10, "looking", lambda: [one.pid for one in in_use.holders([str(path)], ("sshfs",))])


@pytest.mark.parametrize("named", ["plone"], indirect=True)
def test_a_process_in_the_directory_is_a_holder(named: Any, tmp_path: Path) -> None:
    assert holders(tmp_path) == [named.pid]


@pytest.mark.parametrize("named", ["sshfs", CHILD], indirect=True)
def test_a_daemon_and_a_look_of_ours_that_hangs_are_none(named: Any, tmp_path: Path) -> None:
    assert holders(tmp_path) == []


def test_a_look_has_its_name() -> None:
    assert within(10, "looking", lambda: Path("/proc/self/comm").read_text()) == f"{CHILD}\n"


def test_the_children_of_our_children_are_none(tmp_path: Path) -> None:
    """Root that works for a developer can't give them their name, proc(5)."""
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {NAMED!r}.format(name='python')])"
    child = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    assert child.stdout.readline() == "ready\n"
    try:
        assert [one.pid for one in in_use.holders([str(tmp_path)], ())] == []
        assert len(holders(tmp_path)) == 2
    finally:
        child.communicate("\n")


def test_a_process_that_ends_while_it_is_looked_at_is_none(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])

    def opened(directory: str) -> Iterator[str]:
        if directory == f"/proc/{process.pid}" and process.poll() is None:
            process.kill()
            process.wait()
            yield str(tmp_path)

    assert in_use._holders([str(tmp_path)], os.getpid(), opened) == []
    assert process.returncode == -signal.SIGKILL
