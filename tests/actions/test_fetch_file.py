"""A file of production's comes through the mount where it is little, else by rsync."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, List

import pytest

from commands.plans import DIRECTORY, NFS, SSHFS, context
from cowstorage.actions.context import Context
from cowstorage.actions.fetch_file import Wanted, fetch_by_rsync, fetch_little
from cowstorage.actions.plan import Step
from cowstorage.errors import CommandFailed, RemoteUnusable
from cowstorage.production.through_mount import MOST

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def made(tmp_path: Path) -> Context:
    """A part over sshfs, whose mount point is a directory with a Data.fs."""
    directory = tmp_path / "var" / "prod" / "var" / "filestorage"
    directory.mkdir(parents=True)
    (directory / "Data.fs").write_bytes(CONTENT)
    return context(tmp_path, "sync")


def programs(step: Step) -> List[str]:
    return [command.argv[0] for command in step.commands]


@pytest.mark.parametrize("behind", [0, 1, 100_000])
def test_what_is_little_comes_through_the_mount_behind_what_is_there(
    behind: int, made: Context, tmp_path: Path
) -> None:
    target = tmp_path / "Data.fs"
    target.write_bytes(CONTENT[:behind] + b"rubbish" * 20_000)
    checked: List[int] = []
    wanted = Wanted("Data.fs", str(target), len(CONTENT), behind)
    step = fetch_little(made, "Fetch", wanted, check=lambda: checked.append(target.stat().st_size))
    assert programs(step) == []
    assert step.action
    step.action()
    assert target.read_bytes() == CONTENT
    assert checked == [len(CONTENT)]


def test_a_new_file_is_for_its_owner_alone_and_no_link_is_followed(made: Context, tmp_path: Path) -> None:
    os.symlink(tmp_path / "elsewhere", tmp_path / "link")
    for name, raises in (("new", False), ("link", True)):
        step = fetch_little(made, "Fetch", Wanted("Data.fs", str(tmp_path / name), len(CONTENT)), check=lambda: None)
        assert step.action
        if raises:
            with pytest.raises(OSError, match="symbolic links"):
                step.action()
        else:
            step.action()
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "elsewhere").exists()


def test_production_that_has_become_shorter_is_said_and_nothing_is_written(made: Context, tmp_path: Path) -> None:
    target = tmp_path / "Data.fs"
    target.write_bytes(CONTENT[:10])
    step = fetch_little(made, "Fetch", Wanted("Data.fs", str(target), len(CONTENT) + 1, 10), check=lambda: None)
    assert step.action
    with pytest.raises(RemoteUnusable, match=r"can't read .*Data\.fs: It is shorter than it was"):
        step.action()
    assert target.read_bytes() == CONTENT[:10]


@pytest.mark.parametrize(
    "options, size",
    [(SSHFS, 10 + MOST + 1), (SSHFS, 10), (NFS, 1000), (DIRECTORY, 1000)],
    ids=["much", "not-known", "nfs", "directory"],
)
def test_all_else_comes_by_rsync(options: Dict[str, str], size: int, tmp_path: Path) -> None:
    made = context(tmp_path, "sync", options)
    step = fetch_little(made, "Fetch", Wanted("Data.fs", str(tmp_path / "Data.fs"), size, 10), check=lambda: None)
    assert programs(step) == ["rsync"]
    assert "--append" in step.commands[0].argv


@pytest.mark.parametrize("behind, left", [(0, None), (10, CONTENT[:10])])
def test_nothing_is_kept_of_what_is_far_more_than_production_has_shown(
    behind: int, left: object, made: Context, tmp_path: Path
) -> None:
    target = tmp_path / "Data.fs"
    target.write_bytes(CONTENT)
    step = fetch_by_rsync(made, "Fetch", Wanted("Data.fs", str(target), 1000, behind), check=lambda: None)
    assert step.explain
    meant = step.explain(CommandFailed("rsync", 11, "rsync: write failed: File too large (27)"))
    assert "sends far more than the 1.0 kB" in str(meant)
    assert (target.read_bytes() if target.exists() else None) == left
