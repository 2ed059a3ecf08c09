"""Used while it is to be unmounted: whoever uses it is named with pid, user and command, and nothing is touched."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, List

import pytest

from faults import scripts
from harness.buildout import Buildout
from harness.developer import Developers
from harness.polling import until
from harness.production import Production

READY = "print('ready', flush=True); sys.stdin.read()"
USES: Dict[str, List[str]] = {
    "working directory": ["sh", "-c", "cd var/blobstorage && echo ready && read line"],
    "open file": [sys.executable, "-c", f"import sys; f = open('var/filestorage/Data.fs', 'rb'); {READY}"],
    "file of production": [
        sys.executable,
        "-c",
        f"import sys, glob; f = open(glob.glob('var/blobstorage/**/*.blob', recursive=True)[0], 'rb'); {READY}",
    ],
    "memory map": [
        sys.executable,
        "-c",
        "import sys, mmap; f = open('var/filestorage/Data.fs', 'rb'); "
        f"m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); f.close(); {READY}",
    ],
}


@pytest.fixture
def buildout(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> Iterator[Buildout]:
    made = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    scripts.run(made, "mount", check=True)
    yield made
    scripts.run(made, "umount", check=True)


@pytest.mark.parametrize("use", USES)
def test_whoever_uses_a_mount_is_named(buildout: Buildout, use: str) -> None:
    process = buildout.developer.popen(USES[use], cwd=buildout.path)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    buildout.commit(1) if use == "working directory" else None
    before = buildout.read()
    for command in ("umount", "sync") if use != "working directory" else ("umount", "sync", "rollback"):
        refused = scripts.run(buildout, command, *(("--yes",) if command != "umount" else ()))
        assert refused.returncode == 1
        assert f"pid {process.pid}, user root: {USES[use][0]} -c" in refused.stderr
        assert "Stop it (bin/instance stop, bin/zeoserver stop), then run the same command again." in refused.stderr
    assert buildout.read() == before
    process.kill()
    process.wait()
    scripts.run(buildout, "umount", check=True)


def test_a_running_instance_is_named(buildout: Buildout) -> None:
    instance = buildout.hold()
    refused = scripts.run(buildout, "umount")
    assert f"pid {instance.pid}, user root: " in refused.stderr
    assert "harness.database" in refused.stderr
    instance.kill()
    instance.wait()


def waits_not() -> None:
    """A fault: whoever has the lock is not waited for."""
    from cowstorage import cli

    cli.LOCK_SECONDS = 0.0


def test_a_second_command_says_which_is_at_work(buildout: Buildout) -> None:
    """The second waits for a while, and then says which the first is."""

    def stops_with_the_lock() -> None:
        import os
        import signal

        from cowstorage.commands import umount

        umount.run = lambda context: os.kill(os.getpid(), signal.SIGSTOP) or 0  # type: ignore[assignment]

    first = scripts.start(buildout, "umount", fault=stops_with_the_lock)
    lock = buildout.path / "var" / "cow-storage" / "lock"
    until(lambda: f"pid {first.pid}" in lock.read_text(), "the first has the lock")
    second = scripts.run(buildout, "savepoint", "x", fault=waits_not)
    assert second.returncode == 1
    assert f"Another command is at work: cow-umount (pid {first.pid})" in second.stderr
    first.send(9)
    first.ended()
    scripts.run(buildout, "savepoint", "x", fault=waits_not, check=True)


LINGERS = """#!/bin/sh
trap '' TERM
echo begun >'{directory}/begun'
read line <'{directory}/pipe'
"""


def test_what_a_killed_command_left_writing_is_waited_for(
    buildout: Buildout, production: Production, scratch: Path
) -> None:
    """Half of rsync outlives the other half by 0.4 seconds, and would write into a database that is in use again."""
    (scratch / "rsync").write_text(LINGERS.format(directory=scratch))
    (scratch / "rsync").chmod(0o755)
    os.mkfifo(scratch / "pipe")

    def lingers() -> None:
        os.environ["PATH"] = f"{scratch}:{os.environ['PATH']}"

    production.commit(1)
    first = scripts.start(buildout, "sync", "--yes", fault=lingers)
    until((scratch / "begun").exists, "rsync runs")
    first.send(9)
    first.ended()
    second = scripts.run(buildout, "sync", "--yes", fault=waits_not)
    assert second.returncode == 1
    assert f"Another command is at work: cow-sync (pid {first.pid})" in second.stderr
    (scratch / "pipe").write_text("end\n")
    scripts.run(buildout, "sync", "--yes", check=True)
    assert buildout.read() == production.expected()
