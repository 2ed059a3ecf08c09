"""The servers of NFS and CIFS go, or the line to them: said, nothing hangs over its limit, all can be unmounted."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Callable, ContextManager, Dict, Iterator, List, NamedTuple, TypeVar

import pytest

from cowstorage.production.filesystems import cifs, nfs
from cowstorage.system import in_use, mounts
from cowstorage.union import trial
from harness import cleanup
from harness.buildout import Buildout
from harness.developer import Developers, Result
from harness.production import Production
from network.cycle import status
from network.line import Line
from network.servers import NfsServer, SmbServer

pytestmark = pytest.mark.machine

T = TypeVar("T")

# A mount gives up after this many seconds by its own defaults, measured: soft of NFS, two echoes of CIFS.
GIVES_UP = 35.0
# Work of ours around a wait, of three at once.
WORK = 60.0


class Site(NamedTuple):
    """A part over NFS or CIFS, below the kernel's overlay."""

    buildout: Buildout
    production: Production

    def run(self, command: str, *arguments: str, seconds: float) -> Result:
        """A script, which must end in time by itself."""
        begun = time.monotonic()
        result = self.buildout.run(command, *arguments, timeout=seconds)
        print(f"{self.buildout.path.name}: cow-{command}: {result.returncode} after {time.monotonic() - begun:.1f} s")
        assert "Traceback" not in result.stderr
        return result

    def read(self) -> Result:
        """A program that looks through production's mount; whatever is remembered of it, some of it isn't."""
        begun = time.monotonic()
        words = ["find", self.buildout.settings.mount_point, "-name", "*.blob", "-exec", "cat", "{}", "+"]
        result = self.buildout.developer.run(words, timeout=4 * GIVES_UP)
        print(f"{self.buildout.path.name}: reading: {result.returncode} after {time.monotonic() - begun:.1f} s")
        return result

    def mounts_and_unmounts(self) -> None:
        """As ever."""
        self.buildout.run("mount", check=True, timeout=120)
        assert set(self.production.expected()) <= set(self.buildout.read())
        self.buildout.run("umount", check=True)


class Network(NamedTuple):
    """The three of them, and the faults that they share."""

    sites: List[Site]
    servers: List[Callable[[], ContextManager[None]]]

    def each(self, function: Callable[[Site], T]) -> List[T]:
        """All at once, since each waits for most of the time."""
        with ThreadPoolExecutor(len(self.sites)) as pool:
            return list(pool.map(function, self.sites))

    @contextmanager
    def killed(self) -> Iterator[None]:
        """No server, and the line is fine."""
        with ExitStack() as stack:
            for stopped in self.servers:
                stack.enter_context(stopped())
            yield

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Nothing arrives."""
        with Line().cut():
            yield


@pytest.fixture
def network(
    nfs_server: NfsServer,
    smb_server: SmbServer,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    scratch: Path,
    fuse: None,
) -> Network:
    dev = developers.dev
    # The kernel's overlay wants files of the developer's.
    theirs = production.copy(scratch / "of-the-developer")
    theirs.give_to(dev.uid, dev.gid)
    squashed = f"rw,all_squash,anonuid={dev.uid},anongid={dev.gid}"
    credentials = smb_server.credentials(dev.uid, dev.gid)
    parts = {
        f"nfs-{version}": {
            "remote": nfs_server.export(theirs.path, squashed, version),
            "filesystem": "nfs",
            "mount-options": f"vers={version}",
        }
        for version in ("3", "4.2")
    }
    parts["cifs"] = {
        "remote": smb_server.remote,
        "mount-options": f"port={smb_server.port},credentials={credentials}",
    }
    sites = [
        Site(make_buildout(dev, {**options, "union": "overlay"}, name), theirs if "nfs" in name else production)
        for name, options in parts.items()
    ]
    return Network(sites, [lambda: stopped(nfs_server), lambda: stopped(smb_server)])


@contextmanager
def stopped(server: NfsServer | SmbServer) -> Iterator[None]:
    """A server that is down for a while."""
    server.refuse()
    try:
        yield
    finally:
        server.serve()


FAULTS: Dict[str, Callable[[Network], ContextManager[None]]] = {"killed": Network.killed, "cut": Network.cut}
SAID = {"killed": re.compile("nothing listens there|no NFS server"), "cut": re.compile("no answer from the")}


@pytest.mark.parametrize("fault", FAULTS)
def test_servers_that_go_while_mounted_are_said_and_all_is_unmounted(network: Network, fault: str) -> None:
    """Readers get errors, cow-status says so, cow-umount takes all away; local changes are there when it is back."""
    network.each(lambda site: site.buildout.run("mount", check=True, timeout=120))
    network.each(lambda site: site.buildout.commit(1))
    with FAULTS[fault](network):
        assert all(result.returncode != 0 for result in network.each(Site.read))
        told = network.each(lambda site: site.run("status", seconds=mounts.PROBE_SECONDS + WORK).returncode)
        assert told == [4, 4, 4]
        network.each(unmounts)
    for site in network.sites:
        site.buildout.run("mount", check=True, timeout=trial.TRIAL_SECONDS + WORK)
        assert status(site.buildout)["local"]["storages"]["Data.fs"]["transactions"] == 1
        assert len(site.buildout.read()) == len(site.production.expected()) + 1
        site.buildout.run("umount", check=True)


def unmounts(site: Site) -> None:
    """Within the documented time."""
    unmounted = site.run("umount", seconds=in_use.SCAN_SECONDS + mounts.UNMOUNT_SECONDS + WORK)
    assert unmounted.returncode == 0, unmounted
    cleanup.assert_nothing_mounted(site.buildout.path)


@pytest.mark.parametrize("fault", FAULTS)
def test_servers_that_are_gone_before_mounting_are_said_in_time(network: Network, fault: str) -> None:
    """Said in time, and nothing stays."""

    def refuses(site: Site) -> None:
        refused = site.run("mount", seconds=max(nfs.MOUNT_SECONDS, cifs.MOUNT_SECONDS) + WORK)
        assert refused.returncode == 1
        assert SAID[fault].search(refused.stderr), refused.stderr
        cleanup.assert_nothing_mounted(site.buildout.path)

    with FAULTS[fault](network):
        network.each(refuses)
    for site in network.sites:
        site.mounts_and_unmounts()
