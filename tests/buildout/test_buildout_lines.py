"""The recipe on every line of zc.buildout that a supported Plone pins, in strict buildouts.

Each line gets a virtual environment with its own tools, and the distributions of its pins in a directory.  buildout
takes all from there: its index is empty, and ``allow-picked-versions = false`` refuses whatever is not pinned.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, NamedTuple, Tuple

import pytest

pytestmark = pytest.mark.matrix

CHECKOUT = Path(__file__).resolve().parents[2]

# What the recipe needs beside itself: versions of the time of that Plone, with wheels for its Pythons.
PLONE_5_2 = {
    "BTrees": "4.11.3",
    "cffi": "1.15.1",
    "persistent": "4.9.3",
    "pycparser": "2.21",
    "sh": "2.0.7",
    "six": "1.16.0",
    "transaction": "3.1.0",
    "zc.lockfile": "2.0",
    "zc.recipe.egg": "2.0.7",
    "ZConfig": "3.6.1",
    "ZODB": "5.8.1",
    "zodbpickle": "2.6",
    "zope.interface": "5.5.2",
}
PLONE_6_0 = {
    "BTrees": "6.1",
    "cffi": "1.17.1",
    "persistent": "6.1",
    "pycparser": "2.22",
    "sh": "2.1.0",
    "transaction": "5.0",
    "zc.lockfile": "3.0.post1",
    "zc.recipe.egg": "2.0.7",
    "ZConfig": "4.1",
    "ZODB": "6.0",
    "zodbpickle": "4.1.1",
    "zope.deferredimport": "5.0",
    "zope.interface": "7.0.3",
    "zope.proxy": "6.1",
}
PLONE_6_1 = {**PLONE_6_0, "zc.recipe.egg": "3.0.0"}
PLONE_6_2 = {
    **PLONE_6_1,
    "cffi": "2.0.0",
    "persistent": "6.1.1",
    "pycparser": "2.23",
    "sh": "2.2.2",
    "zc.lockfile": "4.0",
    "zc.recipe.egg": "4.0.0",
    "ZConfig": "4.2",
    "ZODB": "6.0.1",
    "zodbpickle": "4.2",
    "zope.interface": "7.2",
}
NEXT = {
    "BTrees": "6.5",
    "cffi": "2.1.1",
    "persistent": "6.9",
    "pycparser": "3.12",
    "sh": "2.4.0",
    "transaction": "5.1",
    "zc.lockfile": "4.0",
    "zc.recipe.egg": "6.0.0",
    "ZConfig": "4.3",
    "ZODB": "6.4",
    "zodbpickle": "4.5",
    "zope.deferredimport": "6.1.1",
    "zope.interface": "8.7",
    "zope.proxy": "7.3",
}


class Line(NamedTuple):
    """A release of zc.buildout: the Pythons that it supports, its tools, and the pins."""

    pythons: Tuple[str, ...]
    tools: Dict[str, str]
    pins: Dict[str, str]


LINES = {
    "3.0.1": Line(("3.8", "3.9", "3.11"), {"pip": "23.0.1", "setuptools": "65.7.0", "wheel": "0.38.4"}, PLONE_6_0),
    # With setuptools 75, zc.recipe.egg 2.0.7 (a source distribution) is built under a name that 3.4 doesn't find.
    "3.4": Line(
        ("3.8", "3.9", "3.11", "3.12", "3.13"), {"pip": "24.3.1", "setuptools": "74.1.3", "wheel": "0.44.0"}, PLONE_6_0
    ),
    "4.2.0": Line(
        ("3.9", "3.10", "3.11", "3.12", "3.13"),
        {"packaging": "25.0", "pip": "25.3", "setuptools": "80.9.0", "wheel": "0.45.1"},
        PLONE_6_1,
    ),
    "5.2.0": Line(
        ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14"),
        {"packaging": "25.0", "pip": "25.3", "setuptools": "81.0.0", "wheel": "0.46.1"},
        PLONE_6_2,
    ),
    "6.0.1": Line(
        ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15"),
        {"packaging": "26.3", "pip": "26.3", "platformdirs": "4.5.0", "setuptools": "84.2.1", "wheel": "0.48.0"},
        NEXT,
    ),
}

EXCEPTIONS = {
    # Plone 5.2, whose versions have no wheels for later Pythons.
    ("3.0.1", "3.8"): PLONE_5_2,
    # The newest releases need Python 3.11.
    ("6.0.1", "3.10"): {**PLONE_6_2, "zc.recipe.egg": "6.0.0"},
}


def at_hand():
    """The Pythons of this machine, by ``3.x``: on PATH, or below ~/.pyenv."""
    found = {}
    versions = sorted({python for line in LINES.values() for python in line.pythons})
    for version in versions:
        name = f"python{version}"
        places = [*Path.home().glob(f".pyenv/versions/{version}.*/bin/{name}"), shutil.which(name)]
        for place in filter(None, places):
            # A shim may be there without what it stands for, and a Python without what makes virtual environments.
            if subprocess.run([place, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0:
                found[version] = str(place)
                break
    return found


PYTHONS = at_hand()

# Debian's packages of the Pythons that old lines need.
NO_PYTHON = pytest.mark.package("python3.11")


def cases():
    """Each line on Python 3.11, from wheel and develop; from wheel also on its oldest and newest at hand.

    A line without any Python stays in the list, to fail and not to vanish; but where the release has none for it.
    """
    for name, line in LINES.items():
        present = [python for python in line.pythons if python in PYTHONS]
        if not present:
            yield pytest.param(name, None, "wheel", id=f"{name}-no-python", marks=NO_PYTHON)
            continue
        main = "3.11" if "3.11" in present else present[0]
        for python in sorted({main, present[0], present[-1]}, key=line.pythons.index):
            for mode in ("wheel", "develop") if python == main else ("wheel",):
                yield pytest.param(name, python, mode, id=f"{name}-python{python}-{mode}")


def run(*command, cwd=None, environment=None):
    """Run a program, and return what it has printed; it must succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """A copy of what a release is built from, since building writes beside it."""
    directory = tmp_path_factory.mktemp("sources")
    for name in ("setup.py", "README.rst", "CHANGES.rst", "LICENSE"):
        shutil.copy(CHECKOUT / name, directory)
    shutil.copytree(CHECKOUT / "src", directory / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    return directory


@pytest.fixture(scope="session")
def wheel(sources, tmp_path_factory):
    """The recipe's wheel."""
    directory = tmp_path_factory.mktemp("wheel")
    copy = tmp_path_factory.mktemp("build") / "cowstorage"
    shutil.copytree(sources, copy)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", directory, copy)
    [result] = directory.iterdir()
    return result


@pytest.fixture(scope="session")
def workshops(tmp_path_factory):
    """Directories with the tools and distributions of a line and Python, made when first asked for."""
    made = {}

    def workshop(name, python):
        if (name, python) not in made:
            line, directory = LINES[name], tmp_path_factory.mktemp(f"line-{name}-{python}")
            run(PYTHONS[python], "-m", "venv", directory / "venv")
            pip = [directory / "venv" / "bin" / "python", "-m", "pip"]
            run(*pip, "install", "-q", f"zc.buildout=={name}", *requirements(line.tools))
            run(*pip, "download", "-q", "--no-deps", "-d", directory / "dists", *requirements(pins(name, python)))
            made[name, python] = directory
        return made[name, python]

    return workshop


def pins(name, python):
    """The pins of a line, or those that a Python of its own needs."""
    return EXCEPTIONS.get((name, python), LINES[name].pins)


def requirements(versions):
    return [f"{name}=={version}" for name, version in versions.items()]


class StrictBuildout:
    """A buildout directory of a line."""

    def __init__(self, directory, workshop, versions, find_links, develop):
        self.directory, self.workshop = directory, workshop
        (directory / "index").mkdir(parents=True)
        self.head = "\n".join(
            [
                "[buildout]",
                f"index = {(directory / 'index').as_uri()}",
                f"find-links = {find_links}",
                f"develop = {develop}",
                f"eggs-directory = {workshop}/eggs",
                "allow-picked-versions = false",
                "[versions]",
                *(f"{name} = {version}" for name, version in versions.items()),
            ]
        )

    def write(self, part):
        """Configure it with this text for the part, or without it; the program that builds it."""
        parts = "cow-storage" if part else ""
        (self.directory / "buildout.cfg").write_text(f"{self.head}\n[buildout]\nparts = {parts}\n{part}\n")
        return self.workshop / "venv" / "bin" / "buildout"

    def run(self, part, *arguments):
        """Build it; what was printed."""
        environment = {"BUILDOUT_HOME": str(self.directory)}
        return run(self.write(part), *arguments, cwd=self.directory, environment=environment)

    def run_offline(self, part):
        """Build it in offline mode: how that ends."""
        command = [self.write(part), "-o"]
        environment = {**os.environ, "BUILDOUT_HOME": str(self.directory)}
        done = subprocess.run(command, cwd=self.directory, env=environment, capture_output=True, text=True, check=False)
        missing = re.search("We don't have a distribution", done.stdout + done.stderr)
        return missing.group() if missing else done.returncode

    def scripts(self):
        return sorted(path.name for path in (self.directory / "bin").iterdir())


PART = """
[cow-storage]
recipe = cowstorage
remote = plone@www.example.com:/srv/plone
file-storage = var/filestorage
blob-storage = var/blobstorage
"""


@pytest.mark.parametrize("name, python, mode", list(cases()))
def test_a_strict_buildout_installs_updates_and_removes_the_part(
    name, python, mode, workshops, sources, wheel, tmp_path
):
    assert python, f"zc.buildout {name} needs one of the Pythons {', '.join(LINES[name].pythons)} on PATH"
    workshop = workshops(name, python)
    release = re.match("cowstorage-([^-]+)-", wheel.name).group(1)
    versions = {"cowstorage": release, "zc.buildout": name, **LINES[name].tools, **pins(name, python)}
    find_links, develop = f"{workshop}/dists", ""
    if mode == "wheel":
        find_links += f" {wheel.parent}"
    else:
        develop = tmp_path / "cowstorage"
        shutil.copytree(sources, develop)
    buildout = StrictBuildout(tmp_path / "build out", workshop, versions, find_links, develop)

    buildout.run(PART)
    source = (buildout.directory / "bin" / "cow-status").read_text()
    location = f"'{workshop}/eggs/(v5/)?cowstorage-{release}-" if mode == "wheel" else f"'{develop}/src',"
    assert re.search(location, source)
    assert "usage: cow-status" in run(buildout.directory / "bin" / "cow-status", "--help")
    assert len(buildout.scripts()) == 8

    # newest = false: eggs that are there are taken without a look at the index.
    assert "Uninstalling cow-storage." in buildout.run(PART.replace("www", "new"), "-N")
    assert "plone@new.example.com" in (buildout.directory / "bin" / "cow-status").read_text()
    unchanged = buildout.run(PART.replace("www", "new"), "-N")
    assert "Updating cow-storage." in unchanged
    assert "Getting distribution" not in unchanged

    assert "Running uninstall recipe." in buildout.run("", "-N")
    assert buildout.scripts() == []


def lines():
    """Each line, once."""
    for name, line in LINES.items():
        yield pytest.param(name, marks=() if set(line.pythons) & set(PYTHONS) else NO_PYTHON)


def main_python(name):
    """Python 3.11, or the first of a line's Pythons that is at hand."""
    python = next((python for python in ("3.11", *LINES[name].pythons) if python in PYTHONS), None)
    assert python in LINES[name].pythons, f"zc.buildout {name} needs one of the Pythons of its line on PATH"
    return python


@pytest.mark.parametrize("name", list(lines()))
def test_a_download_cache_and_shared_eggs_are_enough(name, workshops, wheel, tmp_path):
    """Built from a download cache alone; then a second buildout, with the eggs of the first and no other source.

    That one is run with newest = false.
    """
    python = main_python(name)
    workshop, eggs = workshops(name, python), tmp_path / "eggs"
    shutil.copytree(workshop / "dists", tmp_path / "cache" / "dist")
    shutil.copy(wheel, tmp_path / "cache" / "dist")
    release = re.match("cowstorage-([^-]+)-", wheel.name).group(1)
    versions = {"cowstorage": release, "zc.buildout": name, **LINES[name].tools, **pins(name, python)}

    first = StrictBuildout(tmp_path / "first", workshop, versions, "", "")
    first.head += f"\n[buildout]\neggs-directory = {eggs}\ndownload-cache = {tmp_path}/cache\ninstall-from-cache = true"
    assert "Getting distribution for 'cowstorage" in first.run(PART)
    second = StrictBuildout(tmp_path / "second", workshop, versions, "", "")
    second.head += f"\n[buildout]\neggs-directory = {eggs}"
    assert "Getting distribution" not in second.run(PART, "-N")
    assert second.scripts() == first.scripts()
    assert "usage: cow-status" in run(second.directory / "bin" / "cow-status", "--help")


@pytest.mark.parametrize("name", list(lines()))
def test_a_download_cache_is_filled_and_enough_and_offline_works_as_far_as_it_can(name, workshops, wheel, tmp_path):
    """Built from a download cache without install-from-cache; then offline (-o), as far as this zc.buildout can.

    3.0.1, 3.4, 5.2.0 and 6.0.1 don't find the eggs there that they have made of wheels, whatever the recipe.
    """
    python = main_python(name)
    workshop, eggs = workshops(name, python), tmp_path / "eggs"
    (tmp_path / "cache" / "dist").mkdir(parents=True)
    release = re.match("cowstorage-([^-]+)-", wheel.name).group(1)
    versions = {"cowstorage": release, "zc.buildout": name, **LINES[name].tools, **pins(name, python)}

    def buildout(directory, find_links):
        made = StrictBuildout(tmp_path / directory, workshop, versions, find_links, "")
        made.head += f"\n[buildout]\neggs-directory = {eggs}\ndownload-cache = {tmp_path}/cache"
        return made

    buildout("filling", f"{workshop}/dists {wheel.parent}").run(PART)
    assert wheel.name in {path.name for path in (tmp_path / "cache" / "dist").iterdir()}
    shutil.rmtree(eggs)
    eggs.mkdir()
    cached = buildout("cached", "")
    assert "Getting distribution for 'cowstorage" in cached.run(PART, "-N")
    assert "usage: cow-status" in run(cached.directory / "bin" / "cow-status", "--help")

    expected = 0 if name == "4.2.0" else "We don't have a distribution"
    for number, part in enumerate((PART, OTHER_PART)):
        assert buildout(f"offline-{number}", "").run_offline(part) == expected


OTHER_PART = """
[cow-storage]
recipe = zc.recipe.egg
eggs = sh
interpreter = py
"""
