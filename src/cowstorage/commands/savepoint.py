"""cow-savepoint: names the present state of the database."""

from __future__ import annotations

import argparse
import json
from typing import Any, Dict

from cowstorage.actions import preflight, savepoints, survey
from cowstorage.actions.context import Context
from cowstorage.actions.name_state import name_state
from cowstorage.actions.plan import show as show_plan
from cowstorage.database.format import MAGIC
from cowstorage.errors import CowStorageError
from cowstorage.system.output import human_size, local_time, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a name, and what to do with the names there are."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="letters, digits and _ . + -")
    parser.add_argument("-l", "--list", action="store_true", help="show the savepoints")
    parser.add_argument("--delete", metavar="NAME", help="forget a savepoint; the database stays as it is")
    parser.add_argument("--force", action="store_true", help="set an existing name anew")
    parser.add_argument("--json", action="store_true", help="with --list: for scripts")


def run(context: Context) -> int:
    """Name the present state, or list or forget names."""
    arguments = context.arguments
    if arguments.delete:
        return delete(context, arguments.delete)
    if arguments.list or arguments.json or arguments.name is None:
        return show(context)
    return record(context, arguments.name)


def record(context: Context, name: str) -> int:
    """Name the present state; the time it takes does not depend on the size of the database.

    A single FileStorage may be in use: its last complete transaction stays what it is, whatever is appended.
    """
    savepoints.check_name(name)
    if name in context.journal.savepoints and not context.arguments.force:
        raise CowStorageError(f"There is a savepoint {name} already. Choose another name, or add --force.")
    if len(context.journal.bases) > 1:
        # Of a commit to several at once one may have its part already and another not yet.
        preflight.refuse_in_use(context, survey.take(context, probe=False), with_network=False, with_uppers=False)
    if context.arguments.dry_run:
        show_plan(name_state(context, name), context.runner, context.output)
        return 0
    savepoints.present_positions(context)
    context.run(name_state(context, name))
    context.output.say(f"Savepoint {name} is set. Back to it: {context.script('rollback')} {name}")
    return 0


def delete(context: Context, name: str) -> int:
    """Forget a savepoint; the database stays as it is."""
    if name not in context.journal.savepoints:
        raise CowStorageError(f"There is no savepoint {name}.")
    if not context.arguments.dry_run:
        savepoints.forget(context, [name])
    context.output.say(f"Savepoint {name} is forgotten; the database is as it was.")
    return 0


def show(context: Context) -> int:
    """Print the savepoints, oldest first."""
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
    """Return one savepoint for ``--json``; time in unix seconds, sizes in bytes."""
    magics = data.get("magics") or {}
    positions = {
        storage: {"size": size, "tid": tid, "magic": magics.get(storage, MAGIC.decode())}
        for storage, (size, tid) in data["positions"].items()
    }
    return {"name": name, "time": data["time"], "positions": positions}
