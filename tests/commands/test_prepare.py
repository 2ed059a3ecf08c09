"""The option prepare: commands on each fresh copy, and the savepoint that a rollback leads to."""

from __future__ import annotations

import json
import signal
import textwrap
from typing import Callable, Iterator

import pytest

from faults import scripts
from faults.points import killed_at
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.sshd import Sshd
from refreshing import assert_opens_quietly, journal, log, refused, status, upper

PREPARE = "bin/edit anonymised\nbin/edit 'own password'"


@pytest.fixture
def buildout(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> Iterator[Buildout]:
    """One with two commands, not mounted yet."""
    made = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay", "prepare": PREPARE})
    edits(made)
    yield made
    made.run("umount", "--lazy")


def edits(buildout: Buildout, failing: str = "") -> None:
    """Write ``bin/edit NOTE``, which commits one transaction, and ends with 3 after that for one of the notes."""
    words = buildout.runtime.module("harness.database")
    code = f"""\
        #!{words[0]}
        import json, os, subprocess, sys
        note = sys.argv[1]
        assert os.getcwd() == {str(buildout.path)!r}
        arguments = json.dumps({{"note": note, "sizes": [100]}})
        command = [*{words!r}, "commit", "var/filestorage/Data.fs", "var/blobstorage", arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        print("edited by", note)
        sys.exit(3 if note == {failing!r} else 0)
        """
    program = buildout.path / "bin" / "edit"
    program.write_text(textwrap.dedent(code), encoding="utf-8")
    program.chmod(0o755)


def notes(buildout: Buildout) -> list[str]:
    return [entry["description"] for entry in reversed(log(buildout))]


DONE = ["anonymised 1", "own password 1"]


def test_the_first_mount_prepares_what_was_fetched(buildout: Buildout, production: Production) -> None:
    said = buildout.run("mount", check=True).stdout
    assert "Preparing, 1 of 2: bin/edit anonymised\nPreparing, 2 of 2: bin/edit 'own password'\nPrepared." in said
    assert said.index("Prepared.") < said.index("Next: start your instance.")
    assert notes(buildout) == DONE
    above, note = buildout.run("log").stdout.splitlines()[1:3]
    assert above.startswith("-- savepoint prepared --")
    assert "own password 1" in note
    assert "prepared" in buildout.run("status", check=True).stdout
    assert status(buildout)["savepoints"] == ["prepared"]
    again = buildout.run("mount", check=True).stdout
    assert "Preparing" not in again
    buildout.run("umount", check=True)
    assert "Preparing" not in buildout.run("mount", check=True).stdout
    assert notes(buildout) == DONE


def test_a_rollback_leads_to_what_was_prepared(buildout: Buildout, production: Production) -> None:
    buildout.run("mount", check=True)
    prepared, documents = upper(buildout).read_bytes(), buildout.read()
    buildout.commit(2, new=1, changed=1)
    said = buildout.run("rollback", "--yes", check=True).stdout
    assert "The database is back at savepoint prepared." in said
    assert "Preparing" not in said
    assert upper(buildout).read_bytes() == prepared
    assert buildout.read() == documents
    assert_opens_quietly(buildout)

    said = buildout.run("rollback", "production", "--yes", check=True).stdout
    assert "savepoint prepared" in said
    assert "Preparing" not in said
    assert upper(buildout).read_bytes() == production.data_fs.read_bytes()
    assert status(buildout)["state"] == "mounted"
    buildout.run("umount", check=True)
    assert "Preparing" not in buildout.run("mount", check=True).stdout
    assert "already" in buildout.run("rollback", "production", check=True).stdout

    buildout.run("rollback", check=True)
    assert notes(buildout) == DONE
    assert status(buildout)["savepoints"] == ["prepared"]


def test_sync_prepares_the_new_state(buildout: Buildout, production: Production) -> None:
    buildout.run("mount", check=True)
    production.commit(1)
    said = buildout.run("sync", "--yes", check=True).stdout
    assert said.index("Prepared.") < said.index("Next: start your instance")
    assert notes(buildout) == DONE
    assert set(production.expected()) < set(buildout.read())


def test_what_is_synced_unmounted_is_prepared_by_the_next_mount(buildout: Buildout, production: Production) -> None:
    buildout.run("sync", "--yes", check=True)
    assert status(buildout)["state"] == "not mounted"
    assert "Prepared." in buildout.run("mount", check=True).stdout
    assert notes(buildout) == DONE
    buildout.run("umount", check=True)
    buildout.run("rollback", "production", "--yes", check=True)
    buildout.run("rollback", check=True)
    assert "Prepared." in buildout.run("mount", check=True).stdout


def test_a_command_that_fails_hands_nothing_over(buildout: Buildout, production: Production) -> None:
    edits(buildout, failing="own password")
    said = refused(buildout, "mount")
    assert "Preparing failed (exit code 3): bin/edit 'own password'\n    edited by own password\n" in said
    assert "run bin/cow-rollback" in said
    assert journal(buildout)["savepoints"] == {}
    assert notes(buildout) == DONE
    result = buildout.run("status")
    assert result.returncode == 4
    assert "what was fetched is not prepared yet: bin/cow-rollback prepares it anew" in result.stdout
    assert "is not prepared" in refused(buildout, "mount")
    buildout.run("umount", check=True)
    assert "is not prepared" in refused(buildout, "mount")
    assert "3 local transactions" not in refused(buildout, "rollback")
    assert "own password" in refused(buildout, "rollback", "--yes")
    edits(buildout)
    buildout.run("rollback", "--yes", check=True)
    assert notes(buildout) == DONE
    assert status(buildout)["state"] == "mounted"


def test_production_as_it_is_can_be_had_after_a_failure(buildout: Buildout, production: Production) -> None:
    edits(buildout, failing="anonymised")
    refused(buildout, "mount")
    buildout.run("rollback", "production", "--yes", check=True)
    assert status(buildout)["state"] == "mounted"
    assert buildout.read() == production.expected()
    assert "Preparing" not in buildout.run("mount", check=True).stdout


def test_a_program_that_is_missing_is_found_before_anything_is_fetched(buildout: Buildout) -> None:
    (buildout.path / "bin" / "edit").unlink()
    said = refused(buildout, "mount")
    assert "prepare: there is no program to run for this line: bin/edit anonymised" in said
    assert not (buildout.path / "var" / "filestorage.prod").exists()
    assert "there is no program" in refused(buildout, "sync", "--yes")


def test_a_dry_run_shows_what_is_run(buildout: Buildout) -> None:
    line = f"(cd {buildout.path} && {buildout.path}/bin/edit 'own password')"
    assert line in buildout.run("mount", "--dry-run", check=True).stdout
    buildout.run("mount", check=True)
    assert line in buildout.run("sync", "--dry-run", check=True).stdout
    assert line not in buildout.run("rollback", "--dry-run", check=True).stdout
    assert line not in buildout.run("rollback", "production", "--dry-run", check=True).stdout
    assert line not in buildout.run("mount", "--dry-run", check=True).stdout
    assert notes(buildout) == DONE


def test_no_savepoint_of_ones_own_has_these_names(buildout: Buildout) -> None:
    buildout.run("mount", check=True)
    for name in ("prepared", "production"):
        assert "is no name for a savepoint of your own" in refused(buildout, "savepoint", "--force", name)
    buildout.run("savepoint", "--delete", "prepared", check=True)
    buildout.run("rollback", "--yes", check=True)
    assert notes(buildout) == DONE


def test_a_local_pack_takes_it_away_and_production_is_still_there(buildout: Buildout) -> None:
    buildout.run("mount", check=True)
    buildout.commit(1, new=1, changed=1)
    buildout.pack()
    assert "bin/cow-rollback production" in refused(buildout, "rollback", "--yes")
    buildout.run("rollback", "production", "--yes", check=True)
    buildout.run("rollback", check=True)
    assert notes(buildout) == DONE


def test_an_option_that_was_added_later_waits_for_the_next_state(buildout: Buildout, production: Production) -> None:
    options = {"remote": str(production.path), "union": "overlay"}
    buildout.configure(options)
    buildout.run("mount", check=True)
    buildout.configure({**options, "prepare": PREPARE})
    assert "mounted already" in buildout.run("mount", check=True).stdout
    assert notes(buildout) == []
    buildout.run("sync", "--yes", check=True)
    assert notes(buildout) == DONE


def test_it_runs_as_the_developer_and_over_the_network(
    sshd: Sshd, production: Production, developers: Developers, make_buildout: Callable[..., Buildout], fuse: None
) -> None:
    options = {"remote": sshd.remote(production.path), "prepare": "sh -c 'id -un > who'\nbin/edit once"}
    buildout = make_buildout(developers.alone, options)
    edits(buildout)
    buildout.run("mount", check=True)
    assert (buildout.path / "who").read_text() == f"{developers.alone.name}\n"
    assert notes(buildout) == ["once 1"]
    buildout.run("umount", check=True)


@pytest.mark.parametrize("command", [("sync", "--yes"), ("mount",), ("rollback", "--yes")])
def test_what_is_killed_is_finished_or_says_what_to_do(
    buildout: Buildout, production: Production, command: tuple[str, ...]
) -> None:
    """At every sixth point, those in the preparation among them; nothing half prepared is handed over."""
    name, *arguments = command
    buildout.run("mount", check=True)
    for point in range(0, 1000, 6):
        if name == "mount":
            buildout.run("rollback", "production", "--yes", check=True)
            buildout.run("umount", check=True)
            buildout.run("sync", "--yes", check=True)
        elif name == "rollback":
            buildout.run("rollback", "production", "--yes")
        else:
            production.commit(1)
        result = scripts.run(buildout, name, *arguments, fault=killed_at(point))
        if status(buildout)["state"] == "mounted" and name != "rollback":
            assert notes(buildout) in (DONE, [])
            assert status(buildout)["savepoints"] == ["prepared"] or not journal(buildout)["prepare"]
        again = buildout.run(name, *arguments)
        if again.returncode:
            assert "bin/cow-rollback" in again.stderr, again
            buildout.run("rollback", "--yes", check=True)
        buildout.run("mount", check=True)
        assert notes(buildout) == DONE
        assert json.loads(buildout.run("savepoint", "--list", "--json", check=True).stdout)[0]["name"] == "prepared"
        assert status(buildout)["state"] == "mounted"
        if result.returncode == 0:
            break
        assert result.returncode == -signal.SIGKILL
    assert point > 6
