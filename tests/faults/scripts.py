"""Runs a script in a forked child, where it can be given faults before it starts; quicker than a new Python."""

from __future__ import annotations

import ast
import contextlib
import encodings.ascii  # noqa: F401  as is this
import importlib
import os
import pkgutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any, Callable, Iterator, List, NamedTuple, NoReturn, Optional

import sh  # noqa: F401  imported before the child gives up the right to read it
import ZODB.FileStorage  # noqa: F401

import cowstorage
from cowstorage import cli
from cowstorage.part import settings
from cowstorage.production.wire import command as wire_command
from harness import processes
from harness.buildout import Buildout
from harness.polling import until

SOURCE = Path(cowstorage.__file__).parent.parent

Fault = Callable[[], None]


def _import_all() -> None:
    """What the scripts import at any time: whom the child becomes may not be able to read it."""
    for module in pkgutil.walk_packages(cowstorage.__path__, "cowstorage."):
        source = Path(str(importlib.import_module(module.name).__file__)).read_text(encoding="utf-8")
        tree = ast.parse(source)
        for node in ast.walk(tree):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            for name in [node.module or ""] if isinstance(node, ast.ImportFrom) else names:
                importlib.import_module(name)


_import_all()


class Ended(NamedTuple):
    """How a script ended; the exit code is negative for a signal."""

    returncode: int
    stdout: str
    stderr: str


class Running:
    """A script under way."""

    def __init__(self, pid: int, stdout: IO[str], stderr: IO[str]):
        self.pid = pid
        self._stdout = stdout
        self._stderr = stderr

    def send(self, number: int) -> None:
        """A signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def ended(self, seconds: float = 60) -> Ended:
        """Wait for its end.

        :raises AssertionError: it hangs; it is killed.
        """
        with _pidfd(self.pid) as descriptor:
            import select

            if not select.select([descriptor], [], [], seconds)[0]:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"no end after {seconds:g} seconds:\n{self.output()}")
        _, status = os.waitpid(self.pid, 0)
        return Ended(os.waitstatus_to_exitcode(status), *self.output())

    def programs_ended(self) -> None:
        """Wait for what it had under way when it was killed; sshfs's connection stays."""
        until(lambda: not self._under_way(), "what a killed script had under way has ended")

    def _under_way(self) -> List[str]:
        lines = [processes.command(pid) for pid in processes.of_session(self.pid)]
        connection = ("wire/__main__.py", "ssh ")
        return [line for line in lines if not any(part in line for part in connection)]

    def output(self) -> List[str]:
        """What it has printed so far: stdout, stderr."""
        return [_all_of(stream) for stream in (self._stdout, self._stderr)]


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _all_of(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read()


def start(buildout: Buildout, command: str, *arguments: str, fault: Optional[Fault] = None) -> Running:
    """Start ``bin/cow-COMMAND`` as the buildout's developer.

    :param fault: called in the child before the script.
    """
    stdout, stderr = (tempfile.TemporaryFile("w+", errors="surrogateescape") for _ in range(2))  # noqa: SIM115
    pid = os.fork()
    if pid == 0:
        _child(buildout, command, list(arguments), fault, stdout, stderr)
    return Running(pid, stdout, stderr)


def run(buildout: Buildout, command: str, *arguments: str, fault: Optional[Fault] = None, check: bool = False) -> Ended:
    """``start``, and its end."""
    result = start(buildout, command, *arguments, fault=fault).ended()
    assert "Traceback" not in result.stderr, result.stderr
    assert not check or result.returncode == 0, f"{command} {arguments}: {result}"
    return result


def _child(
    buildout: Buildout, command: str, arguments: List[str], fault: Optional[Fault], stdout: IO[str], stderr: IO[str]
) -> NoReturn:
    code = 70
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDONLY)
        for descriptor, source in enumerate((nowhere, stdout.fileno(), stderr.fileno())):
            os.dup2(source, descriptor)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        become(buildout)
        if fault:
            fault()
        code = cli.main(command, settings.to_script(buildout.settings), arguments)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def become(buildout: Buildout) -> None:
    """From here on: the buildout's developer, in its directory."""
    developer = buildout.developer
    # What sshfs starts is a Python of its own, which the developer may run and read.
    sys.executable = buildout.runtime.python
    wire_command.PROGRAM = str(buildout.runtime.directory / "src" / Path(wire_command.PROGRAM).relative_to(SOURCE))
    os.environ[processes.MARKER] = str(buildout.path)
    os.environ["HOME"] = str(developer.home)
    os.environ["USER"] = developer.name
    os.chdir(buildout.path)
    if developer.uid:
        os.initgroups(developer.name, developer.gid)
        os.setgid(developer.gid)
        os.setuid(developer.uid)


def duration_of(action: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start_time = time.monotonic()
    action()
    return time.monotonic() - start_time
