"""Chooses the union: really tries each candidate on production's own directories, and keeps the reasons."""

from __future__ import annotations

import errno
import os
from typing import List, NamedTuple, Optional, Tuple

from cowstorage import cache, glance, mounts, union
from cowstorage.children import within
from cowstorage.context import Context
from cowstorage.errors import CowStorageError, UnionUnusable
from cowstorage.system import Command
from cowstorage.union import Layer, Union, marks

TRIAL_SECONDS = 60.0


class Choice(NamedTuple):
    """The union that works here.

    :param tried: those before it, and why not.
    """

    union: Union
    tried: Tuple[Tuple[str, str], ...]


def uppers_written_by(context: Context) -> Optional[str]:
    """The union kind that the present uppers belong to; marks of deletion mean nothing to another one."""
    kinds = {kind for storage, kind in context.journal.uppers.items() if storage in union.storages(context.settings)}
    return min(kinds) if kinds else None


def foreign_marks(context: Context, candidate: Union) -> Optional[str]:
    """What speaks against uppers that the journal does not know."""
    for storage in union.storages(context.settings):
        upper = union.layer(context.settings, storage, (), candidate.name).upper
        kinds = () if storage in context.journal.uppers else marks.writers(upper)
        if kinds and candidate.name not in kinds:
            return written_by(context, upper, kinds)
    return None


def written_by(context: Context, upper: str, kinds: Tuple[str, ...]) -> str:
    """That an upper is another union's, and what to do."""
    return (
        f"{upper} was written by {' or '.join(kinds)} and can't be read by another union. "
        f"Set union = {kinds[0]}, or give up local changes with {context.script('sync')}"
    )


def candidates(context: Context) -> List[str]:
    """The unions to try, in their order."""
    return list(union.UNIONS) if context.settings.union == "auto" else [context.settings.union]


def objection(context: Context, candidate: Union, layer: Layer, fresh: bool = False) -> Optional[str]:
    """Why a union is not even tried.

    :param fresh: the uppers will be new ones.
    """
    settings, host, network = context.settings, context.host, context.network
    owner = None if fresh else uppers_written_by(context)
    if owner and owner != candidate.name:
        return written_by(context, layer.upper, (owner,))
    problem = None if fresh else foreign_marks(context, candidate)
    problem = problem or candidate.problem(settings, host) or candidate.unsuited(layer)
    if problem is None and settings.union == "auto":
        problem = network.passed_over.get(candidate.name)
    if problem is None and candidate.needs_root:
        problem = network.root_may_look(settings, host)
    return problem


def assumed(context: Context, lowers: Tuple[str, ...]) -> Choice:
    """The first that nothing speaks against, untried: for ``--dry-run``."""
    return _choose(context, lowers, None, trial=False)


def choose(context: Context, lowers: Tuple[str, ...], sample: Optional[str], fresh: bool = False) -> Choice:
    """The first that works.

    :param lowers: of the BLOB union.
    :param sample: a BLOB of production's, to be read.
    :param fresh: see ``objection``.
    :raises UnionUnusable: none does; with every reason.
    """
    return _choose(context, lowers, sample, trial=True, fresh=fresh)


def _choose(
    context: Context, lowers: Tuple[str, ...], sample: Optional[str], trial: bool, fresh: bool = False
) -> Choice:
    tried: List[Tuple[str, str]] = []
    for name in candidates(context):
        candidate = union.get(name)
        layer = trial_layer(context, lowers, name)
        reason = objection(context, candidate, layer, fresh)
        if reason is None and trial:
            reason = attempt(context, candidate, layer, sample)
        if reason is None:
            return Choice(candidate, tuple(tried))
        tried.append((name, reason))
    raise UnionUnusable(tried)


def trial_directory(location: str) -> str:
    """Where unions are tried."""
    return os.path.join(location, "trial")


def trial_layer(context: Context, lowers: Tuple[str, ...], kind: str) -> Layer:
    """Directories like the true ones, on the same file systems, with nothing in them to lose."""
    base = trial_directory(context.settings.location)
    return union.layer(context.settings, "blobstorage", lowers, kind)._replace(
        merged=os.path.join(os.path.realpath(base), "merged"),
        upper=os.path.join(base, "upper"),
        work=os.path.join(base, "work-" + kind),
        links=os.path.join(base, "layers"),
    )


def attempt(context: Context, candidate: Union, layer: Layer, sample: Optional[str]) -> Optional[str]:
    """Mount, prove, unmount; why it doesn't work, or ``None``."""
    run = context.runner.run
    target = layer.merged
    sample = cache.sample(context.settings, context.journal.bases, sample)
    clean = Command(("rm", "-rf", "--one-file-system", "--", layer.upper, layer.links))
    try:
        _clear(context, target)
        run(clean)
        prepared = union.preparation(layer, candidate.uses_work, context.host)
        for command in (*prepared, *union.given(context.host, trial_directory(context.settings.location))):
            run(command)
        run(candidate.mount(layer, context.host))
        prove(candidate, layer, sample, context.developer)
    except CowStorageError as error:
        return first_lines(str(error))
    finally:
        _clear(context, target)
        run(clean)
    return None


def _clear(context: Context, target: str) -> None:
    while True:
        mount = mounts.top(mounts.read(), target)
        if mount is None:
            return
        context.runner.run(mounts.unmount_of(mount, context.host.euid))


def first_lines(text: str) -> str:
    """An error as one line of a table."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def prove(candidate: Union, layer: Layer, sample: Optional[str], developer: Tuple[int, int]) -> None:
    """A mount proves nothing: use it as Plone will.

    :param sample: a file of the lower, relative; its first byte is read through the union.
    :raises CowStorageError: what didn't work.
    """
    mount = mounts.top(mounts.read(), layer.merged)
    if mount is None or not candidate.owns(mount):
        raise CowStorageError(f"{candidate.name} was mounted on {layer.merged}, and is not there: {mount}")
    within(TRIAL_SECONDS, f"using {layer.merged}", lambda: _use(layer, sample), developer)


def _gone(layer: Layer, sample: str) -> bool:
    """Whether a BLOB is rightly not there: a local pack, or one of production's after it was found, has removed it.

    A union that shows nothing at all is found by the trial, whose upper is empty.
    """
    if os.path.lexists(os.path.join(layer.merged, sample)):
        return False
    return bool(os.listdir(layer.upper)) or not any(
        os.path.lexists(os.path.join(lower, sample)) for lower in layer.lowers
    )


def _use(layer: Layer, sample: Optional[str]) -> None:
    """Reads, writes and deletes through the union, and looks for the writes in upper."""
    name = f".cowstorage-{os.getpid()}"
    merged, upper = os.path.join(layer.merged, name), os.path.join(layer.upper, name)
    try:
        if sample is not None and not _gone(layer, sample):
            with glance.opened(os.path.join(layer.merged, sample)) as file:
                file.read(1)
        with open(merged, "xb") as file:
            file.write(b"local")
        arrived = os.path.exists(upper)
        os.unlink(merged)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "?")
        raise CowStorageError(f"{error.filename}: {error.strerror} ({code}) through {layer.merged}") from None
    if not arrived:
        raise CowStorageError(f"what was written to {layer.merged} did not arrive in {layer.upper}")
