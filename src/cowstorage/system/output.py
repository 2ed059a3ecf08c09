"""Print to the terminal and ask questions; convert sizes and times from and to the units that people use."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import Iterable, List, Sequence, TextIO

from cowstorage.errors import Refused, SettingsError

# The factor of each unit that ``parse_size`` accepts.
SIZE_UNITS = {"": 1, "k": 1000, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}


# Colours of a terminal, ECMA-48: parameters of SGR.
RED, GREEN, YELLOW = "31", "32", "33"


# What isspace() takes for spaces besides: the information separators, and NEL.
C1_CONTROLS = (0x1C, 0x1D, 0x1E, 0x1F, 0x85)


def human_size(size: float) -> str:
    """Return a number of bytes as text in units of 1000, as rsync and disk makers count: ``14.2 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def human_span(seconds: float) -> str:
    """Return a number of seconds as text, in whole units of the largest that fits: ``3 days``, ``1 hour``."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            return counted(int(seconds // length), unit)
    return counted(int(seconds), "second")


def human_seconds(seconds: float) -> str:
    """Return a duration as text: ``0.4 s``, ``14 s``, from two minutes on ``2 minutes``."""
    if seconds >= 120:
        return human_span(seconds)
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def numbered(number: int, complete: bool = True) -> str:
    """Return a number as text; of what was counted in part only that there is more: ``more than 2,000``."""
    return f"{'' if complete else 'more than '}{number:,}"


def counted(number: int, noun: str, complete: bool = True) -> str:
    """Return a number with its noun in singular or plural: ``1 transaction``, ``more than 2,000 transactions``."""
    return f"{numbered(number, complete)} {noun}{'' if number == 1 else 's'}"


def local_time(unix: float) -> str:
    """Return Unix seconds as text in local time: ``2026-11-23 19:38:01``."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix))


def cleaned(text: str) -> str:
    """Return text without what a terminal would obey: each character that can't be printed, but a line break, is ``?``.

    Escapes, C1 controls, what turns the direction of reading, bytes that are no text: names, notes and errors come
    from servers and databases of others.  JSON passes unchanged, since it escapes all of them itself.
    """
    return text if text.replace("\n", "").isprintable() else "".join(map(_cleaned, text))


def _cleaned(character: str) -> str:
    """Return a character, or what stands for it; a tab, and a space of another width, are spaces."""
    if character.isprintable() or character == "\n":
        return character
    return " " if character != "\r" and character.isspace() and ord(character) not in C1_CONTROLS else "?"


def one_line(text: str) -> str:
    """Return text of somebody else's on one line, cleaned, so that no line of it is taken for one of ours."""
    return " / ".join(cleaned(line.strip()) for line in text.splitlines() if line.strip())


