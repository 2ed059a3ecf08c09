"""What can go wrong, as exceptions whose text says what happened, to which path, and what to do next."""

from __future__ import annotations

from typing import Iterable, Optional, Sequence, Tuple


class CowStorageError(Exception):
    """Base of all that a user is told without a traceback; ``exit_code`` is the script's."""

    exit_code = 1


class SettingsError(CowStorageError):
    """An option of the part can't be used; the recipe turns it into zc.buildout's UserError.

    :param option: the option's name as the user would write it.
    :param problem: what is wrong and what to write instead, one or two sentences.
    """

    def __init__(self, option: str, problem: str):
        self.option = option
        self.problem = problem
        super().__init__(f"{option}: {problem}")


class ProgramMissing(CowStorageError):
    """A program that a command needs is not on PATH."""

    def __init__(self, program: str, package: str):
        self.program = program
        self.package = package
        super().__init__(f"The program {program} is not installed. Install it with: apt install {package}")


class CommandFailed(CowStorageError):
    """A program ended with an unexpected exit code.

    :param command: the command as one would type it in a shell.
    :param exit_code_of_command: the program's own, negative for a signal.
    :param output: what it printed; the last lines are shown.
    """

    def __init__(self, command: str, exit_code_of_command: int, output: str):
        self.command = command
        self.exit_code_of_command = exit_code_of_command
        self.output = output
        tail = "\n".join("    " + line for line in output.strip().splitlines()[-8:])
        super().__init__(f"This command failed (exit code {exit_code_of_command}): {command}\n{tail}".rstrip())


class TimeLimit(CowStorageError):
    """Something did not answer in time: most often a network file system without its network."""

    def __init__(self, what: str, seconds: float):
        self.what = what
        self.seconds = seconds
        super().__init__(
            f"No answer after {seconds:g} seconds: {what}. Is the network there? "
            "When the server answers again, run the same command again."
        )


class Refused(CowStorageError):
    """The user did not agree, or nobody could be asked."""


class InUse(CowStorageError):
    """Processes keep the database or a mount busy.

    :param paths: what is in use.
    :param holders: ``in_use.Holder`` or anything whose str() names a process.
    :param way_out: what else there is than to stop it.
    """

    def __init__(self, paths: Sequence[str], holders: Iterable[object], way_out: str = ""):
        self.paths = tuple(paths)
        self.holders = tuple(holders)
        lines = "\n".join(f"    {holder}" for holder in self.holders)
        super().__init__(
            f"In use: {', '.join(self.paths)}\n{lines}\nStop it, then run the same command again.{way_out}"
        )


class NotReadOnly(CowStorageError):
    """Production came up writable, or became so: nothing may be laid over it."""

    def __init__(self, path: str, entry: Optional[object]):
        self.path = path
        self.entry = entry
        if entry is None:
            super().__init__(f"{path} is not mounted any more: was the connection lost? Run the same command again.")
            return
        super().__init__(
            f"{path} is not mounted read-only, so nothing is laid over it. The kernel says: {entry}. "
            "Unmount it and look at mount-options."
        )


class RemoteUnusable(CowStorageError):
    """Production can't be reached, or is not what the part says it is.

    :param remote: the remote as configured.
    :param problem: what was found and what to do.
    """

    def __init__(self, remote: str, problem: str):
        self.remote = remote
        self.problem = problem
        super().__init__(f"{remote}: {problem}")


class UnionUnusable(CowStorageError):
    """No union, or not the chosen one, works here.

    :param tried: pairs of union name and the reason why it was passed over.
    """

    def __init__(self, tried: Sequence[Tuple[str, str]]):
        self.tried = tuple(tried)
        lines = "\n".join(f"    {name}: {reason}" for name, reason in self.tried)
        super().__init__(f"No union file system works here:\n{lines}")


class PathUnusable(CowStorageError):
    """A local path can't serve its purpose.

    :param path: the path.
    :param problem: what is wrong with it and what to do.
    """

    def __init__(self, path: str, problem: str):
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}")


class DamagedDatabase(CowStorageError):
    """A FileStorage file is not whole where it must be.

    :param path: the ``.fs`` file.
    :param position: byte offset where the damage starts.
    """

    def __init__(self, path: str, position: int, problem: str):
        self.path = path
        self.position = position
        self.problem = problem
        super().__init__(f"{path}: {problem} (at byte {position})")


class JournalUnusable(CowStorageError):
    """The journal is damaged, or was written by a later release."""

    def __init__(self, path: str, problem: str):
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}")


class Locked(CowStorageError):
    """Another command of the same part is running."""

    def __init__(self, path: str, holder: str):
        self.path = path
        self.holder = holder
        super().__init__(f"Another command is at work: {holder}. Wait for it, then run the same command again.")


class Unfinished(CowStorageError):
    """An earlier command was interrupted and has to be finished first."""

    def __init__(self, command: str, advice: str):
        self.command = command
        self.advice = advice
        super().__init__(f"An earlier {command} was interrupted. {advice}")


class Interrupted(BaseException):
    """SIGHUP, SIGINT or SIGTERM arrived; exit code 128 + signal number, as shells have it.

    No ``CowStorageError``, nor an ``Exception``: nothing that copes with a failure may cope with it.
    """

    def __init__(self, signal_number: int):
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
        super().__init__("Interrupted.")
