"""A buildout with local changes that can be set back to where it was, and what has to hold whatever was done to it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, List

from cowstorage.part import journal
from cowstorage.system.time_limits import within
from faults import scripts
from harness import cleanup, database, processes, python2, zodbupdate
from harness.buildout import Buildout
from harness.production import Production
from harness.tree import Snapshot

AGAIN = {"mount": (), "umount": (), "sync": ("--yes",), "rollback": ("--yes",), "savepoint": ("now",)}


class Scene:
    """A buildout whose production has moved on since the last sync, and which has local transactions.

    :ivar local: every document as the developer committed it.
    :ivar base: as production had it at the last sync.
    """

    def __init__(self, buildout: Buildout, production: Production):
        self.buildout = buildout
        self.production = production
        self.var = buildout.path / "var"
        self.own = buildout.create_own_database()
        self.fresh = self._kept("fresh")
        scripts.run(buildout, "mount", check=True)
        self.base = self.documents()
        self.work()
        self.local = self.documents()
        scripts.run(buildout, "umount", check=True)
        self.changed = self._kept("changed")
        production.commit(1)

    def work(self) -> None:
        """Local transactions."""
        self.buildout.commit(2, new=1, changed=1)

    def _kept(self, name: str) -> Path:
        copy = self.buildout.path / name
        subprocess.run(["cp", "-a", "--", str(self.var), str(copy)], check=True)
        return copy

    # Where it starts

    def back_to(self, kept: Path, mounted: bool) -> None:
        """Everything as in a copy; mounted as the scripts do it."""
        assert self.mounted() == []
        shutil.rmtree(self.var)
        subprocess.run(["cp", "-a", "--", str(kept), str(self.var)], check=True)
        if mounted:
            self.run("mount", check=True)

    def prepare(self, command: str) -> None:
        """What is there before a command that is to be killed."""
        self.back_to(self.changed, mounted=command != "mount")

    # What is done

    def run(self, command: str, *arguments: str, **keywords: Any) -> scripts.Ended:
        """See ``scripts.run``."""
        return scripts.run(self.buildout, command, *arguments, **keywords)

    def reboot(self) -> None:
        """No mounts, no processes, files as they are."""
        while self.mounted():
            subprocess.run(["umount", "-c", "-l", "--", self.mounted()[-1]], check=True)
        processes.end(self.daemons())

    # What is there

    def documents(self) -> database.Documents:
        """The database that Plone would see, read as the developer."""
        data_fs, blobs = str(self.buildout.data_fs), str(self.buildout.blob_storage)
        developer = self.buildout.developer
        return within(30, "reading", lambda: database.read(data_fs, blobs), (developer.uid, developer.gid))

    def mounted(self) -> List[str]:
        """Mount points of this buildout, as often as they are mounted."""
        return [mount.point for mount in cleanup.mounts_below(self.buildout.path)]

    def daemons(self) -> List[int]:
        """What the scripts have left running."""
        return processes.marked(self.buildout.path)

    def journal(self) -> journal.Journal:
        """Valid, or this fails."""
        return journal.load(self.buildout.settings.location)

    # What has to hold

    def nothing_twice(self) -> None:
        """Each place is mounted at most once."""
        assert [point for point, count in Counter(self.mounted()).items() if count > 1] == []

    def is_unmounted(self) -> None:
        """No mount, no daemon; the developer's own database is back."""
        assert self.mounted() == []
        cleanup.assert_nothing_running(self.buildout.path)
        assert self.documents() == self.own

    def finishes(self, command: str, before: Snapshot) -> None:
        """After a fault: the same command again finishes, or says what to do; nothing is lost, nothing is left.

        :param before: production, which must be what it was.
        """
        self.journal()
        self._shows_one_state(command)
        again = self.run(command, *AGAIN[command])
        advised = {"savepoint": "already", "rollback": "run bin/cow-mount"}.get(command)
        assert again.returncode == 0 or (advised and advised in again.stderr), again
        self.nothing_twice()
        if command == "umount":
            assert self.mounted() == []
        if command == "savepoint":
            assert set(self.journal().savepoints) == {"now"}
            self.run("rollback", "now", "--yes", check=True)
        self.run("mount", check=True)
        journal = self.journal()
        assert journal.unfinished is None
        assert journal.operation is None
        self.nothing_twice()
        expected = {"sync": self.production.expected(), "rollback": self.base}.get(command, self.local)
        assert self.documents() == expected
        self.run("umount", check=True)
        self.is_unmounted()
        assert self.production.snapshot() == before

    def _shows_one_state(self, command: str) -> None:
        """What Plone sees right after a fault is one whole state, or nothing of ours at all."""
        wholes = [self.local, self.base, self.production.expected(), self.own]
        if str(self.buildout.file_storage) in self.mounted():
            assert self.documents() in wholes


class ConvertedScene(Scene):
    """A production of Python 2, which was converted here."""

    def work(self) -> None:
        super().work()
        zodbupdate.convert(str(self.buildout.data_fs))

    def finishes(self, command: str, before: Snapshot) -> None:
        """After a fault as in every scene; and the magic is that of the state."""
        super().finishes(command, before)
        data_fs = self.var / "filestorage.prod" / "Data.fs"
        assert python2.is_of_python_2(str(data_fs)) == (command in ("sync", "rollback"))


def interrupted(code: int) -> bool:
    """Whether an exit code is that of a signal we react to."""
    return code in (128 + signal.SIGINT, 128 + signal.SIGTERM)


def size_of(path: os.PathLike[str]) -> int:
    """Bytes."""
    return os.stat(path).st_size
