"""The step that a command of a part is in: what the next command is told when this one is killed.

It lies beside the journal, and is written without waiting for a disk: after a power failure nothing is mounted, and
no step is under way.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Dict, Optional

OPERATION = "operation"

# The most bytes that are read.
LONGEST = 10_000

Operation = Optional[Dict[str, str]]


def note(location: str, operation: Operation) -> None:
    """Write the operation into its file, by one write(2), which no kill cuts in two.

    :param operation: ``command`` and ``step``; ``None``: none is under way.
    """
    path = os.path.join(location, OPERATION)
    line = json.dumps(operation).encode("ascii") + b"\n"
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    # What can't be written to is not what we have written: it is not waited for, nor followed.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, flags, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def noted(location: str) -> Operation:
    """Return the operation in the file; ``None`` where there is none, or nothing that ``note`` has written.

    The line may be followed by the rest of a longer one.
    """
    try:
        descriptor = os.open(os.path.join(location, OPERATION), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            value = json.loads(file.read(LONGEST).partition(b"\n")[0])
    except (OSError, ValueError, RecursionError):
        return None
    is_operation = isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("command", "step"))
    return value if is_operation else None
