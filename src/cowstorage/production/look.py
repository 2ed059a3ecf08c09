"""A look at production through its mount: is it a buildout, what is in it, may the developer read it."""

from __future__ import annotations

import os
from itertools import islice, takewhile
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from cowstorage.database.format import FIRST_DIRECTORIES, MAGIC_SIZE, NO_MAGICS, magic_problem
from cowstorage.errors import CowStorageError, RemoteUnusable
from cowstorage.part.settings import Settings
from cowstorage.production.filesystems.base import FileSystem
from cowstorage.system import mounts
from cowstorage.system.files import fresh_stat_of, open_unbuffered
from cowstorage.system.output import one_line
from cowstorage.system.time_limits import values_within

# A file that a client had open whose line was cut is answered by samba 35 s late, once it has given that client up;
# a look opens one file after the other.
LOOK_SECONDS = 120.0

# Directory listings that the search for one BLOB may cost; the bushy layout needs nine.
SAMPLE_LISTINGS = 60

# Entries of production's filestorage that are looked at: a server may show as many as it likes.
FILES = 200_000

# Directory listings that the search for links in the BLOB directory may cost, where each is a round trip and where not:
# another disk is most often linked in at the top, or where the bushy layout begins to branch, at its seventh level.
LINK_LISTINGS_FAR = 40
LINK_LISTINGS_NEAR = 2000

# What ZODB makes and removes beside a FileStorage.
TRANSIENT = (".lock", ".tmp", ".old", ".tr0", ".pack", ".index_tmp")

# Files that are opened at once, each with a round trip or two.
OPENED_AT_ONCE = 16

# Entries of each that are looked at: a server may show as many as it likes.
SAMPLE_ENTRIES = 10_000


class Production(NamedTuple):
    """What was seen.

    :param storages: file name of each FileStorage → its size in bytes.
    :param indexes: file name of each FileStorage that has an index → the index's size in bytes.
    :param sample: a BLOB file, relative to the BLOB directory; ``None`` when none was near.
    :param magics: file name of each FileStorage → its first bytes, where these were read.
    :param layout: what the marker of the BLOB directory says; ``None``: there is none, or it was not read.
    """

    storages: Dict[str, int]
    indexes: Dict[str, int]
    sample: Optional[str]
    magics: Mapping[str, bytes] = NO_MAGICS
    layout: Optional[str] = None


NOTHING = Production({}, {}, None)


def look(filesystem: FileSystem, root: str, sample: bool = True, known: Optional[str] = None) -> Production:
    """Return what production holds, seen as the developer, within a time limit.

    :param root: the local directory that shows production's buildout directory.
    :param sample: search for a BLOB, and read the BLOB and the FileStorages, too.
    :param known: the BLOB that was found before, relative to the BLOB directory.
    :raises RemoteUnusable: when production is no buildout, is empty, or can't be read.
    :raises NotReadOnly: when it was mounted and is not any more.
    :raises TimeLimit: when production does not answer.
    """
    try:
        return _looked(filesystem, root, sample, known)
    except RemoteUnusable:
        # Without reconnect sshfs unmounts itself when the connection is lost, and an empty directory was looked at.
        for target in filesystem.targets if root == filesystem.root else ():
            mounts.verify_read_only(mounts.resolve(target))
        raise


def _looked(filesystem: FileSystem, root: str, sample: bool, known: Optional[str]) -> Production:
    """Return what ``look`` does, without a doubt about the mount; parameters are those of ``look``."""
    blobs = os.path.join(root, filesystem.settings.remote_blob_storage)
    from cowstorage.database.blobs import layout as read_layout  # start-up

    # Each asks production one question after the other: all at once.
    (storages, indexes, magics), found, layout, *_ = values_within(
        LOOK_SECONDS,
        {
            f"looking at {root}": lambda: _file_storages(filesystem, root, sample),
            f"looking at {blobs}": lambda: (
                _known(filesystem, blobs, known) or _sample_blob(filesystem, blobs, SAMPLE_LISTINGS if sample else 1)
            ),
            f"reading the layout of {blobs}": lambda: read_layout(blobs) if sample else None,
            **({f"looking for links in {blobs}": lambda: _refuse_links(filesystem, blobs)} if sample else {}),
        },
        (filesystem.host.uid, filesystem.host.gid),
    )
    return Production(storages, indexes, found, magics, layout)


