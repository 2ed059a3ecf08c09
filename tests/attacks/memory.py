"""Run Python with little memory: what reads too much ends with a MemoryError there, not here."""

from __future__ import annotations

import subprocess
import sys

# Bytes.  A Python with ZODB takes 250 MB of addresses.
LITTLE = 600_000_000


def output_with_little_memory(code: str, *arguments: str) -> str:
    """Return what a program prints that may map no more than ``LITTLE`` bytes; it has to end well.

    :param code: gets ``arguments`` as ``sys.argv[1:]``.
    """
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({LITTLE}, {LITTLE}))\n"
    paths = f"import sys; sys.path[0:0] = {sys.path!r}\n"
    command = [sys.executable, "-c", paths + limited + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
