"""Runs programs, through ``sh``; the only module that does."""

from __future__ import annotations

import os
import pickle
import select
import shlex
import shutil
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, TypeVar

from cowstorage.errors import CommandFailed, CowStorageError, Interrupted, ProgramMissing, TimeLimit

T = TypeVar("T")

# The Debian package that has the program, where the names differ.
PACKAGES = {
    "fusermount3": "fuse3",
    "mount.nfs": "nfs-common",
    "mount.cifs": "cifs-utils",
    "sftp": "openssh-client",
    "ssh": "openssh-client",
    "umount": "mount",
    "unionfs": "unionfs-fuse",
}

# An ordinary user's PATH leaves out where mount helpers are.
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"

QUIET_SECONDS = 60.0


class Command(NamedTuple):
    """One program run.

    :param argv: program and arguments; never a shell's string.
    :param root: run by root, through sudo where we are not root.
    :param cwd: the directory it runs in.
    :param limit: seconds until it is killed; ``None``: as long as it takes.
    :param shows: its output goes to the terminal (progress), not into a string.
    :param fallback: what is run when this one fails.
    :param detached: its output is thrown away, since what it leaves running would keep a pipe of ours open.
    """

    argv: Tuple[str, ...]
    root: bool = False
    cwd: Optional[str] = None
    limit: Optional[float] = QUIET_SECONDS
    shows: bool = False
    fallback: Optional[Tuple[str, ...]] = None
    detached: bool = False


def package_of(program: str) -> str:
    """The Debian package that has a program."""
    return PACKAGES.get(program, program)


def find_program(program: str) -> Optional[str]:
    """Absolute path of a program, or ``None``."""
    return shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":" + SYSTEM_PATH)


def require_program(program: str) -> str:
    """Absolute path of a program.

    :raises ProgramMissing: with the Debian package to install.
    """
    path = find_program(program)
    if path is None:
        raise ProgramMissing(program, package_of(program))
    return path


def as_root(argv: Tuple[str, ...], sudo: Optional[str], euid: int) -> Tuple[str, ...]:
    """The argv that runs ``argv`` as root; ``sudo -n`` because a prompt is asked for once, beforehand."""
    if euid == 0:
        return argv
    if not sudo:
        raise CowStorageError(f"Only root can run this, and sudo = no: {shlex.join(argv)}")
    return (sudo, "-n", *argv)


def shell_line(command: Command, sudo: Optional[str], euid: int) -> str:
    """The command as one would type it in a shell, ready to paste."""

    def one(argv: Tuple[str, ...]) -> str:
        argv = as_root(argv, sudo, euid) if command.root else argv
        return shlex.join(argument for argument in argv if not (command.root and argument == "-n" and euid != 0))

    line = one(command.argv)
    if command.fallback:
        line += " ||\n    " + one(command.fallback)
    if command.cwd:
        line = f"(cd {shlex.quote(command.cwd)} && {line})"
    return line


class Runner:
    """Runs commands for one script: knows how to become root and whether somebody can be asked.

    :param sudo: the program to become root with, or ``None``.
    :param interactive: there is a terminal to ask for passwords on.
    :param log: called with each command's shell line before it runs (``--verbose``).
    """

    def __init__(self, sudo: Optional[str], interactive: bool, log: Optional[Callable[[str], None]] = None):
        self.sudo = sudo
        self.interactive = interactive
        self.log = log
        self.euid = os.geteuid()

    def run(self, command: Command) -> str:
        """Run, and return what it printed.

        :raises CommandFailed, ProgramMissing, TimeLimit: with what the user has to know.
        """
        if self.log:
            self.log(shell_line(command, self.sudo, self.euid))
        try:
            return self._run(command, command.argv)
        except CommandFailed:
            if not command.fallback:
                raise
        return self._run(command, command.fallback)

    def _run(self, command: Command, argv: Tuple[str, ...]) -> str:
        if not command.root:
            return self._start(command, argv)
        argv = as_root(argv, self.sudo, self.euid)
        try:
            return self._start(command, argv)
        except CommandFailed as error:
            if self.euid == 0 or not asks_password(error.output):
                raise
        self._authenticate()
        return self._start(command, argv)

    @staticmethod
    def _start(command: Command, argv: Tuple[str, ...]) -> str:
        output = "shown" if command.shows else "thrown away" if command.detached else "returned"
        return run_program(argv, command.cwd, command.limit, output)

    def _authenticate(self) -> None:
        # sudo -v asks once and sudo remembers; the commands themselves keep their output to us.
        advice = "Allow it in sudoers, run the script as root, or set union = unionfs-fuse and sudo = no in the part."
        if not self.interactive:
            raise CowStorageError(f"{self.sudo} wants a password and there is no terminal to ask on. {advice}")
        import sh

        try:
            sh.Command(str(self.sudo))("-v", _fg=True)
        except sh.ErrorReturnCode:
            raise CowStorageError(f"{self.sudo} was refused. {advice}") from None


