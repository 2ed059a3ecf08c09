"""Buildouts of ZEO and Zope, built by zc.buildout itself for a developer, as in life."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Mapping, Optional, Sequence

from cowstorage.buildout.options import from_options
from harness import runtime
from harness.buildout import DEFAULTS, Buildout
from harness.developer import Developer, Result
from harness.runtime import Runtime

TESTS = Path(__file__).parent.parent
VERSIONS = TESTS / "zope.txt"

# What zc.buildout itself needs, in its own environment.
TOOLS = ("packaging", "pip", "platformdirs", "setuptools", "wheel", "zc.buildout")

# What cowstorage is built from.
SOURCES = ("setup.py", "README.rst", "CHANGES.rst", "LICENSE")

# Nothing is asked for over the network: not by buildout, nor by the pip that it runs for a develop egg.  The second
# switches build isolation off: pip reads it as "use build isolation: no".
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_CONFIG_FILE": "/dev/null"}


class Workshop:
    """A zc.buildout, and in ``dists`` all distributions of tests/zope.txt, for every user."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.dists = directory / "dists"
        self.buildout = directory / "venv" / "bin" / "buildout"
        self.versions = dict(re.findall(r"^([\w.-]+)==(\S+)$", VERSIONS.read_text(encoding="utf-8"), re.MULTILINE))
        _run(runtime.interpreter(), "-m", "venv", directory / "venv")
        pip = (directory / "venv" / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check")
        _run(*pip, "download", "--no-deps", "--dest", self.dists, "--requirement", VERSIONS)
        tools = [f"{name}=={self.versions[name]}" for name in TOOLS]
        _run(*pip, "install", "--upgrade", "--no-index", "--find-links", self.dists, *tools)
        (directory / "index").mkdir()
        _run("chmod", "-R", "a+rX", directory)

    def configuration(self, developer: Developer, parts: Sequence[str], develop: Sequence[str]) -> str:
        """The head of a buildout.cfg: strict, all that is needed comes from ``dists``, and a user's eggs are shared."""
        eggs = self.directory / f"eggs-{developer.name}"
        if not eggs.is_dir():
            eggs.mkdir()
            os.chown(eggs, developer.uid, developer.gid)
        pins = "\n".join(f"{name} = {version}" for name, version in self.versions.items())
        return (
            f"[buildout]\nparts = {' '.join(parts)}\ndevelop = {' '.join(develop)}\n"
            f"index = {(self.directory / 'index').as_uri()}\nfind-links = {self.dists}\n"
            f"eggs-directory = {eggs}\nallow-picked-versions = false\n\n[versions]\n{pins}\n"
        )


class ZopeBuildout(Buildout):
    """The directory at ``path``, whose scripts are made by ``bin/buildout``.

    :param options: of our own part.
    :param parts: the other parts, in their order, with their options.
    :param develop: directories to copy into ``path/src``, as checkouts of the developer; ours is there already.
    """

    def __init__(
        self,
        path: Path,
        developer: Developer,
        runtime: Runtime,
        options: Mapping[str, str],
        workshop: Workshop,
        parts: Mapping[str, Mapping[str, str]],
        develop: Sequence[Path] = (),
    ):
        self.workshop = workshop
        self.parts = parts
        self.develop = ["src/cowstorage", *(f"src/{source.name}" for source in develop)]
        checkout = path / "src" / "cowstorage"
        shutil.copytree(TESTS.parent / "src", checkout / "src", ignore=shutil.ignore_patterns("*.egg-info", "*.pyc"))
        for name in SOURCES:
            shutil.copy(TESTS.parent / name, checkout)
        for source in develop:
            shutil.copytree(source, path / "src" / source.name)
        _run("chown", "-R", f"{developer.uid}:{developer.gid}", path)
        super().__init__(path, developer, runtime, options)

    def configure(self, options: Mapping[str, str], part: str = "cow-storage") -> None:
        """Write buildout.cfg with these options of our part, and run buildout."""
        self.settings = from_options({**DEFAULTS, **options}, part, str(self.path))
        parts = {**self.parts, part: {"recipe": "cowstorage", **options}}
        sections = "".join(f"\n[{name}]\n{_lines(values)}" for name, values in parts.items())
        file = self.path / "buildout.cfg"
        file.write_text(
            self.workshop.configuration(self.developer, list(parts), self.develop) + sections, encoding="utf-8"
        )
        self._own(file)
        self.build()

    def build(self, by: Optional[Developer] = None) -> str:
        """Run buildout, and return what it says; ``by`` somebody else."""
        result = (by or self.developer).run(
            [self.workshop.buildout], cwd=self.path, env=OFFLINE, timeout=300, check=True
        )
        return result.stdout + result.stderr

    def bin(self, name: str, *arguments: str, check: bool = True) -> Result:
        """Run any script of the buildout."""
        return self.developer.run([self.path / "bin" / name, *arguments], cwd=self.path, check=check)


def _lines(values: Mapping[str, str]) -> str:
    return "".join(f"{name} = {value}\n" for name, value in values.items())


def _run(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")
