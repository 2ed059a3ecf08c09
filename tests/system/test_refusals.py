"""What it means when the system lets nobody mount."""

from __future__ import annotations

from typing import Optional

import pytest

from cowstorage.errors import CommandFailed
from cowstorage.system import refusals


@pytest.mark.parametrize(
    "output, meaning",
    [
        ("fusermount3: mount failed: Permission denied\n", "AppArmor"),
        ("unknown argument ignored: x\nfusermount3: mount failed: Permission denied\nfuse-overlayfs: x", "AppArmor"),
        ("fusermount: mount failed: Operation not permitted\n", "--cap-add SYS_ADMIN"),
        ("fusermount3: mount failed: Operation not permitted\n", "--cap-add SYS_ADMIN"),
        ("fuse: device not found, try 'modprobe fuse' first\n", "modprobe fuse"),
        ("read: Permission denied\n", None),
        ("remote host has disconnected\n", None),
        ("www: Permission denied (publickey).\n", None),
    ],
)  # fmt: skip
def test_what_fusermount_says_is_told_from_what_a_server_says(output: str, meaning: Optional[str]) -> None:
    explained = refusals.explained(CommandFailed("sshfs", 1, output))
    assert (meaning in str(explained)) if meaning else (explained is None)


@pytest.mark.parametrize("may", [True, False])
@pytest.mark.parametrize("words", ["mount: /x: permission denied.", "mount: /x: must be superuser to use mount."])
def test_a_refusal_of_mount_is_the_containers_where_root_has_no_right_to_mount(
    words: str, may: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "root_may_mount", lambda: may)
    explained = refusals.explained(CommandFailed("mount", 32, words))
    assert (explained is None) == may


def test_this_machine_lets_root_mount() -> None:
    """As the tests need it; the bit of another capability would be wrong in a container."""
    assert refusals.root_may_mount()
