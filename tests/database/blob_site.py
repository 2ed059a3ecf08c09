"""A database with BLOBs, kept and changed by ZODB."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Iterable, Set, Tuple

import transaction
import ZODB
from ZODB.blob import Blob, BlobStorage, is_blob_record
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError, UndoError
from ZODB.utils import p64

from cowstorage.database import blobs

# A BLOB's oid and tid.
Revision = Tuple[bytes, bytes]


class Site:
    """A database with BLOBs, kept by the FileStorage itself (zeoserver) or by a wrapper (zope2instance)."""

    def __init__(self, directory: Path, wrapped: bool = False, layout: str = "bushy"):
        self.path = os.path.join(str(directory), "Data.fs")
        self.blob_directory = os.path.join(str(directory), "blobstorage")
        os.makedirs(self.blob_directory)
        with open(os.path.join(self.blob_directory, ".layout"), "w") as marker:
            marker.write(layout)
        if wrapped:
            storage = BlobStorage(self.blob_directory, FileStorage(self.path))
        else:
            storage = FileStorage(self.path, blob_dir=self.blob_directory)
        self.database = ZODB.DB(storage)
        self.connection = self.database.open()

    @property
    def root(self) -> Any:
        """The database's root object."""
        return self.connection.root()

    @property
    def last_tid(self) -> bytes:
        """The last transaction's id."""
        return self.database.storage.lastTransaction()

    def close(self) -> None:
        """Close the database."""
        transaction.abort()
        self.connection.close()
        self.database.close()

    def create(self, key: object) -> Any:
        """Commit a new BLOB, and return it."""
        self.root[key] = Blob(b"new")
        transaction.commit()
        return self.root[key]

    def change(self, key: object, content: bytes = b"changed") -> None:
        """Commit another content of a BLOB."""
        with self.root[key].open("w") as file:
            file.write(content)
        transaction.commit()

    def undo(self, back: int = 0) -> None:
        """Undo the last transaction but ``back``; refused by ZODB when later ones build on it."""
        self.database.undo(self.database.undoLog(back, back + 1)[0]["id"])
        try:
            transaction.commit()
        except (UndoError, POSKeyError):  # the wrapper stumbles over a creation that was undone twice
            transaction.abort()
        self.connection.sync()

    def current(self) -> Set[Revision]:
        """Return the revisions that ZODB loads as BLOBs, and check that each has its file."""
        storage = self.database.storage
        found = set()
        for number in range(int.from_bytes(storage.new_oid(), "big") + 1):
            try:
                data, tid = storage.load(p64(number))[:2]
            except POSKeyError:
                continue
            if is_blob_record(data):
                assert os.path.exists(storage.loadBlob(p64(number), tid))
                found.add((p64(number), tid))
        return found

    def history(self) -> Set[Revision]:
        """Return the BLOB revisions that ZODB iterates over."""
        iterator = self.database.storage.iterator()
        return {
            (record.oid, record.tid)
            for transaction_record in iterator
            for record in transaction_record
            if is_blob_record(record.data)
        }

    def files(self) -> Set[str]:
        """Return the BLOB files below the directory, relative to it."""
        return {
            os.path.relpath(os.path.join(directory, name), self.blob_directory)
            for directory, _, names in os.walk(self.blob_directory)
            for name in names
            if name.endswith(".blob")
        }

    def paths(self, revisions: Iterable[Revision], layout: str = "bushy") -> Set[str]:
        """Return the paths of revisions, relative to the directory."""
        return {blobs.path_of(oid, tid, layout) for oid, tid in revisions}

    def check(self) -> None:
        """Check that references are what ZODB says, each once, and every file that can be asked for is there."""
        current = list(blobs.references(self.path))
        history = list(blobs.references(self.path, history=True))
        assert len(set(current)) == len(current)
        assert len(set(history)) == len(history)
        assert set(current) == self.current()
        assert set(history) == self.history()
        assert set(current) <= set(history)
        assert self.paths(history) <= self.files()
