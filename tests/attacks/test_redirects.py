"""A directory of an upper leads nowhere else in production: overlayfs.rst, redirect_dir."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, Tuple

import pytest

from cowstorage.part.host import Host
from cowstorage.union.base import Layer, preparation
from cowstorage.union.overlay import Overlay
from harness import needs, tree

ROOT = Host(0, 0, 0, None, False, frozenset(("mount",)), True, True)


@contextmanager
def mounted(layer: Layer, redirect_dir: str = "") -> Iterator[Path]:
    """Mount overlay as we do, or with another value of that option."""
    command = Overlay().mount(layer, ROOT)
    options = command.argv[4].split(",")
    assert "redirect_dir" in command.argv[4]
    if redirect_dir:
        options = [one for one in options if not one.startswith("redirect_dir=")] + [f"redirect_dir={redirect_dir}"]
    argv = [*command.argv[:4], ",".join(options), *command.argv[5:]]
    subprocess.run(argv, cwd=command.cwd, check=True)
    try:
        yield Path(layer.merged)
    finally:
        subprocess.run(["umount", layer.merged], check=True)


@pytest.fixture
def layer(scratch: Path) -> Layer:
    """A lower with two directories, and an empty upper."""
    needs.root()
    lower = scratch / "lower"
    for name in ("mine", "theirs"):
        (lower / name).mkdir(parents=True)
        (lower / name / f"{name}.blob").write_text(name)
    paths = (str(scratch / name) for name in ("merged", "upper", "work", "links"))
    made = Layer("blobstorage", *paths, (str(lower),))  # type: ignore[arg-type]
    for command in preparation(made, uses_work=True):
        subprocess.run(command.argv, check=True)
    return made


def test_a_redirect_in_an_upper_is_not_followed(layer: Layer) -> None:
    moved = Path(layer.upper, "moved")
    moved.mkdir()
    os.setxattr(moved, "trusted.overlay.redirect", b"theirs")
    with mounted(layer) as merged, pytest.raises(PermissionError):
        (merged / "moved" / "theirs.blob").read_text()


def contents(top: Path) -> Dict[str, Tuple[object, ...]]:
    return {name: (entry.type, entry.mode, entry.sha256) for name, entry in tree.snapshot(top).items()}


def test_an_upper_that_was_written_with_redirect_dir_off_is_read_the_same(layer: Layer) -> None:
    with mounted(layer, "off") as merged:
        (merged / "mine" / "mine.blob").write_text("changed")
        (merged / "theirs" / "theirs.blob").unlink()
        (merged / "theirs").rmdir()
        (merged / "theirs").mkdir()
        (merged / "new").mkdir()
        (merged / "new").rename(merged / "newer")
        with pytest.raises(OSError, match="cross-device"):
            (merged / "mine").rename(merged / "ours")
        before = contents(merged)
    with mounted(layer) as merged:
        assert contents(merged) == before
