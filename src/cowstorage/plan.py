"""A command as a plan: steps that are printed, or run and undone in reverse when one fails."""

from __future__ import annotations

import signal
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

from cowstorage.errors import CommandFailed, CowStorageError, Interrupted
from cowstorage.output import Output
from cowstorage.system import INTERRUPTS, Command, Runner, shell_line


class Step(NamedTuple):
    """One thing to do.

    :param title: what it does, for ``--dry-run``, ``--verbose`` and the journal.
    :param commands: the programs to run, in order.
    :param action: what no program does; called after the commands.
    :param undo: the programs that take it back.
    :param undo_unless: asked first: why it can't or needn't be taken back; empty when it is to be.
    :param patience: seconds for which a command that finds something busy is tried again.
    :param explain: turns the error of the step into one that says what it means; ``None``: it is none.
    """

    title: str
    commands: Tuple[Command, ...] = ()
    action: Optional[Callable[[], None]] = None
    undo: Tuple[Command, ...] = ()
    explain: Optional[Callable[[CowStorageError], Optional[CowStorageError]]] = None
    patience: float = 0.0
    undo_unless: Optional[Callable[[], str]] = None


Plan = Iterable[Step]


def show(plan: Plan, runner: Runner, output: Output) -> None:
    """Print what would be run, ready to paste into a shell; nothing is changed.

    A plan may be a generator whose later steps depend on what earlier ones found: its author decides what it
    assumes when nothing is run.
    """
    for step in plan:
        output.result(f"# {step.title}")
        for command in step.commands:
            output.result(shell_line(command, runner.sudo, runner.euid))


class Execution:
    """Runs plans one after the other and remembers how to undo them.

    Used as a context: an exception inside it undoes what was done, then goes on.

    :param remember: called with a step's title before it is run, and with ``None`` after; it writes the journal.
    """

    def __init__(self, runner: Runner, output: Output, remember: Callable[[Optional[str]], None]):
        self.runner = runner
        self.output = output
        self.remember = remember
        self._undo: List[Step] = []
        self._failed: Set[Command] = set()

    def __enter__(self) -> Execution:
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException], traceback: Any) -> None:
        if error is not None:
            self.undo()
            self.remember(None)

    def run(self, plan: Plan) -> None:
        """Run each step before the next one is asked for."""
        for step in plan:
            self.output.detail(f"# {step.title}")
            self.remember(step.title)
            # Known before it is begun: a step that is cut off in the middle is undone, too.
            self._undo.append(step)
            self._perform(step)
            self.remember(None)

    def _perform(self, step: Step) -> None:
        try:
            for command in step.commands:
                self._run(command, step.patience)
            if step.action is not None:
                step.action()
        except CowStorageError as error:
            explained = step.explain(error) if step.explain else error
            if explained is not None:
                raise explained from error

    def _run(self, command: Command, patience: float) -> None:
        deadline = time.monotonic() + patience
        while True:
            try:
                self.runner.run(command)
                return
            except CowStorageError as error:
                busy = isinstance(error, CommandFailed) and "busy" in error.output.lower()
                if not busy or time.monotonic() >= deadline:
                    self._failed.add(command)
                    raise
            time.sleep(0.1)

    def keep(self) -> None:
        """What was done so far is to stay, whatever comes."""
        self._undo.clear()

    def undo(self) -> None:
        """Take back what was done, last first; what can't be taken back is said, and the rest is gone on with."""
        while self._undo:
            step = self._undo.pop()
            try:
                reason = step.undo_unless() if step.undo_unless else ""
                if not reason and not self._failed.isdisjoint(step.undo):
                    # Such as mounting over a dead network, which would be waited for once more.
                    reason = "its command has failed already"
                for command in () if reason else step.undo:
                    self.runner.run(command)
            except (CowStorageError, OSError) as error:
                reason = str(error)
            if reason:
                self.output.detail(f"'{step.title}' is not undone: {reason}")


def interruptible() -> Dict[int, Any]:
    """From now on SIGHUP, SIGINT and SIGTERM raise ``Interrupted``; returns the handlers there were.

    What is ignored stays so: nohup(1) asks for that.
    """

    def interrupt(number: int, frame: object) -> None:
        # Once: what is being undone must not be interrupted again.
        for other in INTERRUPTS:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    minded = [number for number in INTERRUPTS if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, interrupt) for number in minded}


def chain(*plans: Plan) -> Iterator[Step]:
    """Several plans as one."""
    for plan in plans:
        yield from plan
