"""cow-log: the local transactions, as ZODB has them."""

from __future__ import annotations

import time

import pytest

from harness import database
from harness.buildout import Buildout
from refreshing import log, noted, upper


def test_without_local_transactions_the_log_says_so(buildout: Buildout) -> None:
    assert log(buildout) == []
    assert "There are no local transactions since the last sync, 20" in buildout.run("log", check=True).stdout


def test_after_a_local_pack_the_log_says_that_it_can_not_tell_and_nothing_else(buildout: Buildout) -> None:
    buildout.commit(1, changed=1)
    buildout.pack()
    result = buildout.run("log", check=True)
    assert "was packed locally: which transactions are local can't be told any more" in result.stderr
    assert result.stdout == ""
    assert log(buildout) == []


def test_the_log_is_what_zodb_has(buildout: Buildout) -> None:
    base = upper(buildout).stat().st_size
    buildout.commit(3, new=2, changed=1, note="Step", user="upgrader")
    entries = log(buildout)
    assert [entry["description"] for entry in entries] == ["Step 3", "Step 2", "Step 1"]
    assert [entry["tid"] for entry in entries] == sorted((entry["tid"] for entry in entries), reverse=True)
    assert {entry["user"] for entry in entries} == {"/Plone upgrader"}
    assert {entry["storage"] for entry in entries} == {"Data.fs"}
    assert sum(entry["size"] for entry in entries) == upper(buildout).stat().st_size - base
    with database.opened(str(buildout.data_fs), None) as db:
        for seen, entry in zip(db.storage.undoLog(0, 3), entries):
            assert abs(seen["time"] - entry["time"]) < 0.001
            assert seen["size"] == entry["size"] - 8
        for record, entry in zip(db.storage.iterator(bytes.fromhex(entries[-1]["tid"])), reversed(entries)):
            assert record.tid.hex() == entry["tid"]
            assert len(list(record)) == entry["objects"]


def test_the_log_shows_time_user_description_and_savepoint(buildout: Buildout) -> None:
    buildout.commit(2, note="Step")
    buildout.run("savepoint", "there", check=True)
    buildout.commit(1, note="Later")
    lines = buildout.run("log", check=True).stdout.splitlines()
    assert lines[0].split() == ["TRANSACTION", "WHEN", "SIZE", "NOTE"]
    assert lines[1].endswith("Later 1 (/Plone editor)")
    assert lines[2].startswith("-- savepoint there ---")
    assert lines[3].endswith("Step 2 (/Plone editor)")
    assert time.strftime("%Y-%m-%d %H:") in lines[3]
    assert lines[5].startswith(time.strftime("-- last sync, %Y-%m-%d %H:"))
    assert len(lines) == 6
    assert buildout.run("log", "-n", "1", check=True).stdout.splitlines() == lines[:2]
    assert len(log(buildout, "-n", "2")) == 2


def test_the_log_is_as_wide_as_the_terminal(buildout: Buildout) -> None:
    noted(buildout, "An upgrade step that has much to say of itself" * 3)
    narrow = {**(buildout.environment or {}), "COLUMNS": "60"}
    on_terminal = buildout.run("log", tty=True, env=narrow).stdout.splitlines()
    assert max(map(len, on_terminal)) == 60
    assert on_terminal[1].endswith("…")
    whole = buildout.run("log", "-v", tty=True, env=narrow).stdout.splitlines()
    assert whole[1].endswith("say of itself (/Plone admin)")


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_a_number_of_entries_below_one_is_refused(buildout: Buildout, number: str) -> None:
    assert buildout.run("log", "-n", number).returncode == 2


def test_the_notes_of_upgrades_are_shown(buildout: Buildout) -> None:
    # The notes that Plone 6.2.2 writes: @@plone-upgrade runs all of portal_migration's steps in one request, and
    # collective.upgrade commits each version of a profile, with the site's path before its own words.
    noted(buildout, "/Plone/plone-upgrade")
    noted(buildout, "/Plone", "Upgraded profile 'Products.CMFPlone:plone' to '5213'")
    lines = buildout.run("log", check=True).stdout.splitlines()
    assert lines[1].endswith("/Plone / Upgraded profile 'Products.CMFPlone:plone' to '5213' (/Plone admin)")
    assert lines[2].endswith("/Plone/plone-upgrade (/Plone admin)")
    assert log(buildout)[0]["description"] == "/Plone\nUpgraded profile 'Products.CMFPlone:plone' to '5213'"


def test_control_characters_are_kept_off_the_terminal(buildout: Buildout) -> None:
    noted(buildout, "\x1b[31mred\x07")
    line = buildout.run("log", check=True).stdout
    assert "\x1b" not in line
    assert "?[31mred?" in line


def test_the_log_is_shown_while_zope_runs(buildout: Buildout) -> None:
    buildout.commit(1)
    process = buildout.hold()
    assert len(log(buildout)) == 1
    process.kill()
    process.wait()
