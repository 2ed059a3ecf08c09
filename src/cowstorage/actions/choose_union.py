"""The choice of the union: each candidate is really tried on production's own directories, and the reasons are kept."""

from __future__ import annotations

import os
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

from cowstorage.actions.context import Context
from cowstorage.actions.layers import lowers
from cowstorage.errors import CommandFailed, CowStorageError, UnionUnusable
from cowstorage.part import blob_cache
from cowstorage.production.look import Production
from cowstorage.system import mounts, refusals
from cowstorage.system.programs import Command
from cowstorage.union import kinds, trial, whiteouts
from cowstorage.union.base import Layer, Union, layer_of, merged_storages, preparation


class Choice(NamedTuple):
    """The union that works here.

    :param tried: the names of the others that were tried or passed over, and why.
    :param held: the names of those of these that the present uppers alone keep from being used.
    :param avoided: why it is taken only since no other works; ``None`` where it is as good as any.
    """

    union: Union
    tried: Tuple[Tuple[str, str], ...] = ()
    held: Tuple[str, ...] = ()
    avoided: Optional[str] = None


# Returns why a union doesn't work on these directories, or ``None``.
Try = Callable[[Union, Layer], Optional[str]]


def choose(context: Context, works: Try, fresh: bool = False) -> Choice:
    """Return the first union that works; those that ``auto`` avoids on the file system of production come last.

    :param works: tries a union that nothing speaks against.
    :param fresh: the uppers will be new ones.
    :raises UnionUnusable: when none works; with every reason.
    """
    tried: Dict[str, str] = {}
    held: List[str] = []
    for union, avoided in in_order(context):
        layer = trial_layer(context, lowers(context, "blobstorage"), union)
        reason = objection(context, union, layer)
        if reason is None and not fresh:
            reason = foreign_upper(context, union)
            held += [union.name] if reason else []
        reason = reason or works(union, layer)
        if reason is None:
            return Choice(union, tuple(tried.items()), tuple(held), avoided)
        tried[union.name] = reason
    raise UnionUnusable(tuple(tried.items()))


def in_order(context: Context) -> List[Tuple[Union, Optional[str]]]:
    """Return the unions that the part allows, in the order to try them, each with why ``auto`` avoids it."""
    avoided = context.filesystem.passed_over if context.settings.union == "auto" else {}
    order = [(union, avoided.get(union.name)) for union in kinds.candidates(context.settings.union)]
    return sorted(order, key=lambda pair: pair[1] is not None)


def objection(context: Context, union: Union, layer: Layer) -> Optional[str]:
    """Return why a union is not even tried, whatever is in the uppers, or ``None``."""
    problem = union.problem(context.settings, context.host) or union.unsuited(layer)
    if problem is None and union.needs_root:
        problem = context.filesystem.root_may_look()
    return problem


def foreign_upper(context: Context, union: Union) -> Optional[str]:
    """Return what speaks against the present uppers: whiteouts of one union mean nothing to another.

    An upper without any is free, whoever wrote it.
    """
    for storage in merged_storages(context.settings):
        upper = layer_of(context.settings, storage, (), union.name).upper
        owner = context.journal.uppers.get(storage)
        if owner == union.name or (owner and whiteouts.is_plain(upper, owner)):
            continue
        # The journal may be lost: then the whiteouts tell.
        writers = (owner,) if owner else whiteouts.writers(upper)
        if writers and union.name not in writers:
            return _written_by(context, upper, writers)
    return None


def _written_by(context: Context, upper: str, unions: Tuple[str, ...]) -> str:
    return (
        f"{upper} was written by {' or '.join(unions)} and can't be read by another union. "
        f"Set union = {unions[0]}, or give up local changes with {context.script('sync')}"
    )


def trial_layer(context: Context, lowers: Tuple[str, ...], union: Union) -> Layer:
    """Return directories like the true ones, on the same file systems, with nothing in them to lose."""
    base = trial.trial_directory(context.settings.location)
    return layer_of(context.settings, "blobstorage", lowers, union.name)._replace(
        merged=os.path.join(os.path.realpath(base), "merged"),
        upper=os.path.join(base, "upper"),
        work=os.path.join(base, f"work-{union.name}"),
        links=os.path.join(base, "layers"),
    )


def attempt(context: Context, union: Union, layer: Layer, production: Production) -> Optional[str]:
    """Mount a union over each of production's directories, use it, unmount it; return why it doesn't work, or ``None``.

    :param layer: the directories of the BLOBs' trial.
    """
    sample = blob_cache.sample(context.settings, context.journal.bases, production.sample)
    names = context.settings.storages or tuple(production.storages)
    layers = [layer]
    if "filestorage" in merged_storages(context.settings):
        below = lowers(context, "filestorage")
        layers.append(trial_layer(context, below, union)._replace(storage="filestorage"))
    for one in layers:
        reason = union.unsuited(one) or _attempt_one(context, union, one, trial.use_of(one.storage, sample, names))
        if reason:
            return reason
    return None


def _attempt_one(context: Context, union: Union, layer: Layer, use: trial.Use) -> Optional[str]:
    run = context.runner.run
    clean = Command(("rm", "-rf", "--one-file-system", "--", layer.upper, layer.links))
    try:
        _unmount_trial(context, layer.merged)
        run(clean)
        for command in preparation(layer, union.uses_work):
            run(command)
        run(union.mount(layer, context.host))
        trial.try_out(union, layer, use, context.developer)
    except CommandFailed as error:
        meant = (meaning for words, meaning in union.meanings.items() if words in error.output)
        return in_one_line(str(refusals.explained(error) or next(meant, error)))
    except CowStorageError as error:
        return in_one_line(str(error))
    finally:
        _unmount_trial(context, layer.merged)
        run(clean)
    return None


def _unmount_trial(context: Context, target: str) -> None:
    while True:
        mount = mounts.top(mounts.read(), target)
        if mount is None:
            return
        context.runner.run(mounts.unmount_of(mount, context.host.uid))


def in_one_line(text: str) -> str:
    """Return an error's text as one line of a table."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())
