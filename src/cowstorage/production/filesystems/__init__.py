"""The table of network file systems; each is one module with one class, a subclass of ``base.FileSystem``.

To add one, write its module here and its line in ``FILESYSTEMS``: whatever else wants to know its programs, packages,
options, refusals or daemons asks the class.
"""

from __future__ import annotations

import importlib
import re
from typing import Optional, Tuple, Type

from cowstorage.errors import SettingsError
from cowstorage.part.host import Host
from cowstorage.part.settings import Settings
from cowstorage.production.filesystems.base import (
    PASSWORD_BEFORE_HOST,
    PASSWORD_IN_URL,
    SSH_REMOTE,
    FileSystem,
    refuse_password_in,
    refuse_unsafe_options,
)

# Value of the option ``filesystem`` → module and class, loaded when asked for: a script uses one of them.
FILESYSTEMS = {
    "sshfs": "cowstorage.production.filesystems.sshfs:SSHFS",
    "nfs": "cowstorage.production.filesystems.nfs:NFS",
    "cifs": "cowstorage.production.filesystems.cifs:CIFS",
    "rclone": "cowstorage.production.filesystems.rclone:Rclone",
    "directory": "cowstorage.production.filesystems.directory:Directory",
}
# Whatever else ``mount -t`` takes.
OTHER = "cowstorage.production.filesystems.other:Other"

# Other names of those above, mount(8): a mount of that type would miss the defaults that are made for them.
OTHER_NAMES = {
    "nfs3": "nfs, with mount-options = vers=3",
    "nfs4": "nfs, with mount-options = vers=4",
    "smb": "cifs",
    "smb3": "cifs, with mount-options = vers=3",
    "smbfs": "cifs",
    "ssh": "sshfs",
    "sftp": "sshfs",
    "bind": "directory",
    "none": "directory",
}

# By these mount(8) has a helper run a program as root: X for fuse.X, and cmd for a remote cmd#x, mount.fuse3(8).
RUNS_REMOTE = r"fuse(3|blk)?(\..*)?"

WRITING_MOUNT_OPTIONS = frozenset(("rw", "remount", "defaults", "bind", "rbind", "user", "users", "writable"))


def backend(name: str) -> Type[FileSystem]:
    """Return the class of the network file system of that name."""
    module, _, attribute = FILESYSTEMS.get(name, OTHER).partition(":")
    found: Type[FileSystem] = getattr(importlib.import_module(module), attribute)
    return found


def make(settings: Settings, host: Host, read_by_root: bool = False) -> FileSystem:
    """Return the network file system of a part.

    :param read_by_root: a union that root mounts may lie over it.
    """
    return backend(settings.filesystem)(settings, host, read_by_root)


def refuse_password(remote: str, filesystem: str) -> None:
    """Refuse a remote with a password in it.

    :param filesystem: the option of that name; empty: told from the remote.
    :raises SettingsError: without the password.
    """
    # A path of rclone's may begin in such a way.
    before_host = () if filesystem == "rclone" else (PASSWORD_BEFORE_HOST,)
    refuse_password_in("remote", remote, (PASSWORD_IN_URL, *before_host))


def told_filesystem(remote: str) -> Optional[str]:
    """Return the network file system that a remote's form tells, or ``None`` where the form is ambiguous."""
    if remote.startswith("//"):
        return "cifs"
    if remote.startswith("/"):
        return "directory"
    return "sshfs" if re.match(SSH_REMOTE, remote) else None


def check_filesystem(filesystem: str) -> None:
    """Refuse what can't be the name of a file system type.

    :raises SettingsError: with what was probably meant.
    """
    if filesystem in FILESYSTEMS:
        return
    known = f"Known are: {', '.join(FILESYSTEMS)}, and any type that mount -t takes."
    if filesystem in OTHER_NAMES:
        raise SettingsError("filesystem", f"write {OTHER_NAMES[filesystem]}, instead of {filesystem}.")
    if re.fullmatch(RUNS_REMOTE, filesystem):
        raise SettingsError(
            "filesystem",
            f"with {filesystem} root would run whatever program the part names. Write sshfs or rclone; or a type that "
            "has a helper of its own, mount.TYPE.",
        )
    import difflib  # start-up

    close = difflib.get_close_matches(filesystem.lower(), FILESYSTEMS, 1, 0.8)
    if close:
        raise SettingsError("filesystem", f"{filesystem} is not known. Did you mean {close[0]}?")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", filesystem):
        raise SettingsError("filesystem", f"{filesystem} is not the name of a file system type. {known}")


def check_remote(filesystem: str, remote: str) -> None:
    """Refuse a remote that has not the form that its file system wants.

    :raises SettingsError: with the right form.
    """
    backend(filesystem).check_remote(remote)


def mount_options(filesystem: str, value: str) -> Tuple[str, ...]:
    """Return the option ``mount-options``, split at commas and blanks.

    :raises SettingsError: for what would write to production, tell a password, or not work.
    """
    options = tuple(option for option in re.split(r"[,\s]+", value) if option)
    for option in options:
        name = option.partition("=")[0]
        if name.lower() in WRITING_MOUNT_OPTIONS:
            raise SettingsError(
                "mount-options", f"{name} would make production writable or change how it is mounted. Remove it."
            )
        if option.startswith("-"):
            raise SettingsError("mount-options", f"write what follows -o only, without {name}.")
    refuse_unsafe_options(options, backend(filesystem).allowed_options)
    backend(filesystem).check_options(options, filesystem)
    return options
