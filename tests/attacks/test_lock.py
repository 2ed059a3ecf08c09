"""The lock of a part is removed, or moved away, while a command holds it: the next one still waits."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Callable, Iterator

import pytest

from faults import scripts
from faults.points import stopped_at
from harness import processes
from harness.buildout import Buildout
from harness.developer import Developers
from harness.polling import until
from harness.production import Production


@pytest.fixture(params=["root", "alone"])
def buildout(
    request: pytest.FixtureRequest,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> Iterator[Buildout]:
    developer = getattr(developers, request.param)
    production.give_to(developer.uid, developer.gid)
    sudo = "no" if request.param == "alone" else "auto"
    made = make_buildout(developer, {"remote": str(production.path), "sudo": sudo})
    made.run("mount", check=True)
    made.commit(1)
    yield made
    made.run("umount", "--lazy")


def removed(path: Path) -> None:
    path.unlink()


def made_anew(path: Path) -> None:
    path.unlink()
    path.touch()


def a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("done", [removed, made_anew, a_fifo])
def test_a_lock_that_is_taken_away_while_it_is_held_still_holds(
    done: Callable[[Path], None], buildout: Buildout
) -> None:
    before = buildout.read()
    running = scripts.start(buildout, "rollback", "--yes", fault=stopped_at("rm"))
    try:
        until(lambda: "T" in str(processes.status(running.pid)), "rollback stops itself")
        done(Path(buildout.settings.location) / "lock")
        refused = scripts.run(buildout, "sync", "--yes")
        assert refused.returncode == 1
        assert "Another command is at work" in refused.stderr
    finally:
        until(lambda: "T" in str(processes.status(running.pid)), "rollback stops itself")
        running.send(signal.SIGCONT)
    assert running.ended().returncode == 0
    assert buildout.read() != before
