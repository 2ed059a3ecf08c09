"""A journal, whatever is in it: what the commands can work with, or one of our own errors."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any, Dict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowstorage.errors import JournalUnusable
from cowstorage.part import journal

JOURNAL: Dict[str, Any] = {
    **journal.Journal().as_data(),
    "mounted": {
        "settings": {"part": "p", "directory": "/b", "location": "l", "mount_options": ["ro"], "file_storage": None},
        "union": "overlay",
        "tried": [["aufs", "not there"]],
        "sample": "0x00/0x01.blob",
        "storages": ["Data.fs"],
        "hidden": [],
    },
    "uppers": {"filestorage": "overlay"},
    "bases": {"Data.fs": [4, "0" * 16]},
    "magics": {"Data.fs": "FS21"},
    "synced": 1.5,
    "remote": "h:/p",
    "savepoints": {
        "a": {
            "time": 1,
            "positions": {"Data.fs": [4, "0" * 16]},
            "inodes": {"Data.fs": 7},
            "magics": {"Data.fs": "FS30"},
        }
    },
    "prepare": "due",
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


def test_a_journal_is_read_as_it_is_written() -> None:
    assert journal.parse_journal(json.dumps(JOURNAL), "j").as_data() == JOURNAL


def test_the_journal_of_an_earlier_release_knows_no_magic_and_means_python_3() -> None:
    data = copy.deepcopy(JOURNAL)
    del data["magics"], data["savepoints"]["a"]["magics"], data["prepare"]
    read = journal.parse_journal(json.dumps(data), "j")
    assert read.base_magics() == read.magics_of("a") == {"Data.fs": b"FS30"}
    assert journal.parse_journal(json.dumps(JOURNAL), "j").base_magic("Data.fs") == b"FS21"


@given(st.sampled_from([path for path in paths_in(JOURNAL) if path]), JSON)
def test_a_journal_with_anything_anywhere_is_sound_or_refused(path: list[Any], value: Any) -> None:
    """Refused, or of a form that the commands can work with: what they take from it has the type it should have."""
    data = copy.deepcopy(JOURNAL)
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    try:
        parsed = journal.parse_journal(json.dumps(data), "j")
    except JournalUnusable:
        return
    for positions in (parsed.bases, *(one["positions"] for one in parsed.savepoints.values())):
        assert all(int(size) >= 0 and int(tid, 16) >= 0 for size, tid in positions.values())
    magics = [parsed.base_magics(), *(parsed.magics_of(name) for name in parsed.savepoints)]
    assert {magic for found in magics for magic in found.values()} <= {b"FS21", b"FS30"}
    if parsed.mounted:
        assert "".join([parsed.mounted["union"], *parsed.mounted["storages"]]) is not None
    if parsed.unfinished:
        assert parsed.unfinished["again"] + parsed.unfinished["command"] is not None


@given(st.text(max_size=200) | st.integers(1, 200_000).map(lambda depth: "[" * depth))
@settings(max_examples=60)
def test_a_journal_of_anything_is_refused(text: str) -> None:
    with pytest.raises(JournalUnusable):
        journal.parse_journal(text, "j")


@given(st.integers(0, 300), st.binary(max_size=3))
def test_a_torn_journal_is_refused(cut: int, tail: bytes) -> None:
    data = json.dumps(JOURNAL).encode()
    cut = len(data) - 1 - cut
    with tempfile.TemporaryDirectory() as location:
        (Path(location) / journal.JOURNAL).write_bytes(data[:cut] + b"\xff" + tail)
        with pytest.raises(JournalUnusable):
            journal.load(location)
