"""``cow-mount --sudoers``: the lines that let a user run the part's commands as root without a password."""

from __future__ import annotations

import os
import pwd
import re
from typing import Iterator, NamedTuple, Optional, Pattern, Tuple

from cowstorage.actions import production_mount
from cowstorage.actions.choose_union import trial_layer
from cowstorage.actions.context import Context
from cowstorage.actions.layers import possible_lowers
from cowstorage.errors import CowStorageError, PathUnusable
from cowstorage.system import mounts
from cowstorage.system.installed import find_program
from cowstorage.system.processes import run_program
from cowstorage.system.programs import Command
from cowstorage.union import kinds
from cowstorage.union.base import Layer, Union, layer_of, merged_storages, without_links

# What the lines do not say: the kernel follows links in the mount points, which the user can put there; lowerdir=lower0
# is relative to the directory that sudo is called in; umount -l goes by the path, not by who mounted there.
WARNING = (
    "# Whoever has these lines can become root: the paths are the user's, and root follows links in them; overlay's",
    "# lowerdir= and upperdir= are relative to where sudo is called; umount -l takes away whatever is mounted there.",
    "# Who must not become root does without them: sudo = no in the part.",
)


class Grammar(NamedTuple):
    """How a sudo reads the arguments of a command, sudoers(5); each character was tried with each sudo.

    :param special: the characters that need a backslash, and get none where they would be refused after one.
    :param backslash: what stands for a backslash.
    :param refused: the characters that no argument can have.
    """

    special: Pattern[str]
    backslash: str
    refused: str


# sudo 1.9.13 and 1.9.16: wildcards, lists, assignments and comments.
SUDO = Grammar(re.compile(r"([,:=*?\[\]!# ])"), r"\\" * 2, "")

# sudo-rs 0.2.5 and 0.2.15: no blank, however it is written; the later one takes no wildcard, however it is written.
SUDO_RS = Grammar(re.compile(r"([,:=#])"), r"\\", " *?")


def show(context: Context) -> int:
    """Print the lines that let this user run this part's commands as root without a password.

    :raises PathUnusable: a path can't be written in sudoers.
    """
    user = pwd.getpwuid(context.host.uid).pw_name
    grammar = grammar_of(context.host.sudo or find_program("sudo"))
    lines = sorted({line(user, command.argv, grammar) for command in _root_commands(context)})
    context.output.result(
        f"# For {user}, part {context.settings.part}: visudo -f /etc/sudoers.d/{context.settings.prefix}"
    )
    for text in (*WARNING, *lines):
        context.output.result(text)
    return 0


def line(user: str, argv: Tuple[str, ...], grammar: Grammar) -> str:
    """Return the line that allows one command with these arguments, sudoers(5).

    :raises PathUnusable: an argument has a character that ends the line, or that a line can't have.
    """
    for argument in argv:
        refused = sorted(set(argument) & set(grammar.refused))
        if refused or not argument.isprintable():
            what = "a control character or a line break" if not argument.isprintable() else _named(refused[0])
            raise PathUnusable(
                repr(argument),
                f"has {what} in it, which a line of sudoers can't have here. "
                "Move the buildout to another directory, or set sudo = no.",
            )
    program = find_program(argv[0]) or argv[0]
    arguments = " ".join(_escaped(argument, grammar) for argument in argv[1:])
    return f"{user} ALL=(root) NOPASSWD: {program} {arguments}"


def _named(character: str) -> str:
    """Return a character as a message names it."""
    return "a blank" if character == " " else character


def _escaped(argument: str, grammar: Grammar) -> str:
    """Return an argument as it stands in a line."""
    return grammar.backslash.join(grammar.special.sub(r"\\\1", part) for part in argument.split("\\"))


def grammar_of(sudo: Optional[str]) -> Grammar:
    """Return the grammar of an installed sudo, which says its name with its version."""
    try:
        said = run_program((sudo, "--version")) if sudo else ""
    except CowStorageError:
        said = ""
    return SUDO_RS if said.startswith("sudo-rs") else SUDO


def _root_commands(context: Context) -> Iterator[Command]:
    """Yield whatever the part's scripts may run as root."""
    for step in production_mount.mount_production(context):
        yield from (command for command in (*step.commands, *step.undo) if command.root)
    for union in kinds.candidates(context.settings.union):
        if union.needs_root:
            for layer in _layers(context, union):
                yield union.mount(layer, context.host)
                yield without_links(layer)
                yield from _unmounting(layer.merged)
    for mount in context.filesystem.mounts():
        if any(command.root for command in mount.commands):
            yield from _unmounting(os.path.realpath(mount.target))


def _unmounting(target: str) -> Tuple[Command, ...]:
    return tuple(mounts.unmount_command(target, by_developer=False, lazy=lazy) for lazy in (False, True))


def _layers(context: Context, union: Union) -> Iterator[Layer]:
    """Yield the directories that the part may ever merge, those of a trial included."""
    for storage in merged_storages(context.settings):
        for below in possible_lowers(context, storage):
            yield layer_of(context.settings, storage, below, union.name)
    for below in possible_lowers(context, "blobstorage"):
        yield trial_layer(context, below, union)
