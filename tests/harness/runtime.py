"""A Python with cowstorage that every user may run.

The interpreter and the packages of the tests often lie below somebody's home, where others can't look.  So the
packages that cowstorage needs are copied to the run's directory, and the scripts use the tests' interpreter if all
may run it, else the system's of the same version.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import List, Set

import pytest

import cowstorage
import harness
from harness import accounts

DISTRIBUTIONS = ("ZODB", "sh", "zc.buildout", "zc.recipe.egg", "ZEO")
NOBODY = "cowalone"
# coverage's configuration, which every user may read, where tests/coverage measures.
COVERAGE = os.environ.get("COVERAGE_PROCESS_START", "")


class Runtime:
    """Copies in ``directory``; ``python`` runs with ``paths`` in front of its ``sys.path``."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.python = interpreter()
        self.paths = (str(directory / "src"), str(directory / "site"))
        for package in (cowstorage, harness):
            source = Path(str(package.__file__)).parent
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, directory / "src" / source.name, ignore=ignored)
        for name in _closure((*DISTRIBUTIONS, "coverage") if COVERAGE else DISTRIBUTIONS):
            _copy_distribution(name, directory / "site")
        # Those who run the scripts can't write there.
        compile_all = [self.python, "-m", "compileall", "-q", str(directory)]
        subprocess.run(compile_all, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["chmod", "-R", "a+rX", str(directory)], check=True)

    def script(self, module: str, call: str) -> str:
        """The text of a script, in the way of zc.recipe.egg."""
        paths = "".join(f"  {path!r},\n" for path in self.paths)
        measured = ""
        if COVERAGE:
            measured = f"import os, coverage\nos.environ['COVERAGE_PROCESS_START'] = {COVERAGE!r}\n"
            measured += "coverage.process_startup()\n\n"
        return (
            f"#!{self.python}\n\nimport sys\nsys.path[0:0] = [\n{paths}  ]\n\n{measured}import {module}\n\n"
            f"if __name__ == '__main__':\n    sys.exit({module}.{call})\n"
        )

    def code(self, text: str) -> List[str]:
        """The words of a command that runs a program of Python."""
        return [self.python, "-c", f"import sys; sys.path[0:0] = {list(self.paths)!r}\n{text}"]

    def module(self, name: str) -> List[str]:
        """The words of a command that runs a module, such as ``harness.database``."""
        return self.code(f"import runpy; runpy.run_module({name!r}, None, '__main__')")


def interpreter() -> str:
    """The tests' Python if all may run it, else the system's of the same version."""
    wanted = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for candidate in (sys.executable, f"/usr/bin/python{wanted}", f"/usr/local/bin/python{wanted}"):
        if _runs_for_all(candidate):
            return candidate
    pytest.fail(
        f"Other users can't run {sys.executable}, and there is no Python {wanted} in /usr/bin. "
        "Make the tests' virtual environment with /usr/bin/python3, or at a place that every user can look into.",
        pytrace=False,
    )


def _runs_for_all(python: str) -> bool:
    user = accounts.ensure(NOBODY)
    switch = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]
    # By a shell, since setpriv itself looks the program up with root's capabilities.
    command = [*switch, "sh", "-c", 'exec "$0" -I -c pass', python]
    return subprocess.run(command, cwd="/", capture_output=True).returncode == 0


def _closure(names: tuple[str, ...]) -> Set[str]:
    """The distributions and what they require, as far as it is installed, without extras."""
    found: Set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            waiting += [re.split(r"[^\w.-]", one, maxsplit=1)[0] for one in requirements if "extra ==" not in one]
    return found


def _copy_distribution(name: str, target: Path) -> None:
    distribution = metadata.distribution(name)
    for file in distribution.files or ():
        source = Path(str(distribution.locate_file(file)))
        if ".." not in file.parts and source.exists():
            copy = target / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
