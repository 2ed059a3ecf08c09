"""What a run of an upgrade costs before it starts: refresh, rollback, log and status, measured.

Takes some minutes, root, and 12 GB of disk; see README.rst beside it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import transaction
from BTrees.IOBTree import IOBTree
from persistent.mapping import PersistentMapping
from ZODB.utils import p64

from benchmarks.slow_link import SlowLink
from cowstorage.database import blobs
from harness import cleanup, database
from harness.buildout import Buildout
from harness.developer import Developer
from harness.polling import until
from harness.production import Production
from harness.runtime import Runtime
from harness.sshd import Sshd
from harness.workspace import Workspace

MEGABYTE = 1_000_000
LINES: Dict[str, Tuple[float, float]] = {
    "loopback": (0.0, 1e10),
    "40 ms, 100 Mbit/s": (0.02, 12.5e6),
}
UNKNOWN = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")

Row = Sequence[str]


# Writes so many bytes into a file, and again, so that there is always something for the kernel to write out.
WRITES = """
import os, sys
size, block = int(sys.argv[2]), os.urandom(1 << 24)
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600)
while True:
    for offset in range(0, size, len(block)):
        os.pwrite(file, block, offset)
"""


@contextmanager
def much_to_write(directory: Path, size: int) -> Iterator[None]:
    """Another program keeps so many bytes dirty in the same file system."""

    def dirty() -> int:
        found = re.findall(r"^(?:Dirty|Writeback):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
        return sum(map(int, found)) * 1024

    path = directory / "written"
    writer = subprocess.Popen([sys.executable, "-c", WRITES, str(path), str(size)])
    try:
        until(lambda: dirty() > 0.9 * size, "there is much to write", 120)
        yield
    finally:
        writer.kill()
        writer.wait()
        path.unlink(missing_ok=True)


@contextmanager
def unsynced() -> Iterator[None]:
    """ZODB doesn't wait for the disk: making the data is not what is measured."""
    module: Any = importlib.import_module("ZODB.FileStorage.FileStorage")
    real, module.fsync = module.fsync, None
    try:
        yield
    finally:
        module.fsync = real


