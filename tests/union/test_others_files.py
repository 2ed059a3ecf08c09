"""Production's files are another user's, whom the developer may read: a union that lets nobody write is passed over."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Callable, Dict, Iterator, List

import pytest

from cowstorage.system import mounts
from harness.buildout import Buildout
from harness.developer import Developers
from harness.mount_program import MAPS, old_mount
from harness.production import Production
from refreshing import journal, refused, status

MakeBuildout = Callable[..., Buildout]


@pytest.fixture
def readable(production: Production) -> Production:
    """Production as in a backup that was restored as it was: still another user's, and all may read it."""
    with production._changing():
        (production.file_storage / "Data.fs.lock").write_text("4711\n")
        (production.blob_storage / "tmp").mkdir(exist_ok=True)
    for directory, _, files in os.walk(production.path):
        for name in (".", *files):
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    production.remember()
    return production


@pytest.fixture
def make(
    scratch: Path, readable: Production, developers: Developers, make_buildout: MakeBuildout, fuse: None
) -> Iterator[Callable[..., Buildout]]:
    """A buildout of the developer's with sudo, with these options; with a mount(8) that is of today, or old."""
    made = []
    environment = old_mount(scratch)

    def make(old: bool = True, **options: str) -> Buildout:
        buildout = make_buildout(developers.dev, {"remote": str(readable.path), **options})
        if old:
            buildout.environment = environment
        made.append(buildout)
        return buildout

    yield make
    for buildout in made:
        buildout.run("umount", "--lazy")


def uses(buildout: Buildout) -> None:
    """What an instance does before it has served one page."""
    touch = 'echo 1 >>"$0/Data.fs.lock" && : >"$1/tmp/x" && rm "$1/tmp/x"'
    buildout.developer.run(["sh", "-c", touch, buildout.file_storage, buildout.blob_storage], check=True)


def test_auto_passes_over_the_union_that_lets_nobody_write(make: Callable[..., Buildout]) -> None:
    buildout = make()
    said = buildout.run("mount", "--verbose", check=True).stderr
    assert "Passed over overlay" in said
    assert "It is cowprod's, and this union lets only its owner change it" in said
    assert status(buildout)["union"] == "fuse-overlayfs"
    uses(buildout)
    before = buildout.read()
    buildout.delete(1)
    written = buildout.commit(2, new=1, changed=1)
    buildout.pack()
    assert buildout.read() == {**{name: before[name] for name in buildout.read() if name in before}, **written}
    assert status(buildout)["state"] == "mounted"
    buildout.run("rollback", "--yes", check=True)
    assert buildout.read() == before


def test_overlay_works_where_mount_shows_them_as_the_developers(
    make: Callable[..., Buildout], readable: Production, developers: Developers
) -> None:
    """Which files of production's nobody else may read are read, too."""
    for path in readable.blob_storage.rglob("*.blob"):
        path.chmod(0o400)
    readable.remember()
    buildout = make(old=False)
    if not MAPS:
        assert "Make it readable for yourself" in refused(buildout, "mount")
        return
    dev = developers.dev
    said = buildout.run("mount", "--verbose", check=True).stderr
    assert f"X-mount.idmap=u:{readable.uid}:{dev.uid}:1 g:{readable.gid}:{dev.gid}:1" in said
    assert status(buildout)["union"] == "overlay"
    uses(buildout)
    before = buildout.read()
    assert before == readable.expected()
    buildout.delete(1)
    buildout.commit(2, new=1, changed=1)
    buildout.pack()
    buildout.run("sync", "--yes", check=True)
    assert buildout.read() == before


def test_a_check_says_that_it_does_not_work(make: Callable[..., Buildout]) -> None:
    lines: Dict[str, str] = {}
    for line in make().run("mount", "--check", check=True).stdout.splitlines():
        lines[line.split()[0]] = line.split(None, 1)[1]
    assert lines["overlay"].startswith("no")
    assert "Permission denied (EACCES)" in lines["overlay"]
    assert lines["fuse-overlayfs"] == "works"


def test_that_union_alone_is_refused(make: Callable[..., Buildout]) -> None:
    buildout = make(union="overlay")
    said = refused(buildout, "mount")
    assert "It is cowprod's" in said
    assert status(buildout)["state"] == "not mounted"
    assert journal(buildout)["uppers"] == {}


def test_status_sees_a_union_that_an_instance_could_not_work_with(
    make: Callable[..., Buildout], developers: Developers, readable: Production
) -> None:
    """Production's files became another user's after the trial."""
    theirs = readable.uid, readable.gid
    readable.give_to(developers.dev.uid, developers.dev.gid)
    buildout = make(union="overlay")
    buildout.run("mount", check=True)
    targets = [buildout.file_storage, buildout.blob_storage]
    commands = [command_of(target) for target in targets]
    for target in targets:
        subprocess.run(["umount", "--", str(target)], check=True)
    readable.give_to(*theirs)
    for command in commands:
        subprocess.run(command, cwd=buildout.path, check=True)
    assert buildout.run("status", "-q").returncode == 4
    assert {one["name"] for one in status(buildout)["mounts"] if one["problem"]} == {"blobstorage"}
    assert f"{buildout.blob_storage}/tmp: Permission denied (EACCES)" in buildout.run("status").stdout
    buildout.run("umount", check=True)


def command_of(target: Path) -> List[str]:
    """The command that makes an overlay again that is mounted."""
    mount = mounts.top(mounts.read(), str(target))
    assert mount
    directories = dict(one.split("=", 1) for one in mount.super_options if "dir=" in one)
    names = ("lowerdir", "upperdir", "workdir")
    layers = Path(target.parent, "cow-storage", "layers", target.name)
    options = ",".join(f"{name}={layers / directories[name]}" for name in names)
    return ["mount", "-t", "overlay", "-o", f"{options},nosuid,nodev", mount.source, str(target)]
