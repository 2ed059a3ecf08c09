"""A production site's buildout directory, as ZODB and a careful administrator leave it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from harness import accounts, database, python2, tree, zodbupdate

USER = "cowprod"
LEAST_UID = 1500


def account() -> pwd.struct_passwd:
    """The user whom production belongs to."""
    return accounts.ensure(USER, LEAST_UID)


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


class Production:
    """The tree at ``path``, and what its database has to contain.

    Every method that changes the tree remembers the new state; ``assert_unchanged`` compares with it.
    """

    def __init__(self, path: Path, uid: int, gid: int):
        self.path = path
        self.uid = uid
        self.gid = gid
        self.file_storage = path / "var" / "filestorage"
        self.blob_storage = path / "var" / "blobstorage"
        self.data_fs = self.file_storage / "Data.fs"
        self._documents: Dict[str, database.Documents] = {}
        self._remembered: tree.Snapshot = {}

    @classmethod
    def create(cls, path: Path, transactions: int = 12, python: int = 3) -> Production:
        """A new site of that many transactions and documents, with superseded and deleted ones among them.

        :param python: 2 for a site on Python 2.
        """
        owner = account()
        production = cls(path, owner.pw_uid, owner.pw_gid)
        with production._changing(), python2.python_2() if python == 2 else nullcontext():
            production._make_directories()
            database.create(str(production.data_fs), str(production.blob_storage))
            production._documents["Data.fs"] = {}
        production.commit(transactions - 3)
        production.commit(2, new=1, changed=2, note="Corrected", user="chief-editor")
        production.delete(1)
        return production

    def copy(self, path: Path) -> Production:
        """The same site at another place, times, modes and owners included."""
        subprocess.run(["cp", "-a", "--", str(self.path), str(path)], check=True)
        copied = Production(path, self.uid, self.gid)
        copied._documents = {name: dict(documents) for name, documents in self._documents.items()}
        copied.remember()
        return copied

    def commit(self, n: int = 1, storage: str = "Data.fs", **keywords: Any) -> database.Documents:
        """``n`` more transactions; the keywords are those of ``database.commit``."""
        with self._changing():
            written = database.commit(*self._paths(storage), n=n, **keywords)
        self._documents[storage].update(written)
        return written

    def delete(self, n: int = 1) -> None:
        """Delete ``n`` documents; their BLOBs stay until ``pack``."""
        with self._changing():
            for name in database.delete(*self._paths("Data.fs"), n=n):
                del self._documents["Data.fs"][name]

    def pack(self) -> None:
        """Pack Data.fs, and remove the BLOBs that are no longer needed."""
        with self._changing():
            database.pack(*self._paths("Data.fs"))

    def convert(self) -> None:
        """Convert Data.fs from Python 2 to Python 3, by zodbupdate."""
        with self._changing():
            zodbupdate.convert(str(self.data_fs))

    def add_storage(self, name: str = "catalog.fs", transactions: int = 2, python: int = 3) -> None:
        """One more FileStorage, without BLOBs, beside Data.fs."""
        with self._changing(), python2.python_2() if python == 2 else nullcontext():
            database.create(str(self.file_storage / name))
        self._documents[name] = {}
        self.commit(transactions, storage=name)

    def torn_tail(self, length: Optional[int] = None) -> int:
        """Leave what a copy of a live Data.fs may end with: a transaction that is not finished.

        :param length: how many bytes of it; by default all, with the status ``c`` still in it.
        :returns: the size of the whole transactions before it.
        """
        with self._changing():
            tail = database.unfinished(str(self.data_fs))
            end = self.data_fs.stat().st_size
            with self.data_fs.open("ab") as file:
                file.write(tail[:length])
        return end

    def expected(self, storage: str = "Data.fs") -> database.Documents:
        """What a reader of production has to find: ``{name: (value, sha256 of the BLOB)}``."""
        return dict(self._documents[storage])

    def give_to(self, uid: int, gid: int) -> None:
        """Make the tree another user's, as a backup that was restored by that user is."""
        self.uid, self.gid = uid, gid
        with self._changing():
            pass

    def snapshot(self) -> tree.Snapshot:
        """The whole tree as it is now."""
        return tree.snapshot(self.path)

    def remember(self) -> None:
        """Take the tree as it is now for what it has to stay."""
        self._remembered = self.snapshot()

    def assert_unchanged(self) -> None:
        """Fail, with every difference, if anything but this object's own methods changed the tree."""
        tree.assert_same(self._remembered, self.snapshot(), f"Production ({self.path})")

    def remove(self) -> None:
        """Take the whole tree away, as when a site moves."""
        shutil.rmtree(self.path)
        self._remembered = {}

    def _paths(self, storage: str) -> tuple[str, Optional[str]]:
        return str(self.file_storage / storage), str(self.blob_storage) if storage == "Data.fs" else None

    def _make_directories(self) -> None:
        for name in ("bin", "etc", "parts", "var", "var/log"):
            (self.path / name).mkdir(parents=True)
            (self.path / name).chmod(0o755)
        self.path.chmod(0o755)
        (self.path / "buildout.cfg").write_text("[buildout]\nparts = zeoserver\n", encoding="utf-8")
        (self.path / "var" / "log" / "zeo.log").write_text("started\n", encoding="utf-8")
        (self.path / "etc" / "site.conf").symlink_to("../buildout.cfg")
        self.file_storage.mkdir()
        self.blob_storage.mkdir()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Written by root, then given to production's user, with the modes that a umask of 077 gives."""
        with _umask(0o077):
            yield
        for directory, directories, files in os.walk(self.path):
            for name in (".", *directories, *files):
                path = os.path.join(directory, name)
                status = os.lstat(path)
                if (status.st_uid, status.st_gid) != (self.uid, self.gid):
                    os.lchown(path, self.uid, self.gid)
        self.remember()
