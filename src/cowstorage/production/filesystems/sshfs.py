"""Production over SFTP: sshfs(1)."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, List, Tuple

from cowstorage.errors import CommandFailed, CowStorageError, RemoteUnusable, SettingsError
from cowstorage.part.host import Host
from cowstorage.production.filesystems.base import (
    NO_ANSWER,
    NO_WAY,
    SSH_REMOTE,
    DevelopersMount,
    ProductionMount,
    diagnosed,
    is_this_machine,
    mount_point,
    overridden,
    production_directories,
)
from cowstorage.production.ssh import CONNECT_SECONDS, Ssh, login_of, split_remote
from cowstorage.system.processes import run_program, running, wait_for_end
from cowstorage.system.programs import Command

if TYPE_CHECKING:
    from cowstorage.production.rsync import Source

MOUNT_SECONDS = 60.0

# What the user may have run on the server, by its shell.
SFTP_SERVER = r"sftp_server=[A-Za-z0-9_./~+-]+"

# A mount option of the user's by which names or sizes of earlier may be shown, sshfs(1), fuse(8).
CACHE_OPTION = "cache|timeout"

# What sshfs takes to end after its unmounting; it ended within 0.1 seconds when measured.
END_SECONDS = 3.0

# Bytes of addresses, of sshfs and of its ssh.  sshfs 3.7.3 takes 0.23 GB at first, and 0.9 GB when 25 readers have read
# 500 MB after 200,000 names were listed.  A directory without end filled 350 MB a second, and went on when unmounted.
MEMORY = 4_000_000_000

# sftp-server's read-only mode; distributions keep it in different places and the remote shell looks it up.
READ_ONLY_SERVER = (
    "PATH=/usr/lib/openssh:/usr/libexec/openssh:/usr/lib/ssh:/usr/lib/misc:/usr/libexec:$PATH exec sftp-server -R"
)

DIAGNOSES = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the server's host key has changed. If the server was replaced on "
        "purpose, run ssh-keygen -R {host} and log in once with ssh; else somebody may be listening.",
    ),
    ("Host key verification failed", "the server's host key is not known yet. Log in once with ssh to accept it."),
    ("Could not resolve hostname", "there is no host of that name. Look at remote in the part, or at your network."),
    ("Permission denied", "the server rejected the key or password. Try: ssh {login}{whose}"),
    ("Connection refused", "nothing listens there. Look at the port (ssh-options = -p …) and at the server."),
    ("timed out", NO_ANSWER),
    ("No route to host", NO_WAY),
    ("Network is unreachable", NO_WAY),
)


class SSHFS(DevelopersMount):
    """sshfs, mounted by the developer, never by sudo: the keys and the agent are the developer's.

    No ``reconnect``: with it a connection lost in the middle of a read may look like the end of the file
    (one time in sixteen, measured), and a BLOB that is silently cut short is worse than an error.
    """

    name = "sshfs"
    types = ("fuse.sshfs",)
    programs: ClassVar = {"sshfs": "sshfs", "fusermount3": "fuse3", "ssh": "openssh-client"}
    daemons = ("sshfs",)
    shows_links = False
    shows_removed = True
    reads_little = True
    passed_over: ClassVar = {
        "fuse-overlayfs": "slow over sshfs, since it lists every directory on the way to a BLOB that is read for the "
        "first time"
    }

    @classmethod
    def check_remote(cls, remote: str) -> None:
        if remote.startswith("/") or not re.match(SSH_REMOTE, remote):
            raise SettingsError("remote", f"{remote!r} is no [user@]host:path, which filesystem = sshfs needs.")
        if remote.split("@", 1)[-1].startswith("-"):
            raise SettingsError(
                "remote", f"the host of {remote!r} starts with a dash and would be taken for an option."
            )

    @classmethod
    def check_options(cls, options: Tuple[str, ...], filesystem: str) -> None:
        super().check_options(options, filesystem)
        for option in options:
            # libfuse takes a backslash away, and what it reads is another option: s\uid is suid.
            if "\\" in option:
                raise SettingsError("mount-options", f"{option} has a backslash in it. Write it without.")
            if option.partition("=")[0] == "ssh_command":
                raise SettingsError("mount-options", "ssh_command would run another program. Use ssh-options.")
            if option.startswith("sftp_server") and not re.fullmatch(SFTP_SERVER, option):
                raise SettingsError(
                    "mount-options",
                    f"{option}: the server's shell would run it. Write the path of its sftp-server, and nothing else.",
                )

    @property
    def caches_attributes(self) -> bool:
        return any(re.search(CACHE_OPTION, option) for option in self.settings.mount_options)

    @property
    def keeps_blobs(self) -> bool:
        return self.settings.read_through

    @property
    def targets(self) -> Tuple[str, ...]:
        return (self.settings.mount_point,)

    def mounts(self) -> Tuple[ProductionMount, ...]:
        settings = self.settings
        plain = self._argv(read_only_server=False)
        as_root = self.host.for_another
        command = Command(plain, root=as_root, limit=MOUNT_SECONDS, memory=MEMORY)
        if not any(option.startswith("sftp_server") for option in settings.mount_options):
            command = command._replace(argv=self._argv(read_only_server=True), fallback=plain)
        connect = self._ssh.connect(self.host.interactive, MOUNT_SECONDS)
        return (ProductionMount(settings.mount_point, (mount_point(settings.mount_point), *connect, command)),)

    def _argv(self, read_only_server: bool) -> Tuple[str, ...]:
        settings, host = self.settings, self.host
        options: List[str] = [
            ssh_command_option(self._ssh_command()),
            f"uid={host.uid}",
            f"gid={host.gid}",
            # Production's symbolic links are followed there: an absolute one would lead astray here.
            "follow_symlinks",
            # What was read stays in memory as long as size and time of the file do: the second run of an upgrade that
            # reads 60 BLOBs at a round trip of 40 ms takes 4.2 s instead of 9.0 s, and moves 0.05 MB instead of 7.7.
            # Measured beside it, without a further gain: kernel_cache, max_conns=4.
            "auto_cache",
            # The ways to BLOB files stay known for an hour instead of 20 seconds, at about 1 kB of sshfs's memory each:
            # the second of two such runs takes 10 s instead of 30 s at 100 ms. A file is asked for when it is opened,
            # and what is not there is asked for each time.
            "dcache_stat_timeout=3600",
            "dcache_link_timeout=3600",
            # Whoever lists production's filestorage sees what is there now: cow-sync does, and needs no new mount.
            "dcache_dir_timeout=0",
        ]
        if host.for_another:
            options += ["allow_other", "default_permissions"]
        elif self.lets_root_in:
            options.append("allow_root")
        if read_only_server:
            options.append(fuse_option("sftp_server", READ_ONLY_SERVER))
        options += overridden(("nosuid", "nodev"), settings.mount_options)
        # An empty path is the home directory; sshfs takes any other relative one from there, too.
        return ("sshfs", "-o", ",".join(options), settings.remote, settings.mount_point)

    def _ssh_command(self) -> Tuple[str, ...]:
        """Return what sshfs runs to be connected: ssh, or the wire, which runs ssh."""
        ssh = self._ssh.in_background(self.host.interactive)
        if not self.settings.read_through:
            return ssh
        from cowstorage.production.wire.command import wire  # start-up

        return wire(self.settings, self.host, self._path, ssh)

    def source(self, relative: str) -> Source:
        from cowstorage.production.rsync import Source  # start-up

        if self.host.for_another:
            # The keys are root's, and the files that rsync writes are the developer's: it reads through root's mount.
            return Source(os.path.join(self.root, relative), remote=False)
        base = self.settings.rsync_remote or self.settings.remote
        separator = "" if base.endswith((":", "/")) else "/"
        return Source(f"{base}{separator}{relative}", remote=True)

    def local_directories(self) -> Tuple[str, ...]:
        """Return production's storage directories where the host is this one; asks ssh what its configuration says."""
        host = re.search(r"^hostname (\S+)$", self._ssh.configuration, re.MULTILINE)
        if not host or not is_this_machine(host.group(1)):
            return ()
        # A relative path begins at the home of whoever logs in, who may be another user: the developer's is compared.
        return production_directories(self.settings, os.path.join(os.path.expanduser("~"), self._path))

    def remote_shell(self) -> Tuple[str, ...]:
        """Return ssh's argv for rsync; not pure: asks ssh for its configuration."""
        return self._rsyncs_ssh.command(self.host.interactive)

    @cached_property
    def _ssh(self) -> Ssh:
        """ssh for sshfs."""
        return Ssh(self.settings, self.host, self._login)

    @cached_property
    def _rsyncs_ssh(self) -> Ssh:
        """ssh for rsync: the same, unless ``rsync-remote`` names another login."""
        login = login_of(self.settings.rsync_remote or self.settings.remote)
        return self._ssh if login == self._login else Ssh(self.settings, self.host, login)

    @property
    def _login(self) -> str:
        """``[user@]host``."""
        return self._remote_parts[0]

    @property
    def _path(self) -> str:
        """What follows the colon in ``remote``."""
        return self._remote_parts[1]

    @property
    def _remote_parts(self) -> Tuple[str, str]:
        parts = split_remote(self.settings.remote)
        if parts is None:
            raise RemoteUnusable(self.settings.remote, "is no [user@]host:path.")
        return parts

    def disconnect(self) -> None:
        """End the connection that sshfs and rsync share."""
        for ssh in {self._ssh, self._rsyncs_ssh}:
            ssh.disconnect()

    def abandon(self) -> None:
        """Kill an sshfs that does not end by itself; SIGTERM is not enough while it reads a directory without end."""
        target = self.settings.mount_point
        wait_for_end(lambda: servers(target), END_SECONDS)
        for pid in servers(target):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.disconnect()

    def explain(self, error: CommandFailed) -> CowStorageError:
        """Return what a failed mount means; asks ssh itself where sshfs failed, since that does not show ssh's words.

        Nobody is asked for a password once more.
        """
        remote = self.settings.remote
        login, path = self._remote_parts
        by_ssh = error.command.startswith("ssh ")
        # What a jump host has said was not shown: the connection outlives it.
        if by_ssh and any(words in error.output for words, _ in DIAGNOSES):
            return self._diagnosed(error)
        if not by_ssh and "No such file or directory" in error.output:
            return RemoteUnusable(remote, f"there is no directory {path} on the server.")
        if not by_ssh and "Permission denied" in error.output:
            return RemoteUnusable(remote, f"{login} may not look into {path} on the server.")
        try:
            run_program(
                (*self._ssh.command(interactive=False, shared=False), "-s", "--", login, "sftp"),
                limit=2 * CONNECT_SECONDS,
                stdin="",
                root=True,
            )
        except CommandFailed as reason:
            return self._diagnosed(reason)
        return RemoteUnusable(remote, f"sshfs failed though ssh can log in.\n{error}")

    def _diagnosed(self, reason: CommandFailed) -> RemoteUnusable:
        """Return what ssh's words mean."""
        login, whose = self._login, whose_keys(self.host, reason.output)
        names = {"host": login.rpartition("@")[2], "login": login, "whose": whose}
        return diagnosed(self.settings.remote, DIAGNOSES, reason, otherwise="ssh failed.\n{error}", **names)


