"""Plans that drop local changes: of BLOBs, and of what lies beside the FileStorages."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from typing import Dict, Iterator

from cowstorage.actions.context import Context
from cowstorage.actions.local_changes import unknown_names
from cowstorage.actions.plan import Step
from cowstorage.database import blobs
from cowstorage.database.format import Position
from cowstorage.errors import DamagedDatabase
from cowstorage.part import trash
from cowstorage.system.programs import Command


def drop_blobs(context: Context) -> Iterator[Step]:
    """Yield the steps that put a new, empty upper in the place of the BLOBs' upper, which goes into the trash."""
    upper = context.settings.blob_upper
    if os.path.isdir(upper) and os.listdir(upper):
        yield Step(
            f"Drop local BLOB changes in {upper}",
            (
                *trash.aside(upper, context.settings.location),
                Command(("mkdir", "-p", "-m", "0700", "--", upper)),
            ),
        )
    yield Step("Forget which union wrote it", action=partial(_forget_union, context, "blobstorage"))


def drop_unknown_files(context: Context) -> Iterator[Step]:
    """Yield the steps that remove everything but the FileStorages and their indexes from the FileStorages' upper."""
    if not context.settings.file_storage:
        return
    upper = context.settings.file_upper
    names = list(unknown_names(context))
    if names:
        remove = ("rm", "-rf", "--one-file-system", "--", *(os.path.join(upper, name) for name in names))
        yield Step(f"Drop what else is in {upper}", (Command(remove),))
    yield Step("Forget which union wrote it", action=partial(_forget_union, context, "filestorage"))


def _forget_union(context: Context, storage: str) -> None:
    """Note in the journal, with its next writing, that no union wrote an upper: with plain files any union can use it.

    A command that is cut off before drops it again.
    """
    context.journal.uppers.pop(storage, None)


def drop_later_blobs(context: Context, positions: Dict[str, Position]) -> Iterator[Step]:
    """Yield the step that removes the BLOB files of the transactions after ``positions``.

    They are found by what these transactions have recorded: it takes as long as what is cut off is big, whatever else
    there is in the upper.
    """
    upper = context.settings.blob_upper

    def action() -> None:
        for name, position in positions.items():
            for path in _later_blobs(context.paths(name).local, position, upper):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)

    if os.path.isdir(upper):
        yield Step(f"Remove BLOB files of later transactions from {upper}", action=action)


def _later_blobs(data_fs: str, position: Position, upper: str) -> Iterator[str]:
    """Yield where the BLOB files of later transactions are, or would be in the other layout."""
    try:
        for oid, tid in blobs.references_after(data_fs, position):
            for layout in blobs.LAYOUT_NAMES:
                yield os.path.join(upper, blobs.path_of(oid, tid, layout))
    except DamagedDatabase:
        # What they refer to can't be read any more, but what is later has a later name.
        yield from blobs.files_after(upper, position.tid)