def asks_password(output: str) -> bool:
    """Whether ``sudo -n`` failed for want of a password (sudo(8), -n), and nothing was run."""
    return "a password is required" in output or "a terminal is required" in output


def run_program(
    argv: Tuple[str, ...],
    cwd: Optional[str] = None,
    limit: Optional[float] = QUIET_SECONDS,
    output: str = "returned",
    stdin: Optional[str] = None,
) -> str:
    """Run ``argv`` and return its output, stdout and stderr in one.

    The locale is C: some messages are looked at.

    :param output: ``returned``, ``shown`` (stdout goes where ours goes) or ``thrown away``.
    :raises CommandFailed, ProgramMissing, TimeLimit: what went wrong.
    """
    import sh  # 80 ms: not for the scripts that run nothing

    program = sh.Command(require_program(argv[0]))
    with open(os.devnull, "r+b") as nowhere:
        streams: Dict[str, Dict[str, Any]] = {
            "returned": {"_err_to_out": True},
            "shown": {"_out": sys.stdout},
            "thrown away": {"_out": nowhere, "_err": nowhere},
        }
        running = program(
            *argv[1:],
            _cwd=cwd,
            _in=nowhere if stdin is None else stdin,
            _tty_out=False,
            _tty_in=False,
            _new_session=False,
            _bg=True,
            _bg_exc=False,
            _env={**os.environ, "LC_ALL": "C.UTF-8"},
            **streams[output],
        )
        try:
            result = _awaited(running, limit)
        except sh.ErrorReturnCode as error:
            if isinstance(error, sh.SignalException_SIGKILL) and running.out_of_time:
                raise TimeLimit(shlex.join(argv), limit or 0) from None
            text = (error.stdout + error.stderr).decode("utf-8", "replace")
            raise CommandFailed(shlex.join(argv), error.exit_code, text) from None
    return str(result.stdout.decode("utf-8", "replace")) if output == "returned" else ""


def _awaited(running: Any, limit: Optional[float]) -> Any:
    """Wait for a program; kill it after ``limit`` seconds, and end it when we are interrupted ourselves.

    sh's own ``_timeout`` looks ten times a second and so makes every program last a tenth of one.
    """
    running.out_of_time = False

    def kill() -> None:
        running.out_of_time = True
        running.kill()

    timer = threading.Timer(limit, kill) if limit is not None else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        return running.wait()
    except (Interrupted, KeyboardInterrupt):
        running.terminate()
        raise
    finally:
        if timer:
            timer.cancel()


def within(seconds: float, what: str, function: Callable[[], T], user: Optional[Tuple[int, int]] = None) -> T:
    """Call ``function`` in a child process that is given up after a time.

    For whatever may block on a dead network.  A child in state D can't be killed: it is left to die alone.

    :param what: said in the error: what did not answer.
    :param function: its result or exception must be picklable.
    :param user: (uid, gid) to be for it; needs root.
    :raises TimeLimit: after ``seconds``.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(writing, function, user)
    os.close(writing)
    answer = _collect(reading, time.monotonic() + seconds)
    if answer is None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, os.WNOHANG)
        raise TimeLimit(what, seconds)
    os.waitpid(child, 0)
    if not answer:
        raise CowStorageError(f"A check ended without an answer: {what}.")
    good, value = pickle.loads(answer)
    if good:
        return value  # type: ignore[no-any-return]
    raise value


def _answer(writing: int, function: Callable[[], Any], user: Optional[Tuple[int, int]]) -> None:
    """The child's side of ``within``; never returns, and runs none of the parent's clean-up."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        # A child that hangs for ever must not keep our lock with it.
        os.closerange(3, writing)
        os.closerange(writing + 1, 1024)
        if user and os.geteuid() == 0 and user[0] != 0:
            os.setgroups([user[1]])
            os.setgid(user[1])
            os.setuid(user[0])
        try:
            answer = pickle.dumps((True, function()))
        except Exception as error:
            try:
                answer = pickle.dumps((False, error))
                pickle.loads(answer)
            except Exception:
                answer = pickle.dumps((False, CowStorageError(str(error))))
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)


def _collect(reading: int, deadline: float) -> Optional[bytes]:
    """All that the child wrote, or ``None`` when time ran out first."""
    chunks: List[bytes] = []
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            chunk = pipe.read(65536)
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)
