"""Looks at production through its mount: is it a buildout, what is in it, may the developer read it."""

from __future__ import annotations

import os
from itertools import islice
from typing import Dict, List, NamedTuple, Optional, Tuple

from cowstorage import glance, network
from cowstorage.children import values_within
from cowstorage.errors import CowStorageError, RemoteUnusable
from cowstorage.settings import Settings

LOOK_SECONDS = 60.0
# Directory listings that the search for one BLOB may cost; the bushy layout needs nine.
SAMPLE_LISTINGS = 60
# Entries of each that are looked at: a server may show as many as it likes.
SAMPLE_ENTRIES = 10_000


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


def look(
    settings: Settings, root: str, developer: Tuple[int, int], sample: bool = True, known: Optional[str] = None
) -> Production:
    """What production holds, seen as the developer, within a time limit.

    :param root: the local directory that shows production's buildout directory.
    :param sample: search for a BLOB, and read it and the FileStorages, too.
    :param known: the BLOB that was found before, relative to the BLOB directory.
    :raises RemoteUnusable: when it is no buildout, is empty, or can't be read.
    """
    blobs = os.path.join(root, settings.remote_blob_storage)
    # Each asks production one question after the other: both at once.
    (storages, indexes), found = values_within(
        LOOK_SECONDS,
        {
            f"looking at {root}": lambda: _file_storages(settings, root, sample),
            f"looking at {blobs}": lambda: (
                _known(settings, blobs, known) or _sample_blob(settings, blobs, SAMPLE_LISTINGS if sample else 1)
            ),
        },
        developer,
    )
    return Production(storages, indexes, found)


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


def _file_storages(settings: Settings, root: str, sample: bool) -> Tuple[Dict[str, int], Dict[str, int]]:
    """``storages`` and ``indexes`` of ``Production``."""
    files: Dict[str, int] = {}
    if settings.file_storage:
        files = _sizes(settings, os.path.join(root, settings.remote_file_storage), "remote-file-storage")
    storages = {name: size for name, size in files.items() if name.endswith(".fs")}
    if settings.file_storage and not storages:
        raise RemoteUnusable(
            settings.remote,
            f"has no Data.fs in {settings.remote_file_storage}. Is remote the buildout directory? "
            "Else set remote-file-storage.",
        )
    if sample:
        for name in storages:
            _readable(settings, os.path.join(root, settings.remote_file_storage, name))
    indexes = {name: files[name + ".index"] for name in storages if name + ".index" in files}
    return storages, indexes


def _sizes(settings: Settings, directory: str, option: str) -> Dict[str, int]:
    """Bytes of each FileStorage and index; a name that can't be shown is no database's."""
    sizes = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                name = entry.name
                if not name.endswith((".fs", ".fs.index")) or name.startswith(".") or not name.isprintable():
                    continue
                if _kind(entry) == "file":
                    sizes[name] = entry.stat().st_size
    except OSError as error:
        raise _not_seen(settings, directory, option, error) from None
    return sizes


def _known(settings: Settings, directory: str, relative: Optional[str]) -> Optional[str]:
    """A BLOB that is where it was before: half of the round trips that a search takes."""
    path = os.path.join(directory, relative or "")
    if not relative or not os.path.isfile(path):
        return None
    _readable(settings, path)
    return relative


def _sample_blob(settings: Settings, directory: str, listings: int) -> Optional[str]:
    """The first BLOB in the first directories; reads its first byte."""
    waiting = [""]
    empty = True
    while waiting and listings:
        relative = waiting.pop()
        listings -= 1
        listed = os.path.join(directory, relative).rstrip("/")
        try:
            with os.scandir(listed) as entries:
                found = sorted((entry.name, _kind(entry)) for entry in islice(entries, SAMPLE_ENTRIES))
        except OSError as error:
            raise _not_seen(settings, listed, "remote-blob-storage", error) from None
        empty = empty and not found
        for name, kind in reversed(found):
            path = os.path.join(relative, name)
            if kind == "directory" and name != "tmp":
                waiting.append(path)
            elif kind == "file" and name.endswith(".blob"):
                _readable(settings, os.path.join(directory, path))
                return path
    if empty:
        raise RemoteUnusable(
            settings.remote,
            f"its {settings.remote_blob_storage} is empty: no BLOB storage, or one that isn't mounted there. "
            "Look on the server, or set remote-blob-storage.",
        )
    return None


def _kind(entry: os.DirEntry[str]) -> str:
    """What it is, or leads to; nothing for a link that leads nowhere, and for what blocks who opens it."""
    try:
        return "directory" if entry.is_dir() else "file" if entry.is_file() else ""
    except OSError:
        return ""


def _readable(settings: Settings, path: str) -> None:
    try:
        with glance.opened(path) as file:
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
