"""Awkward paths, hostile servers, directories of others; and nothing secret where others can read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Callable, Dict, List

import pytest

from cowstorage import settings
from cowstorage.errors import SettingsError
from faults import scripts
from harness import cleanup
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.sshd import Sshd

MakeBuildout = Callable[..., Buildout]
NAMES = ["two words", "a,b", "a:b", "back\\slash", "Ümläut", "it's", 'say "so"', "$(x)", "-dash"]


@pytest.fixture
def make(production: Production, developers: Developers, make_buildout: MakeBuildout) -> MakeBuildout:
    """A buildout of root's over the local production."""

    def made(name: str = "buildout", **options: str) -> Buildout:
        given = {option.replace("_", "-"): value for option, value in options.items()}
        return make_buildout(developers.root, {"remote": str(production.path), "union": "overlay", **given}, name)

    return made


@pytest.mark.parametrize("name", NAMES)
def test_awkward_paths(make: MakeBuildout, production: Production, name: str) -> None:
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
        settings.from_options(given, "cow-storage", "/home/dev")


@pytest.mark.parametrize(
    "options",
    [
        {"filesystem": "cifs", "remote": "//h/s", "mount-options": "username=a,password=geheim"},
        {"filesystem": "cifs", "remote": "//h/s", "mount-options": "username=a%geheim"},
        {"filesystem": "cifs", "remote": "//a:geheim@h/s", "mount-options": "guest"},
        {"filesystem": "rclone", "remote": ":sftp,pass=geheim:/p"},
    ],
)
def test_passwords_are_refused(options: Dict[str, str]) -> None:
    """And not repeated in the message."""
    with pytest.raises(SettingsError) as caught:
        settings.from_options({"file-storage": "a", "blob-storage": "b", **options}, "cow-storage", "/home/dev")
    assert "geheim" not in str(caught.value)


def test_links_in_var(make: MakeBuildout, production: Production, scratch: Path) -> None:
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


def test_modes(make: MakeBuildout) -> None:
    """Our own files are for us alone."""
    buildout = make()
    os.umask(0o022)
    scripts.run(buildout, "mount", check=True)
    scripts.run(buildout, "savepoint", "s", check=True)
    scripts.run(buildout, "umount", check=True)
    location = buildout.path / "var" / "cow-storage"
    assert open_to_others([location, location / "journal.json", location / "lock"]) == []
    assert open_to_others([buildout.path / "var" / f"{name}storage.prod" for name in ("file", "blob")]) == []


def open_to_others(paths: List[Path]) -> List[Path]:
    return [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_upper_of_somebody_else(make: MakeBuildout, developers: Developers) -> None:
    buildout = make()
    upper = buildout.path / "var" / "blobstorage.prod"
    upper.mkdir()
    os.chown(upper, developers.alone.uid, developers.alone.gid)
    refused = scripts.run(buildout, "mount")
    assert refused.returncode == 1
    assert f"belongs to {developers.alone.name}" in refused.stderr
    cleanup.assert_nothing_mounted(buildout.path)


@pytest.mark.parametrize("inside", ["var/blobstorage", "var/filestorage"])
def test_location_inside_a_merged_directory_by_a_link(make: MakeBuildout, inside: str) -> None:
    buildout = make(location="hidden")
    (buildout.path / inside / "state").mkdir()
    (buildout.path / "hidden").symlink_to(buildout.path / inside / "state")
    refused = scripts.run(buildout, "mount")
    assert refused.returncode == 1
    assert "Each needs a directory of its own" in refused.stderr
    cleanup.assert_nothing_mounted(buildout.path)


def test_rogue_server(
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: MakeBuildout,
    fuse: None,
) -> None:
    """Odd names, links that lead outside, special files, many entries: read, and never followed to here."""
    odd = ["-rf.blob", "a\nb.blob", "$(touch x).blob", "\udcff.blob", "'\"`.fs.old"]
    for name in odd:
        Path(os.fsdecode(os.path.join(os.fsencode(production.blob_storage), os.fsencode(name)))).touch()
    (production.blob_storage / "absolute").symlink_to("/etc/shadow")
    (production.blob_storage / "up").symlink_to("../../../../../../etc")
    os.mkfifo(production.blob_storage / "fifo.blob")
    os.mkfifo(production.file_storage / "fifo.fs")
    many = production.blob_storage / "many"
    many.mkdir()
    for number in range(100_000):
        os.close(os.open(many / f"{number}.blob", os.O_CREAT | os.O_WRONLY))
    production.give_to(production.uid, production.gid)
    sshd = make_sshd()
    options = {"remote": sshd.remote(production.path), "union": "unionfs-fuse", "sudo": "no"}
    buildout = make_buildout(developers.alone, options)
    scripts.run(buildout, "mount", check=True)
    assert buildout.read() == production.expected()
    scripts.run(buildout, "umount", check=True)
    cleanup.assert_nothing_mounted(buildout.path)
