"""Builds rsync's command lines: production can only be a source, never a target, by type."""

from __future__ import annotations

import re
from typing import Callable, List, NamedTuple, Optional, Tuple

from cowstorage.system import Command

# Written to by nobody's shell: rsync older than 3.2.4 hands remote paths to one unquoted.
PLAIN_PATH = r"[\w@%+=:,./~\[\]-]+"

IO_SECONDS = 60

# rrsync(1) lets nobody follow links out of its directory, and so follows none.
REFUSED = "has been disabled on this server"


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
    _check(source, target)
    if options is None:
        options = ("-z",) if source.remote else ()
    argv = ["rsync", "--times", "--inplace", f"--timeout={IO_SECONDS}", *options]
    if progress:
        argv.append("--info=progress2")
    # A file of the same size and time that was found damaged must not be taken for the same.
    argv.append("--append" if append else "--ignore-times")
    argv += [*_reached(source, ssh), "--", source.spec, target.path]
    return _command(argv, shows=progress)


def fetch_listed(
    source: Source,
    target: Target,
    ssh: Tuple[str, ...],
    options: Tuple[str, ...],
    names: str,
    tells: Callable[[str], None],
    only_sizes: bool = False,
) -> Command:
    """The command that brings files of one of production's directories here, in one stream.

    Nothing is looked for: production is asked for these names only, those it hasn't are passed over, and a name is ours
    whatever the server says.  rsync gives a file its name when its checksum was right.  No ``-z``: most BLOBs are
    compressed already.

    :param source: the directory, ending with a slash.
    :param target: the directory that they are put below.
    :param names: a file with their relative paths, each ended by a zero byte.
    :param tells: gets ``MOVED SIZE PATH`` of each file, once it is here but for its name.
    :param only_sizes: fetch nothing: ``tells`` gets what production has, in one stream, too.
    :raises TypeError: as ``fetch``.
    """
    _check(source, target)
    argv = ["rsync", f"--timeout={IO_SECONDS}", f"--files-from={names}", "--from0", "--no-implied-dirs"]
    # With %b rsync tells when a file has come, else when it begins, rsyncd.conf(5).
    argv += ["--ignore-missing-args", "--whole-file", "--chmod=D0700,F0400", "--out-format=%b %l %n"]
    argv += [*options, *(["--dry-run"] if only_sizes else []), *_reached(source, ssh)]
    argv += ["--", source.spec, target.path]
    return _command(argv, tells=tells)


def _command(argv: List[str], shows: bool = False, tells: Optional[Callable[[str], None]] = None) -> Command:
    """A file may be a link to another disk, and is then what it leads to; without that, where the server refuses it."""
    return Command(
        (argv[0], "--copy-links", *argv[1:]),
        limit=None,
        shows=shows,
        fallback=tuple(argv),
        fallback_when=REFUSED,
        tells=tells,
        locks=True,
    )


def _check(source: Source, target: Target) -> None:
    if not isinstance(source, Source) or not isinstance(target, Target):
        raise TypeError(f"rsync reads from a Source and writes to a Target, not {source!r}, {target!r}")
    if not target.path.startswith("/"):
        raise TypeError(f"a Target is an absolute local path, not {target.path!r}")


def _reached(source: Source, ssh: Tuple[str, ...]) -> Tuple[str, ...]:
    if not source.remote:
        return ()
    protect = () if re.fullmatch(PLAIN_PATH, source.spec) else ("--protect-args",)
    return ("-e", remote_shell(ssh), *protect)
