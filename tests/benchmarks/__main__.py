"""Everything side by side, over a line with an emulated round trip in front of a real sshd; as root::

    python3 -m pip install matplotlib
    PYTHONPATH=src:tests python3 -m benchmarks

prints the table of ``RESULTS.rst`` and writes it and its plot, ``plot.png``.  Takes ten minutes.
"""

from __future__ import annotations

import contextlib
import lzma
import os
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple

from benchmarks import report, upgrade
from benchmarks.slow_link import SlowLink
from harness import cleanup, production
from harness.buildout import Buildout
from harness.developer import Developer
from harness.fuse_conf import user_allow_other
from harness.production import Production
from harness.runtime import Runtime
from harness.sshd import Sshd
from harness.workspace import Workspace

ROUND_TRIPS = (0.0, 0.010, 0.040, 0.100)
BYTES_PER_SECOND = 12.5e6
OBJECTS, BLOBS = 20_000, 180
SIZES = (4_000, 60_000, 20_000, 250_000, 9_000, 400_000)
PAIRS = 7
WAYS = ("full copy", "published script", "cowstorage")


class Measured(NamedTuple):
    """Seconds, bytes over the line both ways, and the seconds of the plain local copy in turn with it."""

    seconds: float
    moved: int
    local: float = 0.0


class Scene:
    """A production behind a line, and a developer's buildout; every way starts from nothing.

    :param direct: ssh goes past the line, as fast as this machine is.
    """

    def __init__(
        self, workspace: Workspace, site: Production, runtime: Runtime, round_trip: float, direct: bool = False
    ):
        self.directory = workspace.scratch(f"{round_trip * 1000:.0f}-ms")
        self.site = site.copy(self.directory / "production")
        self.developer = Developer.with_sudo(workspace, self.directory)
        self.runtime = runtime
        self.sshd = Sshd(self.directory / "sshd").start()
        self.sshd.authorize(self.developer.public_key)
        self.line = SlowLink(self.sshd.port, round_trip / 2, BYTES_PER_SECOND)
        self.line.__enter__()
        port = self.sshd.port
        self.sshd.port = port if direct else self.line.port
        self.developer.trust(self.sshd)
        self.sshd.port = port
        self.remote = self.sshd.remote(self.site.path)
        self.plain = home_of(self, "plain")
        self._fill_plain()

    def close(self) -> None:
        self.line.__exit__(None, None, None)
        self.sshd.stop()
        self.sshd.assert_no_write_requests()
        cleanup.remove(self.directory)

    def measure(self, function: Callable[[], object]) -> Measured:
        """Time a function and count what crosses the line."""
        before, begun = self.line.bytes_up + self.line.bytes_down, time.perf_counter()
        function()
        return Measured(time.perf_counter() - begun, self.line.bytes_up + self.line.bytes_down - before)

    def shell(self, script: str) -> None:
        """Run lines of a shell as the developer."""
        self.developer.run(["sh", "-ec", script], cwd=self.directory, timeout=600, check=True)

    def _fill_plain(self) -> None:
        """Production's data as plain files of the developer."""
        for name in ("filestorage", "blobstorage"):
            shutil.rmtree(self.plain / name)
            shutil.copytree(self.site.path / "var" / name, self.plain / name)
        owner = f"{self.developer.uid}:{self.developer.gid}"
        subprocess.run(["chown", "-R", owner, str(self.plain)], check=True)
        subprocess.run(["chmod", "-R", "u+rwX", str(self.plain)], check=True)

    def upgrade(
        self, data_fs: Path, blobs: Path, pairs: int = 1, back: Callable[[], object] = lambda: None
    ) -> Measured:
        """The upgrade-like run and the same run on the plain local copy in turn, medians; after each, ``back``."""
        runs, local = [], []
        for _ in range(pairs):
            local.append(self._run(self.plain / "filestorage" / "Data.fs", self.plain / "blobstorage").seconds)
            self._fill_plain()
            runs.append(self._run(data_fs, blobs))
            back()
        seconds = statistics.median(run.seconds for run in runs)
        return Measured(seconds, max(run.moved for run in runs), statistics.median(local))

    def _run(self, data_fs: Path, blobs: Path) -> Measured:
        """By its own clock; the disk has nothing else left to write."""
        command = [*self.runtime.module("benchmarks.upgrade"), str(data_fs), str(blobs)]
        before = self.line.bytes_up + self.line.bytes_down
        subprocess.run(["sync"], check=True)
        printed = self.developer.run(command, cwd=self.directory, timeout=600, check=True).stdout
        return Measured(float(printed), self.line.bytes_up + self.line.bytes_down - before)


