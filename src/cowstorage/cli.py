"""The entry points of the scripts: arguments are parsed, and errors become a text on stderr and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, Optional, Sequence

from cowstorage.errors import CowStorageError, Interrupted, Refused
from cowstorage.part.scripts import SCRIPTS
from cowstorage.part.settings import Settings, from_script
from cowstorage.system import identity
from cowstorage.system.output import RED, cleaned, coloured, columns, is_here, one_line, shortened

if TYPE_CHECKING:
    from cowstorage.actions.context import Context

# How long a script waits for another one of the same part.
LOCK_SECONDS = 10.0


class HelpFormatter(argparse.HelpFormatter):
    """A help that is as wide as the terminal.

    argparse itself asks shutil for the width, which imports zlib, bz2 and lzma at the start of every script.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=columns() - 2)


def parser(name: str, settings: Settings) -> argparse.ArgumentParser:
    """Return the argument parser of the script ``name``."""
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
    """Return the module of the script ``name``, with ``add_arguments(parser)`` and ``run(context) -> exit code``."""
    return importlib.import_module(f"cowstorage.commands.{name}")


def main(name: str, options: Mapping[str, Any], argv: Optional[Sequence[str]] = None) -> int:
    """Run the script ``name`` and return its exit code.

    :param options: what ``settings.to_script`` wrote into the script.
    :param argv: the arguments; ``None``: those of the process.
    :returns: 0 done, 1 failed, 2 wrong usage, 128 + signal number interrupted; ``status`` has exit codes of its own.
    """
    settings = from_script(options)
    arguments = parser(name, settings).parse_args(argv)
    if getattr(arguments, "completion", None):
        from cowstorage.system import completion  # start-up

        parsers = {name: parser(name, settings) for name in SCRIPTS}
        print(completion.script(arguments.completion, settings.prefix, parsers), end="")
        return 0
    if getattr(arguments, "page", None):
        return _show_page(arguments.page)
    try:
        return _run(name, settings, arguments)
    except (CowStorageError, Interrupted) as error:
        complain("" if isinstance(error, Refused) else f"{settings.prefix}-{name}:", str(error), settings.directory)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away; Python would report that once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        complain(f"{settings.prefix}-{name}:", describe(error), settings.directory)
        return 1


def complain(who: str, text: str, directory: str) -> None:
    """Print an error to stderr.

    :param who: begins the line, red on a terminal; empty for what is no failure.
    :param directory: the buildout's; paths are told from it where the user is in it.
    """
    text = shortened(text, directory) if is_here(directory) else text
    print(coloured(f"{who} {cleaned(text)}".lstrip(), who, RED, sys.stderr), file=sys.stderr)


def _show_page(name: str) -> int:
    """Print a page of the documentation, which lies in the package; return the exit code."""
    directory = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pages")
    pages = sorted(file[: -len(".rst")] for file in os.listdir(directory) if file.endswith(".rst"))
    if name not in pages:
        print(f"There is no page {one_line(name)}. Known: {', '.join(pages)}.", file=sys.stderr)
        return 2
    with open(os.path.join(directory, name + ".rst"), encoding="utf-8") as file:
        print(file.read(), end="")
    return 0


def describe(error: OSError) -> str:
    """Return an operating system's error as a sentence, with the path that the error is about."""
    path = error.filename or error.filename2
    return f"{one_line(os.fsdecode(path))}: {error.strerror}." if path else f"{error.strerror or error}."


def _run(name: str, settings: Settings, arguments: argparse.Namespace) -> int:
    """Run the script ``name`` and return its exit code; under the part's lock where the script changes anything."""
    from cowstorage.actions.context import Context  # start-up

    command = module(name)
    context = Context(f"{settings.prefix}-{name}", settings, arguments)
    # Root that works for a developer is root again where it mounts, unmounts and looks for who has something open.
    identity.act_as(context.host.uid, context.host.gid)
    if not SCRIPTS[name].changes or arguments.dry_run:
        return int(command.run(context))
    from cowstorage.actions.apart import refuse_links_and_production  # start-up
    from cowstorage.actions.plan import interruptible  # start-up
    from cowstorage.actions.preflight import refuse_mounted_elsewhere  # start-up
    from cowstorage.part.lock import Lock  # start-up

    # What is mounted can be unmounted, whatever was put in the place of other directories: unmounting drops nothing.
    refuse_links_and_production(context, location_only=name == "umount")
    context.make_location()
    with private(), Lock(settings.location, context.command, LOCK_SECONDS) as lock:
        context.runner.lock = lock.descriptor
        # The journal may have been written by another command while this one waited for the lock.
        context.reload()
        interruptible()
        if not getattr(arguments, "gone", False):
            refuse_mounted_elsewhere(context)
        code = _perform(name, context, command)
        context.forget_operation()
        return code


def _perform(name: str, context: Context, command: Any) -> int:
    """Run a script that changes something; when it fails, and leaves unmounted what was mounted, that is said."""
    if name == "umount":
        return int(command.run(context))
    from cowstorage.actions.mounting import unmounting_is_said  # start-up

    with unmounting_is_said(context):
        return int(command.run(context))


@contextmanager
def private() -> Iterator[None]:
    """Make files that this process and its programs create accessible to their owner alone, umask(2)."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _script(name: str) -> Callable[[Mapping[str, Any]], int]:
    """Return the entry point of the script ``name``, which takes what ``settings.to_script`` wrote into the script."""

    def run(options: Mapping[str, Any]) -> int:
        # The paths in a script are texts: in another encoding they would be the names of other directories.
        if sys.getfilesystemencoding() != "utf-8":
            from cowstorage.system.processes import start_again_in_utf8  # start-up

            start_again_in_utf8()
        return main(name, options)

    run.__doc__ = SCRIPTS[name].summary
    return run


# ``cowstorage.cli:mount`` and so on, as the recipe writes them into the scripts.
mount = _script("mount")
sync = _script("sync")
umount = _script("umount")
status = _script("status")
log = _script("log")
savepoint = _script("savepoint")
rollback = _script("rollback")
prefetch = _script("prefetch")
