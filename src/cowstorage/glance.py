"""Opens a file behind a slow mount to read a few bytes of it, and no more."""

from __future__ import annotations

import os
from typing import BinaryIO


def opened(path: str) -> BinaryIO:
    """Without a buffer, and without the 16 kB that the kernel would read ahead at a file's beginning.

    :raises OSError: as ``open`` does.
    """
    file = open(path, "rb", buffering=0)  # noqa: SIM115
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
    return file
