"""Plans that drop local changes: of BLOBs, of what lies beside the FileStorages, back to a position."""

from __future__ import annotations

import contextlib
import os
from typing import Dict, Iterator, List, Optional

from cowstorage import blobs, filestorage, local, refresh, trash
from cowstorage.context import Context
from cowstorage.errors import DamagedDatabase
from cowstorage.filestorage import Position
from cowstorage.plan import Step
from cowstorage.system import Command
from cowstorage.union import given


def drop_blobs(context: Context) -> Iterator[Step]:
    """A new, empty upper for BLOBs; the old one goes into the trash."""
    upper = f"{context.settings.blob_storage}.prod"
    if os.path.isdir(upper) and os.listdir(upper):
        yield Step(
            f"Drop local BLOB changes in {upper}",
            (
                *trash.aside(os.path.realpath(upper), context.settings.location),
                Command(("mkdir", "-p", "-m", "0700", "--", os.path.realpath(upper))),
                *given(context.host, os.path.realpath(upper)),
            ),
        )
    yield Step("Forget which union wrote it", action=lambda: forget_union(context, "blobstorage"))


def drop_strangers(context: Context) -> Iterator[Step]:
    """Only the FileStorages and their indexes stay in the upper of the filestorage."""
    if not context.settings.file_storage:
        return
    upper = f"{context.settings.file_storage}.prod"
    names = list(local.entries(context))
    if names:
        remove = ("rm", "-rf", "--one-file-system", "--", *(os.path.join(upper, name) for name in names))
        yield Step(f"Drop what else is in {upper}", (Command(remove),))
    yield Step("Forget which union wrote it", action=lambda: forget_union(context, "filestorage"))


def forget_union(context: Context, storage: str) -> None:
    """An upper with plain files only can be used by any union."""
    context.journal.uppers.pop(storage, None)
    context.save()


def cut_back(context: Context, positions: Dict[str, Position], is_base: bool) -> Iterator[Step]:
    """Cut each FileStorage, and put back the latest index that is not ahead of it.

    :param positions: verified already: ``filestorage.holds``.
    :param is_base: they are those of the last sync, so that a local pack can be taken back, too.
    """
    for name, position in positions.items():
        if is_base:
            yield from refresh.unpacked(context, name)
        yield refresh.back_to(context, name, position, best_index(index_files(context, name), position))


def index_files(context: Context, name: str) -> List[str]:
    """Copies of a FileStorage's index that were put away: the base's and each savepoint's."""
    savepoints = (savepoint_index(context, savepoint, name) for savepoint in context.journal.savepoints)
    return [path for path in (refresh.paths(context, name).base_index, *savepoints) if os.path.exists(path)]


def savepoint_index(context: Context, savepoint: str, name: str) -> str:
    """Where a savepoint keeps the index of a FileStorage."""
    return os.path.join(context.settings.location, "savepoints", savepoint, name + ".index")


def best_index(paths: List[str], position: Position) -> Optional[str]:
    """The index that reaches farthest without going beyond ``position``: ZODB reads on from there."""
    reached = [(filestorage.index_position(path) or 0, path) for path in paths]
    fitting = [entry for entry in reached if 0 < entry[0] <= position.size]
    return max(fitting)[1] if fitting else None


def drop_later_blobs(context: Context, positions: Dict[str, Position]) -> Iterator[Step]:
    """Remove the BLOB files of the transactions after ``positions``, found by what these have recorded.

    So it takes as long as what is cut off is big, whatever else there is in the upper.
    """
    upper = f"{context.settings.blob_storage}.prod"

    def action() -> None:
        for name, position in positions.items():
            for path in _later_blobs(refresh.paths(context, name).local, position, upper):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    if os.path.isdir(upper):
        yield Step(f"Remove BLOB files of later transactions from {upper}", action=action)


def _later_blobs(data_fs: str, position: Position, upper: str) -> Iterator[str]:
    """Where the BLOB files of later transactions are, or would be in the other layout."""
    try:
        for oid, tid in blobs.references_after(data_fs, position):
            for layout in blobs.LAYOUT_NAMES:
                yield os.path.join(upper, blobs.path_of(oid, tid, layout))
    except DamagedDatabase:
        # What they refer to can't be read any more, but what is later has a later name.
        yield from blobs.files_after(upper, position.tid)
