"""The command lines of rsync; by the types ``Source`` and ``Target`` production can only be a source."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from typing import Callable, List, NamedTuple, Optional, Tuple

from cowstorage.errors import CommandFailed, PathUnusable
from cowstorage.system.programs import Command

# A remote path that a shell does not expand: rsync older than 3.2.4 gives remote paths unquoted to the server's shell.
PLAIN_PATH = r"[\w@%+=:,./~\[\]-]+"

# rsync gives up when no data has been transferred for so long.
IO_SECONDS = 60

# What rsync prints where the server refuses --copy-links: rrsync(1) does, since links may lead out of its directory.
REFUSED = "has been disabled on this server"

# popt, which reads rsync's arguments, adds to them what it finds in these files and in ~/.popt, popt(3).  A line
# ``rsync alias --times --times --remove-source-files`` removes production's Data.fs once it is fetched, measured.
POPT_FILES = ("/etc/popt", "/etc/popt.d/*")

# No directory: rsync finds no .popt in it, and nobody can put one there.  ssh gets the true home back.
NO_HOME = "/dev/null"

# The variable that says no more than how to log in to an rsync daemon; all others of rsync's are options, rsync(1).
RSYNC_PASSWORD = "RSYNC_PASSWORD"


# Bytes that a file may have grown by, besides a quarter, between the look at it and the end of its fetching.
GROWTH = 64_000_000

# Bytes that any file here may have: ssh, which rsync starts, has files of its own.
LEAST = 1_000_000

# What rsync says of EFBIG, which RLIMIT_FSIZE gives.
TOO_LARGE = "File too large"


class Source(NamedTuple):
    """A file or directory of production.

    :param spec: the path as rsync writes it: ``HOST:PATH``, ``rsync://…`` or a local path.
    :param remote: whether rsync reads over a network.
    """

    spec: str
    remote: bool


class Target(NamedTuple):
    """A local file or directory of ours.

    :param path: absolute.
    """

    path: str


def remote_shell(ssh: Tuple[str, ...]) -> str:
    """Return ssh's argv as the value of rsync's option ``-e``, which is split at spaces outside of quotes, rsync(1)."""
    return " ".join(
        argument if re.fullmatch(r"[^\s'\"]+", argument) else '"' + argument.replace('"', '""') + '"'
        for argument in ssh
    )


def refuse_aliases() -> None:
    """Refuse to run rsync where the system's configuration adds options to ours; not pure: reads it.

    :raises PathUnusable: with the file.
    """
    for path in (path for pattern in POPT_FILES for path in sorted(glob.glob(pattern))):
        with open(path, encoding="utf-8", errors="replace") as file:
            if names_rsync(file.read()):
                raise PathUnusable(
                    path, "gives rsync options that might write to production. Remove what it says of rsync."
                )


def names_rsync(text: str) -> bool:
    """Tell whether a file of popt's has a line for rsync, whose name may be a pattern, or be cut by a line's end."""
    names = (line.split(maxsplit=1)[:1] for line in text.replace("\\\n", "").splitlines())
    return any(fnmatch.fnmatchcase("rsync", name) for found in names for name in found)


def environment() -> Tuple[Tuple[str, Optional[str]], ...]:
    """Return what rsync's environment has else than ours, so that nothing but the arguments has options for it."""
    others = sorted(name for name in os.environ if name.startswith("RSYNC_") and name != RSYNC_PASSWORD)
    return (("HOME", NO_HOME), *((name, None) for name in others))


