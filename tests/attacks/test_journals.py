"""A journal that isn't what a command has written: none hangs, takes all memory, or ends with a traceback."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from attacks.memory import output_with_little_memory
from cowstorage import cli
from cowstorage.buildout.options import from_options
from cowstorage.errors import JournalUnusable
from cowstorage.part import journal
from cowstorage.part.settings import Settings, to_script
from faults import scripts
from harness.buildout import Buildout
from harness.developer import Developer, Developers
from harness.production import Production
from part.test_journal import JOURNAL, paths_in

COMMANDS = (["status"], ["status", "--json"], ["log"], ["savepoint", "--list"], ["umount", "--dry-run"])

# What stands in the place of a value, besides that it is missing.
ODD = [None, True, -1, 10**30, 1e308, float("nan"), "", "x", "\0", "\ud800", "../x", [], ["\0"], {}, {"x": 1}]


@pytest.fixture
def made(tmp_path: Path) -> Settings:
    options = {"remote": str(tmp_path / "production"), "file-storage": "var/fs", "blob-storage": "var/blobs"}
    for name in ("production", "var/cow-storage", "var/fs"):
        (tmp_path / name).mkdir(parents=True)
    return from_options(options, "cow-storage", str(tmp_path))


def written(made: Settings, data: Any) -> None:
    """Write a journal."""
    with open(os.path.join(made.location, journal.JOURNAL), "w", encoding="utf-8") as file:
        json.dump(data, file)


def true_journal(made: Settings) -> Dict[str, Any]:
    """Return one that a mount has left."""
    data = copy.deepcopy(JOURNAL)
    data["mounted"]["settings"] = json.loads(json.dumps(to_script(made)))
    return data


def run_all(made: Settings, capsys: pytest.CaptureFixture[str]) -> List[int]:
    """Run commands that change nothing; an exception of any kind ends the test."""
    codes = [cli.main(command, to_script(made), arguments) for command, *arguments in COMMANDS]
    assert "Traceback" not in "".join(capsys.readouterr())
    return codes


PLACES = [path for path in paths_in(JOURNAL) if path and path[:2] != ["mounted", "settings"]]
SETTINGS_PLACES = [["mounted", "settings", name] for name in Settings._fields]


@pytest.mark.parametrize("path", PLACES + SETTINGS_PLACES, ids=lambda path: ".".join(map(str, path)))
def test_anything_anywhere_in_a_journal(path: List[Any], made: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Each value is missing, or something else: the commands do, or say that the journal is damaged."""
    for value in [..., *ODD]:
        data = true_journal(made)
        place = data
        for key in path[:-1]:
            place = place[key]
        if value is ...:
            del place[path[-1]]
        else:
            place[path[-1]] = value
        written(made, data)
        assert set(run_all(made, capsys)) <= {0, 1, 3, 4}


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "", ".", "..", "a/b", "a\0b"])
@pytest.mark.parametrize("place", ["bases", "positions", "savepoints", "storages", "hidden", "inodes"])
def test_a_name_that_leads_out_of_the_part(made: Settings, place: str, name: str) -> None:
    data = true_journal(made)
    if place in ("storages", "hidden"):
        data["mounted"][place] = [name]
    else:
        outer = data["savepoints"]["a"] if place in ("positions", "inodes") else data
        outer[place] = {name: next(iter(outer[place].values()))}
    written(made, data)
    with pytest.raises(JournalUnusable, match="is damaged"):
        journal.load(made.location)


def test_the_true_journal_is_taken(made: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """So that what the others refuse is refused for what was changed in it."""
    written(made, true_journal(made))
    assert journal.load(made.location).as_data() == true_journal(made)
    assert run_all(made, capsys) == [4, 4, 0, 0, 0]


def test_the_settings_that_are_checked_are_those_there_are() -> None:
    assert set(journal.SETTINGS) == set(Settings._fields)


# What can't be read as a file


def fifo(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def endless_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def directory(path: Path) -> None:
    path.mkdir()


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 3_000_000_000)


MADE = (fifo, link, endless_link, directory, huge)


@pytest.fixture(params=["root", "dev", "alone"])
def developer(request: pytest.FixtureRequest, developers: Developers) -> Developer:
    found: Developer = getattr(developers, request.param)
    return found


@pytest.fixture
def buildout(
    production: Production,
    developer: Developer,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> Buildout:
    production.give_to(developer.uid, developer.gid)
    sudo = "no" if developer is developers.alone else "auto"
    made = make_buildout(developer, {"remote": str(production.path), "sudo": sudo})
    (made.path / "var" / "cow-storage").mkdir(mode=0o700)
    os.chown(made.path / "var" / "cow-storage", developer.uid, developer.gid)
    return made


@pytest.mark.parametrize("make", MADE)
def test_a_journal_that_is_no_file(make: Callable[[Path], None], buildout: Buildout) -> None:
    """Every command says what to do, at once."""
    path = buildout.path / "var" / "cow-storage" / journal.JOURNAL
    make(path)
    for command in ("status", "mount", "sync", "umount", "log", "savepoint", "rollback", "prefetch"):
        ended = scripts.start(buildout, command).ended(20)
        assert ended.returncode == 1, command
        assert f"{path.relative_to(buildout.path)}: is damaged" in ended.stderr
        assert "move this file away" in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("make", [fifo, link, endless_link, huge])
def test_what_stands_where_the_journal_is_written(make: Callable[[Path], None], buildout: Buildout) -> None:
    """It is put away: the journal is written to a file of its own."""
    make(buildout.path / "var" / "cow-storage" / (journal.JOURNAL + ".new"))
    assert scripts.start(buildout, "mount").ended(40).returncode == 0
    assert scripts.start(buildout, "umount").ended(20).returncode == 0
    assert journal.load(str(buildout.path / "var" / "cow-storage")).synced


LOAD = """
from cowstorage.errors import JournalUnusable
from cowstorage.part import journal
try:
    journal.load(sys.argv[1])
except JournalUnusable as error:
    print(error)
"""


def test_a_journal_of_3_gb_is_not_read(tmp_path: Path) -> None:
    huge(tmp_path / journal.JOURNAL)
    code = (
        "from cowstorage.part import journal\ntry: journal.load(sys.argv[1])\nexcept Exception as error: print(error)"
    )
    assert "is damaged" in output_with_little_memory(code, str(tmp_path))