def table(rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> List[str]:
    """Return rows as lines with left-aligned columns, two spaces between columns; each cell is on one line.

    :param rows: the cells of each row; all rows have the same number of cells.
    :param right: the columns that are right-aligned, by their cell in the first row.
    """
    rows = [list(map(_cell, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    aligned = [">" if cell in right else "<" for cell in rows[0]] if rows else []
    return ["  ".join(f"{cell:{to}{width}}" for cell, to, width in zip(row, aligned, widths)).rstrip() for row in rows]


def _cell(text: str) -> str:
    """Return the text of a cell on one line; blanks that it begins with align it."""
    return text[: len(text) - len(text.lstrip(" "))] + one_line(text)


def cut(line: str, width: int) -> str:
    """Return a line of no more than ``width`` columns; one that goes on ends with an ellipsis."""
    return line if len(line) <= width else line[: width - 1] + "…"


def columns() -> int:
    """Return the width of the terminal in columns: that of ``COLUMNS``, else that of stdout, else 80."""
    told = os.environ.get("COLUMNS", "")
    if told.isdigit() and int(told) > 0:
        return int(told)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def coloured(text: str, words: str, colour: str, stream: TextIO) -> str:
    """Return text with the first occurrence of some words in a colour, on a terminal, unless NO_COLOR is set.

    :param text: cleaned already.
    :param words: empty: none.
    """
    wanted = stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return text.replace(words, f"\033[{colour}m{words}\033[0m", 1) if words and wanted else text


def is_here(directory: str) -> bool:
    """Return whether a directory is the one that the user is in, so that paths below it can be typed without it."""
    try:
        return os.path.samefile(directory, os.curdir)
    except OSError:
        return False


def shortened(text: str, directory: str) -> str:
    """Return text in which paths below a directory are told from it: words, quoted or not, that begin with it."""
    return re.sub(rf"(?<![^\s'\"(]){re.escape(directory.rstrip('/'))}/(?=[^\s/])", "", text)


class Output:
    """The printer of one script; whatever it prints is ``cleaned``.

    :param quiet: with ``--quiet``: print results, warnings and errors only.
    :param verbose: with ``--verbose``: print details, such as each command, too.
    :param directory: the buildout's; paths in sentences are told from it where the user is in it.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False, directory: str = ""):
        self.quiet = quiet
        self.verbose = verbose
        self.directory = directory if directory and is_here(directory) else ""
        self._has_progress = False

    @property
    def is_terminal(self) -> bool:
        """Return whether stdout is a terminal, where a person sees progress."""
        return sys.stdout.isatty()

    def say(self, text: str = "") -> None:
        """Print a line to stdout, unless quiet."""
        if not self.quiet:
            self.result(self.below(text))

    def result(self, text: str, words: str = "", colour: str = "") -> None:
        """Print a line that the user asked for to stdout, also when quiet; some words of it may have a colour."""
        self.progress_done()
        print(coloured(cleaned(text), cleaned(words), colour, sys.stdout), flush=True)

    def below(self, text: str) -> str:
        """Return text with paths told from the buildout directory, where the user is in it."""
        return shortened(text, self.directory) if self.directory else text

    def warn(self, text: str) -> None:
        """Print a warning to stderr, also when quiet: the script goes on."""
        self.progress_done()
        line = f"Warning: {cleaned(self.below(text))}"
        print(coloured(line, "Warning:", YELLOW, sys.stderr), file=sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        """Print a line to stderr when verbose."""
        if self.verbose:
            self.progress_done()
            print(cleaned(text), file=sys.stderr, flush=True)

    @property
    def shows_progress(self) -> bool:
        """Return whether ``progress`` prints anything."""
        return not self.quiet and sys.stderr.isatty()

    def progress(self, text: str) -> None:
        """Print a line to stderr that the next progress line overwrites; only on a terminal, unless quiet."""
        if self.shows_progress:
            # What is wider than the terminal goes on in a second line, which nothing would overwrite.
            line = cut(cleaned(self.below(text)), columns() - 1)
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
            self._has_progress = bool(text)

    def progress_done(self) -> None:
        """Erase the progress line, where there is one."""
        if self._has_progress:
            self.progress("")


def confirm(question: str, yes: bool, interactive: bool) -> None:
    """Ask the user to agree to a loss.

    :param question: says what is lost, with its size.
    :param yes: whether ``--yes`` was given: then nothing is asked.
    :param interactive: whether there is a terminal to ask on.
    :raises Refused: when the answer is not yes, or there is no terminal.
    """
    if yes:
        return
    if not interactive:
        raise Refused(f"{question}\nNothing was changed. To agree, run it again with --yes.")
    try:
        answer = input(f"{cleaned(question)}\nGo on? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise Refused("Nothing was changed.")


def parse_size(option: str, value: str) -> int:
    """Return the bytes that a size stands for, in units of 1000: ``20G``, ``1.5 MB``, ``800k``, or a plain number.

    :param option: the name of the option that has the size, for the error.
    :param value: the size as the user wrote it.
    :raises SettingsError: when the value is no such size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)B?", value.strip())
    if not match:
        raise SettingsError(option, f"{value!r} is no size such as 20G, 500M or 800k.")
    number, unit = match.groups()
    return int(float(number) * SIZE_UNITS[unit])
