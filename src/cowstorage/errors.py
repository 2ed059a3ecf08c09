"""The errors that users are told: each text says what happened, to which path, and what to do next."""

from __future__ import annotations

from typing import Any, Dict, Iterable, Optional, Sequence, Tuple, Type


class CowStorageError(Exception):
    """An error that a user is told without a traceback.

    :cvar exit_code: the exit code of a script that ends with the error.
    """

    exit_code = 1

    def __reduce__(self) -> Tuple[Any, ...]:
        """Return how pickle makes the error again in another process; its constructor takes other arguments."""
        return _made_again, (type(self), self.args, self.__dict__)


def _made_again(kind: Type[CowStorageError], args: Tuple[Any, ...], attributes: Dict[str, Any]) -> CowStorageError:
    """Return an error with its text and its attributes, without its constructor."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class Unusable(CowStorageError):
    """Base of the errors about one thing that the part names or has.

    :ivar subject: the thing: an option, a path or a remote, as the user knows it.
    :ivar problem: what is wrong with the subject and what to do, one or two sentences.
    """

    def __init__(self, subject: str, problem: str):
        self.subject = subject
        self.problem = problem
        super().__init__(f"{subject}: {problem}")


class SettingsError(Unusable):
    """An unusable option of the part, by its name as the user would write it.

    The recipe turns the error into zc.buildout's UserError.
    """


class PathUnusable(Unusable):
    """A local path that can't serve its purpose."""


class RemoteUnusable(Unusable):
    """A remote, as configured, that can't be reached or is not what the part says it is."""


class JournalUnusable(Unusable):
    """A journal, by its path, that is damaged or was written by a later release."""


class PreparationFailed(CowStorageError):
    """A command of the option ``prepare`` that has ended with an error.

    :param line: the command, as the option has it.
    :param exit_code_of_command: the program's own exit code; negative for a signal.
    :param shown: the last lines of its output.
    :param rollback: the script that goes back, as one types it.
    """

    def __init__(self, line: str, exit_code_of_command: int, shown: Sequence[str], rollback: str):
        output = "".join(f"    {one}\n" for one in shown)
        super().__init__(
            f"Preparing failed (exit code {exit_code_of_command}): {line}\n{output}"
            "What was fetched is there, with what was prepared so far, and is not handed over. Mend the command, then "
            f"run {rollback}, which goes back to production's state and prepares it anew; "
            f"{rollback} production goes back to it as it is."
        )


class ProgramMissing(CowStorageError):
    """A program that a command needs and that is not on PATH.

    :param package: the Debian package that has the program.
    """

    def __init__(self, program: str, package: str):
        super().__init__(f"The program {program} is not installed. Install it with: apt install {package}")


class CommandFailed(CowStorageError):
    """A program that ended with an unexpected exit code.

    :ivar command: the command as one would type it in a shell.
    :ivar exit_code_of_command: the program's own exit code; negative for a signal.
    :ivar output: what the program printed; the message shows the last eight lines.
    """

    def __init__(self, command: str, exit_code_of_command: int, output: str):
        self.command = command
        self.exit_code_of_command = exit_code_of_command
        self.output = output
        tail = "\n".join("    " + line for line in output.strip().splitlines()[-8:])
        super().__init__(f"This command failed (exit code {exit_code_of_command}): {command}\n{tail}".rstrip())


class TimeLimit(CowStorageError):
    """Something that did not answer in time: most often a network file system without its network.

    :param what: the command, or what was done as a participle: ``reading /path``.
    :ivar seconds: the time limit.
    """

    def __init__(self, what: str, seconds: float):
        self.seconds = seconds
        super().__init__(
            f"No answer after {seconds:g} seconds: {what}. Is the network there? "
            "When the server answers again, run the same command again."
        )


class Refused(CowStorageError):
    """The user's refusal; also raised where nobody could be asked."""


class InUse(CowStorageError):
    """Processes that keep the database or a mount busy.

    :ivar paths: the paths in use.
    :ivar holders: ``in_use.Holder`` or anything whose str() names a process.
    :param way_out: a sentence, after a space, about what can be done besides stopping the processes.
    """

    def __init__(self, paths: Sequence[str], holders: Iterable[object], way_out: str = ""):
        self.paths = tuple(paths)
        self.holders = tuple(holders)
        lines = "\n".join(f"    {holder}" for holder in self.holders)
        super().__init__(
            f"In use by\n{lines}\n"
            f"Stop it (bin/instance stop, bin/zeoserver stop), then run the same command again.{way_out}"
        )


class NotReadOnly(CowStorageError):
    """A production that was mounted writable, became writable, or is not mounted any more.

    :param path: the mount point.
    :param entry: the mount as mountinfo shows it; ``None``: not mounted.
    """

    def __init__(self, path: str, entry: Optional[object]):
        if entry is None:
            super().__init__(f"{path} is not mounted any more: was the connection lost? Run the same command again.")
            return
        super().__init__(
            f"{path} is not mounted read-only, so nothing is laid over it. The kernel says: {entry}. "
            "Unmount it and look at mount-options."
        )


class UnionUnusable(CowStorageError):
    """A machine on which no union works, or not the chosen one.

    :param tried: pairs of union name and the reason why the union was passed over.
    """

    def __init__(self, tried: Sequence[Tuple[str, str]]):
        lines = "\n".join(f"    {name}: {reason}" for name, reason in tried)
        super().__init__(f"No union file system works here:\n{lines}")


class DamagedDatabase(CowStorageError):
    """A FileStorage file that is damaged where it must be whole.

    :param path: the ``.fs`` file.
    :ivar position: the byte offset at which the damage starts.
    """

    def __init__(self, path: str, position: int, problem: str):
        self.position = position
        super().__init__(f"{path}: {problem} (at byte {position})")


class Locked(CowStorageError):
    """A part whose lock another command has.

    :param holder: the other command and its pid, as the lock file has them.
    """

    def __init__(self, holder: str):
        super().__init__(f"Another command is at work: {holder}. Wait for it, then run the same command again.")


class MountedElsewhere(CowStorageError):
    """The part is mounted on another machine, or in another mount namespace."""

    def __init__(self, remote: str, where: str, umount: str):
        super().__init__(
            f"{remote} is mounted by this part in {where}: two at once would spoil the database. Run {umount} there. "
            f"If that place is gone for good, tell so: {umount} --gone"
        )


class Unfinished(CowStorageError):
    """An earlier command that was interrupted and has to be finished first."""

    def __init__(self, command: str, advice: str):
        super().__init__(f"An earlier {command} was interrupted. {advice}")


class Interrupted(BaseException):
    """The arrival of SIGHUP, SIGINT or SIGTERM.

    A ``BaseException``, so that code that handles a ``CowStorageError`` or an ``Exception`` lets the interrupt pass.

    :ivar exit_code: 128 + signal number, as shells have it.
    """

    def __init__(self, signal_number: int):
        self.exit_code = 128 + signal_number
        super().__init__("Interrupted.")
