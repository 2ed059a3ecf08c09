"""Links inside production lead out of a union: what is written or removed behind them would be production's own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Callable, Iterator

import pytest

from cowstorage.actions.mounting import OPENED
from harness import cleanup, tree
from harness.buildout import Buildout
from harness.developer import Developer, Developers
from harness.production import Production

WAYS = [
    ("root", "overlay"),
    ("root", "fuse-overlayfs"),
    ("root", "unionfs-fuse"),
    ("dev", "overlay"),
    ("alone", "fuse-overlayfs"),
    ("alone", "unionfs-fuse"),
]


@pytest.fixture(params=WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def developer(way: tuple[str, str], developers: Developers, production: Production) -> Developer:
    """Who could write production, if it weren't mounted read-only."""
    found: Developer = getattr(developers, way[0])
    production.give_to(found.uid, found.gid)
    return found


@pytest.fixture
def buildout(
    way: tuple[str, str],
    developer: Developer,
    production: Production,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> Iterator[Buildout]:
    options = {"remote": str(production.path), "union": way[1], "sudo": "no" if way[0] == "alone" else "auto"}
    made = make_buildout(developer, options)
    yield made
    made.run("umount", "--lazy")


@pytest.fixture
def second_disk(scratch: Path, developer: Developer) -> Path:
    """Where an administrator has moved what no longer had room."""
    path = scratch / "second"
    path.mkdir()
    os.chown(path, developer.uid, developer.gid)
    return path


def moved(directory: Path, to: Path, production: Production) -> None:
    """Move a directory to the second disk, and leave a link."""
    shutil.move(directory, to / directory.name)
    directory.symlink_to(to / directory.name)
    os.lchown(directory, production.uid, production.gid)
    production.remember()


def levels(production: Production) -> list[Path]:
    """The directories on the way to a BLOB, the topmost first."""
    blob = next(path for path in sorted(production.blob_storage.rglob("*.blob")))
    between = blob.relative_to(production.blob_storage).parents
    return [production.blob_storage / path for path in list(between)[-2::-1]]


@pytest.mark.parametrize("level", [0, 6])
def test_a_blob_directory_on_another_disk_is_refused_with_its_name(
    level: int, buildout: Buildout, production: Production, second_disk: Path
) -> None:
    link = levels(production)[level]
    moved(link, second_disk, production)
    before = tree.snapshot(second_disk)
    refused = buildout.run("mount")
    assert refused.returncode == 1
    assert f"{link.name} is a link, to {second_disk}" in refused.stderr
    assert cleanup.mounts_below(buildout.path) == []
    tree.assert_same(before, tree.snapshot(second_disk), "The second disk")


@pytest.mark.parametrize("name", ["Data.fs.tmp", "Data.fs.lock", "Data.fs.old"])
def test_a_link_beside_data_fs_is_hidden_and_nothing_is_written_through_it(
    name: str, buildout: Buildout, production: Production, developer: Developer
) -> None:
    precious = developer.home / f"precious-{buildout.path.parent.name}"
    precious.write_text("mine")
    os.chown(precious, developer.uid, developer.gid)
    (production.file_storage / name).unlink(missing_ok=True)
    (production.file_storage / name).symlink_to(precious)
    os.lchown(production.file_storage / name, production.uid, production.gid)
    production.remember()
    mounted = buildout.run("mount", check=True)
    # What ZODB opens in any case lies over it.
    is_hidden = name.endswith(OPENED)
    assert (f"lead elsewhere: {name}" in mounted.stderr) is not is_hidden
    buildout.developer.run(["test", "!", "-L", buildout.file_storage / name], check=True)
    buildout.commit(1, changed=1)
    buildout.pack()
    buildout.run("umount", check=True)
    assert precious.read_text() == "mine"
    precious.unlink()


def test_a_data_fs_that_is_a_link_is_fetched_as_ever(
    buildout: Buildout, production: Production, second_disk: Path
) -> None:
    moved(production.data_fs, second_disk, production)
    buildout.run("mount", check=True)
    buildout.commit(1, changed=1)
    buildout.run("sync", "--yes", check=True)
    assert buildout.read() == production.expected()


@pytest.mark.parametrize("way", WAYS[:4], ids="-".join, indirect=True)
def test_below_a_union_of_roots_the_kernel_follows_no_link(
    buildout: Buildout, production: Production, second_disk: Path
) -> None:
    """Whatever a look at production has overlooked."""
    buildout.run("mount", check=True)
    os.makedirs(second_disk / "deep")
    os.chown(second_disk / "deep", buildout.developer.uid, buildout.developer.gid)
    before = tree.snapshot(second_disk)
    link = buildout.blob_storage / "tmp-link"
    buildout.developer.run(["ln", "-s", str(second_disk / "deep"), str(link)], check=True)
    written = buildout.developer.run(["sh", "-c", f"echo x > {link}/new"])
    assert written.returncode != 0
    assert "Too many levels of symbolic links" in written.stderr
    tree.assert_same(before, tree.snapshot(second_disk), "The second disk")
