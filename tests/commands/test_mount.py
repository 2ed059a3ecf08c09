"""What goes wrong for a new user: one clear message, exit code 1, nothing left mounted, nothing lost."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from harness.buildout import Buildout
from harness.developer import Developers, Result
from harness.fuse_conf import user_allow_other
from harness.mount_program import old_mount
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from harness.sshd import Sshd
from stacks import is_clean_of

MakeBuildout = Callable[..., Buildout]


def assert_refused(result: Result, *words: str) -> None:
    """Exit code 1, every word in the message, no traceback, and nothing said twice."""
    assert result.returncode == 1, result
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, f"{word!r} is not in:\n{result.stderr}"


@pytest.fixture
def alone(
    production: Production, sshd: Sshd, developers: Developers, make_buildout: MakeBuildout, fuse: None
) -> Iterator[Callable[..., Buildout]]:
    """Make a buildout of the developer without sudo, over sshfs with a FUSE union, with other options on top."""
    made = []

    def make(**options: str) -> Buildout:
        defaults = {"remote": sshd.remote(production.path), "union": DEVELOPERS_UNION, "sudo": "no"}
        given = {name.replace("_", "-"): value for name, value in options.items()}
        made.append(make_buildout(developers.alone, {**defaults, **given}))
        return made[-1]

    yield make
    for buildout in made:
        is_clean_of(buildout)


def test_an_unknown_host_is_said(alone: Callable[..., Buildout]) -> None:
    buildout = alone(remote="no-such-host.invalid:/srv/plone")
    assert_refused(buildout.run("mount"), "no-such-host.invalid", "there is no host of that name")


def test_a_refused_connection_is_said(alone: Callable[..., Buildout], sshd: Sshd) -> None:
    sshd.stop()
    assert_refused(alone().run("mount"), "nothing listens there", "ssh-options")


def test_a_rejected_key_is_said(alone: Callable[..., Buildout], sshd: Sshd) -> None:
    sshd.revoke_all()
    assert_refused(alone().run("mount"), "the server rejected the key or password")


def test_a_changed_host_key_is_said(alone: Callable[..., Buildout], sshd: Sshd) -> None:
    sshd.change_host_key()
    assert_refused(alone().run("mount"), "host key has changed", "ssh-keygen -R")


def test_an_unknown_host_key_is_said(alone: Callable[..., Buildout], sshd: Sshd, developers: Developers) -> None:
    developers.alone.known_hosts.write_text("")
    assert_refused(alone().run("mount"), "host key is not known yet")


def test_a_path_that_is_not_there_is_said(alone: Callable[..., Buildout], sshd: Sshd) -> None:
    assert_refused(alone(remote=sshd.remote("/no/such/path")).run("mount"), "there is no directory /no/such/path")


def test_a_path_that_is_no_buildout_is_said(alone: Callable[..., Buildout], sshd: Sshd, production: Production) -> None:
    buildout = alone(remote=sshd.remote(production.path / "var"))
    meant = f"Did you mean {sshd.remote(production.path)}?"
    assert_refused(buildout.run("mount"), "has no var/filestorage", meant, "remote-file-storage")


def test_a_missing_filestorage_is_said(alone: Callable[..., Buildout]) -> None:
    buildout = alone(remote_file_storage="var/blobstorage")
    assert_refused(buildout.run("mount"), "has no Data.fs in var/blobstorage")


def test_a_missing_blob_directory_is_said(alone: Callable[..., Buildout]) -> None:
    buildout = alone(remote_blob_storage="var/blobs")
    assert_refused(buildout.run("mount"), "var/blobs", "remote-blob-storage")


def test_an_empty_blob_directory_is_said(alone: Callable[..., Buildout], production: Production) -> None:
    empty = production.path / "var" / "empty"
    empty.mkdir(mode=0o700)
    os.chown(empty, production.uid, production.gid)
    production.remember()
    assert_refused(alone(remote_blob_storage="var/empty").run("mount"), "is empty", "remote-blob-storage")


def test_a_failed_mount_loses_nothing(alone: Callable[..., Buildout], sshd: Sshd) -> None:
    buildout = alone()
    own = buildout.create_own_database()
    buildout.run("mount", check=True)
    buildout.commit(1, new=1)
    local = buildout.read()
    buildout.run("umount", check=True)
    sshd.stop()
    assert buildout.run("mount").returncode == 1
    is_clean_of(buildout)
    assert buildout.read() == own
    sshd.start()
    buildout.run("mount", check=True)
    assert buildout.read() == local
    buildout.run("umount", check=True)


def test_overlay_without_sudo_is_refused(
    production: Production, sshd: Sshd, developers: Developers, make_buildout: MakeBuildout, fuse: None
) -> None:
    with user_allow_other():
        buildout = make_buildout(developers.alone, {"remote": sshd.remote(production.path), "union": "overlay"})
        assert_refused(buildout.run("mount"), "sudo", "overlay")
    is_clean_of(buildout)


def test_without_user_allow_other_overlay_is_refused_and_auto_takes_another_union(
    production: Production, sshd: Sshd, developers: Developers, make_buildout: MakeBuildout, fuse: None
) -> None:
    with user_allow_other(False):
        buildout = make_buildout(developers.dev, {"remote": sshd.remote(production.path), "union": "overlay"})
        assert_refused(buildout.run("mount"), "user_allow_other", "/etc/fuse.conf")
        is_clean_of(buildout)
        buildout.configure({"remote": sshd.remote(production.path)})
        assert f"{DEVELOPERS_UNION} on top" in buildout.run("mount", check=True).stdout
        assert "user_allow_other" in buildout.run("status", "-v").stdout
        buildout.run("umount", check=True)


def test_an_unreadable_directory_is_refused_with_the_ways_out(
    scratch: Path, production: Production, developers: Developers, make_buildout: MakeBuildout, fuse: None
) -> None:
    environment = old_mount(scratch)
    for developer, union in ((developers.alone, DEVELOPERS_UNION), (developers.dev, "overlay")):
        buildout = make_buildout(developer, {"remote": str(production.path), "union": union}, name=union)
        buildout.environment = environment
        assert_refused(buildout.run("mount"), "you may not read", "bindfs", "cp -a")
        is_clean_of(buildout)


def test_a_missing_program_is_named_with_its_package(alone: Callable[..., Buildout], scratch: Path) -> None:
    buildout = alone()
    without_program(buildout, "sshfs")
    assert_refused(buildout.run("mount"), "not installed: sshfs", "apt install sshfs")


def test_without_root_and_unionfs_fuse_a_site_is_mounted_over_ssh(
    alone: Callable[..., Buildout], production: Production
) -> None:
    """Debian 13 and later have no unionfs-fuse: the union that is slow over a distance is better than none."""
    buildout = alone(union="auto")
    without_program(buildout, "unionfs")
    mounted = buildout.run("mount", check=True)
    assert "fuse-overlayfs on top" in mounted.stdout
    assert "No other union works here than fuse-overlayfs: slow over sshfs" in mounted.stderr
    local = {**production.expected(), **buildout.commit(1, new=1)}
    assert buildout.read() == local
    buildout.run("umount", check=True)


def without_program(buildout: Buildout, name: str) -> None:
    """Have cow-mount find no program of that name."""
    source = buildout.script("mount").read_text()
    hidden = (
        "import cowstorage.part.host as host\nfind_program = host.find_program\n"
        f"host.find_program = lambda name: None if name == {name!r} else find_program(name)\n"
    )
    buildout.script("mount").write_text(source.replace("import cowstorage.cli", hidden + "import cowstorage.cli", 1))


AWKWARD = [
    "with space",
    "comma,comma",
    "back\\slash",
    "ümläut",
    "quote'\"",
    "dollar$HOME",
    "per%cent",
    "#hash",
    "tab;rm",
]


@pytest.mark.parametrize("name", [*AWKWARD, "co:lon"])
@pytest.mark.parametrize("filesystem", ["sshfs", "directory"])
def test_awkward_paths_at_both_ends_are_mounted_and_synced(
    name: str,
    filesystem: str,
    production: Production,
    make_sshd: Callable[..., Sshd],
    developers: Developers,
    make_buildout: MakeBuildout,
    scratch: Path,
    fuse: None,
) -> None:
    """Both ends have the name: production's directory and the buildout."""
    odd = production.copy(scratch / f"production {name}")
    remote = make_sshd().remote(odd.path) if filesystem == "sshfs" else str(odd.path)
    options = {"remote": remote, "filesystem": filesystem, "union": "overlay"}
    buildout = make_buildout(developers.root, options, name=f"buildout {name}")
    buildout.run("mount", check=True)
    assert buildout.read() == odd.expected()
    buildout.commit(1, new=1)
    odd.commit(1, new=1)
    buildout.run("sync", "--yes", check=True)
    assert buildout.read() == odd.expected()
    buildout.run("umount", check=True)
    odd.assert_unchanged()


