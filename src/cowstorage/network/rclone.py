"""Production through any remote of rclone, cached on disk: rclone mount."""

from __future__ import annotations

import os
import signal
import time
from typing import Iterator, List, Tuple

from cowstorage.errors import CommandFailed, CowStorageError, RemoteUnusable
from cowstorage.host import Host
from cowstorage.network import Attachment, DevelopersMount, diagnosed, mount_point
from cowstorage.settings import Settings
from cowstorage.system import Command, Runner, run_program

MOUNT_SECONDS = 90.0
EXPLAIN_SECONDS = 60.0
# What rclone takes to write its cache's records after the mount is gone; it ended within a second when measured.
END_SECONDS = 20.0

# Debian's builds up to this version answer getxattr with EIO, which ends every read through the kernel's overlay;
# mount2 of the same builds does not. Later mount2 showed empty directories (rclone 00bd00d83), so it is not the rule.
LAST_WITHOUT_XATTR = (1, 60)

FLAGS = (
    # Whatever was read once is on disk, across mounts: BLOBs never change.  A year, not an hour; 1.60 wants hours.
    "vfs-cache-mode=full",
    "vfs-cache-max-age=8760h",
    # A listing costs a round trip per directory. An hour is what cow-status may lag; cow-sync mounts anew.
    "dir-cache-time=1h",
    # Asks some cloud remotes for changes each minute; the same.
    "poll-interval=0",
    # A dead network gives errors after about a minute and a half, not after fifty.
    "contimeout=10s",
    "timeout=30s",
    "low-level-retries=3",
)

DIAGNOSES = (
    (
        "didn't find section in config file",
        "rclone has no remote of that name. Make it with rclone config; rclone listremotes shows those there are.",
    ),
    (
        "unable to decrypt configuration",
        "rclone's configuration is encrypted. Set RCLONE_CONFIG_PASS or RCLONE_PASSWORD_COMMAND before you run this.",
    ),
    ("user_allow_other", "add a line user_allow_other to /etc/fuse.conf, or set union = unionfs-fuse."),
    ("directory not found", "there is no such directory on the server."),
    ("couldn't connect SSH", "rclone can't log in to the server. Try: rclone lsd {remote}"),
)


class Rclone(DevelopersMount):
    """rclone, mounted by the developer, whose configuration it uses.

    Without ``--log-file``: rclone's daemon would keep our pipes with it.
    """

    name = "rclone"
    types = ("fuse.rclone",)
    programs = ("rclone", "fusermount3")

    def attachments(self, settings: Settings, host: Host) -> Tuple[Attachment, ...]:
        verb = "mount2" if host.rclone <= LAST_WITHOUT_XATTR else "mount"
        argv = ("rclone", verb, *_flags(settings, host), "--", settings.remote, settings.mount_point)
        cache = Command(("mkdir", "-p", "-m", "0700", "--", cache_directory(settings)))
        return (Attachment(settings.mount_point, (mount_point(settings), cache, Command(argv, limit=MOUNT_SECONDS))),)

    def after_unmount(self, settings: Settings) -> None:
        """Two rclones on one cache spoil it, rclone mount's help: the old one must have ended."""
        if _ended(settings.mount_point, END_SECONDS):
            return
        for pid in servers(settings.mount_point):
            os.kill(pid, signal.SIGTERM)
        if not _ended(settings.mount_point, END_SECONDS):
            pids = ", ".join(map(str, servers(settings.mount_point)))
            raise CowStorageError(f"rclone does not end after its unmounting (pid {pids}). End it: kill -9 {pids}")

    def explain(self, settings: Settings, host: Host, runner: Runner, error: CommandFailed) -> CowStorageError:
        """Asks rclone for a listing, since its daemon keeps its words to itself."""
        probe = ("rclone", "lsf", "--max-depth=1", *_common(settings), "--", settings.remote)
        try:
            run_program(probe, limit=EXPLAIN_SECONDS)
        except CommandFailed as reason:
            return diagnosed(settings, DIAGNOSES, reason, remote=settings.remote)
        except CowStorageError as reason:
            return RemoteUnusable(settings.remote, str(reason))
        return diagnosed(settings, DIAGNOSES, error, remote=settings.remote)


def cache_directory(settings: Settings) -> str:
    """Where rclone keeps what was read; it survives unmounting, and is each part's own."""
    return os.path.join(settings.location, "cache", "rclone")


def _common(settings: Settings) -> List[str]:
    """Flags for every run: none may ask for a password that nobody can type."""
    flags = ["--ask-password=false", "--sftp-ask-password=false"]
    for option in settings.mount_options:
        name, _, value = option.partition("=")
        if name in ("config", "ca-cert"):
            flags.append(f"--{name}={os.path.join(settings.directory, os.path.expanduser(value))}")
    return flags


def _flags(settings: Settings, host: Host) -> Iterator[str]:
    given = [option for option in settings.mount_options if option.partition("=")[0] not in ("config", "ca-cert", "ro")]
    names = {option.partition("=")[0] for option in given}
    yield "--daemon"
    yield from _common(settings)
    yield f"--cache-dir={cache_directory(settings)}"
    # Its own default is 022: everybody on this machine could read production's data.
    yield "--umask=077"
    if host.euid == 0 and host.uid != 0:
        yield from (f"--uid={host.uid}", f"--gid={host.gid}", "--allow-other", "--default-permissions")
    elif host.euid != 0 and host.sudo and host.user_allow_other and settings.union in ("auto", "overlay"):
        # Root is let in by allow-other alone; default-permissions keeps everybody else out, mount.fuse3(8).
        yield from ("--allow-other", "--default-permissions")
    yield from (f"--{flag}" for flag in FLAGS if flag.partition("=")[0] not in names)
    yield from (f"--{option}" for option in given)
    yield "--read-only"


def servers(target: str) -> Tuple[int, ...]:
    """The pids of the rclone processes that serve a mount point, read from /proc; ours and, for root, all."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and name != str(os.getpid()) and serves(_arguments(name), target):
            found.append(int(name))
    return tuple(found)


def serves(arguments: Tuple[str, ...], target: str) -> bool:
    """Whether a command line is that of an rclone which serves a mount point."""
    return (
        len(arguments) > 2
        and os.path.basename(arguments[0]) == "rclone"
        and arguments[1] in ("mount", "mount2")
        and arguments[-1] == target
    )


def _arguments(pid: str) -> Tuple[str, ...]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return tuple(os.fsdecode(word) for word in file.read().split(b"\0")[:-1])
    except OSError:
        return ()


def _ended(target: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while servers(target):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
