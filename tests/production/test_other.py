"""Any other type: handed to mount -t."""

from __future__ import annotations

from cowstorage.production import filesystems
from production.parts import DIRECTORY, OTHER, mounting


def test_any_other_type_is_handed_to_mount() -> None:
    assert mounting(OTHER, remote="tag").argv == (
        *("mount", "-t", "9p", "-o", "nosuid,nodev,ro", "--", "tag", f"{DIRECTORY}/var/prod"),
    )
    assert filesystems.backend("9p").name == "other"
