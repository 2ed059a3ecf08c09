"""``python -m cowstorage.demo``: the main job on a small production of its own, told step by step.

Needs no network and no Plone.  All files are in a scratch directory that is removed at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager, redirect_stdout
from typing import Any, Dict, Iterator, List, Optional, TextIO

import transaction
from ZODB import DB
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage

from cowstorage import cli
from cowstorage.buildout.options import UNIONS, from_options
from cowstorage.part import settings
from cowstorage.system import mounts
from cowstorage.system.output import columns

# Before the lines of a step.
MARGIN = "   "

# Document name → text.
Texts = Dict[str, str]


class Failed(Exception):
    """A step whose script failed or whose claim does not hold."""


class Indented(io.TextIOBase):
    """A stream that begins each line of what is written to it with the margin of a script's output."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self._begins = True

    def write(self, text: str) -> int:
        """Write text on to the stream."""
        for line in text.splitlines(keepends=True):
            self.stream.write(MARGIN + "  " + line if self._begins and line.strip() else line)
            self._begins = line.endswith("\n")
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the stream."""
        return self.stream.fileno()


@contextmanager
def working_in(directory: str) -> Iterator[None]:
    """Make a directory the working directory."""
    before = os.getcwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def database(directory: str) -> Iterator[Any]:
    """Open the database below a buildout directory, yield the root object, and commit unless the caller fails."""
    var = os.path.join(directory, "var")
    storage = FileStorage(os.path.join(var, "filestorage", "Data.fs"), blob_dir=os.path.join(var, "blobstorage"))
    db = DB(storage)
    connection = db.open()
    try:
        yield connection.root()
        transaction.commit()
    finally:
        transaction.abort()
        connection.close()
        db.close()


def write(directory: str, documents: Texts, note: str) -> None:
    """Write documents in one transaction, the text of each in a BLOB.

    :param note: the description of the transaction.
    """
    with database(directory) as root:
        for name, text in documents.items():
            root[name] = Blob(text.encode())
        transaction.get().note(note)


def read(directory: str) -> Texts:
    """Return all documents of the database below a buildout directory."""
    texts = {}
    with database(directory) as root:
        for name, blob in root.items():
            with blob.open("r") as file:
                texts[name] = file.read().decode()
    return texts


def digest(directory: str) -> str:
    """Return a digest of every file's name, mode, time and bytes below a directory: 12 hex digits of its SHA-256."""
    total = hashlib.sha256()
    for parent, directories, files in sorted(os.walk(directory)):
        directories.sort()
        for name in sorted(files):
            path = os.path.join(parent, name)
            status = os.stat(path)
            total.update(f"{path} {status.st_mode} {status.st_mtime_ns}\n".encode())
            with open(path, "rb") as file:
                total.update(file.read())
    return total.hexdigest()[:12]


