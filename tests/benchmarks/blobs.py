"""What one BLOB costs over sshfs, with the cache between sshfs and ssh and without it; by hand, as root::

    PYTHONPATH=src:tests python3 -m benchmarks.blobs > tests/benchmarks/BLOBS.rst

Takes eight minutes, and 4 GB of disk.
"""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, Iterator, List

from benchmarks.__main__ import BYTES_PER_SECOND, SIZES, Scene, make_site
from benchmarks.refresh import Row, table
from cowstorage.database import blobs
from harness.buildout import Buildout
from harness.fuse_conf import user_allow_other
from harness.runtime import Runtime
from harness.workspace import Workspace

ROUND_TRIPS = (0.040, 0.100)
# BLOBs that a median is of, each seventh, so that all sizes are among them, and bytes of the large one.
READ, LARGE = 25, 1_000_000_000
SEQUENTIAL_RUNS = 5

# Reads each file, or looks for it, and prints the milliseconds of each.
EACH = """
import json, os, sys, time
took = []
for path in json.load(sys.stdin):
    begun = time.perf_counter()
    if os.path.exists(path):
        with open(path, "rb") as file:
            file.read()
    took.append((time.perf_counter() - begun) * 1e3)
print(json.dumps(took))
"""

# The argument for that part alone.
SEQUENTIAL_ONLY = "sequential"

SEQUENTIAL = """
import sys, time
begun = time.perf_counter()
with open(sys.argv[1], "rb", buffering=0) as file:
    while file.read(1 << 20):
        pass
print(time.perf_counter() - begun)
"""


def forget() -> None:
    """Drop the kernel's caches."""
    subprocess.run(["sh", "-c", "sync; echo 3 > /proc/sys/vm/drop_caches"], check=True)


def each(scene: Scene, paths: List[Path]) -> float:
    """The median of milliseconds that a file takes."""
    command = [scene.runtime.python, "-c", EACH]
    told = scene.developer.run(command, input=json.dumps([str(path) for path in paths]), timeout=300, check=True)
    return statistics.median(json.loads(told.stdout))


