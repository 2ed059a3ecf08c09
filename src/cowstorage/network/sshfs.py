"""Production over SFTP: sshfs(1)."""

from __future__ import annotations

import re
from typing import ClassVar, List, Mapping, Tuple

from cowstorage.errors import CommandFailed, CowStorageError, RemoteUnusable
from cowstorage.host import Host
from cowstorage.network import Attachment, DevelopersMount, mount_point, ssh_options
from cowstorage.rsync import Source
from cowstorage.settings import Settings
from cowstorage.system import Command, Runner, run_program

# A dead network gives an error after INTERVAL * (COUNT + 1) seconds, ssh_config(5).
ALIVE_INTERVAL = 5
ALIVE_COUNT = 2
CONNECT_SECONDS = 10
MOUNT_SECONDS = 60.0

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
    ("timed out", "no answer from the server. Look at your network, VPN or firewall."),
    ("No route to host", "no way to the server. Look at your network, VPN or firewall."),
    ("Network is unreachable", "no way to the server. Look at your network, VPN or firewall."),
)


def split_remote(remote: str) -> Tuple[str, str]:
    """``[user@]host`` and path of a remote; an IPv6 address keeps no brackets, as ssh wants it."""
    match = re.match(r"((?:[^@/:]+@)?)(?:\[([^\]]+)\]|([^@/:]+)):(.*)$", remote, re.DOTALL)
    if not match:
        raise RemoteUnusable(remote, "is no [user@]host:path.")
    return match.group(1) + (match.group(2) or match.group(3)), match.group(4)


def ssh_argv(settings: Settings, host: Host) -> Tuple[str, ...]:
    """ssh for sshfs and rsync alike: the user's options first, since ssh takes the first value it sees."""
    batch = () if host.interactive else ("-o", "BatchMode=yes")
    return (
        "ssh",
        *ssh_options(settings),
        *batch,
        "-o",
        f"ConnectTimeout={CONNECT_SECONDS}",
        "-o",
        f"ServerAliveInterval={ALIVE_INTERVAL}",
        "-o",
        f"ServerAliveCountMax={ALIVE_COUNT}",
    )


def fuse_option(name: str, value: str) -> str:
    """``name=value`` for ``-o``: libfuse ends an option at a comma and takes a backslash as escape."""
    escaped = value.replace("\\", "\\\\").replace(",", "\\,")
    return f"{name}={escaped}"


def ssh_command_option(argv: Tuple[str, ...]) -> str:
    """sshfs splits ``ssh_command`` at spaces and knows no quotes: env(1), of coreutils 8.30 and later, knows them."""
    command = " ".join(argv)
    if any(" " in argument for argument in argv):
        command = "env -S" + r"\_".join(map(_quoted_for_env, argv))
    return fuse_option("ssh_command", command)


def _quoted_for_env(argument: str) -> str:
    escaped = re.sub(r'([\\"$])', r"\\\1", argument)
    return '"' + escaped.replace(" ", r"\_").replace("\t", r"\t") + '"'


