"""Run a program with a time limit, and end it; no other module imports ``sh``."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from cowstorage.errors import CommandFailed, CowStorageError, Interrupted, TimeLimit
from cowstorage.system import identity
from cowstorage.system.installed import require_program
from cowstorage.system.limits import NO_LIMITS, QUIET_SECONDS, Limits

# The time from a signal to the end of a program.
KILL_SECONDS = 5.0

# The time between two looks at whether a program has done what it is for.
TICK_SECONDS = 0.01

# The signals that end a script in an orderly way: SIGHUP, SIGINT and SIGTERM, signal(7).  The module that has the names
# takes half a millisecond of every script's start.
INTERRUPTS = frozenset((1, 2, 15))

# From linux/prctl.h.
PR_SET_PDEATHSIG = 1


def run_program(
    argv: Tuple[str, ...],
    cwd: Optional[str] = None,
    limit: Optional[float] = QUIET_SECONDS,
    output: str = "returned",
    stdin: Optional[str] = None,
    tells: Optional[Callable[[str], None]] = None,
    bytewise: bool = False,
    lock: Optional[int] = None,
    root: bool = False,
    by_sudo: bool = False,
    environment: Tuple[Tuple[str, Optional[str]], ...] = (),
    limits: Limits = NO_LIMITS,
    done: Optional[Callable[[], bool]] = None,
) -> str:
    """Run a program and return its output, stdout and stderr in one.

    The program's locale is C.UTF-8, since the callers look for English messages in the output.

    :param argv: the program and its arguments.
    :param cwd: the working directory; ``None``: ours.
    :param limit: seconds until the program is killed; ``None``: no time limit.
    :param output: ``returned`` or ``thrown away``.
    :param stdin: the input of the program; ``None``: none.
    :param tells: called with each line of stdout, which then is not returned; ``None``: see ``output``.
    :param bytewise: ``tells`` is called with each byte of stdout instead.
    :param root: whether the program is root's, where root works for a developer; else the program is the developer's.
    :param by_sudo: whether ``argv`` begins with the sudo that runs the program: as for ``_end``.
    :param limits: what the program may take.
    :param lock: the inheritable descriptor of a file with a lock, which the program inherits, flock(2); or ``None``.
    :param environment: variables that differ from ours; ``None``: the variable is taken away.
    :param done: tells whether the program has done what it is for; it is left to end by itself then.
    :returns: empty unless ``output`` is ``returned``.
    :raises CommandFailed: when the program ends with another exit code than 0.
    :raises ProgramMissing: when the program is not installed.
    :raises TimeLimit: when the program takes longer than ``limit``.
    """
    import shlex  # start-up

    import sh  # start-up: 80 ms, not for the scripts that run nothing

    program = sh.Command(require_program(argv[0]))
    changed = {**os.environ, **dict(environment), "LC_ALL": "C.UTF-8"}
    with open(os.devnull, "r+b") as nowhere:
        streams: Dict[str, Dict[str, Any]] = {
            "returned": {"_err_to_out": True, "_tty_out": False},
            "thrown away": {"_out": nowhere, "_err": nowhere},
        }
        if tells is not None:
            streams[output] = {"_out": tells, "_out_bufsize": 0 if bytewise else 1, "_tty_out": False}

        def start(prepare: Callable[[], None]) -> Any:
            return program(
                *argv[1:],
                _cwd=cwd,
                _in=nowhere if stdin is None else stdin,
                _new_session=False,
                _bg=True,
                _bg_exc=False,
                _env={name: value for name, value in changed.items() if value is not None},
                _preexec_fn=prepare,
                _pass_fds=frozenset(() if lock is None else (lock,)),
                **streams[output],
            )

        try:
            result = _finished(argv, start, limit, _tied(root, limits), by_sudo, done)
        except sh.ErrorReturnCode as error:
            text = (error.stdout + error.stderr).decode("utf-8", "replace")
            raise CommandFailed(shlex.join(argv), error.exit_code, text) from None
    return str(result.stdout.decode("utf-8", "replace")) if result and output == "returned" else ""


def succeeds_on_terminal(argv: Tuple[str, ...]) -> bool:
    """Run a program that talks to whoever sits at the terminal, and tell whether its exit code was 0."""
    import sh  # start-up: 80 ms

    try:
        sh.Command(argv[0])(*argv[1:], _fg=True)
    except sh.ErrorReturnCode:
        return False
    return True


def start_again_in_utf8() -> None:
    """Replace this process by itself in Python's UTF-8 mode, whatever the locale's encoding is, python(1), -X utf8."""
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.argv])


def _finished(
    argv: Tuple[str, ...],
    start: Callable[[Callable[[], None]], Any],
    limit: Optional[float],
    tied: Callable[[Set[Any]], Callable[[], None]],
    by_sudo: bool,
    done: Optional[Callable[[], bool]] = None,
) -> Any:
    """Start a program and return its finished sh process; end the program at its time limit or when we are interrupted.

    ``None`` is returned for a program that is left to end by itself.

    sh's own ``_timeout`` looks ten times a second and so makes every program last a tenth of a second.

    :param argv: the program and its arguments, for the error and for ``_end``.
    :param start: starts the program, given the function that the child calls first; returns the sh process.
    :param limit: seconds; ``None``: no time limit.
    :param tied: makes the function that the child calls first, from the signal mask that the program gets.
    :param by_sudo: as for ``_end``.
    :param done: as for ``run_program``.
    :raises TimeLimit: after ``limit`` seconds.  A program that hangs in the kernel can't be killed and is left running.
    """
    import shlex  # start-up
    import signal  # start-up

    # Signals are held back until we know the pid: an interrupt before would leave the program running.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        running = start(tied(held))
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            if done and _does(running.pid, limit, done):
                return None
            if _ends(running.pid, 0 if done else limit):
                return running.wait()
        except (Interrupted, KeyboardInterrupt):
            _end(running.pid, argv, signal.SIGTERM, by_sudo)
            raise
        _end(running.pid, argv, signal.SIGKILL, by_sudo)
        raise TimeLimit(shlex.join(argv), limit or 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def _tied(root: bool, limits: Limits) -> Callable[[Set[Any]], Callable[[], None]]:
    """Return what makes the function that a child calls before it becomes the program, from the program's signal mask.

    The function settles whose the program is and what it may take, lets signals in again, and makes the kernel send
    SIGTERM to the child when we end, for whatever reason, prctl(2), PR_SET_PDEATHSIG.  A program that makes itself a
    daemon loses this setting, and so does sudo.  A process that the program has started does not get the signal and
    goes on for a while, as half of rsync does: see ``Command.locks``.

    Parameters are those of ``run_program``.
    """
    import ctypes  # start-up
    import resource  # start-up
    import signal  # start-up

    pairs = ((resource.RLIMIT_FSIZE, limits.largest), (resource.RLIMIT_AS, limits.memory))

    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl

    def prepare(mask: Set[Any]) -> None:
        for number, most in pairs:
            if most is not None:
                # Whoever started us may allow less.
                allowed = resource.getrlimit(number)[1]
                most = most if allowed == resource.RLIM_INFINITY else min(most, allowed)
                resource.setrlimit(number, (most, most))
        # Before prctl, since a change of user takes the setting away.
        if root:
            identity.root_again()
        else:
            identity.become(os.geteuid(), os.getegid())
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:
            os._exit(1)

    return lambda mask: partial(prepare, mask)


def running(fits: Callable[[Tuple[str, ...]], bool]) -> Tuple[int, ...]:
    """Return the pids of the other processes whose program and arguments fit, proc_pid_cmdline(5)."""
    pids = (name for name in os.listdir("/proc") if name.isdecimal() and name != str(os.getpid()))
    return tuple(int(pid) for pid in pids if fits(_arguments(pid)))


def wait_for_end(find: Callable[[], Tuple[int, ...]], seconds: float) -> bool:
    """Return whether the processes that ``find`` looks for all end within a number of seconds; nothing is killed."""
    deadline = time.monotonic() + seconds
    while find():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _arguments(pid: str) -> Tuple[str, ...]:
    """Return the program and the arguments of a process; ``()`` for one that has ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return tuple(os.fsdecode(word) for word in file.read().split(b"\0")[:-1])
    except OSError:
        return ()


