"""Environments with a locale that isn't UTF-8."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Dict

import pytest

from harness import needs

# Python itself would take UTF-8 for this locale, PEP 538 and PEP 540.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

SOURCE = Path("/usr/share/i18n/locales/de_DE")


def latin_1(directory: Path) -> Dict[str, str]:
    """Make a locale with ISO 8859-1 in a new directory, and return the environment that uses it."""
    if not SOURCE.exists():
        pytest.fail(f"This test needs {SOURCE}: apt install locales", pytrace=False)
    directory.mkdir()
    made = directory / "de_DE.ISO-8859-1"
    localedef = needs.program("localedef", "libc-bin")
    subprocess.run([localedef, "-i", SOURCE.name, "-f", "ISO-8859-1", str(made)], check=True)
    return {"LC_ALL": made.name, "LOCPATH": str(directory)}
