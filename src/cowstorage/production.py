"""Looks at production through its mount: is it a buildout, what is in it, may the developer read it."""

from __future__ import annotations

import os
import stat
from typing import Dict, List, NamedTuple, Optional, Tuple

from cowstorage import network
from cowstorage.children import within
from cowstorage.errors import CowStorageError, RemoteUnusable
from cowstorage.settings import Settings

LOOK_SECONDS = 60.0
# Directory listings that the search for one BLOB may cost; the bushy layout needs nine.
SAMPLE_LISTINGS = 60


class Production(NamedTuple):
    """What was seen.

    :param storages: file name of each FileStorage → its size in bytes.
    :param indexes: file name of each FileStorage that has an index → the index's size in bytes.
    :param sample: a BLOB file, relative to the BLOB directory; ``None`` when none was near.
    """

    storages: Dict[str, int]
    indexes: Dict[str, int]
    sample: Optional[str]


NOTHING = Production({}, {}, None)


def look(settings: Settings, root: str, developer: Tuple[int, int], sample: bool = True) -> Production:
    """What production holds, seen as the developer, within a time limit.

    :param root: the local directory that shows production's buildout directory.
    :param sample: search for a BLOB, too.
    :raises RemoteUnusable: when it is no buildout, is empty, or can't be read.
    """
    return within(LOOK_SECONDS, f"looking at {root}", lambda: _look(settings, root, sample), developer)


def chosen(settings: Settings, production: Production) -> List[str]:
    """The FileStorages to fetch.

    :raises RemoteUnusable: when one of the option ``storages`` isn't there.
    """
    if not settings.storages:
        return sorted(production.storages)
    for name in settings.storages:
        if name not in production.storages:
            there = ", ".join(sorted(production.storages)) or "none"
            raise RemoteUnusable(settings.remote, f"has no {name} in {settings.remote_file_storage}; there: {there}.")
    return list(settings.storages)


def _look(settings: Settings, root: str, sample: bool) -> Production:
    files: Dict[str, int] = {}
    if settings.file_storage:
        files = _sizes(settings, os.path.join(root, settings.remote_file_storage), "remote-file-storage")
    storages = {name: size for name, size in files.items() if name.endswith(".fs") and not name.startswith(".")}
    if settings.file_storage and not storages:
        raise RemoteUnusable(
            settings.remote,
            f"has no Data.fs in {settings.remote_file_storage}. Is remote the buildout directory? "
            "Else set remote-file-storage.",
        )
    found = None
    if sample:
        found = _sample_blob(settings, os.path.join(root, settings.remote_blob_storage))
        for name in storages:
            _readable(settings, os.path.join(root, settings.remote_file_storage, name))
    indexes = {name: files[name + ".index"] for name in storages if name + ".index" in files}
    return Production(storages, indexes, found)


def _sizes(settings: Settings, directory: str, option: str) -> Dict[str, int]:
    sizes = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    sizes[entry.name] = status.st_size
    except OSError as error:
        raise _not_seen(settings, directory, option, error) from None
    return sizes


def _sample_blob(settings: Settings, directory: str) -> Optional[str]:
    """The first BLOB in the first directories; reads its first byte."""
    listings = SAMPLE_LISTINGS
    waiting = [""]
    empty = True
    while waiting and listings:
        relative = waiting.pop()
        listings -= 1
        try:
            with os.scandir(os.path.join(directory, relative)) as entries:
                names = sorted((entry.name, entry.is_dir()) for entry in entries)
        except OSError as error:
            raise _not_seen(settings, os.path.join(directory, relative), "remote-blob-storage", error) from None
        empty = empty and not names
        for name, is_directory in reversed(names):
            path = os.path.join(relative, name)
            if is_directory and name != "tmp":
                waiting.append(path)
            elif name.endswith(".blob"):
                _readable(settings, os.path.join(directory, path))
                return path
    if empty:
        raise RemoteUnusable(
            settings.remote,
            f"its {settings.remote_blob_storage} is empty: no BLOB storage, or one that isn't mounted there. "
            "Look on the server, or set remote-blob-storage.",
        )
    return None


def _readable(settings: Settings, path: str) -> None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise _not_seen(settings, path, "remote", error) from None


def _not_seen(settings: Settings, path: str, option: str, error: OSError) -> CowStorageError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return RemoteUnusable(settings.remote, f"has no {path}. Look at {option} in the part.")
    if isinstance(error, PermissionError):
        advice = network.get(settings.filesystem).unreadable(settings)
        return RemoteUnusable(settings.remote, f"you may not read {path}. {advice}")
    return RemoteUnusable(settings.remote, f"can't read {path}: {error.strerror}.")
