"""cow-log's lines: of the width of the terminal, names first, savepoints between the transactions."""

from __future__ import annotations

import time
from typing import Iterator, List

import pytest

from cowstorage.commands.log import Entry, lines
from cowstorage.database.format import Transaction


@pytest.fixture(autouse=True)
def utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def entry(number: int, note: str, savepoints: List[str], storage: str = "Data.fs", seconds: int = 0) -> Entry:
    tid = f"040d3d97f9ea{number:04x}"
    fields = {
        "tid": tid,
        "time": 1763939998.0 + number + seconds,
        "size": 302_200 * number,
        "objects": 11,
        "user": "/Plone/acl_users admin",
        "description": note,
    }
    return Entry(Transaction(**{name: fields.get(name, 0) for name in Transaction._fields}), storage, savepoints)


LOG = [
    entry(3, "/Plone/plone-upgrade/__call__", ["late"]),
    entry(2, "Upgraded profile 'my.site:default' to '6', which takes long to say", ["early", "before-content"]),
    entry(1, "", [], seconds=-86400),
]
ENDS = ["savepoint clean", "last sync, 2025-11-22 23:00:00"]


def test_on_a_terminal() -> None:
    assert lines(LOG, ENDS, False, 72, whole=False) == [
        "TRANSACTION       WHEN                     SIZE  NOTE",
        "-- savepoint late ------------------------------------------------------",
        "040d3d97f9ea0003  2025-11-23 23:20:01  906.6 kB  /Plone/plone-upgrade/_…",
        "-- savepoint before-content --------------------------------------------",
        "-- savepoint early -----------------------------------------------------",
        "040d3d97f9ea0002             23:20:00  604.4 kB  Upgraded profile 'my.s…",
        "040d3d97f9ea0001  2025-11-22 23:19:59  302.2 kB  - (admin)",
        "-- savepoint clean -----------------------------------------------------",
        "-- last sync, 2025-11-22 23:00:00 --------------------------------------",
    ]


def test_in_a_pipe_nothing_is_left_out() -> None:
    found = lines(LOG, [], False, 72, whole=True)
    assert "040d3d97f9ea0002  2025-11-23 23:20:00  604.4 kB  " in found[5]
    assert found[5].endswith("which takes long to say (/Plone/acl_users admin)")


def test_a_savepoint_of_several_filestorages_is_one_line() -> None:
    both = [entry(2, "b", ["there"], "catalog.fs"), entry(1, "a", ["there"])]
    found = lines(both, [], True, 200, whole=False)
    assert found[0] == "TRANSACTION       WHEN                     SIZE  IN          NOTE"
    assert [line[:18] for line in found].count("-- savepoint there") == 1
    assert found[1].startswith("-- savepoint there ")
    assert len(found[1]) == 79
    assert found[2].endswith("catalog.fs  b (admin)")


def test_nothing_local_but_a_savepoint() -> None:
    assert lines([], ["savepoint one"], False, 20, whole=False) == ["-- savepoint one ---"]
