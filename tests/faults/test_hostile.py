"""Awkward paths, hostile servers, directories of others; and nothing secret where others can read it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

from cowstorage.buildout.options import from_options
from cowstorage.errors import SettingsError
from faults import scripts
from faults.conftest import LOCAL, REMOTE
from harness import cleanup
from harness.buildout import Buildout
from harness.developer import Developers
from harness.polling import until
from harness.production import Production
from harness.sshd import Sshd
from refreshing import journal
from stacks import Stack, built

MakeBuildout = Callable[..., Buildout]
NAMES = ["two words", "a,b", "a:b", "back\\slash", "Ümläut", "it's", 'say "so"', "$(x)", "-dash"]

# Entries of a directory, and what a command may take with them.
MANY, MANY_SECONDS = 100_000, 60
# fuse-overlayfs looks at each entry of a directory that it meets, some 0.5 ms over sshfs.
MANY_FOR_FUSE_OVERLAYFS = 20_000


@pytest.fixture
def make(production: Production, developers: Developers, make_buildout: MakeBuildout) -> MakeBuildout:
    """A buildout of root's over the local production."""

    def made(name: str = "buildout", **options: str) -> Buildout:
        given = {option.replace("_", "-"): value for option, value in options.items()}
        return make_buildout(developers.root, {"remote": str(production.path), "union": "overlay", **given}, name)

    return made


@pytest.mark.parametrize("name", NAMES)
def test_awkward_paths_are_mounted_and_synced(make: MakeBuildout, production: Production, name: str) -> None:
    buildout = make(name)
    scripts.run(buildout, "mount", check=True)
    buildout.commit(1)
    production.commit(1)
    scripts.run(buildout, "sync", "--yes", check=True)
    assert buildout.read() == production.expected()
    scripts.run(buildout, "umount", check=True)
    cleanup.assert_nothing_mounted(buildout.path)


@pytest.mark.parametrize("option", ["remote", "file-storage", "blob-storage", "mount-point", "location"])
def test_line_breaks_are_refused(option: str) -> None:
    given = {"remote": "h:/p", "file-storage": "a", "blob-storage": "b", option: "h:/x\ny"}
    with pytest.raises(SettingsError, match="control character"):
        from_options(given, "cow-storage", "/home/dev")


def test_merged_directories_may_be_links(make: MakeBuildout, production: Production, scratch: Path) -> None:
    """Merged directories that are links to another disk, say."""
    buildout = make()
    elsewhere = scratch / "elsewhere"
    elsewhere.mkdir()
    for name in ("filestorage", "blobstorage"):
        (buildout.path / "var" / name).rename(elsewhere / name)
        (buildout.path / "var" / name).symlink_to(elsewhere / name)
    scripts.run(buildout, "mount", check=True)
    assert buildout.read() == production.expected()
    assert scripts.run(buildout, "status").returncode == 0
    scripts.run(buildout, "umount", check=True)
    cleanup.assert_nothing_mounted(elsewhere)


@pytest.mark.parametrize("stack", [LOCAL, REMOTE, Stack("sshfs", "fuse-overlayfs", "alone")], ids=str)
def test_files_of_ours_are_closed_to_others_after_each_command(from_rogue: Buildout, production: Production) -> None:
    """Our own files are for us alone, whatever the umask, after each command; Plone's are as Plone makes them."""
    buildout = from_rogue
    var = buildout.path / "var"
    for command, *arguments in (
        ("mount",),
        ("savepoint", "s"),
        ("prefetch",),
        ("rollback", "s", "--yes"),
        ("sync", "--yes"),
        ("prefetch",),
        ("umount",),
        ("mount", "--offline"),
        ("umount",),
    ):
        scripts.run(buildout, command, *arguments, fault=lambda: os.umask(0) and None, check=True)
        until(lambda: not list((var / "cow-storage" / "trash").glob("*")), "what was thrown away is deleted")
        tops = [var / name for name in ("cow-storage", "filestorage.prod", "blobstorage.prod")]
        found = [path for top in tops for path in (top, *below(top))]
        assert open_to_others(found) == [], command
        if command == "savepoint":
            made = "umask 022; cd var/blobstorage; mkdir made; >made/file; stat -c %a made/file; rm -r made"
            assert buildout.developer.run(["sh", "-c", made], cwd=buildout.path, check=True).stdout == "644\n"
            production.commit(1)


def below(top: Path) -> Iterator[Path]:
    """What is there, without following links."""
    for directory, directories, names in os.walk(top):
        yield from (Path(directory, name) for name in (*directories, *names))


def open_to_others(paths: List[Path]) -> List[Path]:
    found = [(path, path.lstat().st_mode) for path in paths]
    return [path for path, mode in found if not stat.S_ISLNK(mode) and stat.S_IMODE(mode) & 0o077]


def test_an_upper_of_somebody_else_is_refused(make: MakeBuildout, developers: Developers) -> None:
    buildout = make()
    upper = buildout.path / "var" / "blobstorage.prod"
    upper.mkdir()
    os.chown(upper, developers.alone.uid, developers.alone.gid)
    refused = scripts.run(buildout, "mount")
    assert refused.returncode == 1
    assert f"belongs to {developers.alone.name}" in refused.stderr
    cleanup.assert_nothing_mounted(buildout.path)


