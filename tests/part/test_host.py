"""What is found out about the machine."""

from __future__ import annotations

from typing import Tuple

import pytest

from cowstorage.part.host import version_in


@pytest.mark.parametrize(
    "name, text, version",
    [
        ("rclone", "rclone v1.60.1-DEV\n- os/version: debian 12.1", (1, 60)),
        ("rclone", "rclone v1.75.2\n", (1, 75)),
        ("rclone", "", (0, 0)),
        ("unionfs-fuse", "FUSE library version: 2.9.9\nunionfs-fuse version: 1.0\n", (1, 0)),
        ("unionfs-fuse", "unionfs-fuse version: 3.7\nFUSE library version 3.16.2\n", (3, 7)),
    ],
)
def test_a_version_is_found_in_what_a_program_prints(name: str, text: str, version: Tuple[int, int]) -> None:
    assert version_in(text, name) == version
