"""Runs programs, through ``sh``; the only module that does."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import sys
import time
from typing import Any, Callable, Dict, NamedTuple, Optional, Set, Tuple

from cowstorage.errors import CommandFailed, CowStorageError, Interrupted, ProgramMissing, TimeLimit

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
# What a program gets to end in when it was told to.
KILL_SECONDS = 5.0

INTERRUPTS = frozenset((signal.SIGHUP, signal.SIGINT, signal.SIGTERM))
# linux/prctl.h
PR_SET_PDEATHSIG = 1


class Command(NamedTuple):
    """One program run.

    :param argv: program and arguments; never a shell's string.
    :param root: run by root, through sudo where we are not root.
    :param cwd: the directory it runs in.
    :param limit: seconds until it is killed; ``None``: as long as it takes.
    :param shows: its output goes to the terminal (progress), not into a string.
    :param fallback: what is run when this one fails.
    :param fallback_when: only when it has printed this, too.
    :param detached: its output is thrown away, since what it leaves running would keep a pipe of ours open.
    :param tells: called with each line that it prints, as it comes, in another thread; nothing is kept.
    :param locks: it writes what the next command reads: the part stays locked until its last process has ended.
    """

    argv: Tuple[str, ...]
    root: bool = False
    cwd: Optional[str] = None
    limit: Optional[float] = QUIET_SECONDS
    shows: bool = False
    fallback: Optional[Tuple[str, ...]] = None
    fallback_when: str = ""
    detached: bool = False
    tells: Optional[Callable[[str], None]] = None
    locks: bool = False


def package_of(program: str) -> str:
    """The Debian package that has a program."""
    return PACKAGES.get(program, program)


def find_program(program: str) -> Optional[str]:
    """Absolute path of a program, or ``None``."""
    # Not by shutil.which: with it come zlib, bz2 and lzma, and every script would be slower by a twentieth.
    for directory in (os.environ.get("PATH", os.defpath) + ":" + SYSTEM_PATH).split(":"):
        path = os.path.join(directory, program)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


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
    if command.fallback and not command.fallback_when:
        line += " ||\n    " + one(command.fallback)
    if command.cwd:
        line = f"(cd {shlex.quote(command.cwd)} && {line})"
    return line


class Runner:
    """Runs commands for one script: knows how to become root and whether somebody can be asked.

    :param sudo: the program to become root with, or ``None``.
    :param interactive: there is a terminal to ask for passwords on.
    :param log: called with each command's shell line before it runs (``--verbose``).
    :ivar lock: the open file of the part's lock, once it is held.
    """

    def __init__(self, sudo: Optional[str], interactive: bool, log: Optional[Callable[[str], None]] = None):
        self.sudo = sudo
        self.interactive = interactive
        self.log = log
        self.lock: Optional[int] = None
        self.euid = os.geteuid()

    def run(self, command: Command) -> str:
        """Run, and return what it printed.

        :raises CommandFailed, ProgramMissing, TimeLimit: with what the user has to know.
        """
        if self.log:
            self.log(shell_line(command, self.sudo, self.euid))
        try:
            return self._run(command, command.argv)
        except CommandFailed as error:
            if not command.fallback or command.fallback_when not in error.output:
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

    def _start(self, command: Command, argv: Tuple[str, ...]) -> str:
        output = "shown" if command.shows else "thrown away" if command.detached else "returned"
        lock = self.lock if command.locks else None
        return run_program(argv, command.cwd, command.limit, output, tells=command.tells, lock=lock)

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
    tells: Optional[Callable[[str], None]] = None,
    lock: Optional[int] = None,
) -> str:
    """Run ``argv`` and return its output, stdout and stderr in one.

    The locale is C: some messages are looked at.

    :param output: ``returned``, ``shown`` (stdout goes where ours goes) or ``thrown away``.
    :param tells: takes stdout line by line instead.
    :param lock: an open file, inheritable, that the program gets, too: what was locked by it, flock(2), stays so.
    :raises CommandFailed, ProgramMissing, TimeLimit: what went wrong.
    """
    import sh  # 80 ms: not for the scripts that run nothing

    program = sh.Command(require_program(argv[0]))
    with open(os.devnull, "r+b") as nowhere:
        streams: Dict[str, Dict[str, Any]] = {
            "returned": {"_err_to_out": True, "_tty_out": False},
            # sh refuses its _tty_out where this is a terminal.
            "shown": {"_out": sys.stdout},
            "thrown away": {"_out": nowhere, "_err": nowhere},
        }
        if tells is not None:
            streams[output] = {"_out": tells, "_tty_out": False}

        def start(prepare: Callable[[], None]) -> Any:
            return program(
                *argv[1:],
                _cwd=cwd,
                _in=nowhere if stdin is None else stdin,
                _new_session=False,
                _bg=True,
                _bg_exc=False,
                _env={**os.environ, "LC_ALL": "C.UTF-8"},
                _preexec_fn=prepare,
                _pass_fds=frozenset(() if lock is None else (lock,)),
                **streams[output],
            )

        try:
            result = _finished(argv, start, limit)
        except sh.ErrorReturnCode as error:
            text = (error.stdout + error.stderr).decode("utf-8", "replace")
            raise CommandFailed(shlex.join(argv), error.exit_code, text) from None
    return str(result.stdout.decode("utf-8", "replace")) if output == "returned" else ""


def _finished(argv: Tuple[str, ...], start: Callable[[Callable[[], None]], Any], limit: Optional[float]) -> Any:
    """Start a program and wait for it; end it after ``limit`` seconds, and when we are interrupted ourselves.

    sh's own ``_timeout`` looks ten times a second and so makes every program last a tenth of one.

    :raises TimeLimit: also for one that can't be killed, since it hangs in the kernel: it is left alone.
    """
    # An interrupt between its start and our knowing of it would leave it running.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        running = start(_tied(held))
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            if _ends(running.pid, limit):
                return running.wait()
        except (Interrupted, KeyboardInterrupt):
            _end(running.pid, argv, signal.SIGTERM)
            raise
        _end(running.pid, argv, signal.SIGKILL)
        raise TimeLimit(shlex.join(argv), limit or 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _tied(mask: Set[Any]) -> Callable[[], None]:
    """What a child does before it becomes the program: let signals in again, and end when we end, however we do.

    A program that makes itself a daemon is free of it, and so is sudo, prctl(2).  What a program has started itself
    goes on for a while, as half of rsync does: see ``Command.locks``.
    """
    import ctypes

    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _ends(pid: int, seconds: Optional[float]) -> bool:
    """Whether a child ends within a time; ``None``: however long it takes."""
    if not hasattr(os, "pidfd_open"):  # Python 3.8
        return _ends_by_looking(pid, seconds)
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def _ends_by_looking(pid: int, seconds: Optional[float]) -> bool:
    deadline = time.monotonic() + seconds if seconds is not None else None
    while True:
        try:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return True
        except ChildProcessError:
            return True
        if deadline is not None and time.monotonic() >= deadline:
            return False
        time.sleep(0.02)


def _end(pid: int, argv: Tuple[str, ...], number: int) -> None:
    """End a child: with the signal, then with SIGKILL; one that hangs in the kernel outlives it."""
    for last in (number, signal.SIGKILL):
        try:
            os.kill(pid, last)
        except ProcessLookupError:
            return
        except PermissionError:
            # sudo is root's.  It hands SIGTERM on, unless that comes from its own process group, sudo(8).
            relay = (argv[0], "-n", "setsid", "--wait", "kill", "-TERM", str(pid))
            with contextlib.suppress(CowStorageError):
                run_program(relay, limit=KILL_SECONDS)
        if _ends(pid, KILL_SECONDS):
            return
