"""What people read: sizes and times in human units, tables, questions."""

from __future__ import annotations

import sys
import time
from typing import Iterable, List, Sequence

from cowstorage.errors import Refused


def human_size(size: float) -> str:
    """Bytes in units of 1000, as rsync and disk makers count: ``14.2 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_span(seconds: float) -> str:
    """A span of time in its largest fitting unit: ``3 days``, ``1 hour``."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return counted(int(seconds // length), unit)
    return counted(int(seconds), "second")


def counted(number: int, noun: str) -> str:
    """``1 transaction``, ``2 transactions``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def local_time(unix: float) -> str:
    """``2026-11-23 19:38:01`` in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix))


def table(rows: Iterable[Sequence[str]], indent: str = "") -> List[str]:
    """Rows as lines with aligned columns, two spaces between."""
    rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


class Output:
    """Where a script's words go: results to stdout, the rest to stderr.

    :param quiet: results and errors only.
    :param verbose: every command, too.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False):
        self.quiet = quiet
        self.verbose = verbose

    @property
    def is_terminal(self) -> bool:
        """Whether somebody sees progress as it goes."""
        return sys.stdout.isatty()

    def say(self, text: str = "") -> None:
        """A line for people; not with ``--quiet``."""
        if not self.quiet:
            print(text, flush=True)

    def result(self, text: str) -> None:
        """A line that was asked for, shown always."""
        print(text, flush=True)

    def warn(self, text: str) -> None:
        """Something to know that is no failure; on stderr, shown always."""
        print(f"Warning: {text}", file=sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        """A line for ``--verbose``, on stderr."""
        if self.verbose:
            print(text, file=sys.stderr, flush=True)

    def progress(self, text: str) -> None:
        """A line that the next one overwrites, on a terminal only."""
        if not self.quiet and sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def progress_done(self) -> None:
        """Take the progress line away."""
        self.progress("")


def confirm(question: str, yes: bool, interactive: bool) -> None:
    """Ask before something is thrown away.

    :param question: what is lost, already with its size.
    :param yes: ``--yes`` was given.
    :raises Refused: the answer was not yes, or nobody could be asked.
    """
    if yes:
        return
    if not interactive:
        raise Refused(f"{question}\nNothing was changed. To agree, run it again with --yes.")
    try:
        answer = input(f"{question}\nGo on? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise Refused("Nothing was changed.")
