"""BLOBs that the database refers to and production lacks, listed and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from cowstorage.actions import absent_blobs
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.sshd import Sshd
from refreshing import status


def missing(buildout: Buildout, *arguments: str) -> List[Dict[str, Any]]:
    return list(json.loads(buildout.run("prefetch", "--missing", "--json", *arguments, check=True).stdout))


def lose(production: Production, count: int) -> List[Path]:
    """Remove some of production's current BLOBs, as a disk that fails does; the newest are needed still."""
    files = sorted(production.blob_storage.rglob("*.blob"), key=lambda path: (path.name, path))[-count:]
    with production._changing():
        for path in files:
            path.unlink()
    return files


def test_what_production_has_lost_is_listed(buildout: Buildout, production: Production) -> None:
    assert missing(buildout) == []
    assert "Not on production, nor here: 0 BLOBs.\n" in buildout.run("prefetch", "--missing", check=True).stdout
    lost = lose(production, 3)
    found = missing(buildout)
    assert sorted(one["file"] for one in found) == sorted(
        str(path.relative_to(production.blob_storage)) for path in lost
    )
    for one in found:
        assert one["file"].endswith(f"/0x{one['tid']}.blob")
        assert one["file"] == "/".join(f"0x{one['oid'][i : i + 2]}" for i in range(2, 18, 2)) + f"/0x{one['tid']}.blob"
        assert one["referrer"]["class"] == "persistent.mapping.PersistentMapping"
    lines = buildout.run("prefetch", "--missing", check=True).stdout.splitlines()
    assert lines[0].split() == ["OID", "TID", "REFERRED", "TO", "BY"]
    assert lines[1].split() == [found[0]["oid"], found[0]["tid"], "persistent.mapping.PersistentMapping"]
    assert lines[-1] == "Not on production, nor here: 3 BLOBs."
    said = buildout.run("prefetch", check=True).stdout
    assert "Not on production: 3. " in said
    assert "bin/cow-prefetch --missing lists them." in said


def test_what_is_here_is_not_missing(buildout: Buildout, production: Production) -> None:
    buildout.run("prefetch", check=True)
    lose(production, 3)
    assert missing(buildout) == []


def test_earlier_revisions_are_asked_for_with_history(buildout: Buildout, production: Production) -> None:
    production.commit(1, new=0, changed=2)
    buildout.run("sync", "--yes", check=True)
    first = min(production.blob_storage.rglob("*.blob"), key=lambda path: path.name)
    with production._changing():
        first.unlink()
    assert missing(buildout) == []
    assert [one["file"] for one in missing(buildout, "--history")] == [str(first.relative_to(production.blob_storage))]


def test_over_the_network_it_needs_no_mount(
    sshd: Sshd, production: Production, developers: Developers, make_buildout: Callable[..., Buildout], fuse: None
) -> None:
    buildout = make_buildout(developers.alone, {"remote": sshd.remote(production.path)})
    buildout.run("mount", check=True)
    buildout.run("umount", check=True)
    # What a mount reads of production to see that it can, and five seconds later the BLOBs beside it, are here.
    buildout.run("prefetch", "--clear", check=True)
    lost = [str(path.relative_to(production.blob_storage)) for path in lose(production, 2)]
    assert sorted(one["file"] for one in missing(buildout)) == sorted(lost)
    assert status(buildout)["state"] == "not mounted"


def test_a_pack_of_productions_is_counted_while_mounted(buildout: Buildout, production: Production) -> None:
    # The BLOB of a document that was deleted before is there, too, until the pack.
    needed = len(production.expected()) + 1
    production.delete(3)
    production.pack()
    seen = status(buildout)["production"]["Data.fs"]
    assert seen["state"] == "packed"
    assert seen["gone"] == {"gone": 4, "looked_at": needed, "needed": needed}
    said = buildout.run("status").stdout
    assert f"4 of {needed} BLOBs of the local database are gone: Plone says FileNotFoundError or POSKeyError. " in said
    buildout.run("umount", check=True)
    said = buildout.run("mount", check=True).stderr
    assert f"4 of {needed} BLOBs of the local database are gone" in said
    assert "bin/cow-sync" in said
    buildout.run("sync", "--yes", check=True)
    assert buildout.read() == production.expected()
    assert "lost BLOBs" not in buildout.run("status").stdout


def test_a_pack_that_took_nothing_is_no_warning(buildout: Buildout, production: Production) -> None:
    """What was prefetched stays, whatever production has deleted."""
    buildout.run("prefetch", check=True)
    production.delete(3)
    production.pack()
    assert status(buildout)["production"]["Data.fs"]["gone"]["gone"] == 0
    assert "none: all that the local database refers to is there still" in buildout.run("status").stdout
    buildout.run("umount", check=True)
    assert buildout.run("mount", check=True).stderr == ""


@pytest.mark.parametrize("samples", [3, 1000])
def test_of_many_some_are_looked_at(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    revisions = [(bytes(7) + bytes([number]), bytes(8)) for number in range(100)]
    monkeypatch.setattr(absent_blobs, "SAMPLES", samples)
    monkeypatch.setattr(absent_blobs, "_references", lambda context, deadline: iter(revisions))
    monkeypatch.setattr(absent_blobs, "_is_local", lambda context, relative: False)
    monkeypatch.setattr(absent_blobs.blob_cache, "size_of", lambda settings, relative: None)
    monkeypatch.setattr(absent_blobs.blobs, "layout", lambda directory: "lawn")

    class Context:
        class filesystem:
            root = "/nowhere"

        class settings:
            remote_blob_storage = "x"

    looked_at = min(samples, 100)
    assert absent_blobs._counted(Context, float("inf")) == absent_blobs.Gone(looked_at, looked_at, 100)
    assert absent_blobs._counted(Context, 0.0) is None
    assert str(absent_blobs.Gone(3, 3, 100)) == "3 of 3 BLOBs that were looked at, of 100, are gone"
