"""``cow-mount --check`` and ``--sudoers``: what works here, what doesn't, and what to install or change."""

from __future__ import annotations

import os
import pwd
import re
from typing import Iterator, List, NamedTuple, Optional, Tuple

from cowstorage import mounts, production, stack, union
from cowstorage.context import Context
from cowstorage.errors import CowStorageError
from cowstorage.host import FUSE_CONF
from cowstorage.output import table
from cowstorage.system import Command, find_program
from cowstorage.union.choice import attempt, first_lines, objection, trial_layer

# Their meaning in sudoers would be another one, sudoers(5): wildcards, lists, assignments, comments.
SPECIAL = re.compile(r"([\\,:=*?\[\]!# \"'()])")


class Verdict(NamedTuple):
    """One line of the table.

    :param works: ``None``: a remark only.
    """

    what: str
    works: Optional[bool]
    remark: str


def run(context: Context) -> int:
    """Try everything, print the table; 0 when the part can be mounted as it is."""
    verdicts = list(_verdicts(context))
    words = {True: "works", False: "no", None: "-"}
    rows = [(verdict.what, words[verdict.works], verdict.remark) for verdict in verdicts]
    for line in table(rows):
        context.output.result(line)
    unions = [verdict.works for verdict in verdicts if verdict.what in union.UNIONS]
    others = [verdict.works for verdict in verdicts if verdict.what not in union.UNIONS]
    return 0 if any(unions) and False not in others else 1


def _verdicts(context: Context) -> Iterator[Verdict]:
    yield _program("rsync", "apt install rsync")
    yield from _rights(context)
    problem = context.network.problem(context.settings, context.host)
    if problem:
        yield Verdict(context.settings.filesystem, False, problem)
        return
    was_there = any(piece.name == "network" and piece.mount for piece in stack.survey(context, probe=False))
    try:
        if not was_there:
            context.execution().run(stack.attach(context))
        yield from _mounted(context)
    except CowStorageError as error:
        yield Verdict(context.settings.filesystem, False, first_lines(str(error)))
    finally:
        if not was_there:
            context.execution().run(stack.detach(context, context.settings))


def _program(name: str, advice: str) -> Verdict:
    path = find_program(name)
    return Verdict(name, path is not None, path or advice)


def _rights(context: Context) -> Iterator[Verdict]:
    host = context.host
    if host.euid == 0:
        return
    sudo = host.sudo or ("not wanted: sudo = no" if context.settings.sudo == "no" else "not installed")
    yield Verdict("sudo", None, sudo)
    line = "allowed" if host.user_allow_other else f"for overlay, add a line to {FUSE_CONF}: user_allow_other"
    yield Verdict("user_allow_other", None, line)


def _mounted(context: Context) -> Iterator[Verdict]:
    """Production is mounted: look at it, and try each union on it."""
    root = context.network.root(context.settings, context.host)
    seen = production.look(context.settings, root, context.developer)
    yield Verdict(context.settings.filesystem, True, f"{', '.join(sorted(seen.storages)) or 'BLOBs'} readable")
    for name in union.UNIONS:
        yield _union(context, name, seen.sample)


def _union(context: Context, name: str, sample: Optional[str]) -> Verdict:
    candidate = union.get(name)
    layer = trial_layer(context, stack.lowers(context, "blobstorage"), name)
    reason = objection(context, candidate, layer)
    avoided = context.network.passed_over.get(name)
    if reason and reason != avoided:
        return Verdict(name, False, first_lines(reason))
    failure = attempt(context, candidate, layer, sample)
    if failure:
        return Verdict(name, False, failure)
    return Verdict(name, True, f"not chosen by union = auto: {avoided}" if avoided else "")


def sudoers(context: Context) -> int:
    """Print the lines that let this user run exactly this part's commands as root without a password."""
    user = pwd.getpwuid(context.host.uid).pw_name
    lines = sorted({sudoers_line(user, command.argv) for command in _root_commands(context)})
    context.output.result(
        f"# For {user}, part {context.settings.part}: visudo -f /etc/sudoers.d/{context.settings.prefix}"
    )
    for line in lines:
        context.output.result(line)
    return 0


def sudoers_line(user: str, argv: Tuple[str, ...]) -> str:
    """One command with exactly these arguments, sudoers(5)."""
    program = find_program(argv[0]) or argv[0]
    arguments = " ".join(SPECIAL.sub(r"\\\1", argument) for argument in argv[1:])
    return f"{user} ALL=(root) NOPASSWD: {program} {arguments}"


def _root_commands(context: Context) -> Iterator[Command]:
    """Whatever the part's scripts may run as root."""
    for step in stack.attach(context):
        yield from (command for command in (*step.commands, *step.undo) if command.root)
    overlay = union.get("overlay")
    layers: List[union.Layer] = [
        union.layer(context.settings, storage, lowers, overlay.name)
        for storage in union.storages(context.settings)
        for lowers in stack.choices_of_lowers(context, storage)
    ]
    layers += [trial_layer(context, lowers, overlay.name) for lowers in stack.choices_of_lowers(context, "blobstorage")]
    for layer in layers:
        yield overlay.mount(layer, context.host)
        yield mounts.unmount_command(layer.merged, by_developer=False)
        yield mounts.unmount_command(layer.merged, by_developer=False, lazy=True)
    for attachment in context.network.attachments(context.settings, context.host):
        if any(command.root for command in attachment.commands):
            yield mounts.unmount_command(os.path.realpath(attachment.target), by_developer=False)
            yield mounts.unmount_command(os.path.realpath(attachment.target), by_developer=False, lazy=True)
