"""A real buildout of plone.recipe.zeoserver and ZODB: its server runs on the merged directories."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Dict, Iterator, Tuple

import pytest

from harness import processes, tree
from harness.database import ZEO
from harness.developer import Developers
from harness.fuse_conf import user_allow_other
from harness.polling import until
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from harness.runtime import Runtime
from harness.sshd import Sshd, free_port
from harness.zope import Workshop, ZopeBuildout
from stacks import is_clean_of

pytestmark = pytest.mark.matrix


class ZeoBuildout(ZopeBuildout):
    """One with a part ``zeoserver``, which is controlled as its user does."""

    port: int

    def start(self) -> int:
        """Start the server; its pid."""
        self.bin("zeoserver", "start")
        self.storage = f"{ZEO}127.0.0.1:{self.port}"
        return int(re.findall(r"program running; pid=(\d+)", self.bin("zeoserver", "status").stdout)[0])

    def stop(self) -> None:
        """Stop it, and wait for its end."""
        self.bin("zeoserver", "stop")
        self.storage = str(self.data_fs)
        until(lambda: not self.holders(), "the zeoserver has ended")

    def holders(self) -> list[int]:
        """The processes of this test that run a ZEO server."""
        return [pid for pid in processes.marked(self.path.parent) if "runzeo" in processes.command(pid)]


@pytest.fixture(params=[("dev", "overlay"), ("alone", DEVELOPERS_UNION)], ids="-".join)
def user_and_union(request: pytest.FixtureRequest) -> Tuple[str, str]:
    """Who has the buildout, and which union ``auto`` takes for that user."""
    return request.param


@pytest.fixture
def buildout(
    user_and_union: Tuple[str, str],
    scratch: Path,
    production: Production,
    sshd: Sshd,
    developers: Developers,
    runtime: Runtime,
    workshop: Workshop,
    fuse: None,
) -> Iterator[ZeoBuildout]:
    """Of a developer who has written no more than ``remote``."""
    user, union = user_and_union
    port = free_port()
    server = {
        "recipe": "plone.recipe.zeoserver",
        "zeo-address": f"127.0.0.1:{port}",
        "pack-keep-old": "false",
        "pack-days": "0",
    }
    options = {"remote": sshd.remote(production.path)}
    with user_allow_other(union == "overlay"):
        made = ZeoBuildout(
            scratch / "buildout", getattr(developers, user), runtime, options, workshop, {"zeoserver": server}
        )
        made.port = port
        yield made
        if made.holders():
            made.stop()
        made.run("umount", "--lazy")


def test_a_zeoserver_serves_the_merged_directories(
    user_and_union: Tuple[str, str], buildout: ZeoBuildout, production: Production
) -> None:
    own = buildout.create_own_database()
    buildout.run("mount", check=True)
    assert json.loads(buildout.run("status", "--json", check=True).stdout)["union"] == user_and_union[1]

    pid = buildout.start()
    assert buildout.read() == production.expected()
    written = buildout.commit(2, new=2, changed=1)
    local = {**production.expected(), **written}
    assert buildout.read() == local
    assert list((buildout.path / "var" / "blobstorage.prod").rglob("*.blob"))
    for command in ("sync", "umount", "rollback"):
        refused = buildout.run(command, "--yes")
        assert refused.returncode == 1
        assert f"pid {pid}," in refused.stderr
    assert buildout.read() == local

    [deleted] = buildout.delete(1)
    # Where root may look, too.
    upper = buildout.path / "var" / "filestorage.prod" / "Data.fs"
    size = upper.stat().st_size
    buildout.bin("zeopack")
    assert upper.stat().st_size < size
    del local[deleted]
    assert buildout.read() == local
    buildout.stop()
    assert buildout.read() == local

    production.commit(1, new=1, changed=1)
    buildout.run("sync", "--yes", check=True)
    buildout.start()
    assert buildout.read() == production.expected()
    buildout.stop()
    buildout.run("umount", check=True)
    is_clean_of(buildout)
    assert buildout.read() == own


@pytest.mark.parametrize("user_and_union", [("dev", "overlay")], ids="-".join, indirect=True)
def test_an_unchanged_part_is_left_alone_and_a_new_remote_taken_while_mounted(
    buildout: ZeoBuildout, production: Production, sshd: Sshd
) -> None:
    """Also while mounted: an unchanged part is left alone, and a new ``remote`` is taken by the next cow-mount."""
    buildout.run("mount", check=True)
    before = scripts(buildout)
    assert "Updating cow-storage." in buildout.build()
    assert tree.differences(before, scripts(buildout)) == []

    moved = production.copy(production.path.with_name("moved"))
    moved.commit(1, new=1)
    buildout.configure({"remote": sshd.remote(moved.path)})
    assert {line.split(":")[0] for line in tree.differences(before, scripts(buildout))} == set(before)
    buildout.run("mount", check=True)
    assert buildout.run("status", "--json", check=True).stdout.count(str(moved.path))
    buildout.run("sync", "--yes", check=True)
    assert buildout.read() == moved.expected()
    buildout.run("umount", check=True)
    is_clean_of(buildout)
    moved.assert_unchanged()


@pytest.mark.parametrize("user_and_union", [("alone", DEVELOPERS_UNION)], ids="-".join, indirect=True)
def test_scripts_that_root_has_built_work_for_the_developer(
    buildout: ZeoBuildout, production: Production, developers: Developers
) -> None:
    for name in [*scripts(buildout), "../.installed.cfg"]:
        (buildout.path / "bin" / name).unlink()
    buildout.build(by=developers.root)
    assert {entry.uid for entry in scripts(buildout).values()} == {0}
    buildout.run("mount", check=True)
    assert buildout.read() == production.expected()
    buildout.commit(1)
    buildout.run("sync", "--yes", check=True)
    buildout.run("umount", check=True)
    is_clean_of(buildout)


def scripts(buildout: ZeoBuildout) -> Dict[str, tree.Entry]:
    """The scripts of our own part, with their times."""
    return {name: found for name, found in tree.snapshot(buildout.path / "bin").items() if name.startswith("cow-")}