def _ends(pid: int, seconds: Optional[float]) -> bool:
    """Return whether a child process ends within a number of seconds; ``None``: wait until it ends."""
    import select  # start-up

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


def _does(pid: int, seconds: Optional[float], done: Callable[[], bool]) -> bool:
    """Return whether a child process has done what it is for within a number of seconds, and goes on.

    :param done: asked again and again, until the process has ended.
    """
    deadline = time.monotonic() + seconds if seconds is not None else None
    while not _ends(pid, TICK_SECONDS):
        if done():
            return True
        if deadline is not None and time.monotonic() >= deadline:
            break
    return False


def _ends_by_looking(pid: int, seconds: Optional[float]) -> bool:
    """Return the same as ``_ends``, by looking at the child process fifty times a second."""
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


def _end(pid: int, argv: Tuple[str, ...], number: int, by_sudo: bool) -> None:
    """End a child process with a signal, then with SIGKILL; a child that hangs in the kernel is left running.

    :param argv: the program and its arguments; begins with sudo where ``by_sudo``.
    :param number: the first signal.
    :param by_sudo: sudo runs the program, as root.  SIGKILL ends sudo alone, and the program goes on, measured with
        sudo 1.9.13 and sudo-rs 0.2.5: SIGTERM is first, which sudo passes on, and SIGKILL goes to the program.
    """
    import signal  # start-up

    if by_sudo:
        _send_from_outside(pid, argv)
        if _ends(pid, KILL_SECONDS):
            return
        below = descendants(pid)
        if below:
            with contextlib.suppress(CowStorageError):
                run_program((argv[0], "-n", "kill", "-KILL", *map(str, below)), limit=KILL_SECONDS)
        number = signal.SIGKILL
    for last in (number, signal.SIGKILL):
        try:
            os.kill(pid, last)
        except (ProcessLookupError, PermissionError):
            return
        if _ends(pid, KILL_SECONDS):
            return


def _send_from_outside(pid: int, argv: Tuple[str, ...]) -> None:
    """Send SIGTERM to a sudo, which passes the signal on unless the sender is of its own process group, sudo(8).

    :param argv: begins with sudo; asked where we may not signal sudo ourselves.
    """
    relay = ("setsid", "--wait", "sh", "-c", 'kill -TERM "$0"', str(pid))
    for words in (relay, (argv[0], "-n", *relay)):
        with contextlib.suppress(CowStorageError):
            run_program(words, limit=KILL_SECONDS)
            return


def descendants(pid: int) -> Tuple[int, ...]:
    """Return the pids of all processes below one, those of other users included, proc_pid_stat(5)."""
    children: Dict[int, List[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name of the program, in parentheses, may have blanks and parentheses in it.
                parent = int(file.read().rpartition(b")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found: List[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return tuple(found)
