"""Production through any remote of rclone, cached on disk: rclone mount."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from typing import ClassVar, Iterator, List, Tuple

from cowstorage.errors import CommandFailed, CowStorageError, RemoteUnusable, SettingsError
from cowstorage.production.filesystems.base import DevelopersMount, ProductionMount, diagnosed, mount_point
from cowstorage.system.processes import run_program, running, wait_for_end
from cowstorage.system.programs import Command

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

# Those of its flags that name a file.
FILES = ("config", "ca-cert")

# From this version on a file stays open for 5 seconds after its last reader, unless told otherwise; the cache's records
# are written when the file is closed, and what was read is forgotten when rclone ends before, measured with 1.75.
FIRST_WITH_HANDLE_CACHING = (1, 74)

# Those of rclone's flags that tune caching, patience and bandwidth; none of them can make the mount writable,
# visible to others, or run a program.
RCLONE_OPTIONS = frozenset(
    "attr-timeout buffer-size bwlimit ca-cert checkers config contimeout dir-cache-time low-level-retries "
    "max-read-ahead no-checksum no-modtime poll-interval retries timeout tpslimit "
    "tpslimit-burst transfers use-mmap vfs-cache-max-age vfs-cache-max-size vfs-cache-min-free-space "
    "vfs-cache-poll-interval vfs-fast-fingerprint vfs-read-ahead vfs-read-chunk-size vfs-read-chunk-size-limit "
    "vfs-read-chunk-streams vfs-read-wait".split()
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
    ("user_allow_other", "add a line user_allow_other to /etc/fuse.conf, or set sudo = no in the part."),
    ("directory not found", "there is no such directory on the server."),
    ("couldn't connect SSH", "rclone can't log in to the server. Try: rclone lsd {name}"),
)


class Rclone(DevelopersMount):
    """rclone, mounted by the developer, whose configuration it uses.

    Without ``--log-file``: rclone's daemon would keep our pipes with it.
    """

    name = "rclone"
    types = ("fuse.rclone",)
    programs: ClassVar = {"rclone": "rclone", "fusermount3": "fuse3"}
    daemons = ("rclone",)
    shows_links = False

    @classmethod
    def check_remote(cls, remote: str) -> None:
        name, colon, _ = remote.partition(":")
        if colon and (not name or "," in name or "=" in name):
            raise SettingsError(
                "remote",
                "name a remote of rclone's configuration, name:path. What is written before the colon is seen by "
                "everybody on this machine; make the remote with: rclone config",
            )
        # rclone's own rule for the names of remotes, docs/content/docs.md.
        if not re.fullmatch(r"[\w.+@][\w.+@ -]*:.*", remote):
            raise SettingsError("remote", f"{remote!r} is no name:path of a remote that rclone config made.")

    @classmethod
    def check_options(cls, options: Tuple[str, ...], filesystem: str) -> None:
        for option in options:
            name = option.partition("=")[0]
            if name not in RCLONE_OPTIONS:
                import difflib  # start-up

                close = difflib.get_close_matches(name, RCLONE_OPTIONS, 1, 0.6)
                known = f"These may be set: {', '.join(sorted(RCLONE_OPTIONS))}."
                hint = f"Did you mean {close[0]}?" if close else known
                raise SettingsError("mount-options", f"{name} is none of the flags of rclone that may be set. {hint}")

    def mounts(self) -> Tuple[ProductionMount, ...]:
        settings = self.settings
        verb = "mount2" if self.host.rclone <= LAST_WITHOUT_XATTR else "mount"
        argv = ("rclone", verb, *self._flags(), "--", settings.remote, settings.mount_point)
        cache = Command(("mkdir", "-p", "-m", "0700", "--", self.cache_directory))
        commands = (
            mount_point(settings.mount_point),
            cache,
            Command(argv, root=self.host.for_another, limit=MOUNT_SECONDS),
        )
        return (ProductionMount(settings.mount_point, commands),)

    @property
    def cache_directory(self) -> str:
        """Where rclone keeps what was read: each part's own, there after unmounting, too."""
        return os.path.join(self.settings.location, "cache", "rclone")

    def after_unmount(self) -> None:
        """Wait for rclone to end, since two of them on one cache spoil it (rclone mount's help); not pure."""
        target = self.settings.mount_point
        if wait_for_end(lambda: servers(target), END_SECONDS):
            return
        for pid in servers(target):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if not wait_for_end(lambda: servers(target), END_SECONDS):
            pids = ", ".join(map(str, servers(target)))
            raise CowStorageError(f"rclone does not end after its unmounting (pid {pids}). End it: kill -9 {pids}")

    def explain(self, error: CommandFailed) -> CowStorageError:
        """Return what a failed mount means; asks rclone for a listing, since its daemon does not show its words."""
        remote = self.settings.remote
        try:
            run_program(
                ("rclone", "lsf", "--max-depth=1", *self._common(), "--", remote), limit=EXPLAIN_SECONDS, root=True
            )
        except CommandFailed as reason:
            return diagnosed(remote, DIAGNOSES, reason, name=remote)
        except CowStorageError as reason:
            return RemoteUnusable(remote, str(reason))
        return diagnosed(remote, DIAGNOSES, error, name=remote)

    def _common(self) -> List[str]:
        """Return the flags for every run of rclone: none may ask for a password that nobody can type."""
        flags = ["--ask-password=false", "--sftp-ask-password=false"]
        for option in self.settings.mount_options:
            name, _, value = option.partition("=")
            if name in FILES:
                flags.append(f"--{name}={os.path.join(self.settings.directory, os.path.expanduser(value))}")
        return flags

    def _flags(self) -> Iterator[str]:
        host = self.host
        given = [option for option in self.settings.mount_options if option.partition("=")[0] not in (*FILES, "ro")]
        names = {option.partition("=")[0] for option in given}
        yield "--daemon"
        yield from self._common()
        yield f"--cache-dir={self.cache_directory}"
        # Its own default is 022: everybody on this machine could read production's data.
        yield "--umask=077"
        if host.for_another:
            yield from (f"--uid={host.uid}", f"--gid={host.gid}", "--allow-other", "--default-permissions")
        elif self.lets_root_in:
            # Root is let in by allow-other alone; default-permissions keeps everybody else out, mount.fuse3(8).
            yield from ("--allow-other", "--default-permissions")
        yield from (f"--{flag}" for flag in FLAGS if flag.partition("=")[0] not in names)
        yield from (f"--{option}" for option in given)
        if host.rclone >= FIRST_WITH_HANDLE_CACHING:
            yield "--vfs-handle-caching=0"
        yield "--read-only"


def servers(target: str) -> Tuple[int, ...]:
    """Return the pids of the rclone processes that serve a mount point, from /proc; ours and, for root, everybody's."""
    return running(lambda arguments: serves(arguments, target))


def serves(arguments: Tuple[str, ...], target: str) -> bool:
    """Tell whether a command line is that of an rclone which serves a mount point."""
    return (
        len(arguments) > 2
        and os.path.basename(arguments[0]) == "rclone"
        and arguments[1] in ("mount", "mount2")
        and arguments[-1] == target
    )
