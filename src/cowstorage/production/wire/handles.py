"""What is open: BLOB files of the cache by handles of ours, BLOB files of production's by its handles."""

from __future__ import annotations

import os
from typing import Dict, Optional

from cowstorage.production.wire.packets import Attributes
from cowstorage.production.wire.store import Cached


class Local:
    """A BLOB file of the cache that sshfs has open.

    :param is_hit: whether it was there before it was asked for.
    :ivar reading: how many threads read it, which its closing waits for.
    """

    def __init__(self, cached: Cached, is_hit: bool):
        self.is_hit = is_hit
        self.attributes: Attributes = cached.attributes
        self.size = cached.size
        self.reading = 0
        self._descriptor = cached.descriptor
        self._is_closed = False

    def read_now(self, offset: int, length: int) -> Optional[bytes]:
        """Return bytes that are in memory; ``None`` where the disk has to be asked, preadv2(2), RWF_NOWAIT."""
        buffer = bytearray(length)
        try:
            if os.preadv(self._descriptor, [buffer], offset, os.RWF_NOWAIT) == length:
                return bytes(buffer)
        except OSError:
            pass
        return None

    def read(self, offset: int, length: int) -> Optional[bytes]:
        """Return bytes, read from the disk; ``None`` where that fails, or the file is shorter than it was."""
        try:
            content = os.pread(self._descriptor, length, offset)
        except OSError:
            return None
        return content if len(content) == length else None

    def close(self) -> None:
        """Close the file, as soon as nothing reads it."""
        self._is_closed = True
        self.settle()

    def settle(self) -> None:
        """Do what waited for a thread to have read."""
        if self._is_closed and not self.reading and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Remote:
    """A BLOB file of production's that sshfs has open.

    :param relative: its path below the BLOB directory.
    :ivar opened: how often it was opened by this handle.
    """

    def __init__(self, handle: bytes, relative: str):
        self.handle = handle
        self.relative = relative
        self.opened = 0


class Handles:
    """All that is open."""

    def __init__(self) -> None:
        # No server has such a handle by chance.
        self._prefix = b"cowstorage" + os.urandom(8)
        self._number = 0
        self.local: Dict[bytes, Local] = {}
        self.remote: Dict[bytes, Remote] = {}
        self._readers: Dict[str, int] = {}

    def add(self, cached: Cached, is_hit: bool) -> bytes:
        """Return a handle of ours for a file of the cache.

        :param is_hit: whether it was there before it was asked for.
        """
        self._number += 1
        handle = self._prefix + b"%x" % self._number
        self.local[handle] = Local(cached, is_hit)
        return handle

    def add_remote(self, handle: bytes, relative: str) -> bool:
        """Remember a handle of production's, which may be the same each time that one file is opened.

        :returns: false when the server has given the handle to another file, which is open.
        """
        remote = self.remote.setdefault(handle, Remote(handle, relative))
        if remote.relative != relative:
            return False
        remote.opened += 1
        self._readers[relative] = self._readers.get(relative, 0) + 1
        return True

    def remove_remote(self, remote: Remote) -> bool:
        """Take back what ``add_remote`` has remembered, and tell whether nobody has the file open any more."""
        remote.opened -= 1
        if not remote.opened:
            del self.remote[remote.handle]
        left = self._readers.pop(remote.relative) - 1
        if left:
            self._readers[remote.relative] = left
        return not left

    def is_open(self, relative: str) -> bool:
        """Tell whether somebody has a file open by a handle of production's."""
        return relative in self._readers
