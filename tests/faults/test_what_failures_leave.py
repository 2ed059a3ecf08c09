"""A command that fails before anything is dropped leaves the database that was there, or says that it is not."""

from __future__ import annotations

from typing import Callable, Iterator

import pytest

from cowstorage.production import through_mount
from harness.buildout import Buildout
from harness.developer import Developers
from harness.polling import until
from harness.production import Production
from harness.sshd import Sshd
from refreshing import append_bytes, refused, status
from stacks import Stack, built, part_options

SAID = "an instance that is started now opens your own database. Before anything else run bin/cow-"


@pytest.fixture(
    params=[
        Stack("sshfs", "overlay", "root"),
        Stack("sshfs", "overlay", "sudo"),
        Stack("sshfs", "unionfs-fuse", "alone"),
    ],
    ids=str,
)
def stack(request: pytest.FixtureRequest) -> Stack:
    return request.param


@pytest.fixture
def server(make_sshd: Callable[..., Sshd]) -> Sshd:
    """The one that production is mounted from."""
    return make_sshd()


@pytest.fixture
def buildout(
    stack: Stack,
    production: Production,
    developers: Developers,
    server: Sshd,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> Iterator[Buildout]:
    """Mounted, with a transaction of its own, over a database of the developer's own."""
    with built(stack, production, developers, lambda: server, make_buildout) as made:
        made.create_own_database()
        made.run("mount", check=True)
        made.commit(1)
        yield made
        made.run("umount", "--lazy")


def is_fetched_one(buildout: Buildout) -> bool:
    """Whether the Data.fs that an instance would open is the one that was fetched, with what was committed to it."""
    local = buildout.path / "var" / "filestorage.prod" / "Data.fs"
    return buildout.developer.run(["cmp", "-s", buildout.data_fs, local]).returncode == 0


@pytest.mark.parametrize("command", ["sync", "mount"])
def test_the_unions_stay_while_a_lost_production_can_not_be_reached(
    command: str, buildout: Buildout, production: Production, server: Sshd
) -> None:
    local = buildout.read()
    server.kill()
    until(lambda: status(buildout)["state"] == "broken", "cow-status says that it is broken")
    result = buildout.run(command, "--yes")
    assert result.returncode == 1
    assert "nothing listens there" in result.stderr
    assert SAID not in result.stderr
    assert ("Nothing was dropped: your local changes are all here." in result.stdout) == (command == "sync")
    assert is_fetched_one(buildout)
    assert buildout.run("status", "-q").returncode == 4
    server.start()
    buildout.run(command, "--yes", check=True)
    assert status(buildout)["state"] == "mounted"
    assert buildout.read() == (local if command == "mount" else production.expected())


def test_a_database_that_is_no_longer_there_is_said(
    stack: Stack, buildout: Buildout, production: Production, server: Sshd
) -> None:
    """The server lets nobody in any more, though the mount that it has is well; and each ssh logs in by itself.

    What the mount may remember has to be mounted anew.
    """
    buildout.run("umount", check=True)
    remembers = {"mount-options": "dcache_timeout=60", "ssh-options": "-S none"}
    buildout.configure({**part_options(stack, production, server), **remembers})
    buildout.run("mount", check=True)
    local = buildout.read()
    server.revoke_all()
    said = refused(buildout, "sync", "--yes")
    assert "the server rejected the key" in said
    assert f"{SAID}mount." in said
    assert not is_fetched_one(buildout)
    server.authorize(buildout.developer.public_key)
    buildout.run("mount", check=True)
    assert buildout.read() == local


def test_a_sync_that_was_cut_off_names_the_command_that_finishes_it(buildout: Buildout, production: Production) -> None:
    append_bytes(production, 2 * through_mount.MOST)
    said = refused_without_rsync(buildout)
    assert f"{SAID}sync again." in said
    buildout.run("sync", check=True)
    assert buildout.read() == production.expected()


def refused_without_rsync(buildout: Buildout) -> str:
    """A sync whose rsync fails, after the old state was given up."""
    programs = buildout.path / "programs"
    programs.mkdir()
    (programs / "rsync").write_text("#!/bin/sh\nexit 11\n")
    (programs / "rsync").chmod(0o755)
    result = buildout.run("sync", "--yes", env={"PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"})
    assert result.returncode == 1
    return result.stderr
