"""An upper is read only by what wrote it: also when nothing but the marks of deletion in it tell who that was."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

from cowstorage.union import whiteouts
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.release import LACKED
from uppers import MARKS, Mark, make_upper


@pytest.fixture
def upper(tmp_path: Path) -> str:
    return make_upper(tmp_path)


def test_an_upper_without_whiteouts_has_no_writer(upper: str) -> None:
    assert whiteouts.writers(upper) == ()
    assert whiteouts.writers(os.path.join(upper, "missing")) == ()


@pytest.mark.parametrize("union, mark", MARKS)
@pytest.mark.parametrize(
    "directory, name", [("0x00/0x01", "0x03f0000000000000.blob"), ("0x00", "0x7f"), (".", "0x00000000000001")]
)
def test_a_whiteout_of_a_blob_or_its_directory_tells_its_writer(
    upper: str, union: str, mark: Mark, directory: str, name: str
) -> None:
    mark(os.path.normpath(os.path.join(upper, directory)), name)
    assert union in whiteouts.writers(upper)


@pytest.mark.root
def test_other_devices_are_no_whiteouts(upper: str) -> None:
    os.mknod(os.path.join(upper, "0x03f0000000000000.blob"), 0o020000, os.makedev(1, 3))
    assert whiteouts.writers(upper) == ()


# Those of real unions

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
def test_without_a_journal_the_marks_tell_who_may_read_an_upper(
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
        if other not in (*readers, *LACKED):
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

    buildout.configure(
        {"remote": str(production.path), "union": next(one for one in UNIONS if one not in (union, *LACKED))}
    )
    buildout.run("sync", "--yes", check=True)
    buildout.run("mount", check=True)
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)


def metadata(buildout: Buildout) -> List[str]:
    """Where unionfs-fuse has marked deletions in the two uppers."""
    return sorted(path.name for path in (buildout.path / "var").glob("*.prod/.unionfs*"))


@pytest.mark.package("unionfs-fuse")
def test_marks_of_another_release_of_unionfs_fuse_are_converted(
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


# What is the same to every union


@pytest.mark.parametrize(
    "union, plain", [("overlay", False), ("fuse-overlayfs", False), ("unionfs-fuse", True), ("aufs", True)]
)
def test_directories_may_hide_something_where_only_root_sees_it(upper: str, union: str, plain: bool) -> None:
    assert whiteouts.is_plain(upper, union) is plain


@pytest.mark.parametrize("union", whiteouts.WHITEOUTS)
def test_files_and_an_empty_scratch_directory_hide_nothing(union: str, tmp_path: Path) -> None:
    (tmp_path / "upper" / "tmp").mkdir(parents=True)
    (tmp_path / "upper" / "Data.fs").touch()
    assert whiteouts.is_plain(str(tmp_path / "upper"), union)
    assert whiteouts.is_plain(str(tmp_path / "missing"), union)


@pytest.mark.parametrize("union, mark", MARKS)
def test_what_has_a_whiteout_is_its_writers_alone(upper: str, union: str, mark: Mark) -> None:
    mark(upper, "0x00000000000001")
    assert not whiteouts.is_plain(upper, union)
