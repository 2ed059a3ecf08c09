"""The part's own preparation of a fresh copy, the option ``prepare``: commands, and the savepoint that they end with.

The journal says ``due`` from when production's state was fetched until all of them have gone well.  Until then
``cow-status`` says broken: what is there is not to be used.
"""

from __future__ import annotations

import os
import shlex
from functools import partial
from itertools import chain
from typing import Iterator, Tuple

from cowstorage.actions import local_changes, preflight, savepoints, survey
from cowstorage.actions.context import Context
from cowstorage.actions.name_state import name_state
from cowstorage.actions.plan import Plan, Step
from cowstorage.errors import CommandFailed, CowStorageError, PreparationFailed
from cowstorage.system.installed import find_program
from cowstorage.system.programs import Command

# Lines of a failed command's output that are shown.
SHOWN_LINES = 40


def argv_of(context: Context, line: str) -> Tuple[str, ...]:
    """Return program and arguments of a line of the option; a program with a slash is below the buildout directory."""
    program, *arguments = shlex.split(line)
    if "/" in program:
        program = os.path.join(context.settings.directory, program)
    return (program, *arguments)


def check(context: Context) -> None:
    """Refuse, before anything is fetched, where a program of the option is missing.

    :raises CowStorageError: naming the line.
    """
    for line in context.settings.prepare:
        if find_program(argv_of(context, line)[0]) is None:
            raise CowStorageError(f"prepare: there is no program to run for this line: {line}. Look at it in the part.")


def note_due(context: Context, due: bool) -> None:
    """Note in the journal, with the next writing, whether what is fetched is still to be prepared."""
    context.journal.prepare = "due" if due and context.settings.prepare else None


def is_due(context: Context) -> bool:
    """Tell whether what was fetched is still to be prepared: until the savepoint is in the journal."""
    journal = context.journal
    return journal.prepare == "due" and bool(context.settings.prepare) and savepoints.PREPARED not in journal.savepoints


def is_pristine(context: Context) -> bool:
    """Tell whether nothing was changed here since production's state was fetched, so that commands may begin anew."""
    return not local_changes.losses(context)


def prepare(context: Context) -> Plan:
    """Return the steps that prepare what is mounted, and name it; a failure leaves all mounted, to be looked at."""
    return chain(
        _commands(context),
        _refuse_what_goes_on(context),
        name_state(context, savepoints.PREPARED),
        (Step("Note that it is prepared", action=partial(_note_done, context)),),
    )


def run_due(context: Context) -> None:
    """Prepare what is mounted, if that is due.

    :raises CowStorageError: a command failed; or it was changed since it was fetched, by commands that were cut off.
    """
    if not is_due(context):
        return
    if not is_pristine(context):
        raise CowStorageError(
            "What was fetched is not prepared: a command of the option prepare failed, or was cut off. "
            f"Run {context.script('rollback')}, which goes back to production's state and prepares it anew."
        )
    context.run(prepare(context))
    context.output.say(f"Prepared. Back to this state: {context.script('rollback')}")


def _commands(context: Context) -> Iterator[Step]:
    lines = context.settings.prepare
    for number, line in enumerate(lines, 1):
        if not context.arguments.dry_run:
            context.output.say(f"Preparing, {number} of {len(lines)}: {line}")
        command = Command(argv_of(context, line), cwd=context.settings.directory, limit=None)
        yield Step(f"Prepare: {line}", (command,), explain=partial(_explain, context, line))


def _explain(context: Context, line: str, error: CowStorageError) -> CowStorageError:
    if not isinstance(error, CommandFailed):
        return error
    shown = error.output.strip().splitlines()[-SHOWN_LINES:]
    return PreparationFailed(line, error.exit_code_of_command, shown, context.script("rollback"))


def _refuse_what_goes_on(context: Context) -> Iterator[Step]:
    """Yield the step that refuses to name a state while a command has left a process that has the database open."""

    def action() -> None:
        seen = survey.take(context, probe=False)
        preflight.refuse_in_use(context, seen, with_network=False, with_uppers=False)

    yield Step("See that nothing has the database open any more", action=action)


def _note_done(context: Context) -> None:
    context.journal.prepare = None
    context.save()