@pytest.mark.parametrize("union", ["fuse-overlayfs", "unionfs-fuse"])
@pytest.mark.parametrize("name", ["with space", "comma,comma", "back\\slash", "ümläut", "co:lon"])
def test_awkward_paths_below_fuse_unions_are_mounted_or_refused(
    union: str,
    name: str,
    production: Production,
    developers: Developers,
    make_buildout: MakeBuildout,
    fuse: None,
) -> None:
    production.give_to(developers.alone.uid, developers.alone.gid)
    options = {"remote": str(production.path), "union": union, "sudo": "no"}
    buildout = make_buildout(developers.alone, options, name=name)
    mounted = buildout.run("mount")
    if union == "fuse-overlayfs" and ":" in name:
        assert_refused(mounted, "can't take a path with a colon")
        is_clean_of(buildout)
        return
    assert mounted.returncode == 0, mounted
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)


def test_var_without_room_is_refused(
    production: Production, developers: Developers, make_buildout: MakeBuildout, scratch: Path
) -> None:
    production.commit(1, new=1, note="x" * 60_000)
    buildout = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(buildout.path / "var")], check=True)
    try:
        buildout.file_storage.mkdir()
        buildout.blob_storage.mkdir()
        (buildout.path / "var" / "full").write_bytes(b"x" * 30_000)
        assert_refused(buildout.run("mount"), "has no room", "are to be fetched", "are free")
        assert [path for path in mounted_below(buildout.path / "var") if path != str(buildout.path / "var")] == []
    finally:
        subprocess.run(["umount", str(buildout.path / "var")], check=True)


def mounted_below(path: Path) -> Any:
    """Mount points at or below a path."""
    from cowstorage.system import mounts

    return [mount.target for mount in mounts.at_or_below(mounts.read(), str(path))]


def test_dry_run_changes_nothing_and_can_be_pasted(
    production: Production, developers: Developers, make_buildout: MakeBuildout, scratch: Path
) -> None:
    options = {"remote": str(production.path), "union": "overlay"}
    buildout = make_buildout(developers.root, options, name="it's a buildout")
    before = sorted(str(path) for path in buildout.path.rglob("*"))
    printed = buildout.run("mount", "--dry-run", check=True).stdout
    assert sorted(str(path) for path in buildout.path.rglob("*")) == before
    script = scratch / "pasted.sh"
    script.write_text(printed)
    subprocess.run(["sh", "-eu", str(script)], check=True)
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)
