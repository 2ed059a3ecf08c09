"""A network file system that Contributing's steps add, one module and one line, is mounted, used and unmounted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Callable, ClassVar, Dict, Iterator, Tuple

import pytest

from cowstorage.errors import CommandFailed, CowStorageError, RemoteUnusable, SettingsError
from cowstorage.production import filesystems
from cowstorage.production.filesystems.base import DevelopersMount, ProductionMount, mount_point
from cowstorage.system.installed import find_program
from cowstorage.system.programs import Command
from faults import scripts
from harness import cleanup
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from network.cycle import status


class PretendFS(DevelopersMount):
    """What a contributor writes: fuse-overlayfs by another name, which shows one directory read-only."""

    name = "pretendfs"
    types = ("fuse.pretendfs",)
    programs: ClassVar = {"pretendfs": "pretendfs-utils", "fusermount3": "fuse3"}
    daemons = ("pretendfs",)
    passed_over: ClassVar = {"fuse-overlayfs": "not over itself"}

    @classmethod
    def check_remote(cls, remote: str) -> None:
        if not remote.startswith("pretend:/"):
            raise SettingsError("remote", f"{remote!r} is no pretend:/path, which filesystem = pretendfs needs.")

    def mounts(self) -> Tuple[ProductionMount, ...]:
        settings = self.settings
        options = ",".join(("ro", f"lowerdir={settings.remote.partition(':')[2]}", *settings.mount_options))
        mounted = Command(("pretendfs", "-o", options, settings.mount_point))
        return (ProductionMount(settings.mount_point, (mount_point(settings.mount_point), mounted)),)

    def explain(self, error: CommandFailed) -> CowStorageError:
        return RemoteUnusable(self.settings.remote, "can't be pretended.")


@pytest.fixture
def line_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(filesystems.FILESYSTEMS, "pretendfs", f"{__name__}:PretendFS")


@pytest.fixture
def installed(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Install the program that it needs."""

    def install() -> None:
        directory = scratch / "bin"
        directory.mkdir(mode=0o755)
        shutil.copy(str(find_program("fuse-overlayfs")), directory / "pretendfs")
        monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")

    return install


@pytest.fixture
def options(production: Production, developers: Developers) -> Dict[str, str]:
    production.give_to(developers.alone.uid, developers.alone.gid)
    remote = f"pretend:{production.path}"
    return {"filesystem": "pretendfs", "remote": remote, "rsync-remote": str(production.path), "rsync-options": ""}


@pytest.fixture
def buildout(
    line_in_the_table: None,
    options: Dict[str, str],
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> Iterator[Buildout]:
    del options["rsync-remote"]
    made = make_buildout(developers.alone, options)
    yield made
    scripts.run(made, "umount", "--lazy")


def test_its_package_is_named_where_its_program_is_missing(buildout: Buildout) -> None:
    refused = scripts.run(buildout, "mount")
    assert refused.returncode == 1
    assert "not installed: pretendfs. apt install pretendfs-utils" in refused.stderr


def test_its_own_refusals_are_heard_when_the_part_is_built(
    line_in_the_table: None, options: Dict[str, str], developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    for wrong, words in (({"remote": "/srv"}, "pretend:/path"), ({"mount-options": "secret=x"}, "secret=")):
        with pytest.raises(SettingsError, match=words):
            make_buildout(developers.alone, {**options, **wrong})
    with pytest.raises(SettingsError, match="Did you mean pretendfs"):
        make_buildout(developers.alone, {**options, "filesystem": "pretenfs"})


def test_it_is_mounted_used_and_unmounted_by_the_scripts(
    buildout: Buildout, installed: Callable[[], None], production: Production
) -> None:
    installed()
    assert "works" in scripts.run(buildout, "mount", "--check", check=True).stdout
    assert f"with {DEVELOPERS_UNION} on top" in scripts.run(buildout, "mount", check=True).stdout
    (production_mount,) = [one for one in status(buildout)["mounts"] if one["name"] == "network"]
    assert (production_mount["type"], production_mount["read_only"]) == ("fuse.pretendfs", True)
    assert buildout.read() == production.expected()
    buildout.commit(1)
    scripts.run(buildout, "sync", "--yes", check=True)
    assert buildout.read() == production.expected()
    scripts.run(buildout, "umount", check=True)
    cleanup.assert_nothing_mounted(buildout.path)


def test_its_failures_are_explained_by_itself(buildout: Buildout, installed: Callable[[], None]) -> None:
    installed()
    buildout.configure({"filesystem": "pretendfs", "remote": "pretend:/nowhere"})
    refused = scripts.run(buildout, "mount")
    assert refused.returncode == 1
    assert "pretend:/nowhere: can't be pretended." in refused.stderr
