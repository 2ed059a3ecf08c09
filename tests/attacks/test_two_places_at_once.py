"""The same buildout on the host and in a container, or on two machines: two unions on one upper, two ZODBs on one file.

A container is a mount namespace, and a pid namespace, of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest

from harness import cleanup, processes
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.release import DEVELOPERS_UNION

CHANGING = (
    ("mount",),
    ("savepoint", "x"),
    ("sync", "--yes"),
    ("rollback", "--yes"),
    ("prefetch", "--clear"),
    ("umount",),
)


@pytest.fixture(params=[("root", "overlay"), ("dev", "overlay"), ("alone", DEVELOPERS_UNION)], ids="-".join)
def buildout(
    request: pytest.FixtureRequest,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> Iterator[Buildout]:
    who, union = request.param
    developer = getattr(developers, who)
    production.give_to(developer.uid, developer.gid)
    sudo = "no" if who == "alone" else "auto"
    made = make_buildout(developer, {"remote": str(production.path), "union": union, "sudo": sudo})
    made.run("mount", check=True)
    made.commit(1, changed=1)
    yield made
    made.run("umount", "--lazy", "--gone")


class Container:
    """A place of its own that sees the same disk, and none of the mounts of the part."""

    def __init__(self, buildout: Buildout):
        self.buildout = buildout
        hide = "; ".join(f"umount -l {one.point} 2>/dev/null" for one in cleanup.mounts_below(buildout.path)[::-1])
        script = f"{hide}; echo ready; exec sleep 1000"
        self.process: Any = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", script],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"
        (self.init,) = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script in there, as the buildout's developer."""
        buildout = self.buildout
        user = [] if not buildout.developer.uid else ["setpriv", f"--reuid={buildout.developer.uid}", "--init-groups"]
        user += [f"--regid={buildout.developer.gid}", "--"] if user else []
        enter: List[str] = ["nsenter", "-t", self.init, "--mount", "--pid", "--root"]
        argv = [*enter, *user, str(buildout.script(command)), *arguments]
        return subprocess.run(argv, cwd=buildout.path, capture_output=True, text=True)

    def end(self) -> None:
        self.process.kill()
        subprocess.run(["kill", "-9", self.init])
        self.process.wait()


@pytest.fixture
def container(buildout: Buildout) -> Iterator[Container]:
    made = Container(buildout)
    yield made
    made.end()


@pytest.mark.parametrize("command", CHANGING, ids=" ".join)
def test_what_is_mounted_outside_is_not_touched_inside(
    command: tuple[str, ...], buildout: Buildout, container: Container
) -> None:
    before = buildout.read()
    refused = container.run(*command)
    assert refused.returncode == 1
    assert "another mount namespace" in refused.stderr
    assert "cow-umount there" in refused.stderr
    assert buildout.read() == before


def test_what_is_mounted_inside_is_not_touched_outside_until_it_is_gone(
    buildout: Buildout, container: Container
) -> None:
    buildout.run("umount", check=True)
    mounted = container.run("mount")
    assert mounted.returncode == 0, mounted.stderr
    for command in CHANGING:
        refused = buildout.run(*command)
        assert refused.returncode == 1, command
        assert "another mount namespace" in refused.stderr
    container.end()
    buildout.run("umount", "--gone", check=True)
    buildout.run("mount", check=True)
    assert buildout.run("status", "-q").returncode == 0


def test_another_machine_is_named_until_it_is_said_to_be_gone(buildout: Buildout) -> None:
    journal = Path(buildout.settings.location) / "journal.json"
    data = json.loads(journal.read_text())
    data["mounted"]["where"] = {"machine": "0" * 32, "boot": "another", "namespace": "mnt:[1]"}
    journal.write_text(json.dumps(data))
    for command in CHANGING:
        refused = buildout.run(*command)
        assert refused.returncode == 1
        assert "another machine" in refused.stderr
    buildout.run("umount", "--gone", check=True)
    buildout.run("mount", check=True)


def test_a_reboot_is_no_other_machine(buildout: Buildout) -> None:
    buildout.run("umount", check=True)
    journal = Path(buildout.settings.location) / "journal.json"
    buildout.run("mount", check=True)
    data = json.loads(journal.read_text())
    data["mounted"]["where"]["boot"] = "the one before"
    journal.write_text(json.dumps(data))
    buildout.run("umount", check=True)


def test_who_opens_the_upper_itself_is_named(buildout: Buildout) -> None:
    """Without any union: by a path that is no mount point."""
    buildout.run("umount", check=True)
    upper = buildout.path / "var" / "filestorage.prod" / "Data.fs"
    holder = buildout.developer.popen(["sh", "-c", f"exec 3< {upper}; echo open; exec sleep 1000"])
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "open\n"
        for command in (("mount",), ("rollback", "--yes")):
            refused = buildout.run(*command)
            assert refused.returncode == 1
            assert "sleep 1000" in refused.stderr
            assert "filestorage.prod/Data.fs" in refused.stderr
    finally:
        processes.end([holder.pid, *processes.descendants(holder.pid)])
        holder.wait()


def test_a_copy_by_hard_links_is_not_cut_with_the_upper(buildout: Buildout, production: Production) -> None:
    """``cp -al`` of the upper, as a quick backup before something risky."""
    copy = buildout.path / "copy"
    buildout.developer.run(["cp", "-al", str(buildout.path / "var" / "filestorage.prod"), str(copy)], check=True)
    before = (copy / "Data.fs").read_bytes()
    production.commit(1)
    for command in (("rollback", "--yes"), ("sync", "--yes")):
        buildout.run(*command, check=True)
        assert (copy / "Data.fs").read_bytes() == before
    assert buildout.read() == production.expected()
    shutil.rmtree(copy)
