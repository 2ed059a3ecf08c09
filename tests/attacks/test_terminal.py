"""What a server, a database or a file says reaches the terminal as text: nothing is obeyed there, no line is forged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable, Iterator

import pytest

from attacks.rogue import HOSTILE
from cowstorage import cli
from cowstorage.buildout.options import from_options
from cowstorage.errors import CowStorageError, Refused
from cowstorage.part.settings import to_script
from cowstorage.system import output
from cowstorage.system.in_use import Holder
from faults import scripts
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from harness.sshd import Sshd
from stacks import STACKS, Stack, built

# What says something of its own, and the forged line in what it says.
WAYS = {
    "say": lambda said: output.Output().say(said),
    "result": lambda said: output.Output().result(said),
    "warn": lambda said: output.Output().warn(said),
    "detail": lambda said: output.Output(verbose=True).detail(said),
    "table": lambda said: output.Output().result("\n".join(output.table([("name", said)]))),
}


def is_harmless(text: str) -> bool:
    """Tell whether a terminal obeys nothing in a text, and reads no line as ours that is another's."""
    return text.replace("\n", "").isprintable() and not any(line.startswith("forged") for line in text.splitlines())


@pytest.mark.parametrize("way", WAYS)
def test_escapes_in_whatever_is_said(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    WAYS[way](HOSTILE if way == "table" else HOSTILE.replace("\n", ""))
    said = "".join(capsys.readouterr())
    assert is_harmless(said)
    assert "all is well" in said


def test_lines_of_our_own_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    output.Output().result("In use:\n    one\n    two, Ümläut")
    assert capsys.readouterr().out == "In use:\n    one\n    two, Ümläut\n"


def test_escapes_in_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "n")
    with pytest.raises(Refused):
        output.confirm(HOSTILE.replace("\n", ""), yes=False, interactive=True)
    assert len(asked) == 1
    assert is_harmless(asked[0])


@pytest.mark.parametrize(
    "error",
    [CowStorageError(HOSTILE.replace("\n", "")), FileNotFoundError(2, "No such file", HOSTILE)],
    ids=["ours", "the system's"],
)
def test_escapes_in_errors(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*arguments: object) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    made = from_options({"remote": "h:/p", "file-storage": "a", "blob-storage": "b"}, "cow-storage", str(tmp_path))
    assert cli.main("status", to_script(made), []) == 1
    said = capsys.readouterr().err
    assert is_harmless(said)
    assert "all is well" in said


# As who, and over which union: root's, and FUSE without root; what is said does not depend on it.
SOME = [stack for stack in STACKS if stack.union in ("overlay", DEVELOPERS_UNION)]


@pytest.fixture
def buildout(
    stack: Stack,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> Iterator[Buildout]:
    with built(stack, production, developers, make_sshd, make_buildout) as made:
        yield made
        made.run("umount", "--lazy")


@pytest.mark.parametrize("stack", SOME, ids=str)
def test_production_says_escapes_wherever_it_can(buildout: Buildout, production: Production) -> None:
    """In ``.layout``, in names, and in the user and the description of a transaction."""
    scripts.run(buildout, "mount", check=True)
    buildout.commit(1, note=HOSTILE, user=HOSTILE)
    with production._changing():
        (production.blob_storage / ".layout").write_text(HOSTILE, encoding="utf-8")
    said = [scripts.run(buildout, *command) for command in (("log",), ("status", "-v"))]
    # A mount may show what it had read of it before.
    scripts.run(buildout, "umount", check=True)
    said.append(scripts.run(buildout, "prefetch", "-v"))
    assert [one.returncode for one in said] == [0, 0, 1]
    assert "laid out in an unknown way" in said[-1].stderr
    assert [text for one in said for text in one[1:] if not is_harmless(text)] == []
    header, line, last_sync = said[0].stdout.splitlines()
    assert header.startswith("TRANSACTION ")
    assert last_sync.startswith("-- last sync, ")
    assert "forged" in line
    (entry,) = json.loads(scripts.run(buildout, "log", "--json", check=True).stdout)
    assert HOSTILE in entry["user"]
    assert entry["description"].startswith(HOSTILE)


@pytest.mark.parametrize("stack", [Stack("directory", "fuse-overlayfs", "alone")], ids=str)
def test_a_directory_that_can_not_be_read_has_escapes_in_its_name(buildout: Buildout, production: Production) -> None:
    """Its name is in the message, which is of one line."""
    with production._changing():
        (production.blob_storage / f"0{HOSTILE.replace('/', '')}").mkdir(0o000)
    refused = scripts.run(buildout, "mount")
    assert refused.returncode == 1
    assert "you may not read" in refused.stderr
    assert is_harmless(refused.stderr)


def test_a_process_that_is_in_the_way_has_escapes_in_its_command(tmp_path: Path) -> None:
    assert is_harmless(str(Holder(1, "me", HOSTILE, HOSTILE)))


def test_arguments_are_not_what_is_cleaned() -> None:
    """What is for scripts is exact: JSON has its own escapes."""
    text = json.dumps({"user": HOSTILE}, indent=1)
    assert output.cleaned(text) == text
