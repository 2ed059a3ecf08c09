"""Production over SMB: mount.cifs(8)."""

from __future__ import annotations

import os
import stat
from typing import Optional, Tuple

from cowstorage.errors import CommandFailed, CowStorageError
from cowstorage.host import Host
from cowstorage.network import Attachment, Network, diagnosed, mount_command, mount_point, needs_root, overridden
from cowstorage.remotes import CREDENTIALS
from cowstorage.settings import Settings
from cowstorage.system import Runner

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
    ("error(110)", "no answer from the server. Look at your network, VPN or firewall."),
    ("error(112)", "the server is down, or does not speak that version of SMB. See vers= in mount.cifs(8)."),
    ("error(113)", "no way to the server. Look at your network, VPN or firewall."),
    ("error(115)", "no answer from the server. Look at your network, VPN or firewall."),
    ("error(95)", "the server speaks another version of SMB. See vers= in mount.cifs(8)."),
    ("could not resolve address", "there is no host of that name. Look at remote, or at your network."),
    ("unknown filesystem type", "the kernel of this machine has no CIFS."),
    ("error(19)", "the kernel of this machine has no CIFS."),
)


class CIFS(Network):
    """Mounted by root for the developer, whose files they appear to be."""

    name = "cifs"
    types = ("cifs", "smb3")
    programs = ("mount", "mount.cifs")

    def problem(self, settings: Settings, host: Host) -> Optional[str]:
        problem = super().problem(settings, host) or needs_root(host)
        path = credentials(settings)
        if problem or not path:
            return problem
        if "," in path:
            return f"{path}: mount.cifs takes what follows the comma for an option. Put the file elsewhere"
        return unsafe(path, host)

    def attachments(self, settings: Settings, host: Host) -> Tuple[Attachment, ...]:
        defaults = (f"uid={host.uid}", f"gid={host.gid}", *OPTIONS)
        options = overridden(defaults, tuple(_absolute(option, settings) for option in settings.mount_options))
        command = mount_command("cifs", options, settings.remote, settings.mount_point, MOUNT_SECONDS)
        return (Attachment(settings.mount_point, (mount_point(settings), command)),)

    def root_may_look(self, settings: Settings, host: Host) -> Optional[str]:
        # "case-insensitive capable filesystem not supported", fs/overlayfs/super.c.
        if {"nocase", "ignorecase"} & set(settings.mount_options):
            return "the kernel's overlay can't lie over a mount with nocase. Remove it from mount-options"
        return None

    def unreadable(self, settings: Settings) -> str:
        return (
            "The server lets the user of credentials= see these files, not read them: give that user the right to read "
            "them there. Here they must be yours, with file_mode=0600 and dir_mode=0700: look at mount-options."
        )

    def explain(self, settings: Settings, host: Host, runner: Runner, error: CommandFailed) -> CowStorageError:
        return diagnosed(settings, DIAGNOSES, error, host=settings.remote[2:].partition("/")[0])


def credentials(settings: Settings) -> Optional[str]:
    """The absolute path of the credentials file, if one is named."""
    for option in settings.mount_options:
        name, _, path = option.partition("=")
        if name in CREDENTIALS:
            return os.path.join(settings.directory, os.path.expanduser(path))
    return None


def _absolute(option: str, settings: Settings) -> str:
    name, _, _ = option.partition("=")
    return f"{name}={credentials(settings)}" if name in CREDENTIALS else option


def unsafe(path: str, host: Host) -> Optional[str]:
    """Why a credentials file is not used; ``None`` when only its owner can read it."""
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
