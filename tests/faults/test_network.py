"""The network goes: killed, hung, cut off, back again.  Nothing hangs longer than its limit, and all can be unmounted.

The limits, in seconds: ``network.sshfs.ALIVE_INTERVAL * (ALIVE_COUNT + 1)`` until a dead connection is an error,
``mounts.PROBE_SECONDS`` for each look at a mount, ``production.LOOK_SECONDS`` and ``refresh.COMPARE_SECONDS`` for
production as a whole, ``rsync.IO_SECONDS`` without a byte, ``mounts.UNMOUNT_SECONDS``.
"""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Iterator

import pytest

from cowstorage import mounts
from cowstorage.network import sshfs
from faults import scripts
from faults.cable import Cable
from faults.scripts import Ended
from harness import cleanup
from harness.buildout import Buildout
from harness.developer import Developer, Developers
from harness.fuse_conf import user_allow_other
from harness.polling import until
from harness.production import Production
from harness.sshd import Sshd

ALIVE = sshfs.ALIVE_INTERVAL * (sshfs.ALIVE_COUNT + 1)
# All limits are whole seconds of waiting; the rest is work.
WORK = 10


class Site:
    """A mounted buildout without root, over a cable."""

    def __init__(self, buildout: Buildout, production: Production, sshd: Sshd, cable: Cable):
        self.buildout, self.production, self.sshd, self.cable = buildout, production, sshd, cable

    def run(self, command: str, *arguments: str, seconds: float) -> Ended:
        """A script, which must end in time."""
        result = scripts.start(self.buildout, command, *arguments).ended(seconds)
        assert "Traceback" not in result.stderr
        return result

    def status(self, seconds: float = 3 * mounts.PROBE_SECONDS + WORK) -> Dict[str, Any]:
        """What ``cow-status --json`` says, and its exit code."""
        result = self.run("status", "--json", seconds=seconds)
        return {**json.loads(result.stdout), "code": result.returncode}

    def broken(self) -> Dict[str, str]:
        """Name of each mount that is not well → what cow-status says of it."""
        return {one["name"]: one["problem"] or one["state"] for one in self.status()["mounts"] if one["problem"]}

    def is_unmounted(self) -> None:
        """Nothing mounted, no daemon left."""
        cleanup.assert_nothing_mounted(self.buildout.path)
        cleanup.assert_nothing_running(self.buildout.path)


FAULTS: Dict[str, Callable[[Site], None]] = {
    "killed": lambda site: site.sshd.kill(),
    "dropped": lambda site: site.sshd.drop_sessions(),
    "hung": lambda site: site.sshd.hang(),
    "cut": lambda site: site.cable.cut(),
}
REPAIRS: Dict[str, Callable[[Site], Any]] = {
    "killed": lambda site: site.sshd.start(),
    "dropped": lambda site: None,
    "hung": lambda site: site.sshd.resume(),
    "cut": lambda site: site.cable.mend(),
}


@pytest.fixture(params=["unionfs-fuse", "overlay"])
def union(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def site(
    union: str,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> Iterator[Site]:
    sshd = make_sshd()
    cable = Cable(sshd.port)
    developer: Developer = developers.root if union == "overlay" else developers.alone
    options = {"remote": sshd.remote(production.path), "union": union, "ssh-options": cable.ssh_options}
    with user_allow_other(union == "overlay"):
        buildout = make_buildout(developer, {**options, "sudo": "no"})
        yield Site(buildout, production, sshd, cable)
    cable.remove()


@pytest.mark.parametrize("fault", FAULTS)
def test_while_mounted(site: Site, fault: str) -> None:
    """Said by cow-status; everything can be unmounted; mounting works again when the server is back."""
    scripts.run(site.buildout, "mount", check=True)
    site.buildout.commit(1)
    FAULTS[fault](site)
    until(site.broken, "cow-status says that it is broken", ALIVE + WORK)
    assert site.status()["code"] == 4
    unmounted = site.run("umount", seconds=2 * ALIVE + WORK)
    assert unmounted.returncode == 0, unmounted
    site.is_unmounted()
    REPAIRS[fault](site)
    scripts.run(site.buildout, "mount", check=True)
    assert site.status()["local"]["storages"]["Data.fs"]["transactions"] == 1
    scripts.run(site.buildout, "umount", check=True)
