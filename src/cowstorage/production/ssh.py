"""ssh: its command line, and the connection that all ssh processes of a part share, so that one of them logs in.

The first ssh that needs the connection logs in and leaves it to an ssh in the background, the master; all others have
sessions of it, ssh_config(5), ControlMaster.  Where a session is refused ssh logs in as ever: sshd_config(5),
MaxSessions.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from functools import cached_property
from typing import Iterator, Optional, Tuple

from cowstorage.errors import CowStorageError
from cowstorage.part.host import Host
from cowstorage.part.settings import Settings
from cowstorage.system.processes import run_program
from cowstorage.system.programs import Command

# User with its @, address without brackets or name, path.
REMOTE_PARTS = r"((?:[^@/:]+@)?)(?:\[([^\]]+)\]|([^@/:]+)):(.*)"

# Flags of ssh that name a file, ssh(1).
SSH_FILES = ("-F", "-i")

# A dead network gives an error after INTERVAL * (COUNT + 1) seconds, ssh_config(5).
ALIVE_INTERVAL = 5

ALIVE_COUNT = 2

CONNECT_SECONDS = 10

# How long the master waits for the next session: from the end of an sshfs to the beginning of the next one.
PERSIST_SECONDS = 5

# For a question to the master, which answers without the server.
MASTER_SECONDS = 3.0

# A path that ssh expands nothing in, and that an option needs no quotes for.
PLAIN_PATH = r"/[A-Za-z0-9_./+-]*"

# Bytes of a socket's path, unix(7), and what mux.c appends to the path at first: a dot and 16 letters.
SOCKET_PATH = 107
BOUND_FIRST = 17

# For a part whose path is too long, or is not plain.
ELSEWHERE = "/tmp"

# The bits of a mode by which group and others write.
OTHERS_WRITE = 0o022


class Ssh:
    """ssh to one login of a part's.

    :param login: ``[user@]host``; ``None``: not known, and the connection is not shared.
    """

    def __init__(self, settings: Settings, host: Host, login: Optional[str]):
        self._settings = settings
        self._host = host
        self._login = login

    def command(self, interactive: bool, shared: bool = True) -> Tuple[str, ...]:
        """Return ssh's argv without the login: the user's options first, since ssh takes the first it sees.

        :param interactive: whether there is a terminal to ask for a password on.
        :param shared: whether the connection of others may be used.  Not pure then: asks ssh for its configuration.
        """
        options = [] if interactive else ["BatchMode=yes"]
        options += [
            f"ConnectTimeout={CONNECT_SECONDS}",
            f"ServerAliveInterval={ALIVE_INTERVAL}",
            f"ServerAliveCountMax={ALIVE_COUNT}",
        ]
        flags = tuple(word for option in options for word in ("-o", option))
        return ("ssh", *ssh_options(self._settings), *flags, *(self._sharing if shared else ()))

    def in_background(self, interactive: bool) -> Tuple[str, ...]:
        """Return what ``command`` does for a session that outlives our terminal.

        One of a shared connection ends with the terminal otherwise, though SIGHUP is ignored.
        """
        apart = ("setsid",) if self._sharing else ()
        return (*apart, *self.command(interactive))

    def connect(self, interactive: bool, limit: float) -> Tuple[Command, ...]:
        """Return the command that logs in, where that is not done yet and the connection can be shared.

        :param limit: seconds.
        """
        if not self._sharing or self._is_connected:
            return ()
        return (Command((*self.command(interactive), "-f", "-N", "--", self._login or ""), limit=limit),)

    @cached_property
    def configuration(self) -> str:
        """What ssh reads of the user's configuration, a line an option, ssh(1), -G; empty where ssh fails."""
        return self._configured()

    def _configured(self, *more: str) -> str:
        """Return what ssh's configuration is with more options."""
        if self._login is None:
            return ""
        try:
            argv = ("ssh", "-G", *ssh_options(self._settings), *more, "--", self._login)
            return run_program(argv, limit=CONNECT_SECONDS)
        except CowStorageError:
            return ""

    @cached_property
    def _sharing(self) -> Tuple[str, ...]:
        """The options that share the connection; ``()`` where it can't be shared, or the user shares one already."""
        path = self._socket
        # Root's keys are not for the developer, whose location is.
        if self._host.for_another or not shares_nothing(self.configuration) or not takes_sockets(path):
            return ()
        options = ("ControlMaster=auto", f"ControlPath={path}", f"ControlPersist={PERSIST_SECONDS}")
        flags = tuple(word for option in options for word in ("-o", option))
        # An option of the part's may come before them, such as -S none.
        if f"controlpath {path}" not in self._configured(*flags).splitlines():
            return ()
        if not self._is_connected:
            # A master that doesn't answer would be waited for; one that is dead is replaced by ssh.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        return flags

    @cached_property
    def _is_connected(self) -> bool:
        return os.path.exists(self._socket) and self._ask(self._socket, "check") is not None

    def disconnect(self) -> None:
        """End the master, and with it all sessions; can be done again."""
        if not self._host.for_another and os.path.exists(self._socket):
            self._ask(self._socket, "exit")

    @property
    def _socket(self) -> str:
        return socket_path(self._settings, self._login or "", os.geteuid())

    def _ask(self, path: str, what: str) -> Optional[str]:
        """Return what the master says, ssh(1), -O; ``None`` where there is none, or it doesn't answer."""
        control = ("-F", "none", "-o", f"ControlPath={path}", "-O", what)
        try:
            return run_program(("ssh", *control, "--", self._login or ""), limit=MASTER_SECONDS)
        except CowStorageError:
            return None


