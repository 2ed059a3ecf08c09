"""The whole cycle, for real: mount, read, write, pack, refresh, roll back, unmount; for every combination."""

from __future__ import annotations

import json
from typing import Callable, Iterator

import pytest

from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.sshd import Sshd
from stacks import STACKS, Stack, developer_of, is_clean_of, part_options, prepared


@pytest.fixture(params=STACKS, ids=str)
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
    developer = developer_of(stack, developers)
    sshd = make_sshd() if stack.filesystem == "sshfs" else None
    with prepared(stack, production, developer):
        made = make_buildout(developer, part_options(stack, production, sshd))
        yield made
        made.run("umount", "--lazy")


def status(buildout: Buildout) -> dict:
    return json.loads(buildout.run("status", "--json").stdout)


def test_cycle(stack: Stack, buildout: Buildout, production: Production) -> None:
    own = buildout.create_own_database()

    mounted = buildout.run("mount", check=True)
    assert "Next:" in mounted.stdout
    assert buildout.read() == production.expected()
    assert status(buildout)["union"] == stack.union

    again = buildout.run("mount", check=True)
    assert again.stdout.count("\n") == 1
    assert "mounted already" in again.stdout

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
    assert (
        seen["local"]
        == {
            "storages": {"Data.fs": {"transactions": 0, "size": 0}},
            "blobs": {"files": 0, "size": 0, "complete": True},
        }
        or seen["local"]["storages"]["Data.fs"]["transactions"] == 0
    )

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


def test_savepoint_and_rollback(buildout: Buildout, production: Production) -> None:
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


def test_sync_is_refused_while_in_use(buildout: Buildout, production: Production) -> None:
    buildout.run("mount", check=True)
    process = buildout.hold()
    for command in ("sync", "umount", "rollback"):
        refused = buildout.run(command, "--yes")
        assert refused.returncode == (1 if command != "rollback" else 0) or "In use" in refused.stderr
        if refused.returncode:
            assert f"pid {process.pid}" in refused.stderr or "pid" in refused.stderr
    assert status(buildout)["state"] == "mounted"
    process.kill()
    process.wait()
    buildout.run("umount", check=True)
