"""``python -m cowstorage init``: writes a part's scripts in any directory, from a small file that it keeps there.

For a development that no buildout of Python 3 makes: one on Python 2.7, or a Plone by pip, uv or cookieplone.
Options, their validation and the scripts are those of the recipe; zc.buildout is not used, and of what is there nothing
is changed but ``cowstorage.cfg`` and the scripts.
"""

from __future__ import annotations

import argparse
import configparser
import glob
import os
import re
import sys
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from cowstorage.buildout import zope_conf
from cowstorage.buildout.options import canonical, check_apart, check_paths, from_options
from cowstorage.errors import CommandFailed, CowStorageError, PathUnusable, SettingsError
from cowstorage.part.scripts import SCRIPTS
from cowstorage.part.settings import Settings, to_script
from cowstorage.system.output import cleaned
from cowstorage.system.processes import run_program

CONFIGURATION = "cowstorage.cfg"
PART = "cow-storage"

HEAD = """\
# The options of each section are those of the recipe's part. After a change: python -m cowstorage init
"""

# The second line of each script: only those that have it are overwritten or removed.
MARK = f"# Made from {CONFIGURATION} by python -m cowstorage init: edit that, and run it again."

# Bytes of a longer first line, which the kernel would cut, execve(2).
LONGEST_SHEBANG = 250


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run ``init`` and return the exit code: 0 done, 1 failed."""
    parser = argparse.ArgumentParser(
        prog="cowstorage", description="Develop a Plone upgrade against production's data."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    init_parser = commands.add_parser("init", help="write the scripts, without a buildout, or beside one of Python 2")
    init_parser.add_argument("remote", nargs="?", help="what to mount, such as plone@www.example.com:/srv/plone")
    init_parser.add_argument("--directory", default=".", help="of the development; default: this one")
    init_parser.add_argument("--part", default=PART, help=f"the section of {CONFIGURATION}; default: {PART}")
    init_parser.add_argument(
        "-s", "--set", action="append", default=[], metavar="OPTION=VALUE", help="an option of the part, as in README"
    )
    arguments = parser.parse_args(argv)
    try:
        for line in init(arguments):
            print(cleaned(line))
    except CowStorageError as error:
        print(f"cowstorage: {cleaned(str(error))}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"cowstorage: {error.filename}: {error.strerror}.", file=sys.stderr)
        return 1
    return 0


def init(arguments: argparse.Namespace) -> Iterator[str]:
    """Write configuration and scripts, and yield what is to be said.

    :raises CowStorageError: an option can't be used, or a file is in the way; nothing is written then.
    """
    directory = os.path.abspath(arguments.directory)
    path = os.path.join(directory, CONFIGURATION)
    text = _read(path) or HEAD
    given = dict(_given(arguments, PART in _sections(text, path) or arguments.part in _sections(text, path)))
    for name, value in given.items():
        text = with_option(text, arguments.part, name, value)
    parts = {
        part: _settings(part, options, directory, _configurations(directory))
        for part, options in _sections(text, path).items()
    }
    _check_together(list(parts.values()))
    scripts = {script: source for settings in parts.values() for script, source in _scripts(settings)}
    _refuse_others(scripts)
    if text != _read(path):
        _write(path, text, 0o644)
    for script, source in scripts.items():
        _write(script, source, 0o755)
    for stale in _ours(os.path.join(directory, "bin")):
        if stale not in scripts:
            os.unlink(stale)
            yield f"Removed {os.path.relpath(stale, directory)}: no section of {CONFIGURATION} has it any more."
    for part, settings in parts.items():
        over = " and ".join(filter(None, (settings.file_storage, settings.blob_storage)))
        yield f"[{part}] {settings.remote} over {over}. {settings.found}"
        yield f"  bin/{settings.prefix}-mount and the others are there. Next: bin/{settings.prefix}-mount --check"
    if _is_passing(sys.executable):
        yield f"They run by {sys.executable}, which uv may throw away: uv tool install cowstorage keeps one."


def _given(arguments: argparse.Namespace, is_known: bool) -> Iterator[Tuple[str, str]]:
    """Yield the options of the command line; asks for the remote where nothing says it.

    :param is_known: the configuration has the section already.
    """
    remote = arguments.remote
    if not remote and not is_known:
        if not sys.stdin.isatty():
            raise SettingsError("remote", "is required. Say what to mount, such as plone@www.example.com:/srv/plone.")
        remote = input("What to mount, production's buildout directory (user@host:/path)? ").strip()
    if remote:
        yield "remote", remote
    for pair in arguments.set:
        name, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError("--set", f"{pair!r} has no value. Write such as --set storages=Data.fs.")
        yield name.strip(), value.strip()


def _read(path: str) -> str:
    """Return a file's text; empty where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _sections(text: str, path: str) -> Dict[str, Dict[str, str]]:
    """Return the options of each section.

    :raises PathUnusable: when the file is no such file.
    """
    parser = configparser.RawConfigParser(delimiters=("=",), comment_prefixes=("#", ";"), strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise PathUnusable(path, f"can't be read: {' '.join(str(error).split())}. Look at it.") from None
    return {section: dict(parser.items(section)) for section in parser.sections()}


def with_option(text: str, section: str, name: str, value: str) -> str:
    """Return a configuration's text with an option set in a section, which may be new; all else stays as it is."""
    line = f"{name} = {value}\n"
    found = re.search(rf"^\[{re.escape(section)}\][^\n]*\n", text, re.MULTILINE)
    if not found:
        return f"{text.rstrip()}\n\n[{section}]\n{line}".lstrip()
    end = re.search(r"^\[", text[found.end() :], re.MULTILINE)
    body_end = found.end() + end.start() if end else len(text)
    body = text[found.end() : body_end]
    # An option goes on in the lines below it that begin with a blank.
    same = re.search(rf"^{re.escape(name)}[ \t]*=[^\n]*\n?(?:[ \t]+[^\n]*\n?)*", body, re.MULTILINE)
    if same:
        body = body[: same.start()] + line + body[same.end() :]
    else:
        kept = body.rstrip("\n")
        body = f"{kept}\n{line}" + body[len(kept) + 1 :] if kept else line + body
    return text[: found.end()] + body + text[body_end:]


def _configurations(directory: str) -> Dict[str, str]:
    """Return the texts of the configurations of Zope and ZEO below a directory, by their paths."""
    paths = [
        path for place in zope_conf.PLACES for path in sorted(glob.glob(os.path.join(glob.escape(directory), place)))
    ]
    return {path: _read(path) for path in paths}


def _settings(part: str, options: Mapping[str, str], directory: str, texts: Mapping[str, str]) -> Settings:
    """Return the validated settings of a section, with the two paths found where it doesn't say them."""
    values = canonical(options)
    if "instance" in values:
        raise SettingsError("instance", "is for buildouts. Set file-storage and blob-storage.")
    source = f"The paths are set in {CONFIGURATION}."
    missing = [name for name in ("file-storage", "blob-storage") if name not in values]
    if missing:
        found = zope_conf.find(texts, directory)
        paths = {"file-storage": "var/filestorage", "blob-storage": "var/blobstorage"}
        source = "No zope.conf or zeo.conf says where the data is: these are the defaults."
        if found:
            source = f"Taken from {os.path.relpath(found[0], directory)}."
            file_storage, blob_storage = found[1]
            paths = {"file-storage": file_storage or "", "blob-storage": blob_storage or paths["blob-storage"]}
        values = {**paths, **values}
    settings = from_options(values, part, directory, source)
    check_paths(settings)
    return settings


def _check_together(parts: List[Settings]) -> None:
    for number, one in enumerate(parts):
        for other in parts[:number]:
            check_apart(one, other)


def _scripts(settings: Settings) -> Iterator[Tuple[str, str]]:
    """Yield path and text of each script."""
    options = "".join(f"    {name!r}: {value!a},\n" for name, value in to_script(settings).items())
    paths = "" if _is_importable() else f"sys.path[0:0] = {[path for path in sys.path if path]!r}\n"
    for script in SCRIPTS:
        yield (
            os.path.join(settings.directory, "bin", f"{settings.prefix}-{script}"),
            f"{_shebang(sys.executable)}{MARK}\n\nimport sys\n\n{paths}import cowstorage.cli\n\n"
            f'if __name__ == "__main__":\n    sys.exit(cowstorage.cli.{script}({{\n{options}    }}))\n',
        )


def _shebang(executable: str) -> str:
    """Return the first lines of a script; by a shell where the kernel takes no such path, as pip does it."""
    if len(os.fsencode(executable)) < LONGEST_SHEBANG and not re.search(r"\s", executable):
        return f"#!{executable}\n"
    return f"#!/bin/sh\n'''exec' \"{executable}\" \"$0\" \"$@\"\n' '''\n"


def _is_importable() -> bool:
    """Tell whether this Python finds cowstorage by itself, wherever it is called."""
    try:
        run_program((sys.executable, "-I", "-c", "import cowstorage.cli"), cwd="/")
    except CommandFailed:
        return False
    return True


def _is_passing(executable: str) -> bool:
    """Tell whether a Python is in a cache, as that of uvx is."""
    return bool(re.search(r"/uv/(archive|builds|environments)", executable))


def _ours(directory: str) -> List[str]:
    """Return the paths of the scripts in a directory that were made here."""
    paths = (
        [os.path.join(directory, name) for name in sorted(os.listdir(directory))] if os.path.isdir(directory) else []
    )
    return [path for path in paths if _is_ours(path)]


def _is_ours(path: str) -> bool:
    """Tell whether a file is a script that was made here."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return MARK.encode("ascii") in file.read(2000)


def _refuse_others(scripts: Mapping[str, str]) -> None:
    """Refuse to overwrite what was made otherwise, such as by the recipe."""
    for path in scripts:
        if os.path.lexists(path) and not _is_ours(path):
            raise PathUnusable(path, "is there, and was not made by this. Set script-prefix, or remove it.")


def _write(path: str, text: str, mode: int) -> None:
    """Write a file whole or not at all, unless it has that very text."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if _read(path) == text:
        return
    new = path + ".new"
    with open(new, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.chmod(new, mode)
    os.rename(new, path)
