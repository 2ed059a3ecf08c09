"""The quick loop, ``sh tests/run --quick``, is one for any user."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from harness.developer import Developers
from harness.runtime import interpreter

ROOT = Path(__file__).parent.parent
FILES = ("README.rst", "CHANGES.rst", "setup.py", ".pytest.ini")


def test_an_ordinary_user_can_run_every_quick_test(developers: Developers, scratch: Path) -> None:
    """Nothing fails, and nothing is skipped for want of a right."""
    checkout = scratch / "checkout"
    for name in ("src", "tests"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in FILES:
        shutil.copy(ROOT / name, checkout)
    alone = developers.alone
    for path in (checkout, *checkout.rglob("*")):
        shutil.chown(path, alone.uid, alone.gid)
    # Those of the environment that runs this test; its Python itself may lie where the user can't look.
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    code = f"import sys; sys.path[0:0] = {packages!r}; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ("-m", "quick", "--quiet", "--numprocesses", "2", "-p", "no:cacheprovider")
    command = [interpreter(), "-c", code, *options, "--basetemp", str(scratch / "checkout" / "tmp")]
    done = alone.run(command, cwd=checkout, timeout=600)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    assert re.search(r"^\d{3,} passed in \S+( \(\S+\))?$", done.stdout, re.MULTILINE), done.stdout[-1000:]
