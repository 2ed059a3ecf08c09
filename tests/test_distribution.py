"""What is released: a wheel and a source distribution that are complete, install, and say what they are."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Dict, Set

import pytest

pytestmark = pytest.mark.matrix

ROOT = Path(__file__).parent.parent
OTHER_FILES = {"CHANGES.rst", "LICENSE", "README.rst", "setup.py"}


def run(*command: object) -> str:
    """Run a program, and return what it has printed; it must succeed."""
    done = subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    """The wheel and the source distribution of a clean clone, as zest.releaser makes them, by their suffix."""
    directory = tmp_path_factory.mktemp("release")
    run("git", "clone", "--quiet", ROOT, directory / "clone")
    run(sys.executable, "-m", "build", "--outdir", directory / "dist", directory / "clone")
    return {path.suffix: path for path in (directory / "dist").iterdir()}


def tracked(*paths: str) -> Set[str]:
    """The files of the last commit."""
    return set(run("git", "-C", ROOT, "ls-tree", "-r", "--name-only", "HEAD", *paths).splitlines())


def test_the_wheel_has_the_package_and_nothing_else(releases: Dict[str, Path]) -> None:
    names = {name for name in zipfile.ZipFile(releases[".whl"]).namelist() if ".dist-info/" not in name}
    assert names == {name[len("src/") :] for name in tracked("src/cowstorage")}


def test_the_source_distribution_has_what_it_is_built_and_tested_from(releases: Dict[str, Path]) -> None:
    with tarfile.open(releases[".gz"]) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert tracked("src", "tests") | OTHER_FILES <= names
    generated = {"PKG-INFO", "setup.cfg"}
    assert {name for name in names - tracked() - generated if ".egg-info/" not in name} == set()


def test_the_metadata_is_right_for_the_index(releases: Dict[str, Path]) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", *releases.values())
    archive = zipfile.ZipFile(releases[".whl"])
    described = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    assert "Four commands:" in described
    assert "image::" not in described


def test_the_wheel_works_in_a_clean_environment(releases: Dict[str, Path], tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", releases[".whl"])
    run(python, "-m", "pip", "check")
    assert "usage: python -m cowstorage.demo" in run(python, "-m", "cowstorage.demo", "--help")
    (tmp_path / "buildout.cfg").write_text(
        "[buildout]\nparts = cow-storage\n[cow-storage]\nrecipe = cowstorage\nremote = host:/srv/plone\n"
        "file-storage = var/filestorage\nblob-storage = var/blobstorage\n"
    )
    run(tmp_path / "venv" / "bin" / "buildout", "-o", "-c", tmp_path / "buildout.cfg")
    assert "usage: cow-status" in run(tmp_path / "bin" / "cow-status", "--help")


def test_the_change_log_is_one_that_zest_releaser_understands() -> None:
    """Releases under their headings, the newest first; the one of setup.py is at the top, and not yet dated."""
    headings = re.findall(
        r"^(\S+) \((unreleased|\d{4}-\d\d-\d\d)\)\n-+$", (ROOT / "CHANGES.rst").read_text(), re.MULTILINE
    )
    version = re.search(r'version="(.*?)(\.dev0)?"', (ROOT / "setup.py").read_text())
    assert version
    assert headings[0] == (version.group(1), "unreleased" if version.group(2) else headings[0][1])
    assert all(date != "unreleased" for _, date in headings[1:])
