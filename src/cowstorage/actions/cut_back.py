"""Steps that cut FileStorages back to a position, with an index that fits."""

from __future__ import annotations

import os
from typing import Iterator, List, Optional

from cowstorage.actions.context import Context
from cowstorage.actions.plan import Step
from cowstorage.actions.savepoints import Target
from cowstorage.database import filestorage
from cowstorage.database.format import PYTHON_2_MAGIC, Position
from cowstorage.database.index import index_position, write_for_python_3
from cowstorage.part.paths import savepoint_index
from cowstorage.system.programs import Command


def cut_back(context: Context, target: Target) -> Iterator[Step]:
    """Cut each FileStorage, and put back its magic of then and the latest index that is not ahead of it.

    :param target: its positions are known to be there: ``filestorage.holds``.
    """
    for name, position in target.positions.items():
        if target.is_base:
            # What was fetched is still there, so that a local pack can be taken back, too.
            yield from undo_local_pack(context, name)
        yield from separate(context, name)
        saved = best_index(_saved_indexes(context, name), position)
        yield cut_back_to(context, name, position, saved, target.magics.get(name))


def undo_local_pack(context: Context, name: str) -> Iterator[Step]:
    """Put the file that was fetched back in the place of the file that a local pack made."""
    paths = context.paths(name)
    if paths.is_replaced:
        yield Step(f"Take back the local pack of {name}", (Command(("ln", "-f", "--", paths.kept, paths.local)),))


def separate(context: Context, name: str) -> Iterator[Step]:
    """Copy a FileStorage that has a name elsewhere, such as in a copy by ``cp -l``, which would be cut with it."""
    paths = context.paths(name)
    if not os.path.exists(paths.local):
        return
    kept = os.path.exists(paths.kept) and os.path.samefile(paths.kept, paths.local)
    if os.stat(paths.local).st_nlink == (2 if kept else 1):
        return
    copied = paths.local + ".copied"
    copy = Command(("cp", "--reflink=auto", "-p", "-T", "--", paths.local, copied), limit=None, locks=True)
    again = (Command(("ln", "-f", "--", paths.local, paths.kept)),) if kept else ()
    title = f"Copy {name}: it has another name elsewhere, which is left as it is"
    yield Step(title, (copy, Command(("mv", "-T", "--", copied, paths.local)), *again))


def cut_back_to(
    context: Context, name: str, position: Position, saved_index: Optional[str], magic: Optional[bytes]
) -> Step:
    """Return the step that cuts a FileStorage and replaces its index.

    :param saved_index: a copy of an index that is not ahead of ``position``; where none fits, ZODB makes its own.
    :param magic: the magic of then; ``None``: as it is.
    """
    local = context.paths(name).local

    def action() -> None:
        filestorage.cut(local, position, magic)
        _settle_index(local, context.journal.base_magic(name) == PYTHON_2_MAGIC)

    command = Command(("rm", "-f", "--", local + ".index"))
    if saved_index is not None and os.path.exists(saved_index):
        command = copy_index(saved_index, local + ".index")
    return Step(f"Cut {name} back to {position.size} bytes", (command,), action=action)


def _settle_index(local: str, hides: bool) -> None:
    """Leave an index beside a FileStorage that ZODB takes without a complaint, or none.

    ZODB warns of an index that doesn't fit, and fails on some.

    :param hides: without one production's would show through, of Python 2, which is a traceback in the log.
    """
    index = local + ".index"
    if os.path.exists(index):
        if filestorage.index_fits(local, index) or (hides and filestorage.index_is_harmless(local, index)):
            write_for_python_3(index)
            return
        os.unlink(index)
    if hides:
        filestorage.rebuild_index(local)
        if not filestorage.index_is_harmless(local, index):
            os.unlink(index)


def copy_index(index: str, target: str) -> Command:
    """Return the command that copies an index with its time, for us alone, whatever the modes of both files are.

    ZODB makes an index with Plone's umask, so that everybody may read it, and a copy that is there keeps its mode.
    """
    return Command(("install", "--preserve-timestamps", "--mode=0600", "-T", "--", index, target))


def _saved_indexes(context: Context, name: str) -> List[str]:
    """Return the copies of a FileStorage's index: the base's and each savepoint's."""
    savepoints = (savepoint_index(context.settings, savepoint, name) for savepoint in context.journal.savepoints)
    return [path for path in (context.paths(name).base_index, *savepoints) if os.path.exists(path)]


def best_index(paths: List[str], position: Position) -> Optional[str]:
    """Return the index that reaches farthest without going beyond ``position``: ZODB reads on from there."""
    reached = [(index_position(path) or 0, path) for path in paths]
    fitting = [entry for entry in reached if 0 < entry[0] <= position.size]
    return max(fitting)[1] if fitting else None
