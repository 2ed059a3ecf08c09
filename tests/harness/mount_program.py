"""mount(8): whether it can show another user's files as the developer's, and one that can't."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Dict

# It says so with its version, from util-linux 2.39 on.
MAPS = "idmapping" in subprocess.run(["mount", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout

OLD = """#!/bin/sh
[ "$1" != --version ] || { echo "mount from util-linux 2.38.1 (libmount 2.38.1: btrfs)"; exit; }
exec /bin/mount "$@"
"""


def old_mount(directory: Path) -> Dict[str, str]:
    """The environment of who has an old mount(8), which lies in a directory made here."""
    (directory / "old").mkdir()
    program = directory / "old" / "mount"
    program.write_text(OLD)
    program.chmod(0o755)
    return {"PATH": f"{program.parent}:{os.environ['PATH']}"}
