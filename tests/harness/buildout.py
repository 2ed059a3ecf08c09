"""A developer's buildout directory with the scripts that the recipe would make, without running buildout."""

from __future__ import annotations

import json
import os
import pprint
import subprocess
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from cowstorage.buildout.options import from_options
from cowstorage.part import settings
from cowstorage.part.scripts import SCRIPTS
from harness import database
from harness.developer import Developer, Result
from harness.runtime import Runtime

DEFAULTS = {"file-storage": "var/filestorage", "blob-storage": "var/blobstorage"}


class Buildout:
    """The directory at ``path``, owned by ``developer``.

    :param options: of the part, as in a buildout.cfg; the two paths to lie over have defaults.
    """

    def __init__(
        self, path: Path, developer: Developer, runtime: Runtime, options: Mapping[str, str], part: str = "cow-storage"
    ):
        self.path = path
        self.developer = developer
        self.runtime = runtime
        self.file_storage = path / "var" / "filestorage"
        self.blob_storage = path / "var" / "blobstorage"
        self.data_fs = self.file_storage / "Data.fs"
        # What is opened: the file, or ``zeo:HOST:PORT`` while a server has it.
        self.storage = str(self.data_fs)
        # Added to what a login gives, for the scripts.
        self.environment: Dict[str, str] = {}
        for directory, mode in (
            (path, 0o755),
            (path / "bin", 0o755),
            (path / "var", 0o755),
            (self.file_storage, 0o755),
            (self.blob_storage, 0o700),
        ):
            self._make_directory(directory, mode)
        self.configure(options, part)

    def configure(self, options: Mapping[str, str], part: str = "cow-storage") -> None:
        """Write the scripts, as a run of buildout with these options does."""
        self.settings = from_options({**DEFAULTS, **options}, part, str(self.path))
        data = pprint.pformat(settings.to_script(self.settings))
        for command in SCRIPTS:
            script = self.script(command)
            script.write_text(self.runtime.script("cowstorage.cli", f"{command}({data})"), encoding="utf-8")
            script.chmod(0o755)
            self._own(script)

    def script(self, command: str) -> Path:
        """The path of a script: ``mount`` gives ``bin/cow-mount``."""
        return self.path / "bin" / f"{self.settings.prefix}-{command}"

    def run(self, command: str, *arguments: str, **keywords: Any) -> Result:
        """Run a script; the keywords are those of ``Developer.run``."""
        keywords.setdefault("cwd", self.path)
        keywords.setdefault("env", self.environment)
        return self.developer.run([self.script(command), *arguments], **keywords)

    def popen(self, command: str, *arguments: str, **keywords: Any) -> subprocess.Popen[str]:
        """Start a script; the keywords are those of ``Developer.popen``."""
        keywords.setdefault("cwd", self.path)
        return self.developer.popen([self.script(command), *arguments], **keywords)

    # The database that Plone would see here, used as the developer

    def create_own_database(self, documents: int = 2) -> database.Documents:
        """A database of the developer's own, from before production's is mounted over it."""
        self._database("create")
        return self.commit(documents, note="My own")

    def read(self) -> database.Documents:
        """Every document, with its BLOB read to the end."""
        return _documents(self._database("read"))

    def commit(self, n: int = 1, **keywords: Any) -> database.Documents:
        """``n`` transactions; the keywords are those of ``database.commit``."""
        return _documents(self._database("commit", n=n, **keywords))

    def delete(self, n: int = 1) -> list[str]:
        """Delete that many documents and return their names."""
        return list(self._database("delete", n=n))

    def pack(self) -> None:
        """Pack the database, and remove the BLOBs that are no longer needed."""
        self._database("pack")

    def hold(self) -> subprocess.Popen[str]:
        """A process that has the database open, as Zope does, until its ``stdin`` is closed or it is killed."""
        process = self.developer.popen(self._database_command("hold"), cwd=self.path)
        line = process.stdout.readline() if process.stdout else ""
        if json.loads(line or "null") != "open":
            raise AssertionError(f"The database can't be opened: {process.communicate()[1]}")
        return process

    # Inside

    def _database(self, verb: str, **keywords: Any) -> Any:
        result = self.developer.run(self._database_command(verb, keywords), cwd=self.path, check=True)
        return json.loads(result.stdout) if result.stdout else None

    def _database_command(self, verb: str, keywords: Optional[Mapping[str, Any]] = None) -> list[str]:
        command = [*self.runtime.module("harness.database"), verb, self.storage, str(self.blob_storage)]
        return [*command, json.dumps(keywords)] if keywords else command

    def _make_directory(self, directory: Path, mode: int) -> None:
        if not directory.is_dir():
            directory.mkdir()
            directory.chmod(mode)
            self._own(directory)

    def _own(self, path: Path) -> None:
        os.chown(path, self.developer.uid, self.developer.gid)


def _documents(data: Mapping[str, Any]) -> Dict[str, database.Document]:
    return {name: database.Document(*fields) for name, fields in data.items()}
