"""Steps that name the present state of the database."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Iterator

from cowstorage.actions import savepoints
from cowstorage.actions.context import Context
from cowstorage.actions.cut_back import copy_index
from cowstorage.actions.plan import Step
from cowstorage.part.paths import savepoint_index
from cowstorage.system.programs import Command


def name_state(context: Context, name: str) -> Iterator[Step]:
    """Yield the steps: a copy of each index, then the positions into the journal."""
    directory = os.path.dirname(savepoint_index(context.settings, name, ""))
    commands = [Command(("mkdir", "-p", "-m", "0700", "--", directory))]
    for storage in sorted(context.journal.bases):
        index = context.paths(storage).local + ".index"
        if os.path.exists(index):
            copy = savepoint_index(context.settings, name, storage)
            commands.append(copy_index(index, copy))
    yield Step(f"Keep the indexes for savepoint {name}", tuple(commands))
    # The positions are read after the indexes were copied, so that no index is ahead of its position.
    yield Step(f"Note savepoint {name}", action=partial(_note, context, name))


def _note(context: Context, name: str) -> None:
    """Write a savepoint into the journal."""
    context.journal.savepoints[name] = {
        "time": time.time(),
        "positions": {storage: list(position) for storage, position in savepoints.present_positions(context).items()},
        "inodes": savepoints.inodes(context),
        "magics": savepoints.magics(context),
    }
    context.save()