def fetch(
    source: Source,
    target: Target,
    ssh: Tuple[str, ...],
    options: Optional[Tuple[str, ...]],
    announced: int,
    append: bool = False,
    tells: Optional[Callable[[int], None]] = None,
) -> Command:
    """Return the command that fetches one file of production.

    :param ssh: ssh's argv.
    :param options: the user's options of rsync; ``None``: ``-z`` over a network.
    :param announced: bytes that production has shown of the file; much more is not accepted.
    :param append: fetch only what follows the target's end; the target must be a true prefix of the source.
    :param tells: called about once a second with how far rsync is in the file, bytes from its start.
    :raises TypeError: when source or target is not of its type, so that production can't become a target.
    """
    _check(source, target)
    if options is None:
        options = ("-z",) if source.remote else ()
    argv = ["rsync", "--times", "--inplace", f"--timeout={IO_SECONDS}", *options]
    if tells:
        argv += ["--info=progress2", "--no-human-readable"]
    # Without --ignore-times rsync would skip a target of the same size and time, though it was found damaged.
    argv.append("--append" if append else "--ignore-times")
    argv += [*_reached(source, ssh, options), "--", source.spec, target.path]
    pieces = _progress(tells) if tells else None
    return _command(argv, largest=announced + announced // 4 + GROWTH, pieces=pieces)


def fetch_listed(
    source: Source,
    target: Target,
    ssh: Tuple[str, ...],
    options: Tuple[str, ...],
    names: str,
    tells: Callable[[str], None],
    largest: int,
    only_sizes: bool = False,
) -> Command:
    """Return the command that fetches files of one of production's directories in one stream.

    rsync asks for these names only, without a search, skips those that production hasn't, and accepts no other name
    from the server.  rsync renames a fetched file to the file's name once the checksum is right.  ``-z`` is not used,
    since most BLOBs are compressed already.

    :param source: the directory, ending with a slash.
    :param target: the directory that the files are put below.
    :param ssh: ssh's argv.
    :param options: the user's options of rsync.
    :param names: the path of a file with the files' relative paths, each ended by a zero byte.
    :param tells: called with ``MOVED SIZE PATH`` for each file, in bytes; the file is complete, but not yet renamed.
    :param largest: bytes of the largest of the files, as production has shown them; no more is accepted.
    :param only_sizes: fetch nothing: ``tells`` is called for each file that production has, in one stream, too.
    :raises TypeError: when source or target is not of its type.
    """
    _check(source, target)
    argv = ["rsync", f"--timeout={IO_SECONDS}", f"--files-from={names}", "--from0", "--no-implied-dirs"]
    # With %b in the format rsync prints the line when a file was fetched, else when the fetch begins, rsyncd.conf(5).
    argv += ["--ignore-missing-args", "--whole-file", "--chmod=D0700,F0400", "--out-format=%b %l %n"]
    argv += [*options, *(["--dry-run"] if only_sizes else []), *_reached(source, ssh, options)]
    argv += ["--", source.spec, target.path]
    return _command(argv, tells=tells, largest=max(largest, LEAST))


def sent_too_much(error: Exception) -> bool:
    """Tell whether a command of ``fetch`` or ``fetch_listed`` has failed since the server sent more than it may."""
    return isinstance(error, CommandFailed) and TOO_LARGE in error.output


def _command(
    argv: List[str],
    largest: int,
    tells: Optional[Callable[[str], None]] = None,
    pieces: Optional[Callable[[str], None]] = None,
) -> Command:
    """Return a command with ``--copy-links``, and without that option where the server refuses it.

    A file of production may be a symbolic link to another disk; what is fetched is the file that the link leads to.

    :param largest: bytes of a file here.
    :param tells, pieces: as in ``Command``.
    """
    return Command(
        (argv[0], "--copy-links", *argv[1:]),
        limit=None,
        fallback=tuple(argv),
        fallback_when=REFUSED,
        tells=tells,
        pieces=pieces,
        locks=True,
        environment=environment(),
        largest=largest,
    )


def _progress(tells: Callable[[int], None]) -> Callable[[str], None]:
    """Return what takes the output of ``--info=progress2`` byte by byte, and calls ``tells`` with each number of bytes.

    rsync writes ``<blanks>BYTES PERCENT% …`` after each carriage return; a line end comes with the last only.
    """
    line = ""

    def take(piece: str) -> None:
        nonlocal line
        if piece not in ("\r", "\n"):
            # sh hands on as it is what is no text by itself: a part of a letter, of which rsync writes none here.
            line += piece if isinstance(piece, str) else "?"
            return
        words, line = line.split(), ""
        if len(words) > 1 and words[0].isdecimal() and words[1].endswith("%"):
            tells(int(words[0]))

    return take


def _check(source: Source, target: Target) -> None:
    """Refuse a source or a target of a wrong type, and a target that is no absolute path.

    :raises TypeError: for these.
    """
    if not isinstance(source, Source) or not isinstance(target, Target):
        raise TypeError(f"rsync reads from a Source and writes to a Target, not {source!r}, {target!r}")
    if not target.path.startswith("/"):
        raise TypeError(f"a Target is an absolute local path, not {target.path!r}")


def _reached(source: Source, ssh: Tuple[str, ...], options: Tuple[str, ...]) -> Tuple[str, ...]:
    """Return rsync's options that reach a source over a network; ``()`` for a local one.

    :param options: the user's options of rsync.
    """
    if not source.remote:
        return ()
    protect = () if re.fullmatch(PLAIN_PATH, source.spec) else ("--protect-args",)
    # A ProxyCommand of the user's may look for its own files at home.
    at_home = ("env", f"HOME={os.path.expanduser('~')}", ssh[0], *_addresses(options), *ssh[1:])
    return ("-e", remote_shell(at_home), *protect)


def _addresses(options: Tuple[str, ...]) -> Tuple[str, ...]:
    """Return ssh's ``-4`` or ``-6`` for the same of rsync's, which rsync hands on to a program named ssh only."""
    return tuple(f"-{n}" for n in "46" if any(re.fullmatch(rf"-\w*{n}\w*|--ipv{n}", option) for option in options))
