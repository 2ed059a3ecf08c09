"""cow-log: the local transactions since the last sync, newest first."""

from __future__ import annotations

import argparse
import heapq
import json
import os
from collections import deque
from typing import Any, Dict, Iterator, List, NamedTuple

from cowstorage import filestorage, refresh, savepoints
from cowstorage.context import Context
from cowstorage.filestorage import Transaction
from cowstorage.output import human_size, local_time, table


class Entry(NamedTuple):
    """A transaction, the FileStorage it is in, and the savepoints set right after it."""

    transaction: Transaction
    storage: str
    savepoints: List[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many, and for whom."""
    parser.add_argument("-n", "--number", type=_number, metavar="N", help="the newest N only")
    parser.add_argument("--json", action="store_true", help="for scripts")


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def run(context: Context) -> int:
    """Print them."""
    names = _names(context)
    # Read oldest first, since that is how the file goes; only the newest are kept.
    entries = deque(_entries(context, names), maxlen=context.arguments.number)
    entries.reverse()
    if context.arguments.json:
        context.output.result(json.dumps([as_data(entry) for entry in entries], indent=1))
        return 0
    if not entries:
        since = f" since the last sync, {local_time(context.journal.synced)}" if context.journal.synced else ""
        context.output.result(f"There are no local transactions{since}.")
        return 0
    several = len(context.journal.bases) > 1
    for line in table(_row(entry, several) for entry in entries):
        context.output.result(line)
    return 0


def _names(context: Context) -> Dict[str, Dict[str, List[str]]]:
    """FileStorage → tid → the savepoints that lie right after that transaction."""
    names: Dict[str, Dict[str, List[str]]] = {}
    for savepoint in sorted(context.journal.savepoints):
        for storage, position in savepoints.positions_of(context, savepoint).items():
            names.setdefault(storage, {}).setdefault(position.tid, []).append(savepoint)
    return names


def _entries(context: Context, names: Dict[str, Dict[str, List[str]]]) -> Iterator[Entry]:
    streams = [_of_storage(context, storage, names.get(storage, {})) for storage in sorted(context.journal.bases)]
    return heapq.merge(*streams, key=lambda entry: entry.transaction.tid)


def _of_storage(context: Context, storage: str, names: Dict[str, List[str]]) -> Iterator[Entry]:
    place, base = refresh.paths(context, storage), refresh.base_of(context, storage)
    path = place.local
    if base is None or not os.path.exists(path):
        return
    if place.is_replaced or not filestorage.holds(path, base):
        context.output.warn(f"{storage} was packed locally: which transactions are local can't be told any more.")
        return
    for transaction in filestorage.transactions(path, base):
        yield Entry(transaction, storage, names.get(transaction.tid, []))


def _row(entry: Entry, several: bool) -> List[str]:
    transaction = entry.transaction
    marks = "".join(f" [{name}]" for name in entry.savepoints)
    row = [
        transaction.tid,
        local_time(transaction.time),
        human_size(transaction.size),
        f"{transaction.objects} obj",
        transaction.user.strip() or "-",
        (one_line(transaction.description) or "-") + marks,
    ]
    return [*row[:1], entry.storage, *row[1:]] if several else row


def one_line(text: str) -> str:
    """A description on one line, without characters that a terminal would obey."""
    return " / ".join(
        "".join(character if character.isprintable() else "?" for character in line.strip())
        for line in text.splitlines()
        if line.strip()
    )


def as_data(entry: Entry) -> Dict[str, Any]:
    """One entry for ``--json``; time in unix seconds, size in bytes."""
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
