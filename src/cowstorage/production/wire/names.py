"""Tell the names of committed BLOB files from all others: what one of these names has, never changes."""

from __future__ import annotations

import os
import re
from typing import Optional

# The directory of an object, in ZODB's two layouts: eight directories, or one; ``ZODB.blob.LAYOUTS``.
BYTE = r"0x[0-9a-f]{2}"
BUSHY = rf"(?:{BYTE}/){{8}}"
LAWN = r"0x(?:[0-9a-f]{2}){1,8}/"
BLOB_FILE = r"0x(?:[0-9a-f]{2}){1,8}\.blob"

_is_object = re.compile(f"(?:{BYTE}/){{7}}{BYTE}|{LAWN[:-1]}").fullmatch


def directory_in_requests(remote_path: str, blob_storage: str) -> str:
    """Return what the paths of BLOB files begin with in sshfs's requests, as ``sshfs.c``'s add_path makes them.

    :param remote_path: what follows the colon in sshfs's argument; relative to the home directory, which may be empty.
    :param blob_storage: production's BLOB directory, relative to it.
    """
    base = remote_path if not remote_path or remote_path.endswith("/") else remote_path + "/"
    return base if blob_storage == "." else f"{base}{blob_storage}/"


class BlobNames:
    """The names of BLOB files below one directory.

    :param directory: as ``directory_in_requests`` returns it.
    """

    def __init__(self, directory: str):
        self._directory = os.fsencode(directory)
        self._fits_directory = re.compile(f"(?:{BYTE}/){{0,7}}{BYTE}|{LAWN[:-1]}".encode("ascii")).fullmatch
        self._fits = re.compile(f"(?:{BUSHY}|{LAWN}){BLOB_FILE}".encode("ascii")).fullmatch

    def relative(self, path: bytes) -> Optional[str]:
        """Return the path of a BLOB file below the BLOB directory; ``None`` for any other path."""
        if not path.endswith(b".blob") or not self.is_below(path):
            return None
        below = path[len(self._directory) :]
        return below.decode("ascii") if self._fits(below) else None

    def is_below(self, path: bytes) -> bool:
        """Tell whether a path is below the BLOB directory."""
        return path.startswith(self._directory)

    def directory(self, path: bytes) -> Optional[str]:
        """Return the path of a directory of objects below the BLOB directory; ``None`` for any other path."""
        below = path[len(self._directory) :] if self.is_below(path) else b""
        return below.decode("ascii") if self._fits_directory(below) else None

    def path(self, relative: str) -> bytes:
        """Return the path that a request names for ``relative``."""
        return self._directory + relative.encode("ascii")


def layout_of(relative: str) -> str:
    """Return the layout that a BLOB file's path is of."""
    return "bushy" if relative.count("/") > 1 else "lawn"


def oid_of(directory: str) -> Optional[bytes]:
    """Return the oid of a directory in the bushy layout, 8 bytes; ``None`` where it is not a whole one."""
    parts = directory.split("/")
    return bytes(int(part, 16) for part in parts) if len(parts) == 8 else None


def object_of(directory: str) -> Optional[int]:
    """Return the oid of the directory that holds an object's BLOB files, in either layout; ``None`` for any other."""
    return int(directory.replace("/", "").replace("0x", ""), 16) if _is_object(directory) else None


def directory_of(oid: int, beside: str) -> str:
    """Return the directory of an object's BLOB files in the layout that the one of another object is of."""
    if "/" in beside:
        return "/".join(f"0x{byte:02x}" for byte in oid.to_bytes(8, "big"))
    return f"0x{_digits(oid)}"


def blob_path(directory: str, tid: bytes) -> str:
    """Return the path of an object's BLOB file below the directory, as ZODB.utils.tid_repr writes the tid."""
    return f"{directory}/0x{_digits(int.from_bytes(tid, 'big'))}.blob"


def _digits(number: int) -> str:
    """Return the hex digits of whole bytes, at least one."""
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big").hex()
