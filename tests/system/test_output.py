"""What is printed: paths that can be typed where one is, and little colour, where a terminal shows it."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from cowstorage.system import output


@pytest.mark.parametrize(
    "text, shown",
    [
        ("/b/site/var/filestorage has no room", "var/filestorage has no room"),
        ("In use by\n    pid 3 (/b/site/var/Data.fs.lock)", "In use by\n    pid 3 (var/Data.fs.lock)"),
        ("mount '/b/site/a b'", "mount 'a b'"),
        # Another directory, the directory itself, a path inside an option or below another root: as they are.
        ("/b/site2/var", "/b/site2/var"),
        ("look at /b/site", "look at /b/site"),
        ("look at /b/site/", "look at /b/site/"),
        ("lowerdir=/b/site/x", "lowerdir=/b/site/x"),
        ("/c/b/site/x", "/c/b/site/x"),
        ("plone@host:/b/site/x", "plone@host:/b/site/x"),
    ],
)
def test_paths_are_told_from_the_buildout(text: str, shown: str) -> None:
    assert output.shortened(text, "/b/site") == shown


def test_paths_are_whole_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(".")
    text = f"{tmp_path}/link/var is a link"
    monkeypatch.chdir(tmp_path)
    assert output.Output(directory=f"{tmp_path}/link").below(text) == "var is a link"
    monkeypatch.chdir("/")
    assert output.Output(directory=f"{tmp_path}/link").below(text) == text
    assert output.Output(directory=str(tmp_path / "missing")).below(text) == text
    assert output.Output().below(text) == text


def test_progress_stays_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("sys.stderr", Terminal())
    printer = output.Output()
    printer.progress("Remove BLOB files of later transactions")
    printer.progress("Done")
    assert sys.stderr.getvalue() == "\r\033[KRemove BLOB files …\r\033[KDone"


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colour_is_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.coloured("state  mounted", "mounted", output.GREEN, Terminal()) == "state  \033[32mmounted\033[0m"
    assert output.coloured("state  mounted", "", output.GREEN, Terminal()) == "state  mounted"
    assert output.coloured("state  mounted", "mounted", output.GREEN, io.StringIO()) == "state  mounted"
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as changed:
            changed.setitem(os.environ, name, value)
            assert output.coloured("state  mounted", "mounted", output.GREEN, Terminal()) == "state  mounted"
