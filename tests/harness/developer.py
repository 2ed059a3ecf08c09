"""The people who use cowstorage: one with sudo, one without, and root."""

from __future__ import annotations

import contextlib
import os
import pty
import pwd
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from harness import accounts, needs, processes
from harness.sshd import Sshd
from harness.workspace import Workspace

WITH_SUDO = "cowdev"
ASKED_BY_SUDO = "cowasked"
WITHOUT_SUDO = "cowalone"

# sudoers(5).
SUDOERS = "".join(
    f'Defaults:{name} env_keep += "{processes.MARKER}"\n{name} ALL=(ALL:ALL) {how}ALL\n'
    for name, how in ((WITH_SUDO, "NOPASSWD: "), (ASKED_BY_SUDO, ""))
)

USER_PATH = "/usr/local/bin:/usr/bin:/bin"


class Result(NamedTuple):
    """What a program left; with a terminal everything is in ``stdout``."""

    returncode: int
    stdout: str
    stderr: str


class Developer:
    """Runs programs as one user, in the environment that a login would give.

    :param scratch: the test's directory; the user's ssh key and known_hosts are made in it, so that nobody's
        own are touched and tests can run at the same time.
    """

    def __init__(self, account: pwd.struct_passwd, workspace: Workspace, scratch: Path):
        self.name = account.pw_name
        self.uid = account.pw_uid
        self.gid = account.pw_gid
        self.home = Path(account.pw_dir)
        self.is_root = self.uid == 0
        self._workspace = workspace
        self._scratch = scratch
        self._ssh = scratch / f"ssh-{self.name}"
        self._started: List[subprocess.Popen[str]] = []

    @classmethod
    def with_sudo(cls, workspace: Workspace, scratch: Path) -> Developer:
        """``cowdev``, who may do everything by sudo, without a password."""
        account = accounts.ensure(WITH_SUDO)
        _allow_sudo(workspace)
        return cls(account, workspace, scratch)

    @classmethod
    def asked_by_sudo(cls, workspace: Workspace, scratch: Path) -> Developer:
        """``cowasked``, who may do everything by sudo, with a password; see ``accounts.password``."""
        account = accounts.ensure(ASKED_BY_SUDO)
        _allow_sudo(workspace)
        return cls(account, workspace, scratch)

    @classmethod
    def without_sudo(cls, workspace: Workspace, scratch: Path) -> Developer:
        """``cowalone``, whom sudo refuses."""
        return cls(accounts.ensure(WITHOUT_SUDO), workspace, scratch)

    @classmethod
    def root(cls, workspace: Workspace, scratch: Path) -> Developer:
        """The administrator."""
        needs.root()
        return cls(pwd.getpwuid(0), workspace, scratch)

    # ssh

    @property
    def key(self) -> Path:
        """The private ssh key, without a passphrase."""
        path = self._ssh / "id_ed25519"
        if not path.exists():
            self._ssh.mkdir(mode=0o700)
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(path)]
            subprocess.run(command, check=True)
            (self._ssh / "known_hosts").touch(0o600)
            for owned in (self._ssh, *self._ssh.iterdir()):
                os.chown(owned, self.uid, self.gid)
        return path

    @property
    def public_key(self) -> str:
        """For ``Sshd.authorize``."""
        return self.key.with_suffix(".pub").read_text(encoding="utf-8").strip()

    @property
    def known_hosts(self) -> Path:
        """The hosts that this user knows."""
        return self.key.with_name("known_hosts")

    def trust(self, sshd: Sshd) -> None:
        """Make the sshd's host name and its present host key known to this user's ssh."""
        with self.known_hosts.open("a", encoding="utf-8") as file:
            file.write(sshd.known_hosts_line())
        self.configure_ssh(sshd)

    def configure_ssh(self, sshd: Sshd) -> None:
        """Make the sshd's host name known to this user's ssh, but not its key."""
        lines = (
            f"Match originalhost {sshd.host} localuser {self.name}",
            "    HostName 127.0.0.1",
            f"    Port {sshd.port}",
            f"    User {sshd.account.pw_name}",
            f"    IdentityFile {self.key}",
            "    IdentitiesOnly yes",
            f"    UserKnownHostsFile {self.known_hosts}",
        )
        with self._workspace.ssh_config.open("a", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")

    # Programs

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        cwd: Optional[os.PathLike[str]] = None,
        input: Optional[str] = None,
        timeout: float = 60,
        env: Optional[Mapping[str, str]] = None,
        tty: bool = False,
        answers: Sequence[Tuple[str, str]] = (),
        check: bool = False,
    ) -> Result:
        """Run a program to its end.

        :param env: added to what a login gives.
        :param tty: give it a terminal of its own, on which ``answers`` are typed.
        :param answers: pairs: what to wait for in the output that is new since the last answer, and what to type.
        :param check: fail when the program does.
        :raises subprocess.TimeoutExpired: with what was printed so far; the program is killed.
        """
        if tty:
            result = self._run_on_terminal(argv, cwd, timeout, env, answers)
        else:
            process = self.popen(argv, cwd, env, stdin=subprocess.PIPE if input is not None else subprocess.DEVNULL)
            try:
                stdout, stderr = process.communicate(input, timeout)
            except subprocess.TimeoutExpired:
                self._kill(process)
                raise
            finally:
                self._started.remove(process)
            result = Result(process.returncode, stdout, stderr)
        if check and result.returncode != 0:
            command = " ".join(map(str, argv))
            raise AssertionError(f"{command}\nended with {result.returncode}:\n{result.stdout}{result.stderr}")
        return result

    def popen(
        self,
        argv: Sequence[str | os.PathLike[str]],
        cwd: Optional[os.PathLike[str]] = None,
        env: Optional[Mapping[str, str]] = None,
        **keywords: Any,
    ) -> subprocess.Popen[str]:
        """Start a program, as a session of its own; it is killed at the end of the test if it still runs."""
        streams: Dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        streams.update(keywords)
        process = subprocess.Popen(
            self._as_user(argv),
            cwd=cwd or self.home,
            env=self._environment(env),
            start_new_session=True,
            text=True,
            errors="surrogateescape",
            **streams,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        """End what ``popen`` started and nobody ended."""
        while self._started:
            process = self._started.pop()
            if process.poll() is None:
                self._kill(process)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    with contextlib.suppress(OSError):
                        stream.close()

    # Inside

    def _environment(self, more: Optional[Mapping[str, str]]) -> Dict[str, str]:
        return {
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
            "PATH": needs.ADMIN_PATH if self.is_root else USER_PATH,
            processes.MARKER: str(self._scratch),
            **(more or {}),
        }

    def _as_user(self, argv: Sequence[str | os.PathLike[str]]) -> List[str]:
        words = [os.fspath(word) for word in argv]
        if self.is_root:
            return words
        return ["setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--init-groups", "--", *words]

    def _kill(self, process: subprocess.Popen[str]) -> None:
        """The program and all that it started, except daemons; those hold its output open, so don't wait for that."""
        family = [process.pid, *processes.descendants(process.pid)]
        processes.send(family, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)  # One that hangs in the kernel is left to the mount's end.

    def _run_on_terminal(
        self,
        argv: Sequence[str | os.PathLike[str]],
        cwd: Optional[os.PathLike[str]],
        timeout: float,
        env: Optional[Mapping[str, str]],
        answers: Sequence[Tuple[str, str]],
    ) -> Result:
        ours, theirs = pty.openpty()
        try:
            os.fchown(theirs, self.uid, self.gid)
            process = subprocess.Popen(
                ["setsid", "--ctty", "--", *self._as_user(argv)],
                cwd=cwd or self.home,
                env=self._environment({"TERM": "xterm", **(env or {})}),
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                text=True,
            )
        finally:
            os.close(theirs)
        try:
            output = self._converse(ours, argv, timeout, list(answers))
            process.wait(10)
        finally:
            if process.poll() is None:
                self._kill(process)
            os.close(ours)
        return Result(process.returncode, output, "")

    @staticmethod
    def _converse(
        terminal: int, argv: Sequence[str | os.PathLike[str]], timeout: float, answers: List[Tuple[str, str]]
    ) -> str:
        """Type each answer when its question has come, until the program closes the terminal."""
        deadline = time.monotonic() + timeout
        output = b""
        seen = 0
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise subprocess.TimeoutExpired(list(argv), timeout, output)
            if not select.select([terminal], [], [], left)[0]:
                continue
            try:
                block = os.read(terminal, 65536)
            except OSError:  # EIO: nobody has the terminal open any more.
                block = b""
            if not block:
                break
            output += block
            while answers and answers[0][0].encode() in output[seen:]:
                question, answer = (text.encode() for text in answers.pop(0))
                seen = output.index(question, seen) + len(question)
                os.write(terminal, answer)
        text = output.decode(errors="surrogateescape").replace("\r\n", "\n")
        if answers:
            raise AssertionError(f"Never asked {answers[0][0]!r}; the output was:\n{text}")
        return text


def _allow_sudo(workspace: Workspace) -> None:
    """Write who may use sudo, once a run."""
    needs.program("sudo", "sudo")
    if not workspace.sudoers.exists():
        descriptor = os.open(workspace.sudoers, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o440)
        with os.fdopen(descriptor, "w") as file:
            file.write(SUDOERS)


class Developers(NamedTuple):
    """One of each kind."""

    dev: Developer
    alone: Developer
    root: Developer
