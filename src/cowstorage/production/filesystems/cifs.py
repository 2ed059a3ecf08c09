"""Production over SMB: mount.cifs(8)."""

from __future__ import annotations

import os
import re
import stat
from typing import ClassVar, Optional, Tuple

from cowstorage.errors import CommandFailed, CowStorageError, SettingsError
from cowstorage.part.host import Host
from cowstorage.production.filesystems.base import (
    NO_ANSWER,
    NO_HOST,
    NO_WAY,
    PASSWORD_OPTIONS,
    ProductionMount,
    RootsMount,
    diagnosed,
    overridden,
)

# Mount options that name the file with user and password, mount.cifs(8).
CREDENTIALS = ("credentials", "cred")

MOUNT_SECONDS = 60.0

OPTIONS = (
    # Said even where the server could tell owners: it may ignore uid= without them, mount.cifs(8).
    "forceuid",
    "forcegid",
    # Writable by their mode, so that a copy in the local layer is; the mount itself is read-only.
    "file_mode=0600",
    "dir_mode=0700",
    # The default is a second: each BLOB would ask for its directories again. At a round trip of 40 ms, below overlay, a
    # small BLOB takes 163 ms instead of 281, and 124 instead of 297 when it is read again. cow-status asks for Data.fs
    # anew.
    "actimeo=3600",
    # cache=strict, the default, stays: it keeps BLOBs in memory under the server's lease, and Data.fs is never stale.
    # A server that is gone is noticed after two of these, not after two minutes.
    "echo_interval=10",
    # The default, said: errors, not hanging processes, when the server is gone.
    "soft",
    "nosuid",
    "nodev",
    "noexec",
)

DIAGNOSES = (
    (
        "error(13)",
        "the server rejected user or password, or the user may not use the share. "
        "Look at the file that credentials= names.",
    ),
    ("error(2)", "the server has no share of that name, or no such directory in it. Try: smbclient -L //{host}"),
    ("error(6)", "the server has no share of that name. Try: smbclient -L //{host}"),
    ("error(111)", "nothing listens there. Look at remote, and at the server."),
    ("error(110)", NO_ANSWER),
    ("error(112)", "the server is down, or does not speak that version of SMB. See vers= in mount.cifs(8)."),
    ("error(113)", NO_WAY),
    ("error(115)", NO_ANSWER),
    ("error(95)", "the server speaks another version of SMB. See vers= in mount.cifs(8)."),
    ("could not resolve address", NO_HOST),
    ("unknown filesystem type", "the kernel of this machine has no CIFS."),
    ("error(19)", "the kernel of this machine has no CIFS."),
)


class CIFS(RootsMount):
    """SMB, mounted by root for the developer, whose files they appear to be."""

    name = "cifs"
    types = ("cifs", "smb3")
    programs: ClassVar = {"mount": "mount", "mount.cifs": "cifs-utils"}

    @classmethod
    def check_remote(cls, remote: str) -> None:
        host = remote[2:].partition("/")[0]
        if remote.startswith("//") and re.search("[@%]", host):
            raise SettingsError(
                "remote",
                "leave user and password out of it: they belong into a file of mode 0600, named by "
                "mount-options = credentials=FILE.",
            )
        if not re.fullmatch(r"//[^/\\:\s]+/[^/\\]+.*", remote):
            raise SettingsError("remote", f"{remote!r} is no //host/share[/path], which filesystem = cifs needs.")

    @classmethod
    def check_options(cls, options: Tuple[str, ...], filesystem: str) -> None:
        names = {option.partition("=")[0].lower(): option.partition("=")[2] for option in options}
        told = sorted(PASSWORD_OPTIONS & set(names))
        if told or any("%" in names.get(name, "") for name in ("username", "user")):
            raise SettingsError(
                "mount-options",
                f"a password does not belong into {told[0] if told else 'username'}=: every user of this machine sees "
                "it in the list of processes, and it ends up in version control. Write it into a file of mode 0600, "
                "lines username=… and password=…, and set credentials=FILE.",
            )
        login = {*CREDENTIALS, "guest"} & set(names)
        if not login and not names.get("sec", "").startswith(("krb5", "none")):
            raise SettingsError(
                "mount-options",
                "who logs in to the server? Set credentials=FILE, a file of mode 0600 with the lines username=… and "
                "password=…; or sec=krb5; or guest.",
            )

    def problem(self) -> Optional[str]:
        """Return why SMB can't be used here; not pure: looks at the credentials file."""
        problem, path = super().problem(), self._credentials()
        if problem or not path:
            return problem
        if "," in path:
            return f"{path}: mount.cifs takes what follows the comma for an option. Put the file elsewhere"
        return unsafe(path, self.host)

    def mounts(self) -> Tuple[ProductionMount, ...]:
        defaults = (f"uid={self.host.uid}", f"gid={self.host.gid}", *OPTIONS)
        given = tuple(map(self._with_absolute_path, self.settings.mount_options))
        return self.mount_by_root(overridden(defaults, given), MOUNT_SECONDS)

    def root_may_look(self) -> Optional[str]:
        # "case-insensitive capable filesystem not supported", fs/overlayfs/super.c.
        if {"nocase", "ignorecase"} & set(self.settings.mount_options):
            return "the kernel's overlay can't lie over a mount with nocase. Remove it from mount-options"
        return None

    def unreadable(self) -> str:
        return (
            "The server lets the user of credentials= see these files, not read them: give that user the right to read "
            "them there. Here they must be yours, with file_mode=0600 and dir_mode=0700: look at mount-options."
        )

    def explain(self, error: CommandFailed) -> CowStorageError:
        remote = self.settings.remote
        return diagnosed(remote, DIAGNOSES, error, host=remote[2:].partition("/")[0])

    def _credentials(self) -> Optional[str]:
        """Return the absolute path of the credentials file, if one is named."""
        for option in self.settings.mount_options:
            name, _, path = option.partition("=")
            if name in CREDENTIALS:
                return os.path.join(self.settings.directory, os.path.expanduser(path))
        return None

    def _with_absolute_path(self, option: str) -> str:
        name, _, _ = option.partition("=")
        return f"{name}={self._credentials()}" if name in CREDENTIALS else option


def unsafe(path: str, host: Host) -> Optional[str]:
    """Return why a credentials file is not used; ``None`` when only its owner can read it."""
    try:
        status = os.stat(path)
    except OSError as error:
        return f"{path}: {error.strerror}. Write username=… and password=… into it, one a line, and chmod 600 it"
    if not stat.S_ISREG(status.st_mode):
        return f"{path} is not a file. Write username=… and password=… into it, one a line, and chmod 600 it"
    if status.st_uid not in (0, host.uid, host.euid):
        return f"{path} belongs to somebody else, who could have others' files mounted. Make one of your own"
    if status.st_mode & 0o077:
        return f"{path} can be read by others: it holds a password. chmod 600 {path}"
    return None
