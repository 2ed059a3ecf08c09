"""``cow-mount --check``: what works here, what doesn't, and what to install or change."""

from __future__ import annotations

from typing import Iterator, NamedTuple, Optional

from cowstorage.actions import production_mount, survey
from cowstorage.actions.choose_union import attempt, foreign_upper, in_one_line, in_order, objection, trial_layer
from cowstorage.actions.context import Context
from cowstorage.actions.layers import lowers
from cowstorage.database.format import PYTHON_2_MAGIC, PYTHONS
from cowstorage.errors import CowStorageError
from cowstorage.part.host import FUSE_CONF
from cowstorage.production.look import Production, chosen, look
from cowstorage.system.installed import find_program
from cowstorage.system.output import human_size, table
from cowstorage.system.room import free_bytes
from cowstorage.union import kinds
from cowstorage.union.base import Union

# What union = auto does with a union that works, and that the file system of production has it avoid.
LAST_RESORT = "taken by union = auto when no other works"


class Verdict(NamedTuple):
    """One line of the table.

    :param works: ``None``: a remark only.
    """

    what: str
    works: Optional[bool]
    remark: str


def check(context: Context) -> int:
    """Try everything, print the table and what follows; return 0 when the part can be mounted as it is, else 1."""
    verdicts = list(_verdicts(context))
    words = {True: "works", False: "no", None: "-"}
    for line in table((verdict.what, words[verdict.works], verdict.remark) for verdict in verdicts):
        context.output.result(line)
    working = {verdict.what for verdict in verdicts if verdict.works}
    refused = [verdict.what for verdict in verdicts if verdict.works is False and verdict.what not in kinds.UNIONS]
    usable = [union.name for union, _ in in_order(context) if union.name in working]
    if usable and not refused:
        context.output.result(f"Ready: {context.script('mount')} will use {usable[0]}.")
        return 0
    reason = f"see to {' and '.join(refused)}" if refused else f"no union works, of union = {context.settings.union}"
    context.output.result(f"Not ready: {reason}.")
    return 1


def _verdicts(context: Context) -> Iterator[Verdict]:
    rsync = find_program("rsync")
    yield Verdict("rsync", rsync is not None, rsync or "apt install rsync")
    yield from _rights(context)
    problem = context.filesystem.problem()
    if problem:
        yield Verdict(context.settings.filesystem, False, problem)
        return
    was_mounted = survey.take(context, probe=False).has_network
    try:
        if not was_mounted:
            context.execution().run(production_mount.mount_production(context))
        yield from _verdicts_when_mounted(context)
    except CowStorageError as error:
        yield Verdict(context.settings.filesystem, False, in_one_line(str(error)))
    finally:
        if not was_mounted:
            context.execution().run(production_mount.unmount_production(context, context.settings))


def _rights(context: Context) -> Iterator[Verdict]:
    host = context.host
    if host.euid == 0:
        return
    sudo = host.sudo or ("not wanted: sudo = no" if context.settings.sudo == "no" else "not installed")
    yield Verdict("sudo", None, sudo)
    line = "allowed" if host.user_allow_other else f"for overlay, add a line to {FUSE_CONF}: user_allow_other"
    yield Verdict("user_allow_other", None, line)


def _verdicts_when_mounted(context: Context) -> Iterator[Verdict]:
    """Look at production through its mount, and try each union over it."""
    seen = look(context.filesystem, context.filesystem.root)
    names = chosen(context.settings, seen)
    pythons = {name: PYTHONS.get(seen.magics.get(name, b""), "") for name in names}
    shown = [f"{name} (of Python 2)" if python == PYTHONS[PYTHON_2_MAGIC] else name for name, python in pythons.items()]
    yield Verdict(context.settings.filesystem, True, f"{', '.join(shown) or 'BLOBs'} readable")
    if names:
        size, free = sum(seen.storages[name] for name in names), free_bytes(context.settings.blob_upper)
        yield Verdict("disk", None, f"{human_size(size)} to fetch, {human_size(free)} free")
    for union in kinds.UNIONS.values():
        yield _try(context, union, seen)


def _try(context: Context, union: Union, seen: Production) -> Verdict:
    layer = trial_layer(context, lowers(context, "blobstorage"), union)
    reason = objection(context, union, layer) or foreign_upper(context, union)
    failure = in_one_line(reason) if reason else attempt(context, union, layer, seen)
    if failure:
        return Verdict(union.name, False, failure)
    avoided = context.filesystem.passed_over.get(union.name)
    why = f": {avoided}" if context.output.verbose else ""
    return Verdict(union.name, True, f"{LAST_RESORT}{why}" if avoided else "")
