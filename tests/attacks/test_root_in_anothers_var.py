"""Root runs the scripts where var is somebody else's, such as a daemon's, who tries to have root do more than mount."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest

from harness import cleanup, tree
from harness.buildout import Buildout
from harness.developer import Developer, Developers, Result
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from harness.sshd import Sshd

MakeBuildout = Callable[..., Buildout]


class ByRoot:
    """The scripts of a buildout whose var is another's, run by root."""

    def __init__(self, buildout: Buildout, root: Developer):
        self.buildout = buildout
        self.root = root

    def run(self, command: str, *arguments: str, **keywords: Any) -> Result:
        return self.root.run([self.buildout.script(command), *arguments], cwd=self.buildout.path, **keywords)


@pytest.fixture
def by_root(
    production: Production, developers: Developers, make_buildout: MakeBuildout, fuse: None
) -> Iterator[ByRoot]:
    production.give_to(developers.alone.uid, developers.alone.gid)
    buildout = make_buildout(developers.alone, {"remote": str(production.path), "sudo": "auto"})
    made = ByRoot(buildout, developers.root)
    yield made
    made.run("umount", "--lazy")


@pytest.fixture
def victim(scratch: Path) -> Iterator[Path]:
    """A directory of root's with something in it, which nobody may change."""
    path = scratch / "victim"
    path.mkdir(mode=0o700)
    (path / "precious").write_text("root's")
    (path / "directory").mkdir()
    (path / "directory" / "0x03f0000000000001.blob").write_text("root's")
    before = tree.snapshot(path)
    yield path
    tree.assert_same(before, tree.snapshot(path), "What is root's")


@contextmanager
def linked(path: Path, to: Path, owner: Developer) -> Iterator[None]:
    """Put a link in the place of a path for the time, as its owner can."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".aside")
    if path.is_dir():
        path.rename(aside)
    path.symlink_to(to)
    os.lchown(path, owner.uid, owner.gid)
    yield
    path.unlink()
    if aside.exists():
        aside.rename(path)


COMMANDS = (("mount",), ("savepoint", "x"), ("sync", "--yes"), ("rollback", "--yes"), ("prefetch",), ("umount",))


@pytest.mark.parametrize(
    "name",
    [
        "cow-storage",
        "cow-storage/trash",
        "cow-storage/base",
        "cow-storage/incoming",
        "cow-storage/savepoints",
        "cow-storage/cache",
        "cow-storage/trial",
        "cow-storage/work",
        "blobstorage.prod",
        "filestorage.prod",
    ],
)
@pytest.mark.parametrize("mounted", [False, True], ids=["before", "mounted"])
def test_a_link_in_var_has_root_change_nothing_elsewhere(
    name: str, mounted: bool, by_root: ByRoot, victim: Path
) -> None:
    if mounted:
        by_root.run("mount", check=True)
        by_root.buildout.commit(1)
    with linked(by_root.buildout.path / "var" / name, victim, by_root.buildout.developer):
        refused = [by_root.run(*command).returncode for command in COMMANDS]
    assert 1 in refused


def journal_of(buildout: Buildout) -> Path:
    return Path(buildout.settings.location) / "journal.json"


def test_a_journals_options_are_not_run_by_root(
    production: Production, developers: Developers, make_buildout: MakeBuildout, sshd: Sshd, scratch: Path, fuse: None
) -> None:
    buildout = make_buildout(developers.alone, {"remote": sshd.remote(production.path), "union": "overlay"})
    by_root = ByRoot(buildout, developers.root)
    by_root.run("mount", check=True)
    proof = scratch / "proof"
    data = json.loads(journal_of(buildout).read_text())
    data["mounted"]["settings"]["ssh_options"] = ["-o", f"ProxyCommand=touch {proof}"]
    data["mounted"]["settings"]["mount_options"] = [f"ssh_command=touch {proof}"]
    journal_of(buildout).write_text(json.dumps(data))
    sshd.stop()
    # What is mounted anew fails, and what was there is mounted again.
    for command in (("status",), ("sync", "--yes"), ("mount",), ("umount",), ("umount", "--lazy")):
        by_root.run(*command)
    assert not proof.exists()


@pytest.mark.parametrize("field", ["mount_point", "blob_storage", "file_storage"])
def test_a_journals_paths_have_root_unmount_nothing_elsewhere(field: str, by_root: ByRoot, scratch: Path) -> None:
    elsewhere = scratch / "elsewhere"
    elsewhere.mkdir()
    by_root.run("mount", check=True)
    subprocess.run(["mount", "-t", "tmpfs", "cowstorage", str(elsewhere)], check=True)
    try:
        data = json.loads(journal_of(by_root.buildout).read_text())
        data["mounted"]["settings"][field] = str(elsewhere)
        journal_of(by_root.buildout).write_text(json.dumps(data))
        for command in (("umount",), ("sync", "--yes"), ("umount", "--lazy")):
            by_root.run(*command)
        assert os.path.ismount(elsewhere)
    finally:
        subprocess.run(["umount", str(elsewhere)], check=True)
        for path in cleanup.mounts_below(by_root.buildout.path)[::-1]:
            subprocess.run(["umount", path.point], check=True)


@pytest.mark.parametrize("union", ["overlay", "fuse-overlayfs", "unionfs-fuse"])
def test_what_root_leaves_is_the_developers(by_root: ByRoot, union: str, production: Production) -> None:
    buildout = by_root.buildout
    buildout.configure({"remote": str(production.path), "union": union})
    for command in (("mount",), ("savepoint", "before"), ("prefetch",), ("sync", "--yes")):
        by_root.run(*command, check=True)
    buildout.commit(1)
    assert buildout.read() != production.expected()
    by_root.run("rollback", "--yes", check=True)
    assert buildout.read() == production.expected()
    by_root.run("umount", check=True)
    others: List[str] = [
        str(path)
        for path in (buildout.path / "var").rglob("*")
        # The kernel's own, overlayfs.rst.
        if path.lstat().st_uid != buildout.developer.uid and path.name != "work"
    ]
    assert others == []


def test_root_once_and_then_the_user(by_root: ByRoot, production: Production) -> None:
    buildout = by_root.buildout
    options: Dict[str, str] = {"remote": str(production.path), "sudo": "no", "union": DEVELOPERS_UNION}
    buildout.configure(options)
    by_root.run("mount", check=True)
    by_root.run("savepoint", "before", check=True)
    by_root.run("umount", check=True)
    buildout.run("mount", check=True)
    buildout.commit(1)
    buildout.run("rollback", "before", "--yes", check=True)
    assert buildout.read() == production.expected()
    buildout.run("sync", "--yes", check=True)
    buildout.run("umount", check=True)
