"""What production has told of BLOB files, and what becomes of the bytes of theirs that come."""

from __future__ import annotations

from typing import Dict, Optional, Set

from cowstorage.part.counters import Counters
from cowstorage.production.wire.completion import Completion
from cowstorage.production.wire.handles import Handles, Remote
from cowstorage.production.wire.packets import Attributes, Buffer
from cowstorage.production.wire.partial import Coverage
from cowstorage.production.wire.store import Store

# Of so many BLOB files it is known what production told of them.
MOST_TOLD = 4096

NOTHING = b""


class Keeping:
    """The BLOB files on their way into the cache, by their relative paths."""

    def __init__(self, store: Store, handles: Handles, completion: Completion, counters: Counters):
        self._store = store
        self._handles = handles
        self._completion = completion
        self._counters = counters
        self._told: Dict[str, Attributes] = {}
        # Those for which it is decided whether they are kept.
        self._decided: Set[str] = set()

    def told(self, relative: str) -> Optional[Attributes]:
        """Return what production told of a file last."""
        return self._told.get(relative)

    def tell(self, relative: str, told: Attributes) -> None:
        """Take what production told of a regular file; one that is on its way is not kept when it changes."""
        self._told.pop(relative, None)
        self._told[relative] = told
        if len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]
        self._store.check(relative, told)

    def keep(self, relative: str, offset: int, content: Buffer, begins: bool = True, more: bool = False) -> None:
        """Take bytes of a file.

        :param begins: whether they may be the first ones.
        :param more: whether more is under way.
        """
        self._counters.from_production += len(content)
        told = self._told.get(relative)
        if begins and told and relative not in self._decided:
            self._decided.add(relative)
            self._store.begin(relative, told)
        coming = self._store.partials.get(relative)
        if coming:
            coming.add(offset, content, more)
            if coming.is_complete:
                self._store.keep(coming)

    def doubt(self, relative: str) -> None:
        """Do not keep a file, which is not what production told."""
        coming = self._store.partials.get(relative)
        if coming:
            coming.failed = True

    def takes_over(self, remote: Remote, under_way: Coverage) -> bool:
        """Let go of a handle that sshfs closes, and tell whether the rest of its file is read by the handle now.

        :param under_way: what was asked for already, and will come.
        """
        if not self._handles.remove_remote(remote):
            return False
        # The kernel may have all of it in memory, and it may be empty.
        self.keep(remote.relative, 0, NOTHING)
        coming = self._store.partials.get(remote.relative)
        self._decided.discard(remote.relative)
        if coming is None or self._completion.goes_on(coming):
            return False
        if not coming.failed and self._completion.take(remote.handle, coming, under_way):
            return True
        self._store.drop(coming)
        return False

    def let_go(self, relative: str) -> None:
        """Throw away what has come of a file that nobody reads."""
        coming = self._store.partials.get(relative)
        if self._handles.is_open(relative) or (coming and self._completion.goes_on(coming)):
            return
        self._decided.discard(relative)
        if coming:
            self._store.drop(coming)
