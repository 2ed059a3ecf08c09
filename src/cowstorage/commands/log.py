"""cow-log: the local transactions since the last sync, newest first, with the savepoints between them."""

from __future__ import annotations

import argparse
import heapq
import json
import os
from collections import deque
from itertools import islice
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from cowstorage.actions.context import Context
from cowstorage.database import filestorage
from cowstorage.database.format import Transaction
from cowstorage.system.output import columns, cut, human_size, local_time, one_line, table

# Columns of a line across; no wider, as lines of text are not.
RULE = 79


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
    number = context.arguments.number
    read = deque(_entries(context, names), maxlen=number and number + 1)
    entries = list(islice(reversed(read), number))
    if context.arguments.json:
        context.output.result(json.dumps([as_data(entry) for entry in entries], indent=1))
        return 0
    conversions = list(_conversions(context))
    for line in conversions:
        context.output.result(line)
    is_packed = any(_is_packed(context, storage) for storage in context.journal.bases)
    if not entries and not conversions and not is_packed:
        since = f" since the last sync, {local_time(context.journal.synced)}" if context.journal.synced else ""
        context.output.result(f"There are no local transactions{since}.")
        return 0
    shows_end = entries and len(entries) == len(read) and not is_packed
    ends = [f"savepoint {name}" for name in _at_base(context, entries)] + [_last_sync(context)] if shows_end else []
    whole = context.output.verbose or not context.output.is_terminal
    for line in lines(entries, ends, len(context.journal.bases) > 1, columns(), whole):
        context.output.result(line)
    return 0


def _last_sync(context: Context) -> str:
    return f"last sync, {local_time(context.journal.synced)}" if context.journal.synced else "what was fetched"


def _at_base(context: Context, entries: Sequence[Entry]) -> List[str]:
    """Return the savepoints that no local transaction comes before."""
    after = {name for entry in entries for name in entry.savepoints}
    return [name for name in sorted(context.journal.savepoints, reverse=True) if name not in after]


def lines(entries: Sequence[Entry], ends: Sequence[str], several: bool, width: int, whole: bool) -> List[str]:
    """Return the log as lines: a header, a transaction a line, a savepoint above the transactions that it has.

    :param ends: what comes below all of them, in words.
    :param several: name the FileStorage of each.
    :param width: columns of the terminal.
    :param whole: lines are not cut at the width, and users are told whole.
    """
    marks, shown, above, day = {}, set(), [], ""
    rows = [["TRANSACTION", "WHEN", "SIZE", *(["IN"] if several else []), "NOTE"]] if entries else []
    for entry in entries:
        new = [name for name in entry.savepoints if name not in shown]
        shown.update(new)
        marks[len(rows)] = [f"savepoint {name}" for name in reversed(new)]
        row, day = _row(entry, several, day, whole)
        rows.append(row)
    for number, line in enumerate(table(rows, right=("SIZE",))):
        above += [rule(words, width) for words in marks.get(number, ())]
        above.append(line if whole else cut(line, width))
    return above + [rule(words, width) for words in ends]


def rule(words: str, width: int) -> str:
    """Return a line across the terminal, of no more than 79 columns, with words in it."""
    return f"-- {words} ".ljust(min(width, RULE), "-")


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


def _row(entry: Entry, several: bool, day: str, whole: bool) -> Tuple[List[str], str]:
    """Return the cells of a transaction, and its day, which is not told where it is that of the row above."""
    transaction = entry.transaction
    date, _, clock = local_time(transaction.time).partition(" ")
    when = f"{date} {clock}" if date != day or whole else clock.rjust(len(date) + 1 + len(clock))
    # Zope puts the path of the user's folder before the name.
    user = one_line(transaction.user if whole else transaction.user.rpartition(" ")[2])
    note = one_line(transaction.description) or "-"
    cells = [transaction.tid, when, human_size(transaction.size), *([entry.storage] if several else [])]
    return [*cells, f"{note} ({user})" if user else note], date


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
