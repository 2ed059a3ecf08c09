"""The part changes while it is mounted: old mounts can always be taken away, by the new scripts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import pytest
import zc.buildout

from cowstorage.buildout import recipe
from faults import scripts
from harness import cleanup, database
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production


@pytest.fixture
def options(production: Production) -> Dict[str, str]:
    return {"remote": str(production.path), "union": "overlay"}


@pytest.fixture
def buildout(
    options: Dict[str, str], developers: Developers, make_buildout: Callable[..., Buildout]
) -> Iterator[Buildout]:
    made = make_buildout(developers.root, options)
    scripts.run(made, "mount", check=True)
    made.commit(1)
    yield made
    cleanup.assert_nothing_mounted(made.path)


def other_production(production: Production, scratch: Path) -> Dict[str, str]:
    return {"remote": str(production.copy(scratch / "production-2").path)}


CHANGES: Dict[str, Callable[[Production, Path], Dict[str, str]]] = {
    "remote": other_production,
    "union": lambda production, scratch: {"union": "fuse-overlayfs"},
    "mount-point": lambda production, scratch: {"mount-point": "var/elsewhere"},
    "paths": lambda production, scratch: {"file-storage": "var/fs", "blob-storage": "var/bs"},
    "script-prefix": lambda production, scratch: {
        "script-prefix": "acceptance",
        "location": "var/cow-storage",
        "mount-point": "var/prod",
    },
}


@pytest.mark.parametrize("change", CHANGES)
def test_new_scripts_unmount_what_old_ones_have_mounted(
    buildout: Buildout, options: Dict[str, str], production: Production, scratch: Path, change: str
) -> None:
    buildout.configure({**options, **CHANGES[change](production, scratch)})
    scripts.run(buildout, "umount", check=True)
    cleanup.assert_nothing_mounted(buildout.path)


@pytest.mark.parametrize("change", ["remote", "mount-point", "script-prefix"])
def test_mounting_with_changed_options_keeps_local_changes(
    buildout: Buildout, options: Dict[str, str], production: Production, scratch: Path, change: str
) -> None:
    """Nothing local is lost by it."""
    local = buildout.read()
    buildout.configure({**options, **CHANGES[change](production, scratch)})
    scripts.run(buildout, "mount", check=True)
    assert buildout.read() == local
    scripts.run(buildout, "umount", check=True)


@pytest.mark.parametrize("command", ["mount", "sync"])
def test_other_paths_start_with_productions_data(
    buildout: Buildout, options: Dict[str, str], production: Production, command: str
) -> None:
    """Data.fs is fetched for them; what was changed locally waits beside the old ones."""
    local = buildout.read()
    scripts.run(buildout, "umount", check=True)
    buildout.configure({**options, "file-storage": "var/fs", "blob-storage": "var/bs"})
    scripts.run(buildout, command, check=True)
    scripts.run(buildout, "mount", check=True)
    there = buildout.path / "var"
    assert database.read(str(there / "fs" / "Data.fs"), str(there / "bs")) == production.expected()
    scripts.run(buildout, "umount", check=True)
    buildout.configure(options)
    scripts.run(buildout, "mount", check=True)
    assert buildout.read() == local
    scripts.run(buildout, "umount", check=True)


def test_a_second_buildout_on_the_same_directories_is_refused(
    buildout: Buildout, options: Dict[str, str], make_buildout: Callable[..., Buildout]
) -> None:
    """The second is refused, and the first goes on."""
    local = buildout.read()
    same = {name: str(buildout.path / "var" / name.replace("-", "")) for name in ("file-storage", "blob-storage")}
    second = make_buildout(buildout.developer, {**options, **same}, "second")
    third = make_buildout(buildout.developer, {**options, "location": buildout.settings.location}, "third")
    for command in ("mount", "sync"):
        refused = scripts.run(second, command, "--yes")
        assert refused.returncode == 1
        assert "is mounted already, and not by this part: by another buildout" in refused.stderr
        refused = scripts.run(third, command, "--yes")
        assert refused.returncode == 1
        assert f"is used by the buildout {buildout.path}. Set location to another directory." in refused.stderr
    assert scripts.run(buildout, "status").returncode == 0
    assert buildout.read() == local
    scripts.run(buildout, "umount", check=True)
    scripts.run(second, "mount", check=True)
    assert "not by this part" in scripts.run(buildout, "mount").stderr
    scripts.run(second, "umount", check=True)


def test_a_copy_of_a_mounted_buildout_has_local_changes_of_its_own(
    buildout: Buildout, options: Dict[str, str], scratch: Path
) -> None:
    """cp -a of a buildout, without what is mounted in it: the copy has local changes of its own."""
    local = buildout.read()
    copy = scratch / "copy"
    copying = ["cp", "-a", "--one-file-system", "--", str(buildout.path), str(copy)]
    subprocess.run(copying, check=True)
    second = Buildout(copy, buildout.developer, buildout.runtime, options)
    scripts.run(second, "mount", check=True)
    second.commit(1)
    assert buildout.read() == local
    scripts.run(second, "umount", check=True)
    assert scripts.run(buildout, "status").returncode == 0
    assert buildout.read() == local
    scripts.run(buildout, "umount", check=True)


def test_another_union_is_refused_over_local_changes(buildout: Buildout, options: Dict[str, str]) -> None:
    """Marks of deletion mean nothing to another union: said, and the way back and forth is shown."""
    buildout.configure({**options, "union": "fuse-overlayfs"})
    refused = scripts.run(buildout, "mount")
    assert refused.returncode == 1
    assert "was written by overlay" in refused.stderr
    assert "Set union = overlay, or give up local changes" in refused.stderr
    scripts.run(buildout, "umount", check=True)


def test_a_buildout_that_was_moved_while_mounted_can_be_unmounted(
    buildout: Buildout, options: Dict[str, str], scratch: Path
) -> None:
    """mv takes the mounts along."""
    moved = scratch / "moved"
    old = buildout.path
    old.rename(moved)
    again = Buildout(moved, buildout.developer, buildout.runtime, options)
    scripts.run(again, "umount", check=True)
    cleanup.assert_nothing_mounted(moved)
    scripts.run(again, "mount", check=True)
    scripts.run(again, "umount", check=True)
    moved.rename(old)


def test_a_journal_of_another_release_is_understood(buildout: Buildout) -> None:
    """A journal whose settings lack an option that a later release has, and have one that it no longer has."""
    path = buildout.path / "var" / "cow-storage" / "journal.json"
    journal = json.loads(path.read_text())
    del journal["mounted"]["settings"]["found"]
    journal["mounted"]["settings"]["gone"] = "x"
    path.write_text(json.dumps(journal))
    assert scripts.run(buildout, "status").returncode == 0
    scripts.run(buildout, "umount", check=True)


def test_a_damaged_journal_is_reported_by_every_command(buildout: Buildout) -> None:
    """Reported by every command, with the way out; local transactions are not taken for production's."""
    path = buildout.path / "var" / "cow-storage" / "journal.json"
    good = path.read_text()
    path.write_text(good[: len(good) // 2])
    for command in ("mount", "umount", "sync", "status", "log", "rollback"):
        result = scripts.run(buildout, command)
        assert result.returncode == 1
        assert "is damaged" in result.stderr
        assert "findmnt" in result.stderr
    path.write_text(json.dumps({"format": 99}))
    assert "later cowstorage" in scripts.run(buildout, "umount").stderr
    path.write_text(good)
    local = buildout.read()
    scripts.run(buildout, "umount", check=True)
    path.unlink()
    scripts.run(buildout, "mount", check=True)
    assert buildout.read() == local
    refused = scripts.run(buildout, "sync")
    assert refused.returncode == 1
    assert "Data.fs" in refused.stderr
    scripts.run(buildout, "umount", check=True)


def hook(buildout: Buildout) -> None:
    """What buildout does before it removes a part."""
    settings = buildout.settings
    names: Dict[str, Any] = {
        "file-storage": settings.file_storage,
        "blob-storage": settings.blob_storage,
        "mount-point": settings.mount_point,
        "location": settings.location,
        "bin-directory": str(buildout.path / "bin"),
        "script-prefix": settings.prefix,
    }
    recipe.uninstall(settings.part, names)


def test_removing_a_mounted_part_is_refused(buildout: Buildout) -> None:
    """Refused while mounted, with the command to run."""
    with pytest.raises(zc.buildout.UserError, match=r"is still mounted at .*cow-umount first"):
        hook(buildout)
    scripts.run(buildout, "umount", check=True)
    hook(buildout)