def chosen(settings: Settings, production: Production) -> List[str]:
    """Return the names of the FileStorages to fetch.

    :raises RemoteUnusable: when one of the option ``storages`` isn't there, or one that is to be fetched is none.
    """
    for name in settings.storages:
        if name not in production.storages:
            there = ", ".join(sorted(production.storages)) or "none"
            raise RemoteUnusable(settings.remote, f"has no {name} in {settings.remote_file_storage}; there: {there}.")
    names = list(settings.storages) or sorted(production.storages)
    for name in names:
        problem = magic_problem(production.magics[name]) if name in production.magics else None
        if problem:
            others = [other for other in sorted(production.storages) if other != name]
            instead = f" To do without it, set storages = {' '.join(others)}." if others else ""
            raise RemoteUnusable(
                settings.remote, f"{settings.remote_file_storage}/{name}: {problem}. Look on the server.{instead}"
            )
    return names


def _file_storages(
    filesystem: FileSystem, root: str, sample: bool
) -> Tuple[Dict[str, int], Dict[str, int], Dict[str, bytes]]:
    """Return ``storages``, ``indexes`` and ``magics`` of ``Production``."""
    settings = filesystem.settings
    files: Dict[str, int] = {}
    if settings.file_storage:
        files = _sizes(filesystem, os.path.join(root, settings.remote_file_storage), "remote-file-storage")
    storages = {name: size for name, size in sorted(files.items()) if name.endswith(".fs")}
    if settings.file_storage and not storages:
        raise RemoteUnusable(
            settings.remote,
            f"has no Data.fs in {settings.remote_file_storage}. Is remote the buildout directory? "
            "Else set remote-file-storage.",
        )
    magics: Dict[str, bytes] = {}
    if sample:
        directory = os.path.join(root, settings.remote_file_storage)
        now = _sizes_and_magics(filesystem, directory, [*files, *_beside(storages)])
        magics = {name: magic for name, (_, magic) in now.items() if name in storages}
        files.update({name: size for name, (size, _) in now.items()})
    storages = {name: files[name] for name in storages}
    indexes = {name: files[name + ".index"] for name in storages if name + ".index" in files}
    return storages, indexes, magics


def _beside(storages: Iterable[str]) -> List[str]:
    """Return the names of the files that ZODB makes and removes beside FileStorages."""
    return [name + suffix for name in storages for suffix in TRANSIENT]


def _sizes_and_magics(filesystem: FileSystem, directory: str, names: Iterable[str]) -> Dict[str, Tuple[int, bytes]]:
    """Return the size of each file as production has it now, whatever the mount remembers, and its first bytes.

    What isn't a FileStorage is left out where it can't be read: it may not be needed.  sshfs forgets a file that it
    remembers and production has removed when somebody wants to open it.
    """
    from concurrent.futures import ThreadPoolExecutor  # start-up

    def seen(name: str) -> Optional[Tuple[int, bytes]]:
        path = os.path.join(directory, name)
        try:
            with open_unbuffered(path) as file:
                return fresh_stat_of(file).size, file.read(MAGIC_SIZE)
        except OSError as error:
            if not name.endswith(".fs"):
                return None
            raise _not_seen(filesystem, path, "remote", error) from None

    with ThreadPoolExecutor(OPENED_AT_ONCE) as pool:
        found = zip(names, pool.map(seen, names))
        return {name: both for name, both in found if both is not None}


def _sizes(filesystem: FileSystem, directory: str, option: str) -> Dict[str, int]:
    """Return the bytes of each FileStorage and index; a name that can't be shown is no database's."""
    sizes = {}
    try:
        with os.scandir(directory) as entries:
            for entry in islice(entries, FILES):
                name = entry.name
                if not name.endswith((".fs", ".fs.index")) or name.startswith(".") or not name.isprintable():
                    continue
                if _kind(entry) == "file":
                    sizes[name] = entry.stat().st_size
    except OSError as error:
        raise _not_seen(filesystem, directory, option, error) from None
    return sizes


def _known(filesystem: FileSystem, directory: str, relative: Optional[str]) -> Optional[str]:
    """Return the BLOB that was found before, if it is still there: half of the round trips that a search takes."""
    path = os.path.join(directory, relative or "")
    if not relative or not os.path.isfile(path):
        return None
    if filesystem.keeps_blobs and _is_empty(directory):
        return None  # the BLOB is the cache's
    try:
        with open_unbuffered(path) as file:
            file.read(MAGIC_SIZE)
    except FileNotFoundError:
        return None  # the mount remembers it, and production has removed it
    except OSError as error:
        raise _not_seen(filesystem, path, "remote", error) from None
    return relative


def _is_empty(directory: str) -> bool:
    """Tell whether a directory has no entry."""
    with os.scandir(directory) as entries:
        return next(entries, None) is None


