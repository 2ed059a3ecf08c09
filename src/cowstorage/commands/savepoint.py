"""cow-savepoint: names the present state of the database."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any, Dict

from cowstorage import refresh, reset, savepoints, stack
from cowstorage.context import Context
from cowstorage.errors import CowStorageError
from cowstorage.output import human_size, local_time, table
from cowstorage.system import Command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A name, or what to do with the names there are."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="letters, digits and _ . + -")
    parser.add_argument("-l", "--list", action="store_true", help="show the savepoints")
    parser.add_argument("--delete", metavar="NAME", help="forget a savepoint; the database stays as it is")
    parser.add_argument("--force", action="store_true", help="set an existing name anew")
    parser.add_argument("--json", action="store_true", help="with --list: for scripts")


def run(context: Context) -> int:
    """Name, list or forget."""
    arguments = context.arguments
    if arguments.delete:
        return delete(context, arguments.delete)
    if arguments.list or arguments.json or arguments.name is None:
        return show(context)
    return record(context, arguments.name)


def record(context: Context, name: str) -> int:
    """Constant time: positions into the journal, a copy of each index.

    A single FileStorage may be in use: its last complete transaction stays what it is, whatever is appended.
    """
    savepoints.check_name(name)
    if name in context.journal.savepoints and not context.arguments.force:
        raise CowStorageError(f"There is a savepoint {name} already. Choose another name, or add --force.")
    if len(context.journal.bases) > 1:
        # Of a commit to several at once one may have its part already and another not yet.
        stack.refuse_in_use(context, context.mounted or context.settings, with_network=False)
    directory = os.path.dirname(reset.savepoint_index(context, name, ""))
    commands = [Command(("mkdir", "-p", "-m", "0700", "--", directory))]
    for storage in sorted(context.journal.bases):
        index = refresh.paths(context, storage).local + ".index"
        if os.path.exists(index):
            copy = reset.savepoint_index(context, name, storage)
            commands.append(Command(("cp", "--reflink=auto", "-p", "-T", "--", index, copy)))
    if context.arguments.dry_run:
        from cowstorage.plan import Step
        from cowstorage.plan import show as show_plan

        show_plan([Step(f"Keep the indexes for savepoint {name}", tuple(commands))], context.runner, context.output)
        return 0
    savepoints.present(context)
    for command in commands:
        context.runner.run(command)
    # After the indexes were copied, so that they are not ahead of it.
    context.journal.savepoints[name] = {
        "time": time.time(),
        "positions": {storage: list(position) for storage, position in savepoints.present(context).items()},
        "inodes": savepoints.inodes(context),
    }
    context.save()
    context.output.say(f"Savepoint {name} is set. Back to it: {context.script('rollback')} {name}")
    return 0


def delete(context: Context, name: str) -> int:
    """Only the name goes."""
    if name not in context.journal.savepoints:
        raise CowStorageError(f"There is no savepoint {name}.")
    if not context.arguments.dry_run:
        savepoints.forget(context, [name])
    context.output.say(f"Savepoint {name} is forgotten; the database is as it was.")
    return 0


def show(context: Context) -> int:
    """The savepoints, oldest first."""
    known = sorted(context.journal.savepoints.items(), key=lambda item: item[1]["time"])
    if context.arguments.json:
        context.output.result(json.dumps([as_data(name, data) for name, data in known], indent=1))
        return 0
    rows = [
        (name, local_time(data["time"]), human_size(sum(size for size, _ in data["positions"].values())))
        for name, data in known
    ]
    for line in table([("NAME", "SET AT", "DATABASE"), *rows]) if rows else ["There are no savepoints."]:
        context.output.result(line)
    return 0


def as_data(name: str, data: Dict[str, Any]) -> Dict[str, Any]:
    """One savepoint for ``--json``; time in unix seconds, sizes in bytes."""
    positions = {storage: {"size": size, "tid": tid} for storage, (size, tid) in data["positions"].items()}
    return {"name": name, "time": data["time"], "positions": positions}
