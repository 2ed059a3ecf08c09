"""The true zodbupdate, which converts a FileStorage from Python 2 to Python 3 in place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import List

PROGRAM = Path(sys.executable).with_name("zodbupdate")

# For a Python that has these packages by its path alone, as an ordinary user's in the quick loop.
MODULES = {"zodbupdate": "zodbupdate.main", "zodbverify": "zodbverify.__main__"}


def program(name: str) -> List[str]:
    """The words that begin the command line of one of ``MODULES``."""
    path = PROGRAM.with_name(name)
    return [str(path)] if path.exists() else [sys.executable, "-c", f"from {MODULES[name]} import main; main()"]


def command(data_fs: str) -> List[str]:
    """The words of the command that converts."""
    options = ["--convert-py3", f"--file={data_fs}", "--encoding=utf-8", "--encoding-fallback", "latin1"]
    return [*program("zodbupdate"), *options]


def run(argv: List[str]) -> subprocess.CompletedProcess[str]:
    """Run one of ``MODULES`` with our own packages."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(argv, check=True, capture_output=True, text=True, env=environment)


def convert(data_fs: str) -> None:
    """Convert a FileStorage, to the end."""
    run(command(data_fs))