class SSHFS(DevelopersMount):
    """sshfs, mounted by the developer, never by sudo: the keys and the agent are theirs.

    No ``reconnect``: with it a connection lost in the middle of a read may look like the end of the file
    (one time in sixteen, measured), and a BLOB that is silently cut short is worse than an error.
    """

    name = "sshfs"
    types = ("fuse.sshfs",)
    programs = ("sshfs", "fusermount3", "ssh")
    passed_over: ClassVar[Mapping[str, str]] = {
        "fuse-overlayfs": "too slow over sshfs: it lists every directory on the way, 756 requests for the first read "
        "of a BLOB against 13. Set union = fuse-overlayfs to use it all the same"
    }

    def attachments(self, settings: Settings, host: Host) -> Tuple[Attachment, ...]:
        first = self._argv(settings, host, read_only_server=True)
        plain = self._argv(settings, host, read_only_server=False)
        own_server = any(option.startswith("sftp_server") for option in settings.mount_options)
        command = Command(plain, limit=MOUNT_SECONDS)
        if not own_server:
            command = Command(first, limit=MOUNT_SECONDS, fallback=plain)
        return (Attachment(settings.mount_point, (mount_point(settings), command)),)

    def _argv(self, settings: Settings, host: Host, read_only_server: bool) -> Tuple[str, ...]:
        options: List[str] = [
            ssh_command_option(ssh_argv(settings, host)),
            f"uid={host.uid}",
            f"gid={host.gid}",
            # Production's symbolic links are followed there: an absolute one would lead astray here.
            "follow_symlinks",
            # What was read stays in memory as long as size and time of the file do: the second run of an upgrade that
            # reads 60 BLOBs at a round trip of 40 ms takes 4.2 s instead of 9.0 s, and moves 0.05 MB instead of 7.7.
            # Measured beside it, without a further gain: kernel_cache, max_conns=4.
            "auto_cache",
            # The ways to BLOB files stay known for an hour instead of 20 seconds, at about 1 kB of sshfs's memory each:
            # the second of two such runs takes 10 s instead of 30 s at 100 ms. A file is asked for when it is opened.
            "dcache_timeout=3600",
            "nosuid",
            "nodev",
        ]
        if host.euid == 0 and host.uid != 0:
            options += ["allow_other", "default_permissions"]
        elif host.euid != 0 and host.sudo and host.user_allow_other and settings.union in ("auto", "overlay"):
            options.append("allow_root")
        if read_only_server:
            options.append(fuse_option("sftp_server", READ_ONLY_SERVER))
        options += [*settings.mount_options, "ro"]
        # An empty path is the home directory; sshfs takes any other relative one from there, too.
        return ("sshfs", "-o", ",".join(options), settings.remote, settings.mount_point)

    def source(self, settings: Settings, host: Host, name: str) -> Source:
        base = settings.rsync_remote or settings.remote
        separator = "" if base.endswith((":", "/")) else "/"
        return Source(f"{base}{separator}{settings.remote_file_storage}/{name}", remote=True)

    def remote_shell(self, settings: Settings, host: Host) -> Tuple[str, ...]:
        return ssh_argv(settings, host)

    def explain(self, settings: Settings, host: Host, runner: Runner, error: CommandFailed) -> CowStorageError:
        """Asks ssh itself, since sshfs keeps ssh's words to itself; nobody is asked for a password once more."""
        login, path = split_remote(settings.remote)
        if "No such file or directory" in error.output:
            return RemoteUnusable(settings.remote, f"there is no directory {path} on the server.")
        if "Permission denied" in error.output:
            return RemoteUnusable(settings.remote, f"{login} may not look into {path} on the server.")
        alone = host._replace(interactive=False)
        try:
            run_program((*ssh_argv(settings, alone), "-s", "--", login, "sftp"), limit=2 * CONNECT_SECONDS, stdin="")
        except CommandFailed as reason:
            return diagnose(settings.remote, login, reason, host)
        return RemoteUnusable(settings.remote, f"sshfs failed though ssh can log in.\n{error}")


def diagnose(remote: str, login: str, error: CommandFailed, host: Host) -> RemoteUnusable:
    """What ssh's words mean."""
    for words, meaning in DIAGNOSES:
        if words in error.output:
            server = login.rpartition("@")[2]
            tail = error.output.strip().splitlines()[-1]
            said = meaning.format(host=server, login=login, whose=whose_keys(host, error.output))
            return RemoteUnusable(remote, f"{said}\n    {tail}")
    return RemoteUnusable(remote, f"ssh failed.\n{error}")


def whose_keys(host: Host, output: str) -> str:
    """What may be the reason for a rejection, beside a wrong key."""
    if host.euid == 0 and host.uid != 0:
        return (
            " as root: root's own keys are used, since root runs this. Run it without sudo, which it uses by itself "
            "where it needs to; or keep your agent: sudo --preserve-env=SSH_AUTH_SOCK"
        )
    if not host.interactive and any(way in output for way in ("password", "keyboard-interactive")):
        return ". There is no terminal to ask for a password on: use a key, or an agent, or run it on a terminal"
    return ""
