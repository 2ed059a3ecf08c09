"""Handle paths, directories and user names, and read files on slow mounts with as few round trips as possible."""

import errno
import os
import stat
from typing import BinaryIO, Iterator, NamedTuple

# What the names of files begin with that are made and deleted in a directory to try it: production has none of it.
TRIED = ".cowstorage-"

# Flags of statx(2), from linux/fcntl.h.
AT_EMPTY_PATH = 0x1000
AT_STATX_FORCE_SYNC = 0x2000

# STATX_MTIME | STATX_SIZE, from linux/stat.h.
STATX_MTIME_AND_SIZE = 0x240

# The layout of struct statx, from linux/stat.h: its length and two offsets, in bytes.
STATX_LENGTH = 256
STATX_SIZE_OFFSET = 40
STATX_MTIME_OFFSET = 112


def is_inside(path: str, directory: str) -> bool:
    """Return whether a path is a directory or below that directory.

    :param path: absolute and normalized.
    :param directory: absolute and normalized.
    """
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def existing(path: str) -> str:
    """Return the nearest existing one of an absolute path and its parents, with symbolic links resolved."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.path.realpath(path)


def walk(directory: str, closed: str = "") -> "Iterator[os.DirEntry[str]]":
    """Yield every entry below a directory, without following symbolic links.

    Memory grows with the depth of the tree, not with the number of entries.

    :param closed: directories whose name begins with this are yielded, and not entered.
    :raises OSError: when a directory can't be read.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            yield entry
            if entry.is_dir(follow_symlinks=False) and not (closed and entry.name.startswith(closed)):
                yield from walk(entry.path, closed)


def user_name(uid: int) -> str:
    """Return the name of a user for a message; ``uid 1234`` for a user without a name."""
    import pwd  # start-up

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def open_regular(path: str, buffering: int = -1) -> BinaryIO:
    """Open a file of somebody else's for reading; symbolic links are followed.

    To open a FIFO would wait for whoever writes to it, and a device may have no end: both are refused, unread.

    :param buffering: as for ``open``.
    :raises OSError: as ``open`` does; EINVAL for what is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return open(descriptor, "rb", buffering=buffering)
    os.close(descriptor)
    raise OSError(errno.EINVAL, "Is no regular file", path)


def open_unbuffered(path: str) -> BinaryIO:
    """Open a file for reading without a buffer and without the kernel's read-ahead.

    The kernel would read 16 kB ahead at the beginning of a file; POSIX_FADV_RANDOM turns that off, posix_fadvise(2).

    :raises OSError: as ``open`` does.
    """
    file = open_regular(path, buffering=0)
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
    return file


def write_behind(path: str, begin: int, content: bytes) -> None:
    """Write behind the first ``begin`` bytes of a file of ours, which ends there then; the file is made where needed.

    :raises OSError: ELOOP for a symbolic link, which is not followed.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.seek(begin)
        file.write(content)
        file.truncate()


class FreshStat(NamedTuple):
    """The size and time of a file, as its server has them.

    :param size: bytes.
    :param modified: Unix seconds of the last change of the content.
    """

    size: int
    modified: float


def fresh_stat(path: str) -> FreshStat:
    """Return the size and time of a file as the server has them now, past the attribute cache of the mount.

    sshfs asks the server when a file is opened, NFS and CIFS when statx(2) gets AT_STATX_FORCE_SYNC.

    :raises OSError: as ``open`` does.
    """
    with open_unbuffered(path) as file:
        return fresh_stat_of(file)


def fresh_stat_of(file: BinaryIO) -> FreshStat:
    """Return what ``fresh_stat`` does, of a file that was opened just now."""
    import ctypes  # start-up
    import struct  # start-up

    buffer = ctypes.create_string_buffer(STATX_LENGTH)
    statx = ctypes.CDLL(None, use_errno=True).statx
    if statx(file.fileno(), b"", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_MTIME_AND_SIZE, buffer) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), file.name)
    (size,) = struct.unpack_from("=Q", buffer, STATX_SIZE_OFFSET)
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, STATX_MTIME_OFFSET)
    return FreshStat(size, seconds + nanoseconds / 1e9)
