"""Whatever is thrown at what reads other people's text: a result or one of our own errors, never a traceback."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any, Dict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowstorage import filestorage, fsreader, mounts, remotes, session
from cowstorage import settings as options_of_part
from cowstorage.errors import DamagedDatabase, JournalUnusable, SettingsError
from cowstorage.filestorage import Position
from harness import database

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
# What an attacker, or a slip of the finger, is likelier to write than random text.
AWKWARD = st.sampled_from(
    ["", " ", "-rf", "--", "a b", "a,b", "a:b", "a\\b", "ä", "'", '"', "a\nb", "$(x)", "..", "/", "//", "~", "%", "\0"]
)
VALUES = st.lists(AWKWARD | TEXT, max_size=4).map("".join)
BASE = {
    "remote": "plone@www.example.com:/srv/plone",
    "file-storage": "var/filestorage",
    "blob-storage": "var/blobstorage",
}


@given(st.dictionaries(st.sampled_from(options_of_part.OPTION_NAMES) | TEXT, VALUES, max_size=4))
def test_options(given_options: Dict[str, str]) -> None:
    try:
        found = options_of_part.from_options({**BASE, **given_options}, "cow-storage", "/home/dev/site")
        options_of_part.check_paths(found)
    except SettingsError:
        return
    again = options_of_part.from_script(json.loads(json.dumps(options_of_part.to_script(found))))
    assert again == found
    assert not found.remote.startswith("-")
    for path in options_of_part.local_paths(found).values():
        assert path.startswith("/")
        assert not any(ord(character) < 32 for character in path)


@given(st.sampled_from([*remotes.FILESYSTEMS, "glusterfs"]), VALUES)
def test_mount_options_never_write(filesystem: str, value: str) -> None:
    try:
        found = remotes.mount_options(filesystem, value)
    except SettingsError:
        return
    names = {option.partition("=")[0].lower() for option in found}
    assert not names & {"rw", "remount", "bind"}
    assert filesystem != "cifs" or not names & {"password", "pass"}


PIECES = st.lists(st.sampled_from(["36 35 98:0", " / /mnt", " - ", "\\040", "\\999", "\n", "ro"]))


@given(st.text(max_size=400) | PIECES.map("".join))
def test_mountinfo(text: str) -> None:
    for mount in mounts.parse(text):
        assert mounts.is_read_only(mount) in (True, False)
        assert str(mount)
    mounts.at_or_below(mounts.parse(text), "/mnt")


@given(st.text(st.characters(min_codepoint=1, exclude_categories=("Cs",)), min_size=1, max_size=40))
def test_mountinfo_decodes_what_the_kernel_encodes(name: str) -> None:
    """seq_path(), fs/proc_namespace.c: blank, tab, newline and backslash are escaped."""
    encoded = "".join(f"\\{ord(one):03o}" if one in " \t\n\\" else one for one in name)
    (mount,) = mounts.parse(f"36 35 98:0 / /{encoded} ro - ext4 /dev/x ro\n")
    assert mount.target == f"/{name}"


JOURNAL: Dict[str, Any] = {
    **session.Journal().as_data(),
    "mounted": {
        "settings": {"part": "cow-storage", "mount_options": ["ro"], "file_storage": None},
        "union": "overlay",
        "tried": [["aufs", "not there"]],
        "sample": "0x00/0x01.blob",
        "storages": ["Data.fs"],
        "hidden": [],
    },
    "uppers": {"filestorage": "overlay"},
    "bases": {"Data.fs": [4, "0" * 16]},
    "synced": 1.5,
    "remote": "h:/p",
    "savepoints": {"a": {"time": 1, "positions": {"Data.fs": [4, "0" * 16]}, "inodes": {"Data.fs": 7}}},
    "operation": {"command": "cow-mount", "step": "one"},
    "unfinished": {"command": "cow-sync", "again": "bin/cow-sync", "mounted": True},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def paths_in(value: Any) -> list[list[Any]]:
    """The way to every place in nested data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [[], *([key, *rest] for key, inner in items for rest in paths_in(inner))]


def test_journal_is_read_as_it_is_written() -> None:
    assert session.parse_journal(json.dumps(JOURNAL), "j").as_data() == JOURNAL


@given(st.sampled_from([path for path in paths_in(JOURNAL) if path]), JSON)
def test_journal_with_anything_anywhere(path: list[Any], value: Any) -> None:
    """Refused, or of a form that the commands can work with: what they take from it has the type it should have."""
    data = copy.deepcopy(JOURNAL)
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    try:
        journal = session.parse_journal(json.dumps(data), "j")
    except JournalUnusable:
        return
    for positions in (journal.bases, *(one["positions"] for one in journal.savepoints.values())):
        assert all(int(size) >= 0 and int(tid, 16) >= 0 for size, tid in positions.values())
    if journal.mounted:
        assert "".join([journal.mounted["union"], *journal.mounted["storages"]]) is not None
    if journal.unfinished:
        assert journal.unfinished["again"] + journal.unfinished["command"] is not None


@given(st.text(max_size=200) | st.integers(1, 200_000).map(lambda depth: "[" * depth))
@settings(max_examples=60)
def test_journal_of_anything(text: str) -> None:
    with pytest.raises(JournalUnusable):
        session.parse_journal(text, "j")


@given(st.integers(0, 300), st.binary(max_size=3))
def test_journal_torn(cut: int, tail: bytes) -> None:
    data = json.dumps(JOURNAL).encode()
    cut = len(data) - 1 - cut
    with tempfile.TemporaryDirectory() as location:
        (Path(location) / session.JOURNAL).write_bytes(data[:cut] + b"\xff" + tail)
        with pytest.raises(JournalUnusable):
            session.load(location)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "Data.fs"
    database.create(str(path))
    database.commit(str(path), None, n=6, new=1)
    return path


@given(data=st.data())
def test_boundaries_of_a_damaged_file(whole: Path, data: st.DataObject) -> None:
    """Bytes overwritten, the end cut off: all before the damage is found, and nothing is cut off before it."""
    content = bytearray(whole.read_bytes())
    start = Position(fsreader.MAGIC_SIZE, fsreader.NO_TID)
    true = [transaction.position for transaction in filestorage.transactions(str(whole), start)]
    first_damage = length = data.draw(st.integers(4, len(content)), "length")
    for _ in range(data.draw(st.integers(0, 3), "times")):
        at = data.draw(st.integers(4, len(content) - 1), "at")
        written = data.draw(st.binary(min_size=1, max_size=9), "written")
        content[at : at + len(written)] = written
        first_damage = min(first_damage, at)
    with tempfile.TemporaryDirectory() as directory:
        damaged = Path(directory) / "Data.fs"
        damaged.write_bytes(content[:length])
        found = []
        try:
            found = [one.position for one in filestorage.transactions(str(damaged), start)]
            end = filestorage.complete_end(str(damaged))
        except DamagedDatabase:
            end = None
        sound = [position for position in true if position.size <= first_damage]
        assert found[: len(sound)] == sound or end is None
        if end is not None:
            assert end.size <= length
            assert not sound or end.size >= sound[-1].size
