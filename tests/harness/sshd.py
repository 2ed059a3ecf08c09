"""A real sshd on a free loopback port, which tells every write request that it gets.

The sftp-server and rsync that its sessions start, by whatever path, are wrappers that keep a log and run the
real ones: the sshd has its own mount namespace, in which they are mounted over the programs.  To its clients it is
a stock sshd.  An ``internal-sftp`` can't be logged that way: there the tree's snapshot is the check.
"""

from __future__ import annotations

import re
import secrets
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import List, Optional, Set

from harness import needs, processes, production
from harness.polling import until

SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
)

WRITE_REQUEST = re.compile(
    r'open ".*" flags (?!READ mode)'
    r"|(remove|rmdir|mkdir) name |(rename|posix-rename|symlink|hardlink) old "
    r'|set ".*" (size|mode|modtime|owner) |fsync '
    r"|Refusing .* request in read-only mode"
    r"|rsync (?=.*--server)(?!.*--sender)"
)

# A read-only sftp-server says this once of each extension that it does not announce: nobody asked for it.
BEGINNING = re.compile(r"received client version ")
NOT_ANNOUNCED = re.compile(r"Refusing (posix-rename|hardlink|fsync|lsetstat|copy-data) request in read-only mode$")

# Lets go of the unions of all tests, whose daemons would live as long as this copy of their mounts; then mounts the
# pairs of a wrapper and what it is mounted over that come before "--".
LAUNCH = r"""
awk '/\/cowstorage-tests-/ && / - (fuse|overlay)/ { gsub(/\\040/, " ", $5); gsub(/\\134/, "\\\\", $5); print $5 }' \
    /proc/self/mountinfo | tac | while IFS= read -r point; do umount -c -l -- "$point" || true; done
while [ "$1" != -- ]; do mount --bind -- "$1" "$2"; shift 2; done
shift
exec "$@"
"""


