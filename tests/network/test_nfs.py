"""The kernel's own NFS server and client, versions 3 and 4."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

import pytest

from cowstorage.part.host import CACHEFILESD_PID
from cowstorage.system import mounts
from harness import needs
from harness.buildout import Buildout
from harness.developer import Developer, Developers
from harness.polling import until
from harness.production import Production
from machine import boot
from network.cycle import status, whole_cycle
from network.servers import NfsServer

pytestmark = pytest.mark.machine


class Case(NamedTuple):
    """``owner``: whom production's files belong to on the server, ``production`` or ``developer``."""

    version: str
    union: str
    owner: str

    def __str__(self) -> str:
        return f"v{self.version}-{self.union}-of-{self.owner}"


CASES = [
    Case("3", "overlay", "developer"),
    Case("4.2", "overlay", "developer"),
    Case("4.2", "fuse-overlayfs", "production"),
    Case("3", "unionfs-fuse", "production"),
]


def exported(server: NfsServer, production: Production, version: str = "4.2") -> str:
    """As an administrator would do it who wants this machine to read, and forgot to say ro."""
    options = f"rw,all_squash,anonuid={production.uid},anongid={production.gid}"
    return server.export(production.path, options, version)


def made(
    make_buildout: Callable[..., Buildout], developer: Developer, remote: str, union: str = "auto", version: str = "4.2"
) -> Buildout:
    options = {"remote": remote, "filesystem": "nfs", "union": union, "mount-options": f"vers={version}"}
    return make_buildout(developer, options)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_whole_cycle_over_nfs(
    case: Case,
    nfs_server: NfsServer,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    if case.owner == "developer":
        production.give_to(developers.dev.uid, developers.dev.gid)
    buildout = made(
        make_buildout, developers.dev, exported(nfs_server, production, case.version), case.union, case.version
    )
    whole_cycle(buildout, production, case.union)


@pytest.fixture
def cachefilesd() -> Iterator[None]:
    """cachefilesd(8), with a cache on the machine's own disk, which is thrown away: the kernel holds on to it."""
    program = needs.program("cachefilesd", "cachefilesd")
    cache = Path(tempfile.mkdtemp(prefix="fscache-", dir=boot.WORK))
    configuration, pid_file = cache.with_suffix(".conf"), Path(CACHEFILESD_PID)
    configuration.write_text(f"dir {cache}\ntag cowstorage\n", encoding="utf-8")
    subprocess.run(["modprobe", "cachefiles"], check=True)
    # In the foreground it writes no file with its pid.
    daemon = subprocess.Popen([program, "-n", "-s", "-f", str(configuration)], stdin=subprocess.DEVNULL)
    pid_file.write_text(f"{daemon.pid}\n", encoding="ascii")
    until((cache / "cache").is_dir, "cachefilesd has its cache")
    yield
    pid_file.unlink()
    daemon.terminate()
    daemon.wait(10)


def reads_of(mount_point: str) -> int:
    """How many READs the client has sent for a mount, since it was made, /proc/PID/mountstats."""
    text = Path("/proc/self/mountstats").read_text(encoding="utf-8")
    (mount,) = (part for part in text.split("\ndevice ") if f" mounted on {mount_point} " in part)
    (line,) = re.findall(r"^\s+READ: (\d+)", mount, re.MULTILINE)
    return int(line)


def test_with_cachefilesd_what_was_read_before_is_not_asked_for_after_the_next_mount(
    cachefilesd: None,
    nfs_server: NfsServer,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    """``fsc`` is there by itself."""
    production.give_to(developers.dev.uid, developers.dev.gid)
    buildout = made(make_buildout, developers.dev, exported(nfs_server, production), "overlay")
    reads = []
    for _ in range(2):
        buildout.run("mount", check=True)
        assert "fsc" in mounted_at(buildout).super_options
        assert buildout.read() == production.expected()
        reads.append(reads_of(buildout.settings.mount_point))
        buildout.run("umount", check=True)
    assert reads[0] > 5
    assert reads[1] < reads[0] / 4, reads


def mounted_at(buildout: Buildout) -> mounts.Mount:
    """Production's mount."""
    found = mounts.top(mounts.read(), buildout.settings.mount_point)
    assert found
    return found


def test_auto_passes_over_the_kernels_overlay_for_files_of_another_user(
    nfs_server: NfsServer,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    buildout = made(make_buildout, developers.dev, exported(nfs_server, production))
    buildout.run("mount", check=True)
    assert status(buildout)["union"] == "fuse-overlayfs"
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)


def test_unreadable_files_are_explained_and_nothing_stays_mounted(
    nfs_server: NfsServer,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    buildout = made(make_buildout, developers.dev, nfs_server.export(production.path, "ro,root_squash"))
    refused = buildout.run("mount")
    assert refused.returncode == 1
    assert "all_squash,anonuid=" in refused.stderr
    assert mounts.top(mounts.read(), buildout.settings.mount_point) is None


def test_what_is_not_exported_is_said(
    nfs_server: NfsServer,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    exported(nfs_server, production)
    refused = made(make_buildout, developers.dev, "127.0.0.1:/nowhere").run("mount")
    assert refused.returncode == 1
    assert "the server exports no" in refused.stderr
