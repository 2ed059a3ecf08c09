"""The whole cycle, for real: mount, read, write, pack, refresh, roll back, unmount; for every combination."""

from __future__ import annotations

import json
from typing import Callable, Iterator

import pytest

from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.sshd import Sshd
from stacks import ON_AUFS, STACKS, Stack, built, is_clean_of


@pytest.fixture(params=[*STACKS, *ON_AUFS], ids=str)
def stack(request: pytest.FixtureRequest) -> Stack:
    return request.param


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


def status(buildout: Buildout) -> dict:
    return json.loads(buildout.run("status", "--json").stdout)


def test_mount_write_pack_sync_and_unmount(stack: Stack, buildout: Buildout, production: Production) -> None:
    own = buildout.create_own_database()

    mounted = buildout.run("mount", check=True)
    lines = mounted.stdout.splitlines()
    assert lines[-3] == "Next: start your instance."
    assert [line.split()[0] for line in lines[-2:]] == ["bin/cow-rollback", "bin/cow-sync"]
    assert any(line.split()[:2] == ["Data.fs", "production's"] for line in lines)
    assert buildout.read() == production.expected()
    assert status(buildout)["union"] == stack.union

    again = buildout.run("mount", check=True)
    assert "mounted already" in again.stdout
    assert "Next:" not in again.stdout

    written = buildout.commit(3, new=2, changed=1)
    buildout.delete(1)
    assert buildout.read() != production.expected()
    assert status(buildout)["local"]["storages"]["Data.fs"]["transactions"] == 4
    buildout.pack()
    assert set(written) & set(buildout.read())

    production.commit(2, new=2, changed=1)
    refused = buildout.run("sync")
    assert refused.returncode == 1
    assert "--yes" in refused.stderr
    assert buildout.read() != production.expected()

    buildout.run("sync", "--yes", check=True)
    assert buildout.read() == production.expected()
    seen = status(buildout)
    assert seen["state"] == "mounted"
    assert seen["local"] == {
        "storages": {"Data.fs": {"transactions": 0, "size": 0, "complete": True, "conversion": None}},
        "blobs": {"files": 0, "size": 0, "deleted": 0, "complete": True},
    }

    buildout.run("umount", check=True)
    is_clean_of(buildout)
    assert buildout.read() == own
    assert buildout.run("status").returncode == 3
    assert "was not mounted" in buildout.run("umount", check=True).stdout


def test_local_changes_survive_unmounting(buildout: Buildout, production: Production) -> None:
    buildout.run("mount", check=True)
    buildout.commit(2, new=1, changed=1)
    local = buildout.read()
    buildout.run("umount", check=True)
    buildout.run("mount", check=True)
    assert buildout.read() == local
    buildout.run("umount", check=True)


def test_a_rollback_brings_back_the_savepoint_and_the_base(buildout: Buildout, production: Production) -> None:
    buildout.run("mount", check=True)
    upper = buildout.path / "var" / "filestorage.prod" / "Data.fs"
    base = upper.read_bytes()
    buildout.commit(2, new=1, changed=1)
    before = buildout.read()
    buildout.run("savepoint", "before", check=True)
    buildout.commit(3, new=2, changed=1)
    log = json.loads(buildout.run("log", "--json", check=True).stdout)
    assert len(log) == 5
    assert log[3]["savepoints"] == ["before"]

    assert buildout.run("rollback", "before").returncode == 1
    buildout.run("rollback", "before", "--yes", check=True)
    assert buildout.read() == before
    buildout.run("rollback", "--yes", check=True)
    assert upper.read_bytes() == base
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)


def test_no_command_takes_away_what_is_in_use(buildout: Buildout, production: Production) -> None:
    buildout.run("mount", check=True)
    buildout.commit(1)
    process = buildout.hold()
    for command in ("sync", "umount", "rollback"):
        refused = buildout.run(command, *(("--yes",) if command != "umount" else ()))
        assert refused.returncode == 1
        assert "In use" in refused.stderr
        assert f"pid {process.pid}" in refused.stderr
    assert status(buildout)["state"] == "mounted"
    process.kill()
    process.wait()
    buildout.run("umount", check=True)
