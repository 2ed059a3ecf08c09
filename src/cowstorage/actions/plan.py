"""A plan: the steps of a command, which are printed, or run and undone in reverse when one fails."""

from __future__ import annotations

import signal
import time
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

from cowstorage.errors import CommandFailed, CowStorageError, Interrupted
from cowstorage.system.output import Output, human_seconds
from cowstorage.system.processes import INTERRUPTS
from cowstorage.system.programs import Command, Runner, shell_line


class Step(NamedTuple):
    """One thing to do.

    :param title: what the step does, for ``--dry-run``, ``--verbose`` and the journal.
    :param commands: the programs to run, in order.
    :param action: what no program does; called after the commands.
    :param undo: the programs that take the step back.
    :param after_undo: what no program does; called after the undo's programs, whether they failed or not.
    :param undo_unless: returns a reason to skip the undo, or an empty text.
    :param patience: seconds for which a command that finds something busy is tried again.
    :param explain: returns a clearer error for an error of the step, or ``None`` to ignore the error.
    :param keeps: when the step is done, nothing up to and with it is undone any more.
    :param connects: what is waited for, such as ``Connecting to www.example.com``: shown on a terminal, with the time
        that it took.
    """

    title: str
    commands: Tuple[Command, ...] = ()
    action: Optional[Callable[[], None]] = None
    undo: Tuple[Command, ...] = ()
    explain: Optional[Callable[[CowStorageError], Optional[CowStorageError]]] = None
    patience: float = 0.0
    undo_unless: Optional[Callable[[], str]] = None
    keeps: bool = False
    connects: str = ""
    after_undo: Optional[Callable[[], None]] = None


# Made step by step: what a later step does may depend on what an earlier one found.
Plan = Iterable[Step]


def without_undo(plan: Plan) -> Iterator[Step]:
    """Yield the steps of a plan, none of which will be taken back."""
    for step in plan:
        yield step._replace(undo=(), after_undo=None)


def show(plan: Plan, runner: Runner, output: Output) -> None:
    """Print the commands of a plan, ready to paste into a shell; nothing is changed."""
    for step in plan:
        output.result(f"# {step.title}")
        for command in step.commands:
            output.result(shell_line(command, runner.sudo, runner.euid))


class Execution:
    """Runs plans one after the other and remembers how to undo them.

    Used as a context: an exception inside it undoes what was done, then goes on.

    :param remember: called with a step's title before it is run, and with ``None`` after; writes the journal.
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
        self.output.progress_done()
        if error is not None:
            self.undo()
            self.remember(None)

    def run(self, plan: Plan) -> None:
        """Run each step before the next one is asked for."""
        for step in plan:
            self.output.detail(f"# {step.title}")
            if not self.output.verbose:
                # Alive from the first second: a log-in may take five, and a server that hangs ninety.
                self.output.progress(f"{step.connects or step.title} …")
            self.remember(step.title)
            # Known before it is begun: a step that is cut off in the middle is undone, too.
            self._undo.append(step)
            begun = time.monotonic()
            self._perform(step)
            if step.connects and self.output.shows_progress:
                self.output.say(f"{step.connects} … ok ({human_seconds(time.monotonic() - begun)})")
            if step.keeps:
                self._undo.clear()
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

    def undo(self) -> None:
        """Take back what was done, last step first; what can't be taken back is said, and the rest is gone on with."""
        while self._undo:
            step = self._undo.pop()
            try:
                reason = step.undo_unless() if step.undo_unless else ""
                if not reason and not self._failed.isdisjoint(step.undo):
                    # Such as mounting over a dead network, which would be waited for once more.
                    reason = "its command has failed already"
                if not reason:
                    self._take_back(step)
            except (CowStorageError, OSError) as error:
                reason = str(error)
            if reason:
                self.output.detail(f"'{step.title}' is not undone: {reason}")

    def _take_back(self, step: Step) -> None:
        """Run what takes a step back."""
        try:
            for command in step.undo:
                self.runner.run(command)
        finally:
            if step.after_undo is not None:
                step.after_undo()


def interruptible() -> Dict[int, Any]:
    """Raise ``Interrupted`` from now on at SIGHUP, SIGINT and SIGTERM; return the handlers there were.

    A signal that is ignored stays so: nohup(1) asks for that.
    """

    def interrupt(number: int, frame: object) -> None:
        # Once: what is being undone must not be interrupted again.
        for other in INTERRUPTS:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    minded = [number for number in INTERRUPTS if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, interrupt) for number in minded}
