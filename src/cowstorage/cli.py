"""The scripts' entry points: arguments, and errors turned into text and exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Optional, Sequence

from cowstorage.errors import CowStorageError, Interrupted
from cowstorage.settings import Settings, from_script

LOCK_SECONDS = 10.0


class Script(NamedTuple):
    """One script: its help's first line, its example, and whether it changes anything (and so takes the lock)."""

    summary: str
    example: str
    changes: bool = True


SCRIPTS = {
    "mount": Script("Mount production read-only and lay the copy-on-write unions over it.", "--dry-run"),
    "sync": Script("Bring the database to production's latest state and drop local changes.", "--yes"),
    "umount": Script("Take the unions and the network mount away; local changes stay for the next mount.", ""),
    "status": Script("Show what is mounted, from where, and what has changed locally.", "--json", changes=False),
    "log": Script("Show the local transactions since the last sync, newest first.", "-n 5", changes=False),
    "savepoint": Script("Name the present state of the database, to come back to.", "before-upgrade"),
    "rollback": Script("Go back to the last sync, or to a savepoint or transaction.", "before-upgrade"),
    "prefetch": Script("Fetch the BLOBs that the local database refers to.", "--max-size 1M"),
}


class HelpFormatter(argparse.HelpFormatter):
    """As wide as the terminal; argparse asks shutil, which brings zlib, bz2 and lzma to the start of every script."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def parser(name: str, settings: Settings) -> argparse.ArgumentParser:
    """The argument parser of one script."""
    script = SCRIPTS[name]
    typed = f"{settings.prefix}-{name}"
    result = argparse.ArgumentParser(
        formatter_class=HelpFormatter,
        prog=typed,
        description=script.summary,
        epilog=f"Example: bin/{typed} {script.example}".rstrip(),
    )
    volume = result.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="errors and results only")
    volume.add_argument("-v", "--verbose", action="store_true", help="show each command before it runs, and reasons")
    result.set_defaults(yes=False, dry_run=False)
    if script.changes:
        result.add_argument("-n", "--dry-run", action="store_true", help="print the commands, run none of them")
        result.add_argument("-y", "--yes", action="store_true", help="agree to what would be asked")
    module(name).add_arguments(result)
    return result


def module(name: str) -> Any:
    """The module of one command: ``add_arguments(parser)`` and ``run(context) -> exit code``."""
    return importlib.import_module(f"cowstorage.commands.{name}")


def main(name: str, options: Mapping[str, Any], argv: Optional[Sequence[str]] = None) -> int:
    """Run one script.

    :param options: what ``settings.to_script`` wrote into it.
    :returns: the exit code: 0 done, 1 failed, 2 usage, 130 and 143 interrupted; status has its own.
    """
    settings = from_script(options)
    arguments = parser(name, settings).parse_args(argv)
    try:
        return _run(name, settings, arguments)
    except (CowStorageError, Interrupted) as error:
        print(f"{settings.prefix}-{name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output went away; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"{settings.prefix}-{name}: {describe(error)}", file=sys.stderr)
        return 1


def describe(error: OSError) -> str:
    """An operating system's error as a sentence, with the path it is about."""
    path = error.filename or error.filename2
    return f"{path}: {error.strerror}." if path else f"{error.strerror or error}."


def _run(name: str, settings: Settings, arguments: argparse.Namespace) -> int:
    from cowstorage.context import Context

    command = module(name)
    if not SCRIPTS[name].changes or arguments.dry_run:
        return int(command.run(Context(f"{settings.prefix}-{name}", settings, arguments)))
    from cowstorage.plan import interruptible
    from cowstorage.session import Lock

    context = Context(f"{settings.prefix}-{name}", settings, arguments)
    context.make_location()
    with private(), Lock(settings.location, context.command, LOCK_SECONDS) as lock:
        context.runner.lock = lock.descriptor
        # What another command wrote while we waited for it.
        context.reload()
        interruptible()
        code = int(command.run(context))
        context.forget_operation()
        return code


@contextmanager
def private() -> Iterator[None]:
    """Whatever is made by us, or by the programs that we run, is for its owner alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _script(name: str) -> Callable[[Mapping[str, Any]], int]:
    def run(options: Mapping[str, Any]) -> int:
        return main(name, options)

    run.__doc__ = SCRIPTS[name].summary
    return run


mount = _script("mount")
sync = _script("sync")
umount = _script("umount")
status = _script("status")
log = _script("log")
savepoint = _script("savepoint")
rollback = _script("rollback")
prefetch = _script("prefetch")
