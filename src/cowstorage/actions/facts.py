"""What a plan asks for while it is made: production's state, the union that works, how the FileStorages differ.

``Facts`` finds each answer out when it is asked for, which may need what earlier steps have mounted; ``AssumedFacts``
answers without looking, for ``--dry-run``.  So one plan serves both.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional

from cowstorage.actions import compare, fetch, production_mount
from cowstorage.actions.choose_union import Choice, attempt, choose
from cowstorage.actions.compare import Finding
from cowstorage.actions.context import Context
from cowstorage.errors import UnionUnusable
from cowstorage.part import blob_cache
from cowstorage.production import look, through_mount
from cowstorage.production.look import Production
from cowstorage.system.time_limits import Begun, Outcome, all_within


class Found(NamedTuple):
    """What a look at production has found.

    :param findings: how each FileStorage compares.
    :param added: name of a FileStorage → what production has behind our base, where that is little.
    """

    production: Production
    findings: List[Finding]
    added: Dict[str, bytes]


class Facts:
    """The answers of production and of the system.

    :ivar remarks: what is assumed rather than known, to be shown.
    :ivar compared: what ``lost_blobs`` has found of each FileStorage.
    """

    def __init__(self, context: Context):
        self.context = context
        self.remarks: List[str] = []
        self.compared: List[Finding] = []
        self._begun: Optional[Begun] = None
        self._reading: Optional[Begun] = None
        self._found: Optional[Found] = None

    def begin(self, known: Optional[str]) -> None:
        """Begin to look at production, which is mounted, and to compare, while something else is done.

        :param known: as for ``look.look``.
        """
        self._begun = Begun(look.LOOK_SECONDS, "looking at production", partial(self._find, known))

    @contextmanager
    def reading_indexes(self, production: Production) -> Iterator[None]:
        """Have the indexes that are little read while something else is done, where the FileStorages are to be fetched.

        ``added`` returns them.  Nothing goes on reading when that fails.
        """
        self._reading = self._read_indexes(production)
        try:
            yield
        finally:
            self.give_up()

    def _read_indexes(self, production: Production) -> Optional[Begun]:
        """Begin to read; ``None`` where there is nothing to read."""
        context = self.context
        reads = {
            name + ".index": partial(through_mount.read, context.paths(name).remote + ".index", 0, size)
            for name, size in production.indexes.items()
            if context.filesystem.reads_little and through_mount.is_little(size)
        }
        if not reads or not fetch.is_first(context, list(production.storages)):
            return None
        return Begun(look.LOOK_SECONDS, "reading indexes", lambda: _values(all_within(look.LOOK_SECONDS, reads)))

    def give_up(self) -> None:
        """Forget what was begun: production is mounted anew, or it is long ago."""
        for begun in (self._begun, self._reading):
            if begun:
                begun.give_up()
        self._begun = self._reading = None

    def _find(self, known: Optional[str]) -> Found:
        seen = self._look(known)
        comparing = "comparing"
        found = all_within(look.LOOK_SECONDS, {comparing: partial(self._compare, seen), **self._reads(seen)})
        compared = found.pop(comparing)
        if compared.error:
            raise compared.error
        return Found(seen, compared.value, _values(found))

    def _reads(self, production: Production) -> Dict[str, Callable[[], bytes]]:
        """Return, by name, what reads what was added to a FileStorage."""
        filesystem, bases = self.context.filesystem, self.context.journal.base_positions()
        added = {name: (bases[name].size, size) for name, size in production.storages.items() if name in bases}
        return {
            name: partial(through_mount.read, self.context.paths(name).remote, *ends)
            for name, ends in added.items()
            if filesystem.reads_little and through_mount.is_little(ends[1] - ends[0])
        }

    def _look(self, known: Optional[str]) -> Production:
        filesystem = self.context.filesystem
        return look.look(filesystem, filesystem.root, known=known)

    def _compare(self, production: Production) -> List[Finding]:
        context = self.context
        if not context.settings.file_storage:
            return []
        return compare.find(context, look.chosen(context.settings, production), production)

    def production(self, known: Optional[str] = None) -> Production:
        """Look at production through its mount; a BLOB cache that is laid out otherwise is dropped.

        :param known: as for ``look.look``.
        """
        begun, self._begun = self._begun, None
        self._found = begun.result() if begun else None
        seen = self._found.production if self._found else self._look(known)
        blob_cache.match(self.context.settings, seen.layout, self.context.runner)
        return seen

    def union(self, production: Production, fresh: bool = False) -> Choice:
        """Choose the union that works here.

        :param fresh: the uppers will be new ones.
        :raises RemoteUnusable, UnionUnusable: none works; that may be the network's fault.
        """
        context = self.context
        try:
            choice = choose(context, lambda union, layer: attempt(context, union, layer, production), fresh)
        except UnionUnusable as error:
            raise production_mount.connection_lost(context) or error from None
        for name, reason in choice.tried:
            context.output.detail(f"Passed over {name}: {reason}")
            if name in choice.held:
                context.output.say(f"{name} would be used, but {reason}")
        if choice.avoided:
            context.output.warn(f"No other union works here than {choice.union.name}: {choice.avoided}.")
        return choice

    def findings(self, production: Production) -> List[Finding]:
        """Compare each FileStorage with production's."""
        if self._found and self._found.production is production:
            return self._found.findings
        return self._compare(production)

    def added(self, production: Production) -> Dict[str, bytes]:
        """Return what was read already, by the names of FileStorages and of indexes.

        Of what ``begin`` has read nothing where production was looked at again.
        """
        reading, self._reading = self._reading, None
        indexes = reading.result() if reading else {}
        return {**indexes, **(self._found.added if self._found and self._found.production is production else {})}

    def lost_blobs(self, production: Production) -> List[Finding]:
        """Return the FileStorages whose BLOBs production may no longer have: its own is no later state of the same."""
        context = self.context
        names = [name for name in sorted(context.journal.bases) if name in production.storages]
        self.compared = compare.find(context, names, production) if context.settings.file_storage else []
        states = (compare.PACKED, compare.REPLACED)
        return [finding for finding in self.compared if finding.base is not None and finding.state in states]


def _values(found: Dict[str, Outcome]) -> Dict[str, bytes]:
    """Return what was read; what could not be is fetched later, and fails there."""
    return {name: read.value for name, read in found.items() if read.value}


class AssumedFacts(Facts):
    """What is likely: production has only grown, and the first union that nothing speaks against works."""

    def production(self, known: Optional[str] = None) -> Production:
        names = self.context.settings.storages or tuple(self.context.journal.bases) or ("Data.fs",)
        nothing_known = dict.fromkeys(names, 0)
        return Production(storages=nothing_known, indexes=nothing_known, sample=known)

    def union(self, production: Production, fresh: bool = False) -> Choice:
        choice = choose(self.context, lambda union, layer: None, fresh)
        if self.context.settings.union == "auto":
            first = choice.union.name
            self.remarks.append(f"union = auto: each union would be tried here; shown is the first candidate, {first}")
        return choice

    def findings(self, production: Production) -> List[Finding]:
        if not self.context.settings.file_storage:
            return []
        bases = {name: self.context.journal.base_of(name) for name in production.storages}
        if any(bases.values()):
            self.remarks.append("Assumed here: production has only grown since the last sync")
        return [
            Finding(name, compare.GROWN, base, base.size) if base else Finding(name, compare.MISSING, None, 0)
            for name, base in bases.items()
        ]

    def lost_blobs(self, production: Production) -> List[Finding]:
        return []
