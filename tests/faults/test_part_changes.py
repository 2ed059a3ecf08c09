"""The part changes while it is mounted: old mounts can always be taken away, by the new scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import pytest
import zc.buildout

from cowstorage import recipe
from faults import scripts
from harness import cleanup
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
def test_unmounted_by_the_new_scripts(
    buildout: Buildout, options: Dict[str, str], production: Production, scratch: Path, change: str
) -> None:
    buildout.configure({**options, **CHANGES[change](production, scratch)})
    scripts.run(buildout, "umount", check=True)
    cleanup.assert_nothing_mounted(buildout.path)


@pytest.mark.parametrize("change", ["remote", "mount-point", "script-prefix"])
def test_mounted_anew(
    buildout: Buildout, options: Dict[str, str], production: Production, scratch: Path, change: str
) -> None:
    """Nothing local is lost by it."""
    local = buildout.read()
    buildout.configure({**options, **CHANGES[change](production, scratch)})
    scripts.run(buildout, "mount", check=True)
    assert buildout.read() == local
    scripts.run(buildout, "umount", check=True)


def test_other_union_with_local_changes(buildout: Buildout, options: Dict[str, str]) -> None:
    """Marks of deletion mean nothing to another union: said, and the way back and forth is shown."""
    buildout.configure({**options, "union": "fuse-overlayfs"})
    refused = scripts.run(buildout, "mount")
    assert refused.returncode == 1
    assert "was written by overlay" in refused.stderr
    assert "Set union = overlay, or give up local changes" in refused.stderr
    scripts.run(buildout, "umount", check=True)


def test_moved(buildout: Buildout, options: Dict[str, str], scratch: Path) -> None:
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


def test_upgraded(buildout: Buildout) -> None:
    """A journal whose settings lack an option that a later release has, and have one that it no longer has."""
    path = buildout.path / "var" / "cow-storage" / "journal.json"
    journal = json.loads(path.read_text())
    del journal["mounted"]["settings"]["found"]
    journal["mounted"]["settings"]["gone"] = "x"
    path.write_text(json.dumps(journal))
    assert scripts.run(buildout, "status").returncode == 0
    scripts.run(buildout, "umount", check=True)


def test_damaged_journal(buildout: Buildout) -> None:
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


def test_removed(buildout: Buildout) -> None:
    """Refused while mounted, with the command to run."""
    with pytest.raises(zc.buildout.UserError, match=r"is still mounted at .*cow-umount first"):
        hook(buildout)
    scripts.run(buildout, "umount", check=True)
    hook(buildout)
