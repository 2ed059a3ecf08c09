"""cow-log: the local transactions since the last sync, newest first."""

from __future__ import annotations

import argparse
import heapq
import json
import os
from collections import deque
from typing import Any, Dict, Iterator, List, NamedTuple

from cowstorage.actions.context import Context
from cowstorage.database import filestorage
from cowstorage.database.format import Transaction
from cowstorage.system.output import human_size, local_time, one_line, table


class Entry(NamedTuple):
    """A transaction, the FileStorage it is in, and the savepoints set right after it."""

    transaction: Transaction
    storage: str
    savepoints: List[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how many, and for whom."""
    parser.add_argument("-n", "--number", type=_number, metavar="N", help="the newest N only")
    parser.add_argument("--json", action="store_true", help="for scripts")


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def run(context: Context) -> int:
    """Print the local transactions."""
    names = _names(context)
    # Read oldest first, since that is how the file goes; only the newest are kept.
    entries = deque(_entries(context, names), maxlen=context.arguments.number)
    entries.reverse()
    if context.arguments.json:
        context.output.result(json.dumps([as_data(entry) for entry in entries], indent=1))
        return 0
    conversions = list(_conversions(context))
    for line in conversions:
        context.output.result(line)
    if not entries and not conversions and not any(_is_packed(context, storage) for storage in context.journal.bases):
        since = f" since the last sync, {local_time(context.journal.synced)}" if context.journal.synced else ""
        context.output.result(f"There are no local transactions{since}.")
        return 0
    several = len(context.journal.bases) > 1
    for line in table(_row(entry, several) for entry in entries):
        context.output.result(line)
    return 0


def _conversions(context: Context) -> Iterator[str]:
    """Yield what no transaction tells: that the magic of a FileStorage was changed."""
    from cowstorage.actions import local_changes  # start-up

    for change in local_changes.changes(context):
        if change.magics and change.transactions is not None:
            advice = "" if change.converted else f". Back: {context.script('rollback')}"
            yield f"{change.name}: {change.conversion}{advice}"


def _names(context: Context) -> Dict[str, Dict[str, List[str]]]:
    """Return, by FileStorage and tid, the savepoints that lie right after that transaction."""
    names: Dict[str, Dict[str, List[str]]] = {}
    for savepoint in sorted(context.journal.savepoints):
        for storage, position in context.journal.positions_of(savepoint).items():
            names.setdefault(storage, {}).setdefault(position.tid, []).append(savepoint)
    return names


def _entries(context: Context, names: Dict[str, Dict[str, List[str]]]) -> Iterator[Entry]:
    streams = [_of_storage(context, storage, names.get(storage, {})) for storage in sorted(context.journal.bases)]
    return heapq.merge(*streams, key=lambda entry: entry.transaction.tid)


def _of_storage(context: Context, storage: str, names: Dict[str, List[str]]) -> Iterator[Entry]:
    path, base = context.paths(storage).local, context.journal.base_of(storage)
    if base is None or not os.path.exists(path):
        return
    if _is_packed(context, storage):
        context.output.warn(f"{storage} was packed locally: which transactions are local can't be told any more.")
        return
    for transaction in filestorage.transactions(path, base):
        yield Entry(transaction, storage, names.get(transaction.tid, []))


def _is_packed(context: Context, storage: str) -> bool:
    """Tell whether a FileStorage was packed locally, so that nothing in it tells what is local."""
    paths, base = context.paths(storage), context.journal.base_of(storage)
    if base is None or not os.path.exists(paths.local):
        return False
    return paths.is_replaced or not filestorage.holds(paths.local, base)


def _row(entry: Entry, several: bool) -> List[str]:
    transaction = entry.transaction
    marks = "".join(f" [{name}]" for name in entry.savepoints)
    row = [
        transaction.tid,
        local_time(transaction.time),
        human_size(transaction.size),
        f"{transaction.objects} obj",
        one_line(transaction.user) or "-",
        (one_line(transaction.description) or "-") + marks,
    ]
    return [*row[:1], entry.storage, *row[1:]] if several else row


def as_data(entry: Entry) -> Dict[str, Any]:
    """Return one entry for ``--json``; time in unix seconds, size in bytes."""
    transaction = entry.transaction
    return {
        "tid": transaction.tid,
        "storage": entry.storage,
        "time": transaction.time,
        "user": transaction.user,
        "description": transaction.description,
        "objects": transaction.objects,
        "size": transaction.size,
        "savepoints": entry.savepoints,
    }
