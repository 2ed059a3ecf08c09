"""The trial of a mounted union: files are read, written and deleted through it, as Plone will do."""

from __future__ import annotations

import errno
import os
from typing import Iterable, NamedTuple, Optional, Tuple

from cowstorage.errors import CowStorageError
from cowstorage.system import mounts
from cowstorage.system.files import TRIED, open_unbuffered, user_name
from cowstorage.system.time_limits import within
from cowstorage.union.base import SAFE_OPTIONS, Layer, Union

# Time limit for the use of a union in a trial. Where the line to a server of SMB was cut and is back, samba waits 35
# seconds for the lease of the connection that is gone, at each file that it had open.
TRIAL_SECONDS = 120.0


def trial_directory(location: str) -> str:
    """Return the directory below which unions are tried, in the part's ``location``."""
    return os.path.join(location, "trial")


class Use(NamedTuple):
    """What Plone does in the directory of one union; all paths are relative to the directory.

    :param read: a file in the lowers, whose first byte is read; ``None``: none is read.
    :param directories: those in which files are made and deleted, where they are there.
    :param appended: the files that are opened for writing, where they are there or not.
    """

    read: Optional[str] = None
    directories: Tuple[str, ...] = ()
    appended: Tuple[str, ...] = ()


def use_of(storage: str, sample: Optional[str], file_storages: Iterable[str]) -> Use:
    """Return what Plone does in one of the part's unions.

    ZODB makes a BLOB in ``tmp`` and renames it to a place beside others, ``ZODB.blob.FilesystemHelper``; it locks and
    writes ``Data.fs.lock``, ``zc.lockfile``, which each mount makes in the upper.

    :param storage: ``filestorage`` or ``blobstorage``.
    :param sample: a BLOB of production's.
    :param file_storages: the file names of the FileStorages that Plone opens.
    """
    if storage == "filestorage":
        return Use(appended=tuple(name + ".lock" for name in sorted(file_storages)))
    return Use(sample, ("tmp", *((os.path.dirname(sample),) if sample else ())))


def try_out(candidate: Union, layer: Layer, use: Use, developer: Tuple[int, int]) -> None:
    """Use a union whose upper is thrown away afterwards, as Plone will: ``prove``, and what copies directories.

    :raises CowStorageError: as ``prove`` does.
    """
    _verify_mounted(candidate, layer)
    within(TRIAL_SECONDS, f"using {layer.merged}", lambda: _use_wholly(layer, use), developer)


def prove(candidate: Union, layer: Layer, use: Use, developer: Tuple[int, int]) -> None:
    """Read, write and delete files through a mounted union, as the developer, without copying anything of production's.

    Whether the developer may change what is production's the kernel is asked, access(2): it answered as the change
    itself did, through overlay, fuse-overlayfs and unionfs-fuse.

    :param developer: uid and gid.
    :raises CowStorageError: when the union is not mounted, or a file can't be read, written or deleted.
    :raises TimeLimit: when the union does not answer.
    """
    _verify_mounted(candidate, layer)
    within(TRIAL_SECONDS, f"using {layer.merged}", lambda: _use(layer, use), developer)
    refused = problem(layer.merged, use, developer)
    if refused:
        raise CowStorageError(refused)


def problem(merged: str, use: Use, developer: Tuple[int, int]) -> str:
    """Return why Plone couldn't write through a mounted union; empty when it could.  Nothing is changed.

    :raises TimeLimit: when the union does not answer.
    """
    return within(TRIAL_SECONDS, f"looking at {merged}", lambda: _refusal(merged, use), developer)


def _refusal(merged: str, use: Use) -> str:
    for relative in (*use.directories, *use.appended):
        path = os.path.join(merged, relative)
        if os.path.lexists(path) and not _leads_out(merged, relative) and not os.access(path, os.W_OK):
            return _told(PermissionError(errno.EACCES, os.strerror(errno.EACCES), path), merged)
    return ""


def _verify_mounted(candidate: Union, layer: Layer) -> None:
    mount = mounts.top(mounts.read(), layer.merged)
    if mount is None or not candidate.owns(mount):
        raise CowStorageError(f"{candidate.name} was mounted on {layer.merged}, and is not there: {mount}")
    missing = [option for option in SAFE_OPTIONS if option not in mount.options]
    if missing:
        raise CowStorageError(
            f"{candidate.name} was mounted on {layer.merged} without {' and '.join(missing)}: "
            "setuid files and devices of production's would work there. Set another union in the part."
        )


def _gone(layer: Layer, sample: str) -> bool:
    """Tell whether a BLOB was removed: by a local pack, or from production since the sample was chosen.

    In a trial the upper is empty, so that a union which hides a file of the lowers is found.
    """
    if os.path.lexists(os.path.join(layer.merged, sample)):
        return False
    return bool(os.listdir(layer.upper)) or not any(
        os.path.lexists(os.path.join(lower, sample)) for lower in layer.lowers
    )


def _use(layer: Layer, use: Use) -> None:
    """Read the sample, make and delete a file at the top of the union, and see the file arrive in the upper.

    :raises CowStorageError: when one of these fails.
    """
    try:
        if use.read is not None and not _gone(layer, use.read):
            with open_unbuffered(os.path.join(layer.merged, use.read)) as file:
                file.read(1)
        arrived = _make_and_delete(layer, "")
    except OSError as error:
        raise CowStorageError(_told(error, layer.merged)) from None
    if not arrived:
        raise CowStorageError(f"what was written to {layer.merged} did not arrive in {layer.upper}")


def _use_wholly(layer: Layer, use: Use) -> None:
    """Use a union, and make and delete a file in directories of production's, which the union copies.

    :raises CowStorageError: when one of these fails.
    """
    _use(layer, use)
    try:
        for relative in use.directories:
            if os.path.isdir(os.path.join(layer.merged, relative)) and not _leads_out(layer.merged, relative):
                _make_and_delete(layer, relative)
    except OSError as error:
        raise CowStorageError(_told(error, layer.merged)) from None


def _leads_out(merged: str, relative: str) -> bool:
    """Tell whether a link of production's is on the way to a path: what is written there is written elsewhere.

    Such links are hidden when the union is mounted for good, or production is refused.
    """
    path = os.path.join(merged, relative)
    return os.path.realpath(path) != os.path.normpath(path)


def _make_and_delete(layer: Layer, directory: str) -> bool:
    """Make a file in a directory of the union, delete the file, and tell whether it had arrived in the upper."""
    relative = os.path.join(directory, f"{TRIED}{os.getpid()}")
    merged = os.path.join(layer.merged, relative)
    with open(merged, "xb") as file:
        file.write(b"local")
    arrived = os.path.exists(os.path.join(layer.upper, relative))
    os.unlink(merged)
    return arrived


def _told(error: OSError, merged: str) -> str:
    """Return an error of the union's as a clause for people; whose file it is where that may be the reason."""
    path = str(error.filename)
    code = errno.errorcode.get(error.errno or 0, "?")
    return f"{path}: {error.strerror} ({code}) through {merged}{_whose(path) if code in ('EACCES', 'EPERM') else ''}"


def _whose(path: str) -> str:
    """Return a clause about the owner of a path, or of its directory, where that is another user; else nothing."""
    try:
        owner = os.stat(path if os.path.lexists(path) else os.path.dirname(path)).st_uid
    except OSError:
        return ""
    if owner == os.geteuid():
        return ""
    return f". It is {user_name(owner)}'s, and this union lets only its owner change it"
