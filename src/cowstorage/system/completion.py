"""Write what lets a shell complete the part's scripts, from their parsers: bash(1), and complete(1) of fish."""

from __future__ import annotations

import argparse
import re
import shlex
from typing import Callable, Dict, Iterator, List, Mapping

Parsers = Mapping[str, argparse.ArgumentParser]

# What else an argument may be, by its name in the help → the sources of the words, ``SOURCES``.
COMPLETED = {"NAME": ("savepoints",), "NAME_OR_TID": ("savepoints", "transactions")}

# Where words come from → the script's name after the prefix, its arguments, and what sed(1) takes the words out by.
SOURCES = {
    "savepoints": ("savepoint", "--list --json", r's/^ *"name": "\(.*\)",$/\1/p'),
    "transactions": ("log", "--number 50 --json", r's/^ *"tid": "\(.*\)",$/\1/p'),
}


def script(shell: str, prefix: str, parsers: Parsers) -> str:
    """Return the lines for a shell's start-up file, or for ``source``.

    :param shell: ``bash`` or ``fish``.
    :param prefix: what the scripts' names begin with.
    :param parsers: the script's name after the prefix → its parser.
    """
    return "\n".join(SHELLS[shell](prefix, parsers)) + "\n"


def _bash(prefix: str, parsers: Parsers) -> Iterator[str]:
    function = "_" + _function(prefix)
    yield f"{function}() {{"
    yield '    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words="" from=""'
    yield "    case ${COMP_WORDS[0]##*/} in"
    for name, parser in parsers.items():
        flags = [flag for action in _options(parser) for flag in action.option_strings]
        yield f"        {prefix}-{name})"
        yield f"            words={shlex.quote(' '.join(flags))}"
        for action in _options(parser):
            if action.choices:
                own = " ".join(map(str, action.choices))
                yield f"            [[ $before != {action.option_strings[-1]} ]] || words={shlex.quote(own)}"
        if _arguments(parser):
            yield f"            [[ $word == -* ]] || from={shlex.quote(' '.join(_arguments(parser)))}"
        yield "            ;;"
    yield "    esac"
    yield "    local place=${COMP_WORDS[0]%" + f"{prefix}-*}}"
    for source, (name, arguments, pattern) in SOURCES.items():
        run = f'"${{place}}{prefix}-{name}" {arguments} 2>/dev/null | sed -n {shlex.quote(pattern)}'
        yield f'    [[ " $from " != *" {source} "* ]] || words+=" $({run})"'
    yield '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")'
    yield "}"
    yield f"complete -F {function} {' '.join(f'{prefix}-{name}' for name in parsers)}"


def _fish(prefix: str, parsers: Parsers) -> Iterator[str]:
    function = "__" + _function(prefix)
    yield f"function {function}"
    yield "    set -l program (string replace -r '[^/]*$' '' -- (commandline -opc)[1])$argv[1]"
    yield "    $program $argv[2..] 2>/dev/null"
    yield "end"
    for name, parser in parsers.items():
        command = f"complete -c {prefix}-{name} -f"
        yield command
        for action in _options(parser):
            flags = " ".join(
                f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in action.option_strings
            )
            values = f" -x -a {_fish_quoted(' '.join(map(str, action.choices)))}" if action.choices else ""
            takes = " -x" if action.nargs != 0 and not values else ""
            yield f"{command} {flags}{values}{takes} -d {_fish_quoted(_help(action))}"
        for source in _arguments(parser):
            other, arguments, pattern = SOURCES[source]
            run = f"({function} {prefix}-{other} {arguments} | sed -n {_fish_quoted(pattern)})"
            yield f"{command} -a {_fish_quoted(run)} -d {_fish_quoted(source[:-1])}"


SHELLS: Dict[str, Callable[[str, Parsers], Iterator[str]]] = {"bash": _bash, "fish": _fish}


def _function(prefix: str) -> str:
    """Return a part's own name for a function of the shell."""
    return "cowstorage_" + re.sub(r"\W", "_", prefix)


def _actions(parser: argparse.ArgumentParser) -> List[argparse.Action]:
    # argparse has no public way to them, and this one since Python 2.7.
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def _options(parser: argparse.ArgumentParser) -> List[argparse.Action]:
    return [action for action in _actions(parser) if action.option_strings]


def _arguments(parser: argparse.ArgumentParser) -> List[str]:
    """Return the sources of the words that may stand without an option."""
    return [
        source
        for action in _actions(parser)
        if not action.option_strings
        for source in COMPLETED.get(str(action.metavar), ())
    ]


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%")


def _fish_quoted(text: str) -> str:
    """Return a text in single quotes, in which fish knows a backslash before a quote or another one."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
