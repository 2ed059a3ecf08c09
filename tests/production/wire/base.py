"""What the wire knows beforehand: the base of a database as cow-sync leaves it, the cache, and what was read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Dict, Optional

from cowstorage.database import blobs, filestorage
from cowstorage.part import journal
from cowstorage.production.wire.knowledge import UNKNOWN, Knowledge, Known
from cowstorage.production.wire.names import blob_path, directory_of
from database.blob_site import Site
from harness.polling import until
from production.wire.line import path_of

CONTENT = b"content"
OLD, NEW = (0x03F1B2C4D5E6F708).to_bytes(8, "big"), (0x03F1B2C4D5E6F709).to_bytes(8, "big")
BUSHY, LAWN = "0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x00", "0x00"


class Base:
    """A location with the base of a database."""

    def __init__(self, top: Path):
        site = Site(top)
        for number in range(5):
            site.create(number)
        site.close()
        self.location = top / "location"
        (self.location / "base").mkdir(parents=True)
        for suffix in ("", ".index"):
            shutil.copy(site.path + suffix, self.location / "base" / f"Data.fs{suffix}")
        self.blobs: Dict[bytes, bytes] = dict(blobs.references(site.path))
        self.journal = journal.Journal()
        self.journal.bases = {"Data.fs": list(filestorage.complete_end(site.path, site.path + ".index"))}
        self.save()

    def save(self) -> None:
        """Write the journal."""
        journal.save(str(self.location), self.journal)

    def knowledge(self) -> Knowledge:
        """What is known, once it has been read."""
        knowledge = Knowledge(str(self.location))
        until(lambda: knowledge._loaded[0] == knowledge._signature(), "the bases have been read")
        return knowledge

    def files(self) -> Dict[bytes, bytes]:
        """The files of all BLOBs, by their paths in requests."""
        return {
            path_of(blob_path(directory_of(int.from_bytes(oid, "big"), BUSHY), tid)): CONTENT
            for oid, tid in self.blobs.items()
        }


class Database:
    """What the local database knows: oid → tid of a BLOB."""

    def __init__(self, tids: Dict[int, bytes]):
        self.tids = tids
        self.state: Optional[int] = 1

    def bases(self) -> Optional[int]:
        return self.state

    def of(self, oid: bytes) -> Known:
        tid = self.tids.get(int.from_bytes(oid, "big"))
        return Known(tid=tid) if tid else UNKNOWN


def relative_of(oid: int, tid: bytes = NEW, layout: str = BUSHY) -> str:
    """The path of a BLOB file."""
    return blob_path(directory_of(oid, layout), tid)


def served(*relatives: str, content: bytes = bytes(range(256)) * 300) -> Dict[bytes, bytes]:
    """The server's files."""
    return {path_of(relative): content for relative in relatives}


def cache(location: Path, *relatives: str) -> None:
    """Put BLOBs into the cache."""
    for relative in relatives:
        path = location / "blobstorage" / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"old")
        (location / "blobstorage" / ".layout").write_text("bushy" if relative.count("/") > 1 else "lawn")


def note(location: Path, *oids: int, layout: str = BUSHY) -> None:
    """Note that objects' BLOBs were read."""
    (location / "read").write_text("".join(directory_of(oid, layout) + "\n" for oid in oids))
