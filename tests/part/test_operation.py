"""The step that a command is in: read as it was written, and whatever lies in its place is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cowstorage.part import journal, operation

LONG = {"command": "cow-sync", "step": "Fetch what was added to Data.fs"}
SHORT = {"command": "cow-mount", "step": "ü"}


def test_it_is_read_as_it_is_written_whatever_was_there(tmp_path: Path) -> None:
    assert operation.noted(str(tmp_path)) is None
    for one in (LONG, SHORT, None, LONG, None):
        operation.note(str(tmp_path), one)
        assert operation.noted(str(tmp_path)) == journal.load(str(tmp_path)).operation == one
    assert (tmp_path / operation.OPERATION).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[" * 9_000, b"1\n", b'{"command": 1, "step": "x"}\n', b'{"a": "b"}']
)
def test_what_nobody_wrote_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / operation.OPERATION).write_bytes(content)
    assert operation.noted(str(tmp_path)) is None


def test_a_fifo_a_link_and_a_directory_in_its_place_are_left_alone(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "a" / operation.OPERATION)
    (tmp_path / "target").write_text("mine")
    (tmp_path / "b" / operation.OPERATION).symlink_to(tmp_path / "target")
    (tmp_path / "c" / operation.OPERATION).mkdir()
    for name in "abc":
        operation.note(str(tmp_path / name), LONG)
        assert operation.noted(str(tmp_path / name)) is None
    assert (tmp_path / "target").read_text() == "mine"
