"""The paths on this machine of one FileStorage's files, and of a savepoint's."""

from __future__ import annotations

import os
from typing import NamedTuple

from cowstorage.part.settings import Settings


class StoragePaths(NamedTuple):
    """The paths of one FileStorage.

    :param local: the file in the upper.
    :param incoming: the file that a whole fetch writes, on the same file system as ``local``.
    :param kept: a second name (hard link) of the fetched file, since a local pack replaces ``local`` by another file;
        missing where the file system has no hard links.
    :param base_index: the index of the base.
    :param remote: production's file, as the mount shows it.
    """

    local: str
    incoming: str
    kept: str
    base_index: str
    remote: str

    @property
    def is_replaced(self) -> bool:
        """Whether the local file is no longer the fetched one: it was packed, or removed."""
        if not os.path.exists(self.kept):
            return False
        if not os.path.exists(self.local):
            # More than one hard link: the part's paths were changed, and the old upper still has the file.
            return os.stat(self.kept).st_nlink == 1
        return not os.path.samefile(self.kept, self.local)

    @property
    def fetched(self) -> str:
        """The fetched file, which has the base, also when a local pack has replaced ``local``."""
        return self.kept if self.is_replaced else self.local


def storage_paths(settings: Settings, root: str, name: str) -> StoragePaths:
    """Return the paths of one FileStorage.

    :param root: the local directory that shows production's buildout directory.
    :param name: the FileStorage's file name.
    """
    return StoragePaths(
        local=os.path.join(settings.file_upper, name),
        incoming=os.path.join(settings.location, "incoming", name),
        kept=os.path.join(settings.location, "base", name),
        base_index=os.path.join(settings.location, "base", name + ".index"),
        remote=os.path.join(root, settings.remote_file_storage, name),
    )


def savepoint_index(settings: Settings, savepoint: str, name: str) -> str:
    """Return the path of a savepoint's index for the FileStorage ``name``."""
    return os.path.join(settings.location, "savepoints", savepoint, name + ".index")