def full_copy(scene: Scene) -> Dict[str, Measured]:
    """``rsync -a`` of everything, worked on as it is."""
    home = home_of(scene, "copy")
    data_fs, blobs = home / "filestorage" / "Data.fs", home / "blobstorage"
    fetch = f"rsync -az --delete --chmod=u+w {scene.remote}/var/filestorage {scene.remote}/var/blobstorage {home}/"
    result = {"first": scene.measure(lambda: scene.shell(fetch))}
    clean = home_of(scene, "clean")
    scene.shell(f"cp -a {home}/filestorage {blobs} {clean}/")

    def back() -> None:
        scene.shell(f"rm -rf {home}/filestorage {blobs} && cp -a {clean}/filestorage {clean}/blobstorage {home}/")

    result["upgrade"] = scene.upgrade(data_fs, blobs, PAIRS, back)
    scene.upgrade(data_fs, blobs)
    result["back"] = scene.measure(lambda: scene.shell(fetch))
    grow(scene)
    result["refresh"] = scene.measure(lambda: scene.shell(fetch))
    return result


def published(scene: Scene) -> Dict[str, Measured]:
    """The script as it was published: sshfs, a union, and Data.fs and its index by rsync."""
    home = home_of(scene, "published")
    data_fs, blobs = home / "filestorage" / "Data.fs", home / "blobstorage"
    scene.shell(f"mkdir {home}/prod && for d in filestorage blobstorage; do mkdir {home}/$d.prod {home}/$d.work; done")
    fetch = "\n".join(
        f"rsync -az {scene.remote}/var/filestorage/{name} {home}/filestorage.prod/"
        for name in ("Data.fs", "Data.fs.index")
    )
    mount = f"sshfs -o ro,allow_root,idmap=user {scene.remote} {home}/prod"
    lay = "\n".join(
        f"sudo mount -t overlay -o lowerdir={home}/prod/var/{d},upperdir={home}/{d}.prod,workdir={home}/{d}.work "
        f"overlay {home}/{d}"
        for d in ("filestorage", "blobstorage")
    )
    lift = f"sudo umount {home}/filestorage\nsudo umount {home}/blobstorage"
    written = f"{home}/blobstorage.prod {home}/blobstorage.work"
    forget = f"sudo rm -rf {written}; mkdir {written}"
    back = "\n".join((lift, forget, fetch, lay))
    result = {"first": scene.measure(lambda: scene.shell("\n".join((mount, fetch, lay))))}
    try:
        result["upgrade"] = scene.upgrade(data_fs, blobs)
        result["back"] = scene.measure(lambda: scene.shell(back))
        result["again"] = scene.upgrade(data_fs, blobs)
        scene.shell(back)
        grow(scene)
        result["refresh"] = scene.measure(lambda: scene.shell(back))
    finally:
        scene.shell(f"{lift}\nfusermount3 -u {home}/prod")
    return result