def test_var_on_a_network_is_refused_and_nothing_left(
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: MakeBuildout,
    scratch: Path,
    fuse: None,
) -> None:
    """The local layers are tried there: what can't work is told, and nothing is left."""
    sshd = make_sshd()
    there = scratch / "there"
    there.mkdir()
    os.chown(there, sshd.account.pw_uid, sshd.account.pw_gid)
    buildout = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    var = str(buildout.path / "var")
    subprocess.run(["sshfs", "-o", "uid=0,gid=0,allow_other", sshd.remote(there), var], check=True)
    try:
        refused = scripts.run(buildout, "mount")
        assert refused.returncode == 1
        assert [mount.point for mount in cleanup.mounts_below(buildout.path)] == [var]
    finally:
        subprocess.run(["fusermount3", "-u", "--", var], check=True)
        sshd.forget_requests()


@pytest.mark.parametrize("inside", ["var/blobstorage", "var/filestorage"])
def test_a_location_inside_a_merged_directory_by_a_link_is_refused(make: MakeBuildout, inside: str) -> None:
    buildout = make(location="hidden")
    (buildout.path / inside / "state").mkdir()
    (buildout.path / "hidden").symlink_to(buildout.path / inside / "state")
    refused = scripts.run(buildout, "mount")
    assert refused.returncode == 1
    assert refused.stderr.startswith("cow-mount: hidden: is a link, to")
    cleanup.assert_nothing_mounted(buildout.path)


@pytest.fixture(params=[LOCAL, REMOTE], ids=str)
def stack(request: pytest.FixtureRequest) -> Stack:
    found: Stack = request.param
    return found


@pytest.fixture
def from_rogue(
    stack: Stack,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: MakeBuildout,
    fuse: None,
) -> Iterator[Buildout]:
    """A buildout over the production, not mounted yet."""
    with built(stack, production, developers, make_sshd, make_buildout) as made:
        yield made


def named(directory: Path, name: str) -> Path:
    """A path, whatever bytes the name has."""
    return Path(os.fsdecode(os.path.join(os.fsencode(directory), os.fsencode(name))))


def test_odd_names_and_links_of_a_server_are_never_opened_or_shown(
    from_rogue: Buildout, production: Production
) -> None:
    """Odd names, links that lead outside, nowhere or to themselves, what blocks its reader: never opened or shown."""
    for name in ["-rf.blob", "a\nb.blob", "$(touch x).blob", "\udcff.blob"]:
        named(production.blob_storage, name).touch()
    for name in ["-rf.fs", "$(touch x).fs", "a\nb.fs", "\x1b[2J.fs", "\udcff.fs"]:
        shutil.copy(production.data_fs, named(production.file_storage, name))
    for directory, suffix in ((production.blob_storage, ".blob"), (production.file_storage, ".fs")):
        # The search for a BLOB looks at the last name first.
        os.mkfifo(named(directory, f"\udcff\udcff{suffix}"))
        os.mkfifo(directory / f"~{suffix}")
        (directory / f"~loop{suffix}").symlink_to(f"~loop{suffix}")
        (directory / f"~nowhere{suffix}").symlink_to("nothing/there")
    (production.blob_storage / "absolute").symlink_to("/etc")
    (production.blob_storage / "up").symlink_to("../../../../../../etc")
    production.give_to(production.uid, production.gid)
    if from_rogue.settings.filesystem == "directory":
        # This machine would follow them, out of the union.
        refused = scripts.run(from_rogue, "mount")
        assert refused.returncode == 1
        assert "is a link, to" in refused.stderr
        for path in filter(Path.is_symlink, list(production.blob_storage.iterdir())):
            path.unlink()
        production.give_to(production.uid, production.gid)
    elif from_rogue.settings.union == "fuse-overlayfs":
        refused = scripts.run(from_rogue, "mount")
        assert "can't show a directory with a link in it that leads nowhere" in refused.stderr
        for directory in (production.blob_storage, production.file_storage):
            for path in (path for path in directory.iterdir() if path.is_symlink() and not os.path.exists(path)):
                path.unlink()
        production.give_to(production.uid, production.gid)
    mounted = scripts.run(from_rogue, "mount", check=True)
    assert set(journal(from_rogue)["bases"]) == {"Data.fs", "-rf.fs", "$(touch x).fs"}
    said = [mounted, scripts.run(from_rogue, "status", "-v", check=True)]
    assert [text for one in said for text in one[1:] if not text.replace("\n", "").isprintable()] == []
    assert from_rogue.read() == production.expected()
    scripts.run(from_rogue, "sync", "--yes", check=True)
    assert from_rogue.read() == production.expected()
    scripts.run(from_rogue, "umount", check=True)
    assert not (from_rogue.path / "x").exists()
    cleanup.assert_nothing_mounted(from_rogue.path)


def test_directories_with_many_entries_are_mounted_in_time(from_rogue: Buildout, production: Production) -> None:
    """A directory that is looked for a BLOB in, and the one with Data.fs."""
    many = MANY_FOR_FUSE_OVERLAYFS if from_rogue.settings.union == "fuse-overlayfs" else MANY
    for directory, suffix in ((production.blob_storage / "many", "txt"), (production.file_storage, "fs.old")):
        directory.mkdir(exist_ok=True)
        for number in range(many):
            # ext4 has room for 65,000 names of a file.
            first = directory / f"{number - number % 50_000}.{suffix}"
            os.link(first, directory / f"{number}.{suffix}") if number % 50_000 else first.touch()
    production.give_to(production.uid, production.gid)
    assert scripts.duration_of(lambda: scripts.run(from_rogue, "mount", check=True)) < MANY_SECONDS
    assert scripts.duration_of(lambda: scripts.run(from_rogue, "status", check=True)) < MANY_SECONDS
    scripts.run(from_rogue, "umount", check=True)
