"""Savepoints, and where a rollback leads: the position of a name, of a transaction, or of the last sync."""

from __future__ import annotations

import os
import re
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

from cowstorage.actions.context import Context
from cowstorage.database import filestorage
from cowstorage.database.conversion import magic_at, magic_of
from cowstorage.database.format import MAGIC, NO_MAGICS, Position
from cowstorage.errors import CowStorageError, PathUnusable
from cowstorage.part.paths import savepoint_index

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
TID = re.compile(r"(?:0x)?([0-9a-fA-F]{16})")

# What the option ``prepare`` has left, and what it began with: where a rollback leads, and not a user's names.
PREPARED = "prepared"
PRODUCTION = "production"


class Target(NamedTuple):
    """Where a rollback leads.

    :param label: for people.
    :param positions: of each FileStorage.
    :param is_base: production's state as last synced.
    :param magics: of each FileStorage; a conversion changes it without a transaction.
    """

    label: str
    positions: Dict[str, Position]
    is_base: bool
    magics: Mapping[str, bytes] = NO_MAGICS

    def state_of(self, name: str) -> Tuple[int, bytes]:
        """Return what grows from each state of a FileStorage to the next: its size, then its magic."""
        return self.positions[name].size, self.magics.get(name, MAGIC)


def check_name(name: str) -> None:
    """Refuse a name that can't be a savepoint's: it becomes a directory's, and must not look like a tid.

    :raises CowStorageError: saying what a name may be.
    """
    if not NAME.fullmatch(name) or TID.fullmatch(name):
        raise CowStorageError(
            f"{name!r} can't be a savepoint's name: use letters, digits and _ . + - (64 at most), no tid."
        )
    if name in (PREPARED, PRODUCTION):
        raise CowStorageError(
            f"{name!r} is no name for a savepoint of your own: see the option prepare. Choose another."
        )


def present_positions(context: Context) -> Dict[str, Position]:
    """Return where each FileStorage ends now.

    :raises CowStorageError: nothing was fetched yet.
    """
    _refuse_without_database(context)
    positions = {}
    for name in sorted(context.journal.bases):
        path = context.paths(name).local
        if not os.path.exists(path):
            raise PathUnusable(path, f"is gone. Run {context.script('sync')} to fetch it again.")
        positions[name] = filestorage.complete_end(path, path + ".index")
    return positions


def _refuse_without_database(context: Context) -> None:
    if not context.journal.bases:
        raise CowStorageError(f"There is no local database yet. Run {context.script('mount')} first.")


def forget(context: Context, names: List[str]) -> None:
    """Remove savepoints: from the journal first, then their copies of indexes."""
    for name in names:
        context.journal.savepoints.pop(name, None)
    context.save()
    for name in names:
        for storage in list(context.journal.bases):
            path = savepoint_index(context.settings, name, storage)
            if os.path.exists(path):
                os.unlink(path)


def find(context: Context, target: Optional[str]) -> Target:
    """Return where a name, a tid, or ``None`` (the base) leads.

    :raises CowStorageError: the target is not known, or a local pack took it away.
    """
    _refuse_without_database(context)
    journal = context.journal
    bases = journal.base_positions()
    if target is None:
        return _intact(context, Target("production's state as last synced", bases, True, journal.base_magics()))
    if target in journal.savepoints:
        noted = journal.positions_of(target), False, journal.magics_of(target)
        found = Target(f"savepoint {target}", *noted)
        return _intact(context, found, context.journal.savepoints[target].get("inodes"))
    match = TID.fullmatch(target)
    if not match:
        known = ", ".join(sorted(context.journal.savepoints)) or "none"
        raise CowStorageError(f"There is no savepoint {target}. Known: {known}. A transaction has 16 hex digits.")
    positions = _positions_at(context, bases, match.group(1).lower())
    there = _intact(context, Target(f"transaction {target}", positions, False))
    return there._replace(magics={name: _magic_at(context, name, position) for name, position in positions.items()})


def magics(context: Context) -> Dict[str, str]:
    """Return the magic of each FileStorage as it is now, as the journal has it."""
    return {name: magic_of(context.paths(name).local).decode("ascii") for name in sorted(context.journal.bases)}


def _magic_at(context: Context, name: str, position: Position) -> bytes:
    """Return the magic that a FileStorage had at a position after the base."""
    base = context.journal.base_positions()[name]
    return magic_at(context.paths(name).local, base, context.journal.base_magic(name), position)


def inodes(context: Context) -> Dict[str, int]:
    """Return the inode of each FileStorage, which a local pack changes."""
    return {name: os.stat(context.paths(name).local).st_ino for name in context.journal.bases}


def _positions_at(context: Context, bases: Dict[str, Position], tid: str) -> Dict[str, Position]:
    """Return the end of the last transaction up to ``tid`` in each FileStorage.

    :raises CowStorageError: none of them has that transaction.
    """
    positions, seen = {}, False
    for name, base in bases.items():
        position = base
        paths = context.paths(name)
        if not paths.is_replaced and filestorage.holds(paths.local, base):
            for transaction in filestorage.transactions(paths.local, base):
                if transaction.tid > tid:
                    break
                position = transaction.position
        seen = seen or position.tid == tid
        positions[name] = position
    if not seen:
        raise CowStorageError(
            f"There is no local transaction {tid} after the last sync. {context.script('log')} shows those there are."
        )
    return positions


def _intact(context: Context, target: Target, files: Optional[Dict[str, int]] = None) -> Target:
    """Return the target, if each FileStorage still holds its position.

    :param files: the inodes that a savepoint was set on; else those that were fetched are meant.
    :raises PathUnusable: saying what became of it.
    """
    for name, position in target.positions.items():
        paths = context.paths(name)
        path = paths.fetched if target.is_base else paths.local
        if not os.path.exists(path):
            raise PathUnusable(path, f"is gone. Run {context.script('sync')} to fetch it again.")
        same = os.stat(path).st_ino == files.get(name) if files else target.is_base or not paths.is_replaced
        if not same or not filestorage.holds(path, position):
            raise PathUnusable(path, _what_became(context, target))
    return target


def _what_became(context: Context, target: Target) -> str:
    problem = f"no longer holds {target.label}: it was packed locally, or changed by other means."
    if target.is_base:
        return f"{problem} Run {context.script('sync')} to fetch production's state."
    return f"{problem} Still there is production's state as last synced: {context.script('rollback')} production."


def later_than(context: Context, target: Target) -> List[str]:
    """Return the savepoints that lie after a target; at one position, those that were converted since."""
    later = []
    for name in sorted(context.journal.savepoints):
        found = Target(name, context.journal.positions_of(name), False, context.journal.magics_of(name))
        if any(
            found.state_of(storage) > target.state_of(storage)
            for storage in found.positions
            if storage in target.positions
        ):
            later.append(name)
    return later