class Sshd:
    """An sshd for production's user, with its own keys, in its own directory.

    :param directory: made if missing; must be one that every user can look into.
    :param forced: a command that replaces whatever the client asks for, such as ``internal-sftp -R``.
    :param log_level: sftp-server's; ``VERBOSE`` has every opening and change, ``DEBUG3`` every request.
    :param passwords: lets those in, too, who have no key but know ``accounts.password``.
    :param sessions: how many a connection may have, sshd_config(5), MaxSessions; ``None``: as many as by default.
    """

    def __init__(
        self,
        directory: Path,
        forced: Optional[str] = None,
        log_level: str = "VERBOSE",
        passwords: bool = False,
        sessions: Optional[int] = None,
    ):
        needs.root()
        self.program = needs.program("sshd", "openssh-server")
        self.directory = directory
        self.forced = forced
        self.log_level = log_level
        self.passwords = passwords
        self.sessions = sessions
        self.account = production.account()
        self.port = 0
        # Unlike 127.0.0.1 it is this sshd's alone in every user's ssh configuration.
        self.host = f"production-{secrets.token_hex(4)}"
        self.log = directory / "sshd.log"
        self.requests_directory = directory / "requests"
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._prepare()

    # Its life

    def start(self) -> Sshd:
        """Serve; at the same port as before, if it was started before."""
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for _ in range(5):
            port = self.port or free_port()
            self._write_configuration(port)
            if self._launched(port):
                self.port = port
                return self
        raise AssertionError(f"sshd did not start:\n{self.log.read_text(errors='replace')}")

    def stop(self) -> None:
        """End it and its sessions, in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to it and its sessions; the clients see their connections closed."""
        self._end(signal.SIGKILL)

    def drop_sessions(self) -> None:
        """SIGKILL to its sessions only: clients are cut off and can connect again at once."""
        processes.end(processes.descendants(self._running().pid))

    def hang(self) -> None:
        """SIGSTOP to it and its sessions: connections stay, and nothing answers."""
        processes.stop(self._running().pid)

    def resume(self) -> None:
        """Undo ``hang``."""
        processes.resume(self._running().pid)

    # Who may come in

    def authorize(self, public_key: str, options: str = "") -> None:
        """Let a key in; ``options`` as in authorized_keys, such as ``restrict,command="rrsync -ro /srv"``."""
        with self._authorized_keys.open("a", encoding="utf-8") as file:
            file.write(f"{options} {public_key}".strip() + "\n")

    def revoke_all(self) -> None:
        """Let nobody in any more."""
        self._authorized_keys.write_text("")

    def change_host_key(self) -> None:
        """A new identity, as after the server was set up anew; sessions that are open stay."""
        self._make_host_key()
        if self._process is not None:
            self.stop()
            self.start()

    def known_hosts_line(self) -> str:
        """What a client that trusts this host has in its known_hosts."""
        kind, key = (self.directory / "host_key.pub").read_text(encoding="utf-8").split()[:2]
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"

    def remote(self, path: Path | str) -> str:
        """``path`` as the option ``remote`` names it; ``Developer.trust`` makes the host known to ssh."""
        return f"{self.host}:{path}"

    def logins(self) -> int:
        """How often somebody was let in since it was started."""
        # One that is asked whether it would be accepted, and its signature, have lines of their own.
        return len(re.findall(r"^Accepted \w+ for ", self.log.read_text(errors="replace"), re.MULTILINE))

    # What was asked of it

    def requests(self) -> List[str]:
        """The log of its sftp-servers, and one line ``rsync ARGUMENTS`` for each rsync that it started."""
        logs = sorted(self.requests_directory.iterdir())
        return [line for log in logs for line in asked(log.read_text(encoding="utf-8", errors="replace").splitlines())]

    def write_requests(self) -> List[str]:
        """Those that would change production, granted or refused."""
        return [line for line in self.requests() if WRITE_REQUEST.match(line)]

    def assert_no_write_requests(self) -> None:
        """Fail with the requests if there were any."""
        written = self.write_requests()
        if written:
            raise AssertionError("sshd was asked to write:\n    " + "\n    ".join(written))

    def forget_requests(self) -> None:
        """Begin to count anew, as after a write that the test made itself."""
        for log in self.requests_directory.iterdir():
            log.write_text("")

    # Inside

    def _prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        self._authorized_keys = self.directory / "authorized_keys"
        self._authorized_keys.touch()
        self._authorized_keys.chmod(0o644)
        self.requests_directory.mkdir(exist_ok=True)
        self.requests_directory.chmod(0o1777)
        self._make_host_key()
        self._sftp_server = next((path for path in SFTP_SERVERS if Path(path).exists()), "")
        if not self._sftp_server:
            needs.program("sftp-server", "openssh-sftp-server")
        self._over = {
            self._wrapper(self._sftp_server, f'exec "$real" "$@" -e -l {self.log_level} 2>>"$log"'): self._sftp_server
        }
        rsync = shutil.which("rsync", path=needs.ADMIN_PATH)
        if rsync:
            self._over[self._wrapper(rsync, 'echo "rsync $*" >>"$log"; exec "$real" "$@"')] = rsync

    def _wrapper(self, program: str, does: str) -> Path:
        """A script for the place of ``program``, which is copied here, since it can't be seen there any more."""
        name = Path(program).name
        real = self.directory / f"{name}.real"
        shutil.copy(program, real)
        wrapper = self.directory / name
        log = f"'{self.requests_directory}'/$(date +%s.%N).$$"
        wrapper.write_text(f"#!/bin/sh\nreal='{real}'\nlog={log}\n{does}\n", encoding="utf-8")
        wrapper.chmod(0o755)
        return wrapper

    def _make_host_key(self) -> None:
        key = self.directory / "host_key"
        for file in (key, key.with_suffix(".pub")):
            if file.exists():
                file.unlink()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)

    def _write_configuration(self, port: int) -> None:
        lines = [
            f"Port {port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.directory}/host_key",
            f"PidFile {self.directory}/sshd.pid",
            f"AuthorizedKeysFile {self._authorized_keys}",
            f"AllowUsers {self.account.pw_name}",
            "StrictModes no",
            "UsePAM no",
            f"PasswordAuthentication {'yes' if self.passwords else 'no'}",
            "KbdInteractiveAuthentication no",
            "MaxStartups 200",
            "LogLevel VERBOSE",
            f"Subsystem sftp {self._sftp_server}",
        ]
        # OpenSSH 9.8 and later keep clients out for a while that failed to log in.
        if self._knows("PerSourcePenalties=no"):
            lines.append("PerSourcePenalties no")
        if self.sessions is not None:
            lines.append(f"MaxSessions {self.sessions}")
        if self.forced:
            lines.append(f"ForceCommand {self.forced}")
        (self.directory / "sshd_config").write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _knows(self, option: str) -> bool:
        command = [self.program, "-t", "-f", "/dev/null", "-h", str(self.directory / "host_key"), "-o", option]
        return subprocess.run(command, capture_output=True).returncode == 0

    def _launched(self, port: int) -> bool:
        """Start it; False if somebody else has taken the port."""
        bound = [str(path) for pair in self._over.items() for path in pair]
        sshd = [self.program, "-D", "-f", str(self.directory / "sshd_config"), "-E", str(self.log)]
        command = ["unshare", "--mount", "sh", "-ec", LAUNCH, "sh", *bound, "--", *sshd]
        self.log.write_text("")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        processes.record(self.directory, self._process.pid)
        process = self._process
        until(lambda: process.poll() is not None or _answers(port), f"sshd serves port {port}")
        return process.poll() is None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise AssertionError("This sshd is not running")
        return self._process

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        sessions = processes.descendants(self._process.pid)
        self._process.send_signal(number)
        self._process.send_signal(signal.SIGCONT)
        self._process.wait(10)
        processes.end(sessions)
        self._process = None


def asked(session: List[str]) -> List[str]:
    """The lines of one session's log, without what a read-only sftp-server says by itself at the beginning."""
    result: List[str] = []
    beginning: Set[str] = set()
    for line in session:
        if BEGINNING.match(line):
            beginning = {line}
        elif beginning and NOT_ANNOUNCED.match(line) and line not in beginning:
            beginning.add(line)
            continue
        else:
            beginning = set()
        result.append(line)
    return result


def free_port() -> int:
    """A port of the loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