def _sample_blob(filesystem: FileSystem, directory: str, listings: int) -> Optional[str]:
    """Return the first BLOB in the first directories, and read its first bytes."""
    below = _first_directory(directory) if listings > 1 else ""
    waiting = ["", below] if below else [""]
    # Only what was listed tells: a directory may be known from the BLOB cache.
    empty = True
    while waiting and listings:
        relative = waiting.pop()
        listings -= 1
        listed = os.path.join(directory, relative).rstrip("/")
        try:
            with os.scandir(listed) as entries:
                found = sorted((entry.name, _kind(entry)) for entry in islice(entries, SAMPLE_ENTRIES))
        except OSError as error:
            raise _not_seen(filesystem, listed, "remote-blob-storage", error) from None
        empty = empty and not found
        for name, kind in reversed(found):
            path = os.path.join(relative, name)
            if kind == "directory" and name != "tmp":
                waiting.append(path)
            elif kind == "file" and name.endswith(".blob"):
                _first_bytes(filesystem, os.path.join(directory, path))
                return path
    if empty:
        settings = filesystem.settings
        raise RemoteUnusable(
            settings.remote,
            f"its {settings.remote_blob_storage} is empty: no BLOB storage, or one that isn't mounted there. "
            "Look on the server, or set remote-blob-storage.",
        )
    return None


def _first_directory(directory: str) -> str:
    """Return the deepest directory of the bushy layout that the first objects are in; empty where there is none.

    To look it up is half of the round trips that listing each on the way takes.
    """
    there = takewhile(lambda one: os.path.isdir(os.path.join(directory, one)), FIRST_DIRECTORIES)
    return max(there, key=len, default="")


def _refuse_links(filesystem: FileSystem, directory: str) -> None:
    """Refuse links in the upper levels of production's BLOB directory, where this machine would follow them.

    A union merges directories; a link below it leads out of it: what is written or removed behind the link is
    production's own.

    :raises RemoteUnusable: naming the first link, and the ways out.
    """
    if not filesystem.shows_links:
        return
    waiting = [directory]
    for _ in range(LINK_LISTINGS_FAR if filesystem.is_remote else LINK_LISTINGS_NEAR):
        if not waiting:
            return
        listed = waiting.pop(0)
        try:
            waiting += _directories_in(filesystem, listed)
        except OSError as error:
            raise _not_seen(filesystem, listed, "remote-blob-storage", error) from None


def _directories_in(filesystem: FileSystem, directory: str) -> List[str]:
    """Return the directories in one of production's, and refuse a link in it; see ``_refuse_links``."""
    found = []
    with os.scandir(directory) as entries:
        for entry in islice(entries, SAMPLE_ENTRIES):
            if entry.is_symlink():
                raise RemoteUnusable(
                    filesystem.settings.remote,
                    f"{entry.path} is a link, to {os.readlink(entry.path)}: what is written below it here would be "
                    "written there. Put what it leads to in its place; or use sshfs: its server follows links.",
                )
            if entry.is_dir(follow_symlinks=False):
                found.append(entry.path)
    return found


def _kind(entry: os.DirEntry[str]) -> str:
    """Return ``directory`` or ``file``, for links what they lead to.

    An empty text for a link that leads nowhere, and for a FIFO or device, which may block whoever opens it.
    """
    try:
        return "directory" if entry.is_dir() else "file" if entry.is_file() else ""
    except OSError:
        return ""


def _first_bytes(filesystem: FileSystem, path: str) -> bytes:
    """Return as many bytes as a magic has; whoever may read these may read all."""
    try:
        with open_unbuffered(path) as file:
            return file.read(MAGIC_SIZE)
    except OSError as error:
        raise _not_seen(filesystem, path, "remote", error) from None


def _not_seen(filesystem: FileSystem, path: str, option: str, error: OSError) -> CowStorageError:
    remote, path = filesystem.settings.remote, one_line(path)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        meant = _meant(filesystem.settings, path, option)
        if meant:
            wanted = _value(filesystem.settings, option)
            return RemoteUnusable(
                remote,
                f"has no {wanted}. remote is the directory with var in it. Did you mean {meant}? Else set {option}.",
            )
        return RemoteUnusable(remote, f"has no {path}. Look at {option} in the part.")
    if isinstance(error, PermissionError):
        return RemoteUnusable(remote, f"you may not read {path}. {filesystem.unreadable()}")
    return RemoteUnusable(remote, f"can't read {path}: {error.strerror}.")


def _meant(settings: Settings, path: str, option: str) -> str:
    """Return the remote that was meant where ``remote`` is one level too deep; empty where it is not.

    :param path: what is missing, as the mount shows it.
    :param option: the option that names it, below ``remote``.
    """
    relative = _value(settings, option)
    first, _, rest = relative.partition("/")
    remote = settings.remote.rstrip("/")
    if not rest or not remote.endswith(f"/{first}") or not path.endswith(f"/{relative}"):
        return ""
    return remote[: -len(first) - 1] if os.path.isdir(path[: -len(relative)] + rest) else ""


def _value(settings: Settings, option: str) -> str:
    """Return the value of an option that is a path."""
    return str(getattr(settings, option.replace("-", "_")))