def one_blob(scene: Scene, read_through: str) -> Dict[str, float]:
    """Milliseconds of a BLOB in each state, through kernel overlay."""
    options = {"remote": scene.remote, "union": "overlay", "read-through": read_through}
    buildout = Buildout(scene.directory / f"buildout-{read_through}", scene.developer, scene.runtime, options)
    buildout.run("mount", timeout=600, check=True)
    try:
        there = sorted(path.relative_to(scene.site.blob_storage) for path in scene.site.blob_storage.rglob("*.blob"))
        # In no order, which would be found, and far from each other, so that none is a neighbour of one that was read.
        step = len(there) // READ
        read = [buildout.blob_storage / path for path in random.Random(1).sample(there[::step], READ)]
        found = {"first": each(scene, read), "again": each(scene, read)}
        forget()
        found["forgotten"] = each(scene, read)
        buildout.run("umount", check=True)
        forget()
        buildout.run("mount", check=True)
        found["mounted"] = each(scene, read)
        found["order"] = each(scene, [buildout.blob_storage / path for path in there[step // 2 :: step]])
        # The objects that come next: the directories above theirs are there.
        last = int(str(there[-1].parent).replace("0x", "").replace("/", ""), 16)
        oids = (number.to_bytes(8, "big") for number in range(last + 1, last + 1 + READ))
        new = [blobs.path_of(oid, "03ffffffffffffff", "bushy") for oid in oids]
        found["new"] = each(scene, [(buildout.blob_storage / path).parent for path in new])
        return found
    finally:
        buildout.run("umount", timeout=600)


def one_blob_rows(make: Callable[[float], Scene]) -> Iterator[Row]:
    """A row for each state of a BLOB."""
    titles = {
        "first": "first read",
        "order": "first read, one after the other in the order of their making",
        "again": "again, in the same mount",
        "forgotten": "again, memory needed elsewhere meanwhile",
        "mounted": "again, after umount, mount and that",
        "new": "a new BLOB of a new object looked for",
    }
    columns: List[Dict[str, float]] = []
    for round_trip in ROUND_TRIPS:
        scene = make(round_trip)
        try:
            columns += [one_blob(scene, "no"), one_blob(scene, "yes")]
        finally:
            scene.close()
    for name, title in titles.items():
        yield (title, *(f"{column[name]:.1f} ms" for column in columns))


def sequential(make: Callable[[float], Scene]) -> str:
    """The seconds of a large file with the cache and without, in turn, and their ratio; past the line."""
    scene = make(0.0)
    try:
        with scene.site._changing():
            large = scene.site.blob_storage / "0x00" / "0x00" / "0x00" / "0x00" / "0x00" / "0x7f" / "0x00" / "0x00"
            large.mkdir(parents=True)
            file = large / "0x03fffffffffffff0.blob"
            with open(file, "wb") as target:
                for _ in range(LARGE // 1_000_000):
                    target.write(os.urandom(1_000_000))
            for path in (file, *large.parents):
                if scene.site.path in path.parents:
                    os.chown(path, scene.site.path.stat().st_uid, scene.site.path.stat().st_gid)
        relative = file.relative_to(scene.site.blob_storage)
        took: Dict[str, List[float]] = {"no": [], "yes": []}
        for run in range(SEQUENTIAL_RUNS):
            for read_through, figures in took.items():
                options = {"remote": scene.sshd.remote(scene.site.path), "union": "overlay"}
                directory = scene.directory / f"large-{read_through}-{run}"
                options["read-through"] = read_through
                buildout = Buildout(directory, scene.developer, scene.runtime, options)
                buildout.run("mount", timeout=600, check=True)
                forget()
                command = [scene.runtime.python, "-c", SEQUENTIAL, str(buildout.blob_storage / relative)]
                figures.append(float(scene.developer.run(command, timeout=600, check=True).stdout))
                buildout.run("umount", timeout=600, check=True)
                shutil.rmtree(directory)
        without, with_it = (statistics.median(figures) for figures in took.values())
        rate = LARGE / 1e6 / without
        return (
            f"{LARGE / 1e9:.0f} GB read in order, median of {SEQUENTIAL_RUNS} runs in turn: sshfs alone "
            f"{without:.1f} s ({rate:.0f} MB/s), with the cache {with_it:.1f} s: {without / with_it:.2f} times as fast"
        )
    finally:
        scene.close()


def narrowed() -> str:
    """What ``sequential`` returns where loopback has one gigabit a second, in a network namespace of its own."""
    script = "ip link set lo mtu 1500 up && tc qdisc add dev lo root tbf rate 1gbit burst 128kb latency 20ms"
    command = ("unshare", "--net", "sh", "-ec", f'{script}; exec "$@"', "sh", sys.executable, "-m", "benchmarks.blobs")
    return subprocess.run([*command, SEQUENTIAL_ONLY], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def order_only() -> None:
    """Measure and print ``sequential``."""
    workspace = Workspace.create()
    try:
        runtime = Runtime(workspace.path / "runtime")
        with user_allow_other():
            site = make_site(workspace)
            print(sequential(lambda trip: Scene(workspace, site, runtime, trip, direct=True)))
    finally:
        workspace.remove()


def main() -> None:
    """Measure, and print the page."""
    workspace = Workspace.create()
    try:
        site = make_site(workspace)
        runtime = Runtime(workspace.path / "runtime")
        with user_allow_other():
            rows = list(one_blob_rows(lambda trip: Scene(workspace, site, runtime, trip)))
            near = sequential(lambda trip: Scene(workspace, site, runtime, trip, direct=True))
        kernel = platform.release().partition("-")[0]
        head = (
            "",
            *(f"{trip * 1e3:.0f} ms, {how}" for trip in ROUND_TRIPS for how in ("sshfs alone", "with the cache")),
        )
        print("One BLOB over sshfs", "===================", "", sep="\n")
        print("Command, as root: ``PYTHONPATH=src:tests python3 -m benchmarks.blobs``. It prints this page.\n")
        print(
            f"- Line: {BYTES_PER_SECOND * 8 / 1e6:.0f} Mbit/s each way; kernel overlay on top; {os.cpu_count()} cores, "
            f"Linux {kernel}; medians of {READ} BLOBs of {min(SIZES) // 1000} to {max(SIZES) // 1000} kB."
        )
        print(f"- Loopback: {near}.", f"- 1 Gbit/s: {narrowed()}.", sep="\n")
        print("\n" + table(head, rows))
    finally:
        workspace.remove()


if __name__ == "__main__":
    order_only() if SEQUENTIAL_ONLY in sys.argv else main()
