"""Builds rsync's command lines: production can only be a source, never a target, by type."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional, Tuple

from cowstorage.system import Command

# Written to by nobody's shell: rsync older than 3.2.4 hands remote paths to one unquoted.
PLAIN_PATH = re.compile(r"[\w@%+=:,./~\[\]-]+")

IO_SECONDS = 60


class Source(NamedTuple):
    """A file of production as rsync names it; ``remote``: over a network."""

    spec: str
    remote: bool


class Target(NamedTuple):
    """A local file that we own; ``path`` is absolute."""

    path: str


def remote_shell(ssh: Tuple[str, ...]) -> str:
    """ssh's argv as rsync's ``-e`` wants it: split at spaces, quotes protect, rsync(1)."""
    return " ".join(
        argument if re.fullmatch(r"[^\s'\"]+", argument) else '"' + argument.replace('"', '""') + '"'
        for argument in ssh
    )


def fetch(
    source: Source,
    target: Target,
    ssh: Tuple[str, ...],
    options: Optional[Tuple[str, ...]],
    append: bool = False,
    progress: bool = False,
) -> Command:
    """The command that brings one file of production here.

    :param append: the target is a true prefix of the source: move the rest only.
    :param progress: one line that tells how far it is, on the terminal.
    :param options: the user's; ``None``: ``-z`` over a network.
    :raises TypeError: when source or target is not of its type, so that production can't become a target.
    """
    if not isinstance(source, Source) or not isinstance(target, Target):
        raise TypeError(f"rsync reads from a Source and writes to a Target, not {source!r}, {target!r}")
    if not target.path.startswith("/"):
        raise TypeError(f"a Target is an absolute local path, not {target.path!r}")
    if options is None:
        options = ("-z",) if source.remote else ()
    argv = ["rsync", "--times", "--inplace", f"--timeout={IO_SECONDS}", *options]
    if progress:
        argv.append("--info=progress2")
    if append:
        argv.append("--append")
    if source.remote:
        argv += ["-e", remote_shell(ssh)]
        if not PLAIN_PATH.fullmatch(source.spec):
            argv.append("--protect-args")
    argv += ["--", source.spec, target.path]
    return Command(tuple(argv), limit=None, shows=progress)