def fill(data_fs: Path, size: int, transaction_size: int, object_size: int) -> int:
    """Let a Data.fs grow by transactions of that size, with objects of that size that compress to about a half."""
    before = data_fs.stat().st_size
    with unsynced(), database.opened(str(data_fs), None) as db:
        connection = db.open()
        filler = connection.root()[f"filler-{before}"] = IOBTree()
        for number in range(max(1, size // transaction_size)):
            part = filler[number] = PersistentMapping()
            for index in range(max(1, transaction_size // object_size)):
                content = os.urandom(object_size // 2).hex()
                part[index] = PersistentMapping(text=content)
            transaction.get().note(f"Upgrade step {number}")
            transaction.commit()
            connection.cacheMinimize()
        connection.close()
    return data_fs.stat().st_size - before


def timed(function: Callable[[], Any]) -> float:
    start = time.monotonic()
    function()
    return time.monotonic() - start


class Bench:
    """One workspace with a production, its sshd, and a developer."""

    def __init__(self, workspace: Workspace):
        self.scratch = workspace.scratch("refresh")
        self.developer = Developer.root(workspace, self.scratch)
        self.runtime = Runtime(workspace.path / "runtime")
        self.production = Production.create(self.scratch / "production")
        self.sshd = Sshd(self.scratch / "sshd")
        self.sshd.start()
        self.sshd.authorize(self.developer.public_key)
        self.developer.trust(self.sshd)

    def close(self) -> None:
        self.developer.close()
        self.sshd.stop()

    def buildout(self, name: str, **options: str) -> Buildout:
        return Buildout(self.scratch / name, self.developer, self.runtime, {"union": "overlay", **options})

    def refresh(self) -> List[Row]:
        """2 GB with 1 MB added: by rsync as it was published, in place, and by us."""
        with self.production._changing():
            fill(self.production.data_fs, 2_000 * MEGABYTE, 2 * MEGABYTE, 20_000)
        rows: List[Row] = []
        ways: List[Tuple[str, Callable[[Any], float]]] = [
            ("rsync -Paz", lambda link: self._by_rsync(link)),
            ("rsync -Paz --inplace", lambda link: self._by_rsync(link, "--inplace")),
            ("cow-sync", self._by_us),
        ]
        for line, (delay, rate) in LINES.items():
            results = []
            for way, run in ways:
                with SlowLink(self.sshd.port, delay, rate) as link:
                    results.append((way, run(link), link.bytes_up + link.bytes_down))
                    appended = self._appended
                    moved = self._moved
                results[-1] = (*results[-1][:2], moved)
                print(line, results[-1], file=sys.stderr, flush=True)
            ours = results[-1][1]
            rows += [
                (line, way, f"{seconds:.2f} s", f"{seconds / ours:.1f}", f"{moved:,}", f"{moved - appended:+,}")
                for way, seconds, moved in results
            ]
        return rows

    def _grow(self) -> None:
        with self.production._changing():
            self._appended = fill(self.production.data_fs, MEGABYTE, MEGABYTE, 20_000)

    def _by_rsync(self, link: SlowLink, *options: str) -> float:
        copy = self.scratch / "copy" / "Data.fs"
        copy.parent.mkdir(exist_ok=True)
        shutil.copy2(self.production.data_fs, copy)
        self._grow()
        shell = shlex.join(("ssh", "-p", str(link.port), *UNKNOWN))
        source = self.sshd.remote(self.production.data_fs)
        before = link.bytes_up + link.bytes_down
        argv = ["rsync", "-Paz", *options, "-e", shell, source, str(copy)]
        took = timed(lambda: self.developer.run(argv, check=True, timeout=600))
        self._moved = link.bytes_up + link.bytes_down - before
        return took

    def _by_us(self, link: SlowLink) -> float:
        shell = shlex.join(("-p", str(link.port), *UNKNOWN))
        options = {"remote": self.sshd.remote(self.production.path), "union": "overlay", "ssh-options": shell}
        buildout = self.buildout("synced", **options)
        local = buildout.path / "var" / "filestorage.prod" / "Data.fs"
        if not local.exists():
            # Over the line itself the first fetch would take minutes.
            self._fetch_first(buildout)
            buildout.configure(options)
        buildout.run("mount", check=True, timeout=600)
        # What was added for the other ways is not to be counted.
        buildout.run("sync", "--yes", check=True, timeout=600)
        self._grow()
        before = link.bytes_up + link.bytes_down
        took = timed(lambda: buildout.run("sync", "--yes", check=True, timeout=600))
        self._moved = link.bytes_up + link.bytes_down - before
        buildout.run("umount", check=True)
        return took

    def _fetch_first(self, buildout: Buildout) -> None:
        with SlowLink(self.sshd.port, 0.0, 1e10) as link:
            options = shlex.join(("-p", str(link.port), *UNKNOWN))
            remote = self.sshd.remote(self.production.path)
            buildout.configure({"remote": remote, "union": "overlay", "ssh-options": options, "rsync-options": ""})
            buildout.run("mount", check=True, timeout=600)
            buildout.run("umount", check=True)

    def travel(self) -> List[Row]:
        """1 GB of local transactions, 100,000 of them, and 100,000 local BLOB files."""
        small = Production.create(self.scratch / "small")
        buildout = self.buildout("travelled", remote=str(small.path), filesystem="directory")
        buildout.run("mount", check=True)
        fill(buildout.data_fs, 1_000 * MEGABYTE, 10_000, 10_000)
        # What is written to an upper beneath a live union isn't seen reliably.
        buildout.run("umount", check=True)
        upper = buildout.path / "var" / "blobstorage.prod"
        for number in range(100_000):
            path = upper / blobs.path_of(p64(1_000_000 + number), p64(1), "bushy")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"local")
        buildout.run("mount", check=True)
        rows: List[Row] = []

        def row(what: str, *arguments: str) -> None:
            took = timed(lambda: buildout.run(*arguments, check=True, timeout=600))
            print(what, took, file=sys.stderr, flush=True)
            rows.append((what, f"{took:.2f} s"))

        row("cow-log, 100,000 transactions", "log")
        row("cow-log -n 20, of 100,000", "log", "-n", "20")
        row("cow-status, 1 GB and 100,000 BLOB files local", "status")
        row("cow-savepoint", "savepoint", "here")
        buildout.commit(3)
        row("cow-rollback to a savepoint, 3 transactions back", "rollback", "--yes", "here")
        row("cow-rollback to the base, 1 GB and 100,000 BLOB files back", "rollback", "--yes")
        row("the database opened and read afterwards, Python's start included", "log", "-n", "1")
        rows[-1] = (rows[-1][0], f"{timed(buildout.read):.2f} s")
        buildout.commit(3)
        with much_to_write(self.scratch, 2_000 * MEGABYTE):
            row("cow-rollback, 3 transactions, another program keeps 2 GB unwritten", "rollback", "--yes")
            buildout.commit(3)
            row("cow-sync, the same", "sync", "--yes")
        buildout.run("umount", check=True)
        python = buildout.runtime.module("x")[0]
        start = statistics.median(timed(lambda: self.developer.run([python, "-c", "pass"])) for _ in range(9))
        quiet = statistics.median(timed(lambda: buildout.run("status", "-q")) for _ in range(9))
        full = statistics.median(timed(lambda: buildout.run("status")) for _ in range(9))
        for what, took in (("python -c pass", start), ("cow-status -q", quiet), ("cow-status", full)):
            rows.append((f"{what}, not mounted, median of 9", f"{took * 1000:.0f} ms"))
        return rows


def table(head: Row, rows: List[Row]) -> str:
    """In reStructuredText."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [head, *rows]]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def machine() -> str:
    """Its size, in a sentence."""
    memory = int(re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[0]) // 1_000_000
    rsync = subprocess.run(["rsync", "--version"], capture_output=True, text=True).stdout.split()[2]
    return (
        f"{os.cpu_count()} processors, {memory} GB of memory, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, rsync {rsync}."
    )


@contextmanager
def bench() -> Iterator[Bench]:
    """One that cleans up."""
    workspace = Workspace.create()
    made: Optional[Bench] = None
    try:
        made = Bench(workspace)
        yield made
    finally:
        if made:
            made.close()
        with contextlib.suppress(FileNotFoundError):
            cleanup.unmount_below(workspace.path)
        workspace.remove()


def main() -> None:
    """Print the page."""
    with bench() as made:
        travelled = made.travel()
        refreshed = made.refresh()
    head = ("line", "way", "time", "times cow-sync's", "bytes moved", "beside those added")
    print("Refresh and time travel: measured\n=================================\n")
    print(f"By ``python -m benchmarks.refresh``. {machine()}\n")
    print("Data.fs of 2 GB, 1 MB added on production\n-----------------------------------------\n")
    print(table(head, refreshed) + "\n")
    print("Back in time, and looking\n-------------------------\n")
    print(table(("what", "time"), travelled))


if __name__ == "__main__":
    main()
