"""Notes of the objects whose BLOBs were read: the best list of what to fetch beforehand."""

from __future__ import annotations

import os
from typing import Dict

from cowstorage.part.blob_cache import READ_NOTES, noted
from cowstorage.production.wire.names import layout_of, object_of
from cowstorage.production.wire.threads import Worker

# Oids that are noted: ZODB counts them up, and a bit for each of so many takes 32 MB.
MOST = 1 << 28


class Notes:
    """The file of the notes: the directory of an object in a line, each once.

    :param directory: ``cache`` in the part's ``location``.
    :param writer: the thread that writes, and reads what earlier sessions have noted.
    """

    def __init__(self, directory: str, writer: Worker):
        self._path = os.path.join(directory, READ_NOTES)
        self._writer = writer
        # A bit for each oid, as far as there are, in each layout; a set of a million directories would take 130 MB.
        self._noted: Dict[str, bytearray] = {}
        self._is_read = False

    def add(self, relative: str) -> None:
        """Note a BLOB file that is read, by its path below the BLOB directory."""
        directory = os.path.dirname(relative)
        self._writer.give(lambda: self._add(directory))

    def _add(self, directory: str) -> None:
        if not self._is_read:
            self._is_read = True
            for earlier in noted(self._path):
                self._is_new(earlier)
        if self._is_new(directory):
            self._write(directory)

    def _is_new(self, directory: str) -> bool:
        """Tell whether the oid of a directory has no bit yet, and give it one."""
        oid = object_of(directory)
        if oid is None or oid >= MOST:
            return False
        bits = self._noted.setdefault(layout_of(directory + "/"), bytearray())
        at, bit = oid >> 3, 1 << (oid & 7)
        if at >= len(bits):
            bits.extend(bytes(at + 1 - len(bits)))
        is_new = not bits[at] & bit
        bits[at] |= bit
        return is_new

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
