"""What mount and sync decide, as tables: what is there, and what is to be done.  Nothing is mounted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

import pytest

from commands.plans import DIRECTORY, NFS, SSHFS, context, survey, synced
from cowstorage.actions.survey import BROKEN, MOUNTED, NOT_MOUNTED
from cowstorage.commands import mount, sync

INTERRUPTED = {"command": "cow-sync", "step": "x"}


@pytest.mark.parametrize(
    "network, unions, fields, offline, operation, todo",
    [
        (NOT_MOUNTED, NOT_MOUNTED, {}, False, None, mount.Todo(True)),
        (NOT_MOUNTED, NOT_MOUNTED, {}, True, None, mount.Todo(True)),
        (NOT_MOUNTED, NOT_MOUNTED, {"as_configured": False}, False, INTERRUPTED, mount.Todo(True)),
        (MOUNTED, MOUNTED, {}, False, None, mount.Todo(False)),
        (MOUNTED, MOUNTED, {}, True, None, mount.Todo(True, "was made with other options")),
        (MOUNTED, MOUNTED, {"as_configured": False}, False, None, mount.Todo(True, "was made with other options")),
        (MOUNTED, MOUNTED, {"offline": True}, False, None, mount.Todo(True, "was made with other options")),
        (MOUNTED, MOUNTED, {}, False, INTERRUPTED, mount.Todo(True, "was left by an interrupted cow-sync")),
        (BROKEN, MOUNTED, {}, False, None, mount.Todo(True, "is broken")),
        (MOUNTED, NOT_MOUNTED, {}, False, None, mount.Todo(True, "is broken")),
        (BROKEN, MOUNTED, {}, False, INTERRUPTED, mount.Todo(True, "is broken")),
    ],
)
def test_mount_unmounts_first_what_is_not_as_it_should_be(
    network: str,
    unions: str,
    fields: Dict[str, Any],
    offline: bool,
    operation: Any,
    todo: mount.Todo,
    tmp_path: Path,
) -> None:
    seen = survey(context(tmp_path, "mount"), network, unions, **fields)
    assert mount.decide(seen, offline, operation) == todo


@pytest.mark.parametrize(
    "unions, operation, todo",
    [
        (MOUNTED, None, mount.Todo(False, lay_again=True)),
        (NOT_MOUNTED, None, mount.Todo(True, "is broken")),
        (MOUNTED, INTERRUPTED, mount.Todo(True, "was left by an interrupted cow-sync")),
    ],
)
def test_mount_lays_the_unions_again_where_they_lack_what_was_prefetched(
    unions: str, operation: Any, todo: mount.Todo, tmp_path: Path
) -> None:
    seen = survey(context(tmp_path, "mount"), MOUNTED, unions)
    assert mount.decide(seen, False, operation, outdated=True) == todo


NOTHING: Dict[str, Any] = {
    "mount_network": False,
    "unmount_first": False,
    "mount_unions": False,
    "unmount_network": False,
    "union": None,
}


@pytest.mark.parametrize(
    "options, network, unions, fields, todo",
    [
        # NFS remembers names and sizes: production is mounted anew below the same union.
        (NFS, MOUNTED, MOUNTED, {}, {"mount_network": True, "unmount_first": True, "mount_unions": True}),
        (NFS, MOUNTED, NOT_MOUNTED, {}, {"mount_network": True, "unmount_first": True}),
        # A bind mount shows what is there, and so does sshfs.
        (DIRECTORY, MOUNTED, MOUNTED, {}, {"mount_unions": True}),
        (DIRECTORY, MOUNTED, NOT_MOUNTED, {}, {}),
        (SSHFS, MOUNTED, MOUNTED, {}, {"mount_unions": True}),
        (SSHFS, MOUNTED, NOT_MOUNTED, {}, {}),
        (SSHFS, NOT_MOUNTED, NOT_MOUNTED, {}, {"mount_network": True, "unmount_network": True}),
        (DIRECTORY, NOT_MOUNTED, NOT_MOUNTED, {}, {"mount_network": True, "unmount_network": True}),
        (
            DIRECTORY,
            BROKEN,
            MOUNTED,
            {},
            {"mount_network": True, "unmount_first": True, "mount_unions": True},
        ),
        (
            DIRECTORY,
            MOUNTED,
            MOUNTED,
            {"as_configured": False},
            {"mount_network": True, "unmount_first": True, "mount_unions": True},
        ),
        (
            DIRECTORY,
            MOUNTED,
            MOUNTED,
            {"offline": True},
            {"mount_network": True, "unmount_first": True, "mount_unions": True},
        ),
    ],
)
def test_sync_leaves_mounted_what_was_mounted(
    options: Dict[str, str], network: str, unions: str, fields: Dict[str, Any], todo: Dict[str, Any], tmp_path: Path
) -> None:
    made = synced(context(tmp_path, "sync", options))
    decided = sync.decide(survey(made, network, unions, **fields), made.journal, made.filesystem.caches_attributes)
    assert {**decided._asdict(), "union": None} == {**NOTHING, **todo}


@pytest.mark.parametrize(
    "unions, fields, mounted, union",
    [
        (MOUNTED, {}, {}, "overlay"),
        (MOUNTED, {}, {"tried": [["overlay", "needs root"]]}, None),
        (MOUNTED, {"as_configured": False}, {}, None),
        (BROKEN, {}, {}, None),
        (MOUNTED, {}, {"union": ""}, None),
    ],
)
def test_sync_tries_no_union_again_that_lies_there_and_was_the_first_choice(
    unions: str, fields: Dict[str, Any], mounted: Dict[str, Any], union: str, tmp_path: Path
) -> None:
    made = synced(context(tmp_path, "sync"), **{"union": "overlay", **mounted})
    assert sync.decide(survey(made, MOUNTED, unions, **fields), made.journal, True).union == union


def test_sync_mounts_the_unions_that_an_interrupted_command_unmounted(tmp_path: Path) -> None:
    made = synced(context(tmp_path, "sync"))
    seen = survey(made, NOT_MOUNTED, NOT_MOUNTED)
    made.journal.unfinished = {"command": "cow-sync", "again": "bin/cow-sync", "mounted": True}
    decided = sync.decide(seen, made.journal, True)
    assert decided.mount_unions
    assert not decided.unmount_network
