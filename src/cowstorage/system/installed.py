"""Find a program of this system, and the package that has it."""

from __future__ import annotations

import os
from typing import Optional

from cowstorage.errors import ProgramMissing

# Program that this room runs → its Debian package, where the names differ.  Back ends name those of their own.
PACKAGES = {"fusermount3": "fuse3", "ssh": "openssh-client", "umount": "mount"}

# The directories of mount helpers, which are not on an ordinary user's PATH.
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def find_program(program: str) -> Optional[str]:
    """Return the absolute path of a program on PATH or in ``SYSTEM_PATH``; ``None`` when the program is missing."""
    # Not by shutil.which: with it come zlib, bz2 and lzma, and every script would be slower by a twentieth.
    for directory in (os.environ.get("PATH", os.defpath) + ":" + SYSTEM_PATH).split(":"):
        path = os.path.join(directory, program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def require_program(program: str) -> str:
    """Return the absolute path of a program, as ``find_program`` does.

    :raises ProgramMissing: when there is none, with the Debian package to install.
    """
    path = find_program(program)
    if path is None:
        raise ProgramMissing(program, PACKAGES.get(program, program))
    return path
