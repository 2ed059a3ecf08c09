"""The directories and links that a mount needs: made once, and again where one is not as it should be."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Callable, Dict

import pytest

from cowstorage.union.base import Layer, is_prepared, preparation

BROKEN: Dict[str, Callable[[Layer], None]] = {
    "no upper": lambda layer: os.rmdir(layer.upper),
    "no work": lambda layer: os.rmdir(layer.work),
    "no merged": lambda layer: os.rmdir(layer.merged),
    "no link": lambda layer: os.unlink(f"{layer.links}/upper"),
    "another link": lambda layer: (os.unlink(f"{layer.links}/lower0"), os.symlink("/", f"{layer.links}/lower0"))[1],
    "no link but a file": lambda layer: os.replace(_file(f"{layer.links}/file"), f"{layer.links}/work"),
}


def _file(path: str) -> str:
    Path(path).touch()
    return path


def prepare(layer: Layer) -> None:
    for command in preparation(layer, uses_work=True):
        subprocess.run(command.argv, check=True)


@pytest.fixture
def layer(tmp_path: Path) -> Layer:
    merged, upper, work, links = (str(tmp_path / name) for name in ("merged", "upper", "work", "links"))
    return Layer("blobstorage", merged, upper, work, links, (str(tmp_path), "/"))


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_not_as_it_should_be_is_made_again(broken: str, layer: Layer) -> None:
    assert not is_prepared(layer, uses_work=True)
    prepare(layer)
    assert is_prepared(layer, uses_work=True)
    BROKEN[broken](layer)
    assert not is_prepared(layer, uses_work=True)
    prepare(layer)
    assert is_prepared(layer, uses_work=True)


def test_a_union_without_a_work_directory_misses_none(layer: Layer) -> None:
    for command in preparation(layer, uses_work=False):
        subprocess.run(command.argv, check=True)
    assert is_prepared(layer, uses_work=False)
    assert not is_prepared(layer, uses_work=True)
