"""An upper is read only by what wrote it: also when nothing but the marks of deletion in it tell who that was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production

UNIONS = ("overlay", "fuse-overlayfs", "unionfs-fuse")


@pytest.fixture
def written_by(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout], fuse: None
) -> Iterator[Callable[[str], Buildout]]:
    """Make a buildout in which a BLOB of production's was deleted below a union, and unmount it."""
    made: List[Buildout] = []

    def make(union: str) -> Buildout:
        production.give_to(developers.dev.uid, developers.dev.gid)
        buildout = make_buildout(developers.dev, {"remote": str(production.path), "union": union})
        made.append(buildout)
        buildout.run("mount", check=True)
        buildout.delete(2)
        buildout.pack()
        buildout.run("umount", check=True)
        return buildout

    yield make
    for buildout in made:
        buildout.run("umount", "--lazy")


def blobs(buildout: Buildout) -> List[str]:
    """The BLOB files that Plone would see."""
    return sorted(buildout.developer.run(["find", buildout.blob_storage, "-name", "*.blob"], check=True).stdout.split())


@pytest.mark.parametrize("union", UNIONS)
def test_without_a_journal_the_marks_tell(
    union: str, written_by: Callable[[str], Buildout], production: Production
) -> None:
    buildout = written_by(union)
    buildout.run("mount", check=True)
    local, seen = buildout.read(), blobs(buildout)
    assert len(seen) < len(list(production.blob_storage.rglob("*.blob")))
    buildout.run("umount", check=True)
    journal = Path(buildout.settings.location) / "journal.json"
    journal.unlink()

    readers = [union] if union == "unionfs-fuse" else ["overlay", "fuse-overlayfs"]
    for other in UNIONS:
        buildout.configure({"remote": str(production.path), "union": other})
        if other not in readers:
            refused = buildout.run("mount")
            assert refused.returncode == 1
            assert f"was written by {' or '.join(readers)} and can't be read by another union" in refused.stderr
    for other in readers:
        journal.unlink(missing_ok=True)
        buildout.configure({"remote": str(production.path), "union": other})
        buildout.run("mount", check=True)
        assert buildout.read() == local
        assert blobs(buildout) == seen
        buildout.run("umount", check=True)

    journal.unlink()
    buildout.configure({"remote": str(production.path)})
    assert f"with {readers[0]} on top" in buildout.run("mount", check=True).stdout
    buildout.run("umount", check=True)

    buildout.configure({"remote": str(production.path), "union": UNIONS[UNIONS.index(union) - 1]})
    buildout.run("sync", "--yes", check=True)
    buildout.run("mount", check=True)
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)


def metadata(buildout: Buildout) -> List[str]:
    """Where unionfs-fuse has marked deletions in the two uppers."""
    return sorted(path.name for path in (buildout.path / "var").glob("*.prod/.unionfs*"))


def test_marks_of_another_release_of_unionfs_fuse(
    written_by: Callable[[str], Buildout], production: Production
) -> None:
    buildout = written_by("unionfs-fuse")
    buildout.run("mount", check=True)
    local, seen = buildout.read(), blobs(buildout)
    buildout.run("umount", check=True)
    (ours,) = set(metadata(buildout))
    (theirs,) = {".unionfs", ".unionfs-fuse"} - {ours}
    for path in (buildout.path / "var").glob(f"*.prod/{ours}"):
        path.rename(path.with_name(theirs))

    assert theirs in buildout.run("mount", "--dry-run", check=True).stdout
    buildout.run("mount", check=True)
    assert set(metadata(buildout)) == {ours}
    assert blobs(buildout) == seen
    assert buildout.read() == local
    buildout.run("umount", check=True)

    mixed = buildout.path / "var" / "blobstorage.prod" / theirs
    mixed.mkdir()
    os.chown(mixed, buildout.developer.uid, buildout.developer.gid)
    refused = buildout.run("mount")
    assert refused.returncode == 1
    assert "two releases of unionfs-fuse" in refused.stderr
    buildout.run("sync", "--yes", check=True)
    buildout.run("mount", check=True)
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)
