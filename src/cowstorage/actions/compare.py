"""How each FileStorage of production relates to the local one: the same, grown, packed, or another database."""

from __future__ import annotations

import os
from typing import List, NamedTuple, Optional, Tuple

from cowstorage.actions.context import Context
from cowstorage.database import filestorage
from cowstorage.database.format import START, Position
from cowstorage.database.reader import Reader
from cowstorage.errors import RemoteUnusable
from cowstorage.production.look import LOOK_SECONDS, Production
from cowstorage.system.output import local_time
from cowstorage.system.time_limits import within

CURRENT, GROWN, PACKED, REPLACED, MISSING = "current", "grown", "packed", "replaced", "missing"

COMPARE_SECONDS = LOOK_SECONDS


class Finding(NamedTuple):
    """How production's file relates to the local one.

    :param name: file name of the FileStorage.
    :param state: ``current``, ``grown``, ``packed``, ``replaced`` (another database) or ``missing`` (locally).
    :param base: what both have in common, where production still has it.
    :param remote_size: bytes.
    :param remark: what made it ``replaced``.
    :param magic: that of production's file, where both have the base in common; ``None``: not known.
    :param converted: that magic is another one than our base's.
    """

    name: str
    state: str
    base: Optional[Position]
    remote_size: int
    remark: str = ""
    magic: Optional[bytes] = None
    converted: bool = False

    @property
    def moves(self) -> int:
        """Bytes to fetch, at the most."""
        if self.state == CURRENT:
            return 0
        return self.remote_size - (self.base.size if self.base and self.state == GROWN else 0)


def find(context: Context, names: List[str], production: Production) -> List[Finding]:
    """Compare each FileStorage with production's; a few small reads through the mount.

    :raises TimeLimit: production doesn't answer.
    """
    return [_find(context, name, production.storages[name]) for name in names]


def _find(context: Context, name: str, remote_size: int) -> Finding:
    paths, base = context.paths(name), context.journal.base_of(name)
    local = paths.fetched
    if not os.path.exists(local):
        return Finding(name, MISSING, None, remote_size)
    if base is None or not filestorage.holds(local, base):
        # The base is gone: what production has can only be had whole.
        return Finding(name, PACKED, None, remote_size, "the local file was packed, or changed by other means")
    what = f"reading {paths.remote}"
    try:
        magic = None
        if remote_size >= base.size:
            magic = within(COMPARE_SECONDS, what, lambda: filestorage.magic_of_same_base(local, paths.remote, base))
        if magic is not None:
            state = CURRENT if remote_size == base.size else GROWN
            converted = magic != context.journal.base_magic(name)
            return Finding(name, state, base, remote_size, magic=magic, converted=converted)
        first, last = within(COMPARE_SECONDS, what, lambda: _ends(paths.remote))
    except OSError as error:
        problem = f"can't read {paths.remote}: {error.strerror}. Run the same command again."
        raise RemoteUnusable(context.settings.remote, problem) from None
    remark = _otherness(local, base, first, last)
    return Finding(name, REPLACED if remark else PACKED, base, remote_size, remark or "")


def _ends(path: str) -> Tuple[Optional[str], Optional[str]]:
    """Return the tids of the first transaction and of the last; ``None`` for a last transaction that is torn."""
    first = next(iter(filestorage.transactions(path, START)), None)
    with Reader(path) as reader:
        return first and first.tid, reader.whole(reader.size)


def _otherness(local: str, base: Position, first: Optional[str], last: Optional[str]) -> Optional[str]:
    """Return why production's file is no packed form of ours; ``None`` when it is one.

    Packing keeps transactions in their order with their tids, so the first of a packed file is one of ours; and a
    file whose end is inside ours is an earlier state, put back from a backup.

    :param first, last: tids of production's file.
    """
    if first is None:
        return "it has no transactions"
    if first > base.tid or filestorage.boundary(local, START, first) is None:
        return "it begins with a transaction that was never here: another database"
    if last is not None and last < base.tid:
        when = local_time(filestorage.last_transactions_time(last))
        return f"its last transaction is of {when}, older than what was fetched before: a restored backup"
    return None
