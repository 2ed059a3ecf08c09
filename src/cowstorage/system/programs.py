"""Commands as data, and how they are run: as the user or as root, with a fallback, with the part's lock."""

import os
from typing import Callable, NamedTuple, Optional, Tuple

from cowstorage.errors import CommandFailed, CowStorageError
from cowstorage.system.limits import QUIET_SECONDS, Limits

# Of sudo, two, and of sudo-rs, Ubuntu's since 25.10.
PASSWORD_WORDS = ("a password is required", "a terminal is required", "interactive authentication is required")


class Command(NamedTuple):
    """One run of a program.

    :param argv: the program and its arguments; no shell is involved.
    :param root: whether root runs the program, through sudo where we are not root.
    :param cwd: the working directory; ``None``: ours.
    :param limit: seconds until the program is killed; ``None``: no time limit.
    :param fallback: program and arguments to run when ``argv`` fails; ``None``: the failure is raised.
    :param fallback_when: text that the output of ``argv`` must contain for ``fallback`` to be run; empty: any.
    :param detached: whether the output is thrown away.  For a program that leaves a process running, which would
        keep the pipe open that the output is read from.
    :param tells: called with each line of stdout as it comes, in another thread; the output is not returned then.
    :param pieces: called as ``tells`` is, with each byte as a text: for a program that ends no line while it works.
    :param locks: whether the program inherits the lock of the part, which stays locked until the last process of the
        program has ended.  For a program that writes files which the next command reads.
    :param environment: variables that differ from ours, and their values; ``None``: the variable is taken away.
    :param largest: bytes; no file that the program writes becomes larger, RLIMIT_FSIZE: writing fails with EFBIG.
    :param memory: bytes of addresses that each process of the program may have, daemons included, RLIMIT_AS.
    :param done: tells whether the program has done what it is for; the program is left to end by itself then.
    """

    argv: Tuple[str, ...]
    root: bool = False
    cwd: Optional[str] = None
    limit: Optional[float] = QUIET_SECONDS
    fallback: Optional[Tuple[str, ...]] = None
    fallback_when: str = ""
    detached: bool = False
    tells: Optional[Callable[[str], None]] = None
    pieces: Optional[Callable[[str], None]] = None
    locks: bool = False
    environment: Tuple[Tuple[str, Optional[str]], ...] = ()
    largest: Optional[int] = None
    memory: Optional[int] = None
    done: Optional[Callable[[], bool]] = None


def as_root(argv: Tuple[str, ...], sudo: Optional[str], euid: int) -> Tuple[str, ...]:
    """Return program and arguments that run ``argv`` as root.

    ``sudo -n`` never asks for a password: ``Runner`` asks once, beforehand.

    :param sudo: the program to become root with, or ``None``.
    :param euid: our effective user id; 0: ``argv`` is returned as it is.
    :raises CowStorageError: when we are not root and ``sudo`` is ``None``.
    """
    if euid == 0:
        return argv
    if not sudo:
        import shlex  # start-up

        raise CowStorageError(f"Only root can run this, and sudo = no: {shlex.join(argv)}")
    return (sudo, "-n", *argv)


def shell_line(command: Command, sudo: Optional[str], euid: int) -> str:
    """Return a command as text to paste into a shell; parameters are those of ``as_root``.

    ``-n`` is left out, so that sudo asks for a password, and a fallback follows after ``||``.

    :raises CowStorageError: as ``as_root`` does.
    """

    import shlex  # start-up

    def one(argv: Tuple[str, ...]) -> str:
        argv = as_root(argv, sudo, euid) if command.root else argv
        return shlex.join(
            (*changes, *(argument for argument in argv if not (command.root and argument == "-n" and euid != 0)))
        )

    changes = _environment_changes(command.environment)

    line = one(command.argv)
    if command.fallback and not command.fallback_when:
        line += " ||\n    " + one(command.fallback)
    if command.cwd:
        line = f"(cd {shlex.quote(command.cwd)} && {line})"
    return line


def _environment_changes(environment: Tuple[Tuple[str, Optional[str]], ...]) -> Tuple[str, ...]:
    """Return the words that stand before a program to change its environment, env(1)."""
    if not environment:
        return ()
    away = (word for name, value in environment if value is None for word in ("-u", name))
    return ("env", *away, *(f"{name}={value}" for name, value in environment if value is not None))


class Runner:
    """The runner of one script's commands.

    :param sudo: the program to become root with; ``None``: commands for root are refused unless we are root.
    :param interactive: whether there is a terminal to ask for a password on.
    :param log: called with the shell line of each command before the command runs; ``None``: nothing is logged.
    :ivar lock: the descriptor of the part's lock file; ``None`` until the lock is held.
    """

    def __init__(self, sudo: Optional[str], interactive: bool, log: Optional[Callable[[str], None]] = None):
        self.sudo = sudo
        self.interactive = interactive
        self.log = log
        self.lock: Optional[int] = None
        self.euid = os.getuid()

    def run(self, command: Command) -> str:
        """Run a command and return its output; empty when the output is thrown away or told.

        :raises CommandFailed: when the program, or its fallback, ends with another exit code than 0.
        :raises ProgramMissing: when the program is not installed.
        :raises TimeLimit: when the program takes longer than its limit.
        :raises CowStorageError: when the command needs root and we can't become root.
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
        """Run ``argv`` as the command says; ask for sudo's password first when sudo wants one."""
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
        """Run ``argv``, which becomes root by itself, with the other parameters of the command."""
        from cowstorage.system.processes import run_program  # start-up

        output = "thrown away" if command.detached else "returned"
        lock = self.lock if command.locks else None
        return run_program(
            argv,
            command.cwd,
            command.limit,
            output,
            tells=command.pieces or command.tells,
            bytewise=command.pieces is not None,
            lock=lock,
            root=command.root,
            by_sudo=command.root and self.euid != 0,
            environment=command.environment,
            limits=Limits(command.largest, command.memory),
            done=command.done,
        )

    def _authenticate(self) -> None:
        """Let sudo ask for its password on the terminal.

        :raises CowStorageError: when there is no terminal, or sudo refuses.
        """
        # sudo -v asks once, and sudo remembers the answer.  So sudo -n, whose output we read, needs no terminal.
        advice = "Allow it in sudoers, run the script as root, or set sudo = no in the part."
        if not self.interactive:
            raise CowStorageError(f"{self.sudo} wants a password and there is no terminal to ask on. {advice}")
        from cowstorage.system.processes import succeeds_on_terminal  # start-up

        if not succeeds_on_terminal((str(self.sudo), "-v")):
            raise CowStorageError(f"{self.sudo} was refused. {advice}")


def asks_password(output: str) -> bool:
    """Return whether the output of ``sudo -n`` says that a password is required, so that nothing was run, sudo(8)."""
    return any(words in output for words in PASSWORD_WORDS)
