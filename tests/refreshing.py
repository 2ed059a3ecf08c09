"""What the tests of refresh and time travel share: what a buildout has on disk, and what ZODB says to it."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, Dict, List

from persistent.mapping import PersistentMapping

from harness import database
from harness.buildout import Buildout
from harness.developer import Result
from harness.production import Production

# What ZODB logs and says when an index or a file is not as it left them.
COMPLAINTS = re.compile(r"index|warn|corrupt|truncat|error", re.IGNORECASE)
OPEN_AND_LOAD = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
from harness import database
data_fs, blobs = sys.argv[1:]
with database.opened(data_fs, blobs) as db, db.transaction() as connection:
    storage = db.storage
    next_oid = None
    while True:
        oid, tid, data, next_oid = storage.record_iternext(next_oid)
        loaded = connection.get(oid)
        loaded._p_activate()
        if type(loaded).__name__ == "Blob":
            with loaded.open("r") as file:
                file.read()
        if next_oid is None:
            break
"""


def upper(buildout: Buildout, storage: str = "Data.fs") -> Path:
    """A FileStorage's local file, beneath the union."""
    return buildout.path / "var" / "filestorage.prod" / storage


def journal(buildout: Buildout) -> Dict[str, Any]:
    """What the scripts remember."""
    return dict(json.loads((buildout.path / "var" / "cow-storage" / "journal.json").read_text(encoding="utf-8")))


def status(buildout: Buildout) -> Dict[str, Any]:
    """What ``cow-status --json`` says."""
    return dict(json.loads(buildout.run("status", "--json").stdout))


def log(buildout: Buildout, *arguments: str) -> List[Dict[str, Any]]:
    """What ``cow-log --json`` says."""
    return list(json.loads(buildout.run("log", "--json", *arguments, check=True).stdout))


def local_blobs(buildout: Buildout) -> List[str]:
    """The BLOB files in the upper."""
    directory = buildout.path / "var" / "blobstorage.prod"
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*.blob") if path.is_file())


def mounted(buildout: Buildout) -> Buildout:
    """Mount, and return the buildout."""
    buildout.run("mount", check=True)
    return buildout


def in_place_of_rsync(buildout: Buildout, script: str) -> Dict[str, str]:
    """Return an environment in which ``rsync`` is a script, to which ``$real`` is the true one."""
    directory = buildout.path / "programs"
    directory.mkdir()
    (directory / "rsync").write_text(f"#!/bin/sh\nreal={shutil.which('rsync')}\n{script}\n", encoding="utf-8")
    (directory / "rsync").chmod(0o755)
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


def refused(buildout: Buildout, command: str, *arguments: str) -> str:
    """Run a command that has to fail, and return what it says."""
    result: Result = buildout.run(command, *arguments)
    assert result.returncode == 1, result
    assert "Traceback" not in result.stderr
    return result.stderr


def assert_opens_quietly(buildout: Buildout, storage: str = "Data.fs") -> None:
    """Every object and BLOB loads, ZODB logs nothing, and finds the index as it left it."""
    data_fs = buildout.file_storage / storage
    blobs = buildout.blob_storage if storage == "Data.fs" else ""
    python = buildout.runtime.module("harness.database")[:1]
    paths = f"import sys; sys.path[0:0] = {list(buildout.runtime.paths)!r}\n"
    command = [*python, "-W", "error", "-c", paths + OPEN_AND_LOAD, str(data_fs), str(blobs)]
    result = buildout.developer.run(command, cwd=buildout.path, check=True)
    complaints = [line for line in result.stderr.splitlines() if COMPLAINTS.search(line)]
    assert complaints == []


def assert_is_production(buildout: Buildout, production: Production, content: bytes) -> None:
    """Data.fs is ``content``, byte for byte, every object loads, and the documents are production's."""
    assert upper(buildout).read_bytes() == content
    assert_opens_quietly(buildout)
    assert buildout.read() == production.expected()


def append_bytes(production: Production, size: int, transactions: int = 4) -> int:
    """Let production's Data.fs grow by transactions of that size in all, which don't compress; by how much it grew."""
    before = production.data_fs.stat().st_size
    with production._changing(), database.opened(str(production.data_fs), str(production.blob_storage)) as db:
        for number in range(transactions):
            with db.transaction(note=f"Filler {number}") as connection:
                filler = PersistentMapping(data=os.urandom(size // transactions))
                connection.root()[f"filler-{before}-{number}"] = filler
    return production.data_fs.stat().st_size - before


def noted(buildout: Buildout, *lines: str, user: str = "admin") -> None:
    """Commit one transaction whose description grew line by line, as ``transaction.note`` lets it."""
    with database.opened(str(buildout.data_fs), str(buildout.blob_storage)) as db, db.transaction() as connection:
        connection.root()["noted"] = os.urandom(10)
        current = connection.transaction_manager.get()
        for line in lines:
            current.note(line)
        current.setUser(user, "/Plone")


def replace_database(production: Production, content: bytes) -> None:
    """Put another Data.fs in the place of production's, without an index."""
    with production._changing():
        production.data_fs.write_bytes(content)
        production.data_fs.with_name("Data.fs.index").unlink(missing_ok=True)