def servers(target: str) -> Tuple[int, ...]:
    """Return the pids of the sshfs processes that serve a mount point."""
    return running(
        lambda arguments: len(arguments) > 2 and os.path.basename(arguments[0]) == "sshfs" and arguments[-1] == target
    )


def fuse_option(name: str, value: str) -> str:
    """Return ``name=value`` for ``-o``: libfuse ends an option at a comma and takes a backslash as escape."""
    escaped = value.replace("\\", "\\\\").replace(",", "\\,")
    return f"{name}={escaped}"


def ssh_command_option(argv: Tuple[str, ...]) -> str:
    """Return sshfs's option ``ssh_command``.

    sshfs splits it at spaces and knows no quotes: env(1), of coreutils 8.30 and later, knows them.
    """
    command = " ".join(argv)
    if any(" " in argument for argument in argv):
        command = "env -S" + r"\_".join(map(_quoted_for_env, argv))
    return fuse_option("ssh_command", command)


def _quoted_for_env(argument: str) -> str:
    escaped = re.sub(r'([\\"$])', r"\\\1", argument)
    return '"' + escaped.replace(" ", r"\_").replace("\t", r"\t") + '"'


def whose_keys(host: Host, output: str) -> str:
    """Return what may be the reason for a rejection, beside a wrong key; text to be appended to a message."""
    if host.for_another:
        return (
            " as root: root's own keys are used, since root runs this. Run it without sudo, which it uses by itself "
            "where it needs to; or keep your agent: sudo --preserve-env=SSH_AUTH_SOCK"
        )
    if not host.interactive and any(way in output for way in ("password", "keyboard-interactive")):
        return ". There is no terminal to ask for a password on: use a key, or an agent, or run it on a terminal"
    return ""
