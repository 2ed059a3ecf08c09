"""Something like an upgrade, run as the developer: touch every object, read a third of the BLOBs, write some new ones.

::

    python -m benchmarks.upgrade DATA.FS BLOB-DIRECTORY

prints the seconds that it took, from opening the database to closing it.
"""

from __future__ import annotations

import os
import sys
import time

import transaction
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob

from harness import database

# Objects in one transaction, as the steps of an upgrade do it.
BATCH = 500


def populate(data_fs: str, blobs: str, objects: int, blob_count: int, sizes: tuple[int, ...]) -> None:
    """Objects of some hundred bytes, and documents with a BLOB."""
    database.create(data_fs, blobs)
    with database.opened(data_fs, blobs) as db, db.transaction() as connection:
        root = connection.root()
        root["objects"] = PersistentMapping()
        for number in range(objects):
            root["objects"][number] = PersistentMapping({"title": f"Object {number}", "text": os.urandom(200).hex()})
    database.commit(data_fs, blobs, n=blob_count // 20, new=20, sizes=list(sizes))


def run(data_fs: str, blobs: str) -> float:
    """Upgrade; the seconds it took."""
    begun = time.perf_counter()
    with database.opened(data_fs, blobs) as db:
        connection = db.open()
        root = connection.root()
        documents = list(root["documents"].values())
        for number, one in enumerate(root["objects"].values()):
            one["upgraded"] = True
            if number % BATCH == BATCH - 1:
                transaction.commit()
        for document in documents[::3]:
            with document["blob"].open("r") as file:
                while file.read(1 << 16):
                    pass
        for document in documents[::10]:
            document["preview"] = Blob(os.urandom(20_000))
        transaction.commit()
        connection.close()
    return time.perf_counter() - begun


if __name__ == "__main__":
    print(run(*sys.argv[1:]))
