"""Notes of the objects whose BLOBs were read: the best list of what to fetch beforehand."""

from __future__ import annotations

import os
from typing import Set

from cowstorage.part.blob_cache import READ_NOTES, noted
from cowstorage.production.wire.threads import Worker

# Objects that are noted; more are forgotten.
MOST = 1_000_000


class Notes:
    """The file of the notes: the directory of an object in a line, each once.

    :param directory: ``cache`` in the part's ``location``.
    :param writer: the thread that writes.
    """

    def __init__(self, directory: str, writer: Worker):
        self._path = os.path.join(directory, READ_NOTES)
        self._writer = writer
        self._noted: Set[str] = set(noted(self._path))

    def add(self, relative: str) -> None:
        """Note a BLOB file that is read, by its path below the BLOB directory."""
        directory = os.path.dirname(relative)
        if directory not in self._noted and len(self._noted) < MOST:
            self._noted.add(directory)
            self._writer.give(lambda: self._write(directory))

    def _write(self, directory: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
            descriptor = os.open(self._path, flags, 0o600)
        except OSError:
            return
        try:
            os.write(descriptor, directory.encode("ascii") + b"\n")
        except OSError:
            pass
        finally:
            os.close(descriptor)
