"""Kill points: the script kills or stops itself at the Nth thing it does, as if somebody had at that very instant."""

from __future__ import annotations

import os
import signal
from typing import Any, Callable

from cowstorage.actions.plan import Execution, Step
from cowstorage.part import journal
from cowstorage.system import time_limits
from cowstorage.system.programs import Command, Runner


def killed_at(number: int, by: int = signal.SIGKILL) -> Callable[[], None]:
    """A fault: the signal arrives at point ``number``, counted from 0.

    Points are: before each program, after the programs of a step, after the step, and between the writing of a
    journal and its rename.  Nothing happens between the end of a program and the next of these.
    """

    def install() -> None:
        count = -1

        def point() -> None:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), by)

        run, perform = Runner.run, Execution._perform

        def run_after_point(self: Runner, command: Command) -> str:
            point()
            return run(self, command)

        def perform_with_points(self: Execution, step: Step) -> None:
            perform(self, step._replace(action=lambda: [point(), step.action and step.action(), point()]))

        Runner.run = run_after_point  # type: ignore[method-assign]
        Execution._perform = perform_with_points  # type: ignore[method-assign]
        journal.os = _OsWithSlowRename(point)  # type: ignore[attr-defined, assignment]

    return install


def stopped_at(place: str, nth: int = 0) -> Callable[[], None]:
    """A fault: the script stops itself, SIGSTOP, right before it does something for the nth time, counted from 0.

    What its child processes do isn't counted: nobody would wake one that has stopped itself.

    :param place: a program that it runs, or ``look``: a child process that looks at what may not answer.
    """

    def install() -> None:
        script, left = os.getpid(), nth

        def point(here: str) -> None:
            nonlocal left
            if here == place and os.getpid() == script:
                left -= 1
                if left == -1:
                    os.kill(os.getpid(), signal.SIGSTOP)

        run = Runner.run

        def run_after_point(self: Runner, command: Command) -> str:
            point(command.argv[0])
            return run(self, command)

        class LookingAfterPoint(time_limits._Child):
            def __init__(self, *arguments: Any, **keywords: Any):
                point("look")
                super().__init__(*arguments, **keywords)

        Runner.run = run_after_point  # type: ignore[method-assign]
        time_limits._Child = LookingAfterPoint  # type: ignore[misc]

    return install


class _OsWithSlowRename:
    """The module ``os``, with a point before its ``rename``."""

    def __init__(self, point: Callable[[], None]):
        self._point = point

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def rename(self, source: str, target: str) -> None:
        self._point()
        os.rename(source, target)