def shares_nothing(configuration: str) -> bool:
    """Tell whether the user's configuration has no connection that is shared, by what ``ssh -G`` prints."""
    lines = configuration.splitlines()
    return "controlmaster false" in lines and not any(line.startswith("controlpath ") for line in lines)


def socket_path(settings: Settings, login: str, uid: int) -> str:
    """Return the path of the master's socket, one for each login and options of a part.

    Who can connect to it is logged in: it lies in a directory of the user's own.

    :param uid: whose ssh it is.
    """
    options = "\0".join((login, *ssh_options(settings)))
    path = os.path.join(settings.location, f"ssh-{_digest(options)}")
    if re.fullmatch(PLAIN_PATH, path) and fits(path):
        return path
    return os.path.join(ELSEWHERE, f"cowstorage-{uid}", f"ssh-{_digest(settings.location, options)}")


def fits(path: str) -> bool:
    """Tell whether a socket of ssh's can have a path, by its length."""
    return len(os.fsencode(path)) + BOUND_FIRST <= SOCKET_PATH


def _digest(*texts: str) -> str:
    import hashlib  # start-up

    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogateescape")).hexdigest()[:12]


def takes_sockets(path: str) -> bool:
    """Tell whether the directory of a path is the user's own, and on a file system that has sockets.

    Not pure: a directory in ``ELSEWHERE`` is made.
    """
    import socket  # start-up

    directory, tried = os.path.dirname(path), f"{path}.{os.getpid():016d}"
    try:
        if os.path.dirname(directory) == ELSEWHERE:
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o700)
        status = os.lstat(directory)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & OTHERS_WRITE:
            return False
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(tried)
        os.unlink(tried)
    except OSError:
        return False
    return True


def split_remote(remote: str) -> Optional[Tuple[str, str]]:
    """Return ``[user@]host`` and path of a remote; an IPv6 address loses its brackets, as ssh wants it.

    ``None`` for a remote of another form.
    """
    match = re.fullmatch(REMOTE_PARTS, remote, re.DOTALL)
    return (match.group(1) + (match.group(2) or match.group(3)), match.group(4)) if match else None


def login_of(remote: str) -> Optional[str]:
    """Return whom rsync logs in as by ssh, ``[user@]host``; ``None`` where it asks an rsync daemon, rsync(1)."""
    login, path = split_remote(remote) or ("", ":")
    return None if path.startswith((":", "//")) else login


def ssh_options(settings: Settings) -> Tuple[str, ...]:
    """Return the part's ``ssh-options``, with the files of ``-F`` and ``-i`` as absolute paths.

    sshfs starts ssh in ``/``, and there is no shell to know what ``~`` is: the files are taken as the part's other
    paths are.
    """
    return tuple(_with_files_placed(settings.ssh_options, settings.directory))


def _with_files_placed(options: Tuple[str, ...], directory: str) -> Iterator[str]:
    flag = ""
    for option in options:
        joined = option[:2] if not flag and option[:2] in SSH_FILES else ""
        path = option[len(joined) :]
        if (flag or joined) and path and not path.startswith("%") and (flag or joined, path) != ("-F", "none"):
            path = os.path.join(directory, os.path.expanduser(path))
        yield joined + path
        flag = joined if not path else ""