class Demonstration:
    """One run of the demonstration in a scratch directory.

    :param union: the value of the part's option ``union``.
    """

    def __init__(self, directory: str, union: str):
        self.production = os.path.join(directory, "production")
        self.buildout = os.path.join(directory, "buildout")
        options = {
            "remote": self.production,
            "union": union,
            "file-storage": "var/filestorage",
            "blob-storage": "var/blobstorage",
        }
        self.settings = from_options(options, "cow-storage", self.buildout)
        self.steps = 0

    def run(self) -> None:
        """Run all steps.

        :raises Failed: for the first step that fails.
        """
        self.make()
        # The user of a buildout is in it: paths below it are told from it.
        with working_in(self.buildout):
            self.mount()
            self.work()
            self.go_back()
            self.sync()
            self.unmount()

    def say(self, text: str) -> None:
        """Print the heading of the next step."""
        self.steps += 1
        print(f"\n{self.steps}. {text}", flush=True)

    def script(self, name: str, *arguments: str) -> None:
        """Print the command line of a script and run the script.

        :raises Failed: when the exit code is not 0.
        """
        print(f"{MARGIN}$ {' '.join((f'bin/cow-{name}', *arguments))}", flush=True)
        with redirect_stdout(Indented(sys.stdout)):
            code = cli.main(name, settings.to_script(self.settings), list(arguments))
        if code != 0:
            raise Failed(f"bin/cow-{name} ended with exit code {code}")

    def check(self, claim: str, holds: bool) -> None:
        """Print a claim and whether it holds.

        :raises Failed: when the claim does not hold.
        """
        print(f"{MARGIN}{'yes' if holds else 'NO'}: {claim}", flush=True)
        if not holds:
            raise Failed(claim)

    def make(self) -> None:
        """Make production's database and the buildout's own."""
        self.say("A small production site, and a buildout with a database of your own:")
        for directory in (self.production, self.buildout):
            for storage in ("filestorage", "blobstorage"):
                os.makedirs(os.path.join(directory, "var", storage), mode=0o700)
        write(self.production, {"front-page": "Welcome", "news": "We are live"}, "Content")
        write(self.buildout, {"mine": "My own database"}, "Mine")
        self.before = digest(self.production)
        print(f"{MARGIN}production  {self.production}\n{MARGIN}buildout    {self.buildout}")

    def mount(self) -> None:
        """Mount production, and check that the buildout's paths show its documents."""
        self.say("Production's data in the place of yours, what is written stays here:")
        self.script("mount")
        self.check("your buildout sees production's documents", read(self.buildout) == read_copy(self.production))

    def work(self) -> None:
        """Write to the mounted database, and check that production stays the same."""
        self.say("Name this state; then an upgrade writes, and breaks something:")
        self.script("savepoint", "before-upgrade")
        write(self.buildout, {"front-page": "Oops", "new": "Made by the upgrade"}, "Upgrade step 1")
        self.check("your buildout sees the change", read(self.buildout)["front-page"] == "Oops")
        self.check("production is byte for byte what it was", digest(self.production) == self.before)
        self.script("log")

    def go_back(self) -> None:
        """Go back to the savepoint, check that, and write again."""
        self.say("Back to the savepoint, to try it again:")
        self.script("rollback", "before-upgrade", "--yes")
        seen = read(self.buildout)
        self.check("the front page is what it was", seen["front-page"] == "Welcome" and "new" not in seen)
        write(self.buildout, {"front-page": "Upgraded"}, "Upgrade step 1, mended")

    def sync(self) -> None:
        """Write to production, fetch that by a sync, and check that the local changes are gone."""
        self.say("Meanwhile production moves on. To its latest state:")
        write(self.production, {"news": "Ten years online"}, "Edited")
        after = digest(self.production)
        self.script("sync", "--yes")
        seen = read(self.buildout)
        self.check("the news of production is here", seen["news"] == "Ten years online")
        self.check("what the upgrade did is gone", seen["front-page"] == "Welcome")
        self.check("production was only read", digest(self.production) == after)

    def unmount(self) -> None:
        """Unmount, and check that the buildout's own database is back."""
        self.say("Unmount:")
        self.script("umount")
        self.check("your own database is back", read(self.buildout) == {"mine": "My own database"})

    def clean(self) -> None:
        """Unmount what a failed step left mounted."""
        directory = os.path.realpath(os.path.dirname(self.buildout))
        if mounts.at_or_below(mounts.read(), directory):
            cli.main("umount", settings.to_script(self.settings), ["--quiet"])


def read_copy(directory: str) -> Texts:
    """Return the documents of a copy of the database below a directory: to open a database changes files beside it."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(directory, os.path.join(scratch, "copy"))
        return read(copy)


def main(argv: Optional[List[str]] = None) -> int:
    """Run the demonstration and return its exit code: 0 when every claim holds, else 1.

    :param argv: the arguments; ``None``: those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m cowstorage.demo", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--union", default="auto", choices=UNIONS, help="default: what works here")
    parser.add_argument("--directory", default="/var/tmp", help="where the scratch directory is made")
    arguments = parser.parse_args(argv)
    # Scripts ask for the width of the terminal, of which the margin takes some.
    os.environ["COLUMNS"] = str(columns() - len(MARGIN) - 2)
    directory = tempfile.mkdtemp(prefix="cow-demo-", dir=arguments.directory)
    demonstration = Demonstration(directory, arguments.union)
    try:
        demonstration.run()
    except Failed as error:
        print(f"\nThe demonstration stopped: {error}", file=sys.stderr)
        return 1
    finally:
        demonstration.clean()
        if not mounts.at_or_below(mounts.read(), os.path.realpath(directory)):
            shutil.rmtree(directory, ignore_errors=True)
    print(f"\nThat was all; {directory} is removed. Next: README.rst")
    return 0


if __name__ == "__main__":
    sys.exit(main())
