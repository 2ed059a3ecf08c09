"""A small content database on ZODB, for production and developers alike.

Each document has a value and a BLOB.  In-process for root; for a developer as a program::

    python -m harness.database VERB DATA.FS BLOB-DIRECTORY ['{"keyword": "arguments"}']

which prints its result as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from contextlib import contextmanager, nullcontext
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

import transaction
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from ZODB import DB
from ZODB.blob import Blob
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.utils import z64

from harness import python2

# Instead of a file: the address of a ZEO server with shared BLOBs, such as zeo:127.0.0.1:8100.
ZEO = "zeo:"

SIZES = (4_000, 60_000, 20_000, 250_000, 9_000, 1_000_000)


class Document(NamedTuple):
    """What a reader has to find: the value, and the digest of the BLOB's content."""

    value: str
    sha256: str


Documents = Dict[str, Document]


@contextmanager
def opened(data_fs: str, blobs: Optional[str], create: bool = False) -> Iterator[DB]:
    """The database, closed again at the end; one of Python 2 is used as Python 2 does.

    :param data_fs: the file, or ``ZEO`` and the address of a server.
    :param blobs: the BLOB directory; ``None`` for a FileStorage without BLOBs.
    :param create: make a new one.  Otherwise a missing file is an error: FileStorage would make one, and
        empty the BLOB directory.
    """
    with python2.python_2() if python2.is_of_python_2(data_fs) else nullcontext(), _opened(
        data_fs, blobs, create
    ) as db:
        yield db


@contextmanager
def _opened(data_fs: str, blobs: Optional[str], create: bool) -> Iterator[DB]:
    if data_fs.startswith(ZEO):
        db = DB(_client(data_fs[len(ZEO) :], blobs))
    else:
        if create == os.path.exists(data_fs):
            raise FileExistsError(data_fs) if create else FileNotFoundError(data_fs)
        db = DB(FileStorage(data_fs, create=create, blob_dir=blobs, pack_keep_old=False))
    try:
        yield db
    finally:
        transaction.abort()
        db.close()


def _client(address: str, blobs: Optional[str]) -> Any:
    # Needed by few tests, and not installed for all programs that use this module.
    from ZEO.ClientStorage import ClientStorage

    host, port = address.split(":")
    return ClientStorage((host, int(port)), blob_dir=blobs, shared_blob_dir=True, wait_timeout=20)


def create(data_fs: str, blobs: Optional[str] = None) -> None:
    """A new database without documents."""
    with opened(data_fs, blobs, create=True) as db, db.transaction() as connection:
        connection.root()["documents"] = OOBTree()


def commit(
    data_fs: str,
    blobs: Optional[str],
    n: int = 1,
    new: int = 1,
    changed: int = 0,
    note: str = "Edited",
    user: str = "editor",
    sizes: Optional[List[int]] = None,
) -> Documents:
    """Commit ``n`` transactions and return the documents that they made or changed.

    :param new: new documents in each transaction.
    :param changed: earlier documents that get a new value and a new BLOB in each transaction.
    :param note: the transactions' description; their number is added.
    :param sizes: of the BLOBs, taken in turn.
    """
    sizes = sizes or list(SIZES)
    result: Documents = {}
    with opened(data_fs, blobs) as db:
        connection = db.open()
        documents = connection.root()["documents"]
        following = 1 + (int(documents.maxKey()) if documents else 0)
        turn = 0
        for number in range(1, n + 1):
            present = list(documents)
            names = [present[(turn + i) % len(present)] for i in range(changed)] if present else []
            names += [f"{following + i:06d}" for i in range(new)]
            following += new
            for name in names:
                content = os.urandom(sizes[turn % len(sizes)])
                turn += 1
                result[name] = _write(documents, name, f"{note} {number}", content, bool(blobs))
            current = transaction.get()
            current.note(f"{note} {number}")
            current.setUser(user, "/Plone")
            transaction.commit()
        connection.close()
    return result


def _write(documents: Any, name: str, value: str, content: bytes, with_blob: bool) -> Document:
    document = documents.get(name)
    if document is None:
        document = documents[name] = PersistentMapping()
        if with_blob:
            document["blob"] = Blob()
    document["value"] = value
    if with_blob:
        with document["blob"].open("w") as file:
            file.write(content)
    return Document(value, hashlib.sha256(content).hexdigest() if with_blob else "")


def delete(data_fs: str, blobs: Optional[str], n: int = 1) -> List[str]:
    """Delete the first ``n`` documents in one transaction and return their names; ``pack`` removes their BLOBs."""
    with opened(data_fs, blobs) as db, db.transaction(note="Deleted") as connection:
        documents = connection.root()["documents"]
        names = list(documents)[:n]
        for name in names:
            del documents[name]
    return names


def pack(data_fs: str, blobs: Optional[str]) -> None:
    """Remove what is of no use now: old revisions and deleted documents, with their BLOBs."""
    with opened(data_fs, blobs) as db:
        db.pack(time.time() + 1)


def read(data_fs: str, blobs: Optional[str]) -> Documents:
    """Every document, with its BLOB read to the end."""
    with opened(data_fs, blobs) as db, db.transaction() as connection:
        return {name: _read(document) for name, document in connection.root()["documents"].items()}


def _read(document: Any) -> Document:
    if "blob" not in document:
        return Document(document["value"], "")
    with document["blob"].open("r") as file:
        return Document(document["value"], hashlib.sha256(file.read()).hexdigest())


def hold(data_fs: str, blobs: Optional[str]) -> None:
    """Keep the database open, as a running Zope does, from the line ``open`` until the end of the input."""
    with opened(data_fs, blobs):
        print(json.dumps("open"), flush=True)
        sys.stdin.read()


def unfinished(data_fs: str) -> bytes:
    """What a commit has appended to the file between its vote and its end: a transaction with status ``c``."""
    with opened(data_fs, None) as db:
        storage = db.storage
        data, serial = storage.load(z64)
        current = TransactionMetaData("editor", "Unfinished")
        end = storage.getSize()
        storage.tpc_begin(current)
        storage.store(z64, serial, data, "", current)
        storage.tpc_vote(current)
        with open(data_fs, "rb") as file:
            file.seek(end)
            tail = file.read()
        storage.tpc_abort(current)
    return tail


def main(arguments: List[str]) -> None:
    """Run a verb, as the module's text says."""
    verb, data_fs, blobs, *keywords = arguments
    function = {"create": create, "commit": commit, "delete": delete, "pack": pack, "read": read, "hold": hold}[verb]
    result = function(data_fs, blobs or None, **(json.loads(keywords[0]) if keywords else {}))  # type: ignore[operator]
    if result is not None:
        print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
