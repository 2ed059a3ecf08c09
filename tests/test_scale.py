"""Many BLOBs: memory stays bounded, and what doesn't fetch takes no longer than with a few.

``COWSTORAGE_SCALE`` sets how many, and ``COWSTORAGE_SCALE_MB`` how big Data.fs is, for a long run that needs twice
the room of Data.fs on the disk::

    COWSTORAGE_SCALE=1000000 COWSTORAGE_SCALE_MB=10000 python3 -m pytest -s tests/test_scale.py
"""

from __future__ import annotations

import json
import os
import re
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Dict, Iterator

import pytest
import transaction
from ZODB.blob import BushyLayout
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.format import DATA_HDR_LEN, TRANS_HDR, TRANS_HDR_LEN, DataHeader
from ZODB.utils import newTid, p64

from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from stacks import Stack, part_options, prepared

COUNT = int(os.environ.get("COWSTORAGE_SCALE", "50000"))
DATA_FS_MB = int(os.environ.get("COWSTORAGE_SCALE_MB", "100"))
MEGABYTES = 200
STACK = Stack("directory", "overlay", "root")

# The record of a BLOB: its class and no state.
RECORD = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N."
FIRST_OID = 1 << 20

MEASURE = (
    "import json, resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True, text=True); "
    "print(json.dumps([done.returncode, done.stdout + done.stderr, "
    "resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000]))"
)


def fill(production: Production, count: int) -> None:
    """That many BLOBs, all of them one file of one byte: hard links, as many to each as the file system takes."""
    with production._changing():
        storage = FileStorage(str(production.data_fs))
        current = TransactionMetaData("editor", "Many")
        storage.tpc_begin(current)
        for number in range(count):
            storage.store(p64(FIRST_OID + number), b"\0" * 8, RECORD, "", current)
        storage.tpc_vote(current)
        tid = storage.tpc_finish(current)
        storage.close()
        swell(production.data_fs, DATA_FS_MB, tid)
        link(production.blob_storage, tid, count)
    transaction.abort()


def swell(data_fs: Path, megabytes: int, tid: bytes) -> None:
    """Append transactions of one object of 10 MB each, which nothing loads: holes in the file."""
    size, oid = 10_000_000, p64(1 << 40)
    length = TRANS_HDR_LEN + DATA_HDR_LEN + size
    with open(data_fs, "r+b") as file:
        file.seek(0, os.SEEK_END)
        for _ in range(megabytes // 10):
            position, tid = file.tell(), newTid(tid)
            file.write(struct.pack(TRANS_HDR, tid, length, b" ", 0, 0, 0))
            file.write(DataHeader(oid, tid, 0, position, 0, size).asString())
            file.seek(size, os.SEEK_CUR)
            file.write(p64(length))


def link(blobs: Path, tid: bytes, count: int) -> None:
    """The BLOB files."""
    layout, source = BushyLayout(), ""
    for number in range(count):
        path = str(blobs / layout.getBlobFilePath(p64(FIRST_OID + number), tid))
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        if number % 30_000 == 0:
            source = path
            Path(path).write_bytes(b"x")
        else:
            os.link(source, path)


class Run:
    """Runs scripts, and remembers the seconds that each took and the most memory, in MB, that a process of it had."""

    def __init__(self, buildout: Buildout):
        self.buildout = buildout
        self.seconds: Dict[str, float] = {}
        self.memory: Dict[str, float] = {}

    def __call__(self, *words: str) -> str:
        command = [sys.executable, "-c", MEASURE, str(self.buildout.script(words[0])), *words[1:]]
        begun = time.perf_counter()
        printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=self.buildout.path).stdout
        self.seconds[words[0]] = time.perf_counter() - begun
        code, output, self.memory[words[0]] = json.loads(printed)
        assert code == 0, output
        return str(output)


@pytest.fixture
def make_run(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout], fuse: None
) -> Iterator[Callable[[], Run]]:
    made = []

    def make() -> Run:
        made.append(make_buildout(developers.root, part_options(STACK, production, None), f"buildout-{len(made)}"))
        return Run(made[-1])

    with prepared(STACK, production, developers.root):
        yield make
        for buildout in made:
            buildout.run("umount", "--lazy")


def work(run: Run) -> None:
    """What doesn't touch BLOBs."""
    run("mount")
    run("status")
    run("savepoint", "here")
    run.buildout.commit(1)
    run("log")
    run("rollback", "--yes")
    run.buildout.commit(1)
    run("sync", "--yes")
    run("umount")


def soon(many: Run, few: Run) -> None:
    """However many BLOBs there are."""
    for name, seconds in few.seconds.items():
        assert many.seconds[name] <= 3 * seconds + 0.5, f"{name}: {few.seconds} {many.seconds}"


def test_time_and_memory_are_bounded_with_many_blobs(production: Production, make_run: Callable[[], Run]) -> None:
    few = make_run()
    work(few)
    fill(production, COUNT)
    many = make_run()
    many("mount")  # Fetches a larger Data.fs, which the comparison is not about.
    many("umount")
    work(many)
    soon(many, few)
    print(f"\n{COUNT:,} BLOBs: {many.seconds} s")

    many("mount")
    told = many("prefetch")
    assert f"{COUNT:,} BLOBs" in re.sub(r"Fetched ([\d,]+)", lambda match: f"{COUNT:,}", told)
    assert "Everything is here" in told
    many("umount")
    assert "without a network" in many("mount", "--offline")
    many("umount")
    print(f"offline: {many.seconds} s, {many.memory} MB")
    soon(many, few)
    assert max(many.memory.values()) < MEGABYTES, many.memory
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
