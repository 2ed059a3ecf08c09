"""Predict which BLOB files are read next by somebody who reads each, or each third, in the order of their making.

An upgrade step goes through the objects of a type, mostly in that order, or backwards.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, List, Optional, Tuple

from cowstorage.production.wire.knowledge import Files, Knowledge
from cowstorage.production.wire.names import blob_path, directory_of, object_of
from cowstorage.production.wire.store import Store

# Files that are predicted at most.
MOST = 8

# The oids before and behind one that was read that are looked at, some 20 µs each, once.
REACH = 256

OIDS = 1 << 64

# In which orders of oid and tid BLOBs may have been made: ZODB counts oids up, and gives the last one first to what is
# new in a transaction, since ``ZODB.serialize.ObjectWriter`` has it on a stack; not where there are savepoints between.
ORDERS: Tuple[Callable[[Tuple[int, bytes]], Any], ...] = (lambda one: one[0], lambda one: (one[1], -one[0]))


class Sequence:
    """The order in which BLOB files are read, as far as the local database knows which there are.

    It is found when two files in a row are as many BLOBs further than the one before, and lost with one that was not
    predicted.  At first one file is predicted, and twice as many each time that one which is wanted has not come yet;
    half as many when answers wait for each other.
    """

    def __init__(self, store: Store, knowledge: Knowledge):
        self._store = store
        self._near = Near(knowledge)
        self._last: Optional[int] = None
        # In each order: how many BLOBs further the last one was.
        self._steps = [0] * len(ORDERS)
        self._order = self._depth = 0
        self._expected: List[int] = []

    @property
    def is_found(self) -> bool:
        """Whether there is an order."""
        return self._depth > 0

    def next(self, relative: str, has_come: bool, is_crowded: bool) -> List[str]:
        """Take note of a BLOB file that is read, and return those that are read next and are not in the cache.

        To be called by one thread at a time, which may wait for the disk.

        :param has_come: whether all of the file was here.
        :param is_crowded: whether answers of production's wait for each other.
        """
        directory = os.path.dirname(relative)
        oid = object_of(directory)
        if oid is None or oid == self._last:
            return []
        if self._last is None or abs(oid - self._last) > REACH:
            # No order goes so far, and looking around takes ten milliseconds.
            self._last, self._steps, self._depth, self._expected = oid, [0] * len(ORDERS), 0, []
            return []
        tids = self._near.around(oid)
        orders = [[other for other, _ in sorted(tids.items(), key=key)] for key in ORDERS]
        # What was expected may be gone with a sync.
        if oid not in self._expected or oid not in tids:
            self._look(orders, oid)
        elif is_crowded:
            self._depth = max(1, self._depth // 2)
        elif not has_come:
            self._depth = min(MOST, self._depth * 2)
        self._last = oid
        self._expected = _behind(orders[self._order], oid, self._steps[self._order], self._depth)
        files = (blob_path(directory_of(other, directory), tids[other]) for other in self._expected)
        return [file for file in files if not self._store.has(file)]

    def _look(self, orders: List[List[int]], oid: int) -> None:
        """Look whether there is an order in which a file is as far behind the last one as that was."""
        steps = [_distance(order, self._last, oid) for order in orders]
        same = [order for order, step in enumerate(steps) if step and step == self._steps[order]]
        self._steps = steps
        # What one order didn't predict, such as the first of the next transaction, another one may have.
        self._order, self._depth = (same[0], max(1, self._depth)) if same else (0, 0)


class Near:
    """The BLOBs of the objects with oids close to one, as the local database knows them now."""

    def __init__(self, knowledge: Knowledge):
        self._knowledge = knowledge
        self._bases: Optional[Files] = None
        self._looked = range(0)
        self._tids: Dict[int, bytes] = {}

    def around(self, oid: int) -> Dict[int, bytes]:
        """Return the tid of each."""
        bases = self._knowledge.bases()
        if bases is None or bases != self._bases:
            self._bases, self._looked, self._tids = bases, range(0), {}
        wanted = range(max(0, oid - REACH), min(OIDS, oid + REACH + 1))
        known = {other: tid for other, tid in self._tids.items() if other in wanted}
        for other in wanted:
            tid = None if other in self._looked else self._knowledge.of(other.to_bytes(8, "big")).tid
            if tid:
                known[other] = tid
        self._looked, self._tids = wanted, known
        return known


def _distance(order: List[int], begin: Optional[int], end: int) -> int:
    """Return how many BLOBs one is behind another; negative before it, 0 where that isn't known."""
    return order.index(end) - order.index(begin) if begin in order and end in order else 0


def _behind(order: List[int], oid: int, step: int, count: int) -> List[int]:
    """Return each so many BLOBs further than the one before, the nearest first."""
    if not count:
        return []
    at = order.index(oid)
    numbers = (at + step * turn for turn in range(1, count + 1))
    return [order[number] for number in numbers if 0 <= number < len(order)]