def ours(scene: Scene) -> Dict[str, Measured]:
    """What the README says."""
    buildout = Buildout(
        scene.directory / "buildout", scene.developer, scene.runtime, {"remote": scene.remote, "union": "overlay"}
    )

    def script(*words: str) -> Measured:
        return scene.measure(lambda: buildout.run(*words, timeout=600, check=True))

    def local_run() -> Measured:
        """Several, since the difference to a local copy is small."""
        back = lambda: script("rollback", "--yes")  # noqa: E731
        return scene.upgrade(buildout.data_fs, buildout.blob_storage, PAIRS, back)

    result = {"first": script("mount")}
    try:
        result["upgrade"] = scene.upgrade(buildout.data_fs, buildout.blob_storage)
        result["back"] = script("rollback", "--yes")
        result["again"] = local_run()
        script("prefetch", "--clear")
        result["prefetch"] = script("prefetch")
        result["prefetched"] = local_run()
        script("umount")
        script("mount", "--offline")
        result["offline"] = local_run()
        script("umount")
        script("mount")
        grow(scene)
        result["refresh"] = script("sync", "--yes")
    finally:
        buildout.run("umount", timeout=600)
    return result


def home_of(scene: Scene, name: str) -> Path:
    """A directory with the two mount points, the developer's."""
    home = scene.directory / name
    for directory in (home, home / "filestorage", home / "blobstorage"):
        directory.mkdir()
        os.chown(directory, scene.developer.uid, scene.developer.gid)
    return home


def grow(scene: Scene) -> None:
    """Production goes on: 20 transactions."""
    scene.site.commit(20, new=1, sizes=list(SIZES))


def least(site: Production) -> Dict[str, Measured]:
    """The bytes that each of it needs, whatever the way: compressed by xz; BLOBs hardly can be."""
    before = site.data_fs.stat().st_size
    grown = site.copy(site.path.with_name("grown"))
    grown.commit(20, new=1, sizes=list(SIZES))
    added = grown.data_fs.read_bytes()[before:]
    cleanup.remove(grown.path)
    blobs = sorted(path.stat().st_size for path in site.path.rglob("*.blob"))
    index = site.data_fs.with_name("Data.fs.index").read_bytes()
    read = sum(SIZES[number % len(SIZES)] for number in range(0, len(blobs), 3))
    moved = {
        "first": len(lzma.compress(site.data_fs.read_bytes())) + len(lzma.compress(index)),
        "refresh": len(lzma.compress(added)),
        "back": 0,
        "upgrade": read,
        "again": 0,
        "prefetched": 0,
        "offline": 0,
        "prefetch": sum(blobs),
    }
    return {name: Measured(0.0, count) for name, count in moved.items()}


def measure(workspace: Workspace, site: Production, runtime: Runtime) -> Iterator[report.Row]:
    """A row for each way and round trip."""
    for round_trip in ROUND_TRIPS:
        for name, way in zip(WAYS, (full_copy, published, ours)):
            scene = Scene(workspace, site, runtime, round_trip)
            try:
                yield report.Row(round_trip * 1000, name, way(scene))
            finally:
                scene.close()


def make_site(workspace: Workspace) -> Production:
    """Make a production with the objects and BLOBs that all is measured with."""
    owner = production.account()
    site = Production(workspace.path / "production", owner.pw_uid, owner.pw_gid)
    with site._changing():
        site._make_directories()
        upgrade.populate(str(site.data_fs), str(site.blob_storage), OBJECTS, BLOBS, SIZES)
    site._documents["Data.fs"] = {}
    return site


def main() -> None:
    """Measure, print, write."""
    workspace = Workspace.create()
    try:
        site = make_site(workspace)
        runtime = Runtime(workspace.path / "runtime")
        shutil.copytree(Path(__file__).parent, workspace.path / "runtime" / "src" / "benchmarks")
        sizes = [path.stat().st_size for path in site.path.rglob("*.blob")]
        facts = f"Data.fs {site.data_fs.stat().st_size / 1e6:.1f} MB, {len(sizes)} BLOBs of {sum(sizes) / 1e6:.1f} MB"
        rows: List[report.Row] = []
        with user_allow_other():
            for row in measure(workspace, site, runtime):
                rows.append(row)
                print(report.line(row), flush=True)
        report.write(rows, least(site), facts, Path(__file__).parent)
    finally:
        with contextlib.suppress(OSError):
            workspace.remove()


if __name__ == "__main__":
    main()
