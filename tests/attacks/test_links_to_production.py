"""Links and mounts in the developer's own paths that lead to production: nothing there is written or removed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional, Tuple

import pytest

from harness.buildout import Buildout
from harness.developer import Developer, Developers
from harness.production import Production
from harness.sshd import Sshd

MakeBuildout = Callable[..., Buildout]

COMMANDS = (
    ("mount",),
    ("savepoint", "x"),
    ("sync", "--yes"),
    ("rollback", "--yes"),
    ("prefetch",),
    ("prefetch", "--clear"),
    ("umount",),
)

# What is replaced in the buildout → what it leads to in production.
LINKS = {
    "var": "var",
    "var/filestorage": "var/filestorage",
    "var/blobstorage": "var/blobstorage",
    "var/filestorage.prod": "var/filestorage",
    "var/blobstorage.prod": "var/blobstorage",
    "var/cow-storage": "var/blobstorage",
    "var/cow-storage/trash": "var/blobstorage",
    "var/cow-storage/cache": "var",
    "var/cow-storage/cache/blobstorage": "var/blobstorage",
    "var/cow-storage/base": "var/filestorage",
    "var/cow-storage/incoming": "var/filestorage",
    "var/prod": "var",
}


@pytest.fixture(params=["root", "sudo", "alone"])
def developer(request: pytest.FixtureRequest, developers: Developers) -> Developer:
    return {"root": developers.root, "sudo": developers.dev, "alone": developers.alone}[request.param]


@pytest.fixture(params=["directory", "localhost"])
def remote(
    request: pytest.FixtureRequest, production: Production, developer: Developer, make_sshd: Callable[..., Sshd]
) -> Tuple[Dict[str, str], Optional[Sshd]]:
    """A production that the developer may write, on this very machine."""
    if request.param == "directory":
        production.give_to(developer.uid, developer.gid)
        return {"remote": str(production.path)}, None
    sshd = make_sshd()
    production.give_to(developer.uid, developer.gid)
    # By a name that only ssh's configuration knows to be this machine's.
    return {"remote": sshd.remote(production.path)}, sshd


@pytest.fixture
def buildout(
    remote: Tuple[Dict[str, str], Optional[Sshd]], developer: Developer, make_buildout: MakeBuildout, fuse: None
) -> Iterator[Buildout]:
    made = make_buildout(developer, {**remote[0], "sudo": "no" if developer.name == "cowalone" else "auto"})
    yield made
    made.run("umount", "--lazy")


def put(path: Path, to: Path) -> None:
    """Put a link in the place of a path, whatever is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.symlink_to(to)


@pytest.mark.parametrize("local", LINKS)
def test_a_link_to_production_is_refused_and_nothing_of_it_is_changed(
    local: str, buildout: Buildout, production: Production
) -> None:
    put(buildout.path / local, production.path / LINKS[local])
    refused = buildout.run("mount")
    assert refused.returncode == 1
    assert re.match(rf"cow-mount: {local}[/:]", refused.stderr)
    for command in COMMANDS:
        buildout.run(*command)


@pytest.mark.parametrize("name", ["Data.fs", "Data.fs.index"])
def test_a_file_in_the_upper_that_is_a_link_to_productions_is_not_cut(
    name: str, buildout: Buildout, production: Production
) -> None:
    buildout.run("mount")
    buildout.run("umount")
    upper = buildout.path / "var" / "filestorage.prod" / name
    upper.parent.mkdir(parents=True, exist_ok=True)
    upper.unlink(missing_ok=True)
    upper.symlink_to(production.file_storage / name)
    assert buildout.run("mount").returncode == 1
    for command in COMMANDS:
        buildout.run(*command)


@pytest.mark.parametrize("local", ["var", "var/filestorage", "var/blobstorage.prod"])
@pytest.mark.parametrize("developer", ["root", "sudo"], indirect=True)
@pytest.mark.parametrize("remote", ["directory"], indirect=True)
def test_a_bind_mount_is_no_link_and_leads_to_production_as_well(
    local: str, buildout: Buildout, production: Production
) -> None:
    here = buildout.path / local
    here.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", str(production.path / LINKS[local]), str(here)], check=True)
    try:
        refused = buildout.run("mount")
        assert refused.returncode == 1
        assert "is production's" in refused.stderr
        for command in COMMANDS:
            buildout.run(*command)
    finally:
        subprocess.run(["umount", str(here)], check=True)


@pytest.mark.parametrize("developer", ["root"], indirect=True)
@pytest.mark.parametrize("remote", ["directory"], indirect=True)
def test_links_that_lead_to_other_disks_are_allowed_above_the_parts_directories(
    buildout: Buildout, production: Production, scratch: Path
) -> None:
    disk = scratch / "disk"
    shutil.move(buildout.path / "var", disk)
    (buildout.path / "var").symlink_to(disk)
    for command in (("mount",), ("sync", "--yes"), ("umount",)):
        buildout.run(*command, check=True)
