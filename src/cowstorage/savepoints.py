"""Named positions of all FileStorages, and how to find the position of a name or a transaction."""

from __future__ import annotations

import os
import re
from typing import Dict, List, NamedTuple, Optional

from cowstorage import filestorage, refresh, reset
from cowstorage.context import Context
from cowstorage.errors import CowStorageError, PathUnusable
from cowstorage.filestorage import Position

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
TID = re.compile(r"(?:0x)?([0-9a-fA-F]{16})")


class Place(NamedTuple):
    """Where a rollback leads.

    :param label: for people.
    :param positions: of each FileStorage.
    :param is_base: production's state as last synced.
    """

    label: str
    positions: Dict[str, Position]
    is_base: bool

    @property
    def tid(self) -> str:
        """The last transaction that stays, of all FileStorages."""
        return max(position.tid for position in self.positions.values())


def check_name(name: str) -> None:
    """A savepoint's name becomes a directory's, and must not look like a tid.

    :raises CowStorageError: saying what a name may be.
    """
    if not NAME.fullmatch(name) or TID.fullmatch(name):
        raise CowStorageError(
            f"{name!r} can't be a savepoint's name: use letters, digits and _ . + - (64 at most), no tid."
        )


def present(context: Context) -> Dict[str, Position]:
    """Where each FileStorage ends now.

    :raises CowStorageError: nothing was fetched yet.
    """
    if not context.journal.bases:
        raise CowStorageError(f"There is no local database yet. Run {context.script('mount')} first.")
    positions = {}
    for name in sorted(context.journal.bases):
        path = refresh.paths(context, name).local
        if not os.path.exists(path):
            raise PathUnusable(path, f"is gone. Run {context.script('sync')} to fetch it again.")
        positions[name] = filestorage.complete_end(path, path + ".index")
    return positions


def forget(context: Context, names: List[str]) -> None:
    """Drop savepoints: the journal first, then the copies of indexes."""
    for name in names:
        context.journal.savepoints.pop(name, None)
    context.save()
    for name in names:
        for storage in list(context.journal.bases):
            path = reset.savepoint_index(context, name, storage)
            if os.path.exists(path):
                os.unlink(path)


def positions_of(context: Context, name: str) -> Dict[str, Position]:
    """A savepoint's positions as the journal has them."""
    return {storage: Position(*value) for storage, value in context.journal.savepoints[name]["positions"].items()}


def find(context: Context, target: Optional[str]) -> Place:
    """Where a name, a tid, or nothing (the base) leads.

    :raises CowStorageError: there is no such place, or a local pack took it away.
    """
    bases = {name: Position(*value) for name, value in context.journal.bases.items()}
    if not bases:
        raise CowStorageError(f"There is no local database yet. Run {context.script('mount')} first.")
    if target is None:
        return _sound(context, Place("production's state as last synced", bases, True))
    if target in context.journal.savepoints:
        place = Place(f"savepoint {target}", positions_of(context, target), False)
        return _sound(context, place, context.journal.savepoints[target].get("inodes"))
    match = TID.fullmatch(target)
    if not match:
        known = ", ".join(sorted(context.journal.savepoints)) or "none"
        raise CowStorageError(f"There is no savepoint {target}. Known: {known}. A transaction has 16 hex digits.")
    return _sound(context, Place(f"transaction {target}", _at(context, bases, match.group(1).lower()), False))


def inodes(context: Context) -> Dict[str, int]:
    """The inode of each FileStorage, which a local pack changes."""
    return {name: os.stat(refresh.paths(context, name).local).st_ino for name in context.journal.bases}


def _at(context: Context, bases: Dict[str, Position], tid: str) -> Dict[str, Position]:
    """The end of the last transaction up to ``tid`` in each FileStorage; one of them must have it."""
    positions, seen = {}, False
    for name, base in bases.items():
        position = base
        place = refresh.paths(context, name)
        if not place.is_replaced and filestorage.holds(place.local, base):
            for transaction in filestorage.transactions(place.local, base):
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


def _sound(context: Context, place: Place, files: Optional[Dict[str, int]] = None) -> Place:
    """The place, if it can be gone back to.

    :param files: the inodes that a savepoint was set on; else those that were fetched are meant.
    :raises PathUnusable: saying what became of it.
    """
    for name, position in place.positions.items():
        paths = refresh.paths(context, name)
        path = paths.fetched if place.is_base else paths.local
        if not os.path.exists(path):
            raise PathUnusable(path, f"is gone. Run {context.script('sync')} to fetch it again.")
        same = os.stat(path).st_ino == files.get(name) if files else place.is_base or not paths.is_replaced
        if not same or not filestorage.holds(path, position):
            raise PathUnusable(path, _gone(context, place))
    return place


def _gone(context: Context, place: Place) -> str:
    problem = f"no longer holds {place.label}: it was packed locally, or changed by other means."
    if place.is_base:
        return f"{problem} Run {context.script('sync')} to fetch production's state."
    return f"{problem} Still there is production's state as last synced: {context.script('rollback')} without a name."


def lost_by(context: Context, place: Place) -> List[str]:
    """The savepoints that lie after a place."""
    return [
        name
        for name in sorted(context.journal.savepoints)
        if any(
            position.size > place.positions[storage].size
            for storage, position in positions_of(context, name).items()
            if storage in place.positions
        )
    ]
