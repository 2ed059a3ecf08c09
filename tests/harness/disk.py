"""A small disk that can be filled: an ext4 in a file, mounted by a loop device."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

MEGABYTE = 1 << 20


class Disk:
    """An ext4 of 40 MB."""

    def __init__(self, directory: Path):
        self.path = directory / "disk"
        self._filling = self.path / "filling"
        self.path.mkdir()
        image = directory / "image"
        with image.open("wb") as file:
            file.truncate(40 * MEGABYTE)
        # No blocks for root alone: it is root who fills it.
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(self.path)], check=True)

    def fill(self, free: int = 0) -> None:
        """Leave so many bytes."""
        status = os.statvfs(self.path)
        # Without a buffer, which would be written when it is closed.
        with self._filling.open("wb", buffering=0) as file:
            if free:
                os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - free)
                return
            try:
                while True:
                    file.write(b"\0" * 4096)
            except OSError:
                file.truncate(file.tell() // 4096 * 4096)

    def make_room(self) -> None:
        """Undo ``fill``."""
        self._filling.unlink()

    def remove(self) -> None:
        """Unmount it."""
        subprocess.run(["umount", "--", str(self.path)], check=True)
