"""The disk is full: below the uppers, in location, in the middle of a sync; on a small ext4 of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator

import pytest

from cowstorage.system.programs import Command, Runner
from faults import scripts
from harness import cleanup
from harness.buildout import Buildout
from harness.developer import Developers
from harness.disk import Disk
from harness.production import Production


@pytest.fixture
def buildout(
    disk: Disk, production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> Iterator[Buildout]:
    options = {"remote": str(production.path), "union": "overlay"}
    made = make_buildout(developers.root, options, f"{disk.path.name}/buildout")
    yield made
    scripts.run(made, "umount", check=True)
    cleanup.assert_nothing_mounted(made.path)


def upper(buildout: Buildout) -> Path:
    return buildout.path / "var" / "filestorage.prod" / "Data.fs"


def test_a_disk_that_is_full_before_the_first_mount_is_said(
    buildout: Buildout, disk: Disk, production: Production
) -> None:
    disk.fill()
    refused = scripts.run(buildout, "mount")
    assert refused.returncode == 1
    assert "No space left on device" in refused.stderr or "no room" in refused.stderr, refused
    cleanup.assert_nothing_mounted(buildout.path)
    disk.make_room()
    scripts.run(buildout, "mount", check=True)
    assert buildout.read() == production.expected()


def test_too_little_room_for_a_sync_is_said_first(buildout: Buildout, disk: Disk, production: Production) -> None:
    """Said before anything is touched, with both numbers."""
    scripts.run(buildout, "mount", check=True)
    scripts.run(buildout, "savepoint", "s", check=True)
    buildout.commit(1, sizes=[100])
    local, content = buildout.read(), upper(buildout).read_bytes()
    production.commit(1, new=1, note="Long " * 12_000, sizes=[100])
    disk.fill(free=30_000)
    refused = scripts.run(buildout, "sync", "--yes")
    assert refused.returncode == 1
    assert "has no room" in refused.stderr
    assert "are to be fetched" in refused.stderr
    assert upper(buildout).read_bytes() == content
    disk.make_room()
    assert buildout.read() == local
    scripts.run(buildout, "sync", "--yes", check=True)
    assert buildout.read() == production.expected()


def test_a_disk_that_fills_in_the_middle_of_a_sync_loses_nothing(
    buildout: Buildout, disk: Disk, production: Production
) -> None:
    """Somebody else takes the room while rsync writes: what was there stays, the same command finishes later."""
    scripts.run(buildout, "mount", check=True)
    base = upper(buildout).read_bytes()
    production.commit(1, new=1, note="Long " * 12_000, sizes=[100])
    run = Runner.run

    def fills_up() -> None:
        def run_when_full(self: Runner, command: Command) -> str:
            if command.argv[0] == "rsync":
                disk.fill()
            return run(self, command)

        Runner.run = run_when_full  # type: ignore[method-assign]

    failed = scripts.run(buildout, "sync", fault=fills_up)
    assert failed.returncode == 1
    assert "No space left on device" in failed.stderr
    assert upper(buildout).read_bytes()[: len(base)] == base
    cleanup_first = scripts.run(buildout, "mount")
    assert cleanup_first.returncode == 1
    disk.make_room()
    scripts.run(buildout, "sync", check=True)
    scripts.run(buildout, "mount", check=True)
    assert buildout.read() == production.expected()


def test_a_disk_that_fills_while_in_use_loses_nothing_committed(
    buildout: Buildout, disk: Disk, production: Production
) -> None:
    """ZODB's commit fails; everything from before is still there, and all goes on when there is room again."""
    scripts.run(buildout, "mount", check=True)
    local = {**buildout.read(), **buildout.commit(1, sizes=[1000])}
    disk.fill()
    with pytest.raises(AssertionError, match="No space left on device"):
        buildout.commit(1, sizes=[500_000])
    disk.make_room()
    assert buildout.read() == local
    buildout.commit(1)
    scripts.run(buildout, "rollback", "--yes", check=True)
    assert buildout.read() == production.expected()


def test_with_a_full_location_unmounting_works_or_says_why(buildout: Buildout, disk: Disk) -> None:
    """The journal can't be written: said, and all is there to be unmounted later."""
    scripts.run(buildout, "mount", check=True)
    disk.fill()
    result = scripts.run(buildout, "umount")
    disk.make_room()
    assert result.returncode in (0, 1)
    assert result.returncode == 0 or "No space left on device" in result.stderr
