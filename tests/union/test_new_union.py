"""A union that Contributing's steps add, one module and one line, is mounted, used and unmounted."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path
from typing import Callable, ClassVar, Iterator

import pytest

from cowstorage.buildout import options as options_of_part
from cowstorage.part.host import Host
from cowstorage.system.installed import find_program
from cowstorage.system.mounts import Mount
from cowstorage.system.programs import Command
from cowstorage.union import kinds
from cowstorage.union.base import Layer, Union
from faults import scripts
from harness import cleanup, processes
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.sshd import Sshd
from stacks import Stack, part_options


class PretendUnion(Union):
    """What a contributor writes: fuse-overlayfs by another name."""

    name = "pretendunion"
    programs: ClassVar = {"pretendunion": "pretendunion-utils"}
    daemons = ("pretendunion",)
    types = ("fuse.pretendunion",)

    def mount(self, layer: Layer, host: Host) -> Command:
        options = f"lowerdir={':'.join(layer.lower_names)},upperdir=upper,workdir=work"
        return Command(("pretendunion", "-o", options, layer.merged), cwd=layer.links)

    def owns(self, mount: Mount) -> bool:
        return mount.type in self.types


@pytest.fixture
def buildout(
    production: Production,
    developers: Developers,
    sshd: Sshd,
    make_buildout: Callable[..., Buildout],
    monkeypatch: pytest.MonkeyPatch,
    fuse: None,
) -> Iterator[Buildout]:
    """A part that is to be mounted with it, where only its line in the table was added."""
    monkeypatch.setitem(kinds.UNIONS, "pretendunion", PretendUnion())
    monkeypatch.setattr(options_of_part, "UNIONS", ("auto", *kinds.UNIONS))
    options = part_options(Stack("sshfs", "pretendunion", "alone"), production, sshd)
    made = make_buildout(developers.alone, options)
    yield made
    scripts.run(made, "umount", "--lazy")


@pytest.fixture
def installed(buildout: Buildout, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its program on PATH."""
    directory = scratch / "bin"
    directory.mkdir(mode=0o755)
    shutil.copy(str(find_program("fuse-overlayfs")), directory / "pretendunion")
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_its_package_is_named_where_its_program_is_missing(buildout: Buildout) -> None:
    refused = scripts.run(buildout, "mount")
    assert refused.returncode == 1
    assert "pretendunion: not installed: pretendunion. apt install pretendunion-utils" in refused.stderr


def test_it_is_mounted_used_and_unmounted_by_the_scripts(
    buildout: Buildout, installed: None, production: Production
) -> None:
    assert "with pretendunion on top" in scripts.run(buildout, "mount", check=True).stdout
    assert {mount.type for mount in cleanup.mounts_below(buildout.path)} >= {"fuse.pretendunion"}
    assert buildout.read() == production.expected()
    buildout.commit(1)
    scripts.run(buildout, "rollback", "--yes", check=True)
    assert buildout.read() == production.expected()
    scripts.run(buildout, "umount", check=True)
    cleanup.assert_nothing_mounted(buildout.path)


def test_who_holds_it_is_named_and_its_daemon_is_not(
    buildout: Buildout, installed: None, production: Production
) -> None:
    """The daemon has production's file open as long as somebody reads it, and goes by itself."""
    scripts.run(buildout, "mount", check=True)
    blob = next(production.blob_storage.rglob("*.blob")).relative_to(production.blob_storage)
    reading = f"exec 3< {shlex.quote(str(buildout.blob_storage / blob))}; echo open; exec sleep 1000"
    holder = buildout.developer.popen(["sh", "-c", reading])
    try:
        assert holder.stdout
        assert holder.stdout.readline() == "open\n"
        refused = scripts.run(buildout, "umount")
        assert refused.returncode == 1
        (line,) = [line for line in refused.stderr.splitlines() if line.strip().startswith("pid ")]
        assert "sleep 1000" in line
    finally:
        processes.end([holder.pid, *processes.descendants(holder.pid)])
        holder.wait()
    scripts.run(buildout, "umount", check=True)
