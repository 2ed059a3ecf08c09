"""A locale that isn't UTF-8, and a path with umlauts: the directories are those of the part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable, Dict

import pytest

from harness import locales
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production

NAME = "büildöut"


@pytest.fixture(params=["ascii", "latin-1"])
def locale(request: pytest.FixtureRequest, scratch: Path) -> Dict[str, str]:
    """The environment of such a locale."""
    return locales.ASCII if request.param == "ascii" else locales.latin_1(scratch / "locales")


@pytest.mark.parametrize("name", ["root", "dev", "alone"])
def test_a_buildout_with_umlauts_is_found_in_every_locale(
    name: str,
    locale: Dict[str, str],
    scratch: Path,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    developer = getattr(developers, name)
    production.give_to(developer.uid, developer.gid)
    options = {"remote": str(production.path), **({"sudo": "no"} if name == "alone" else {})}
    buildout = make_buildout(developer, options, NAME)
    encoding = "import sys; print(sys.getfilesystemencoding())"
    assert developer.run([buildout.runtime.python, "-c", encoding], env=locale).stdout != "utf-8\n"
    before = set(scratch.iterdir())

    mounted = buildout.run("mount", env=locale, check=True)
    assert "Traceback" not in mounted.stderr
    status = json.loads(buildout.run("status", "--json", env=locale, check=True).stdout)
    assert str(buildout.blob_storage) in {mount["target"] for mount in status["mounts"]}
    assert buildout.read() == production.expected()
    buildout.run("umount", env=locale, check=True)
    assert (buildout.path / "var" / "cow-storage").is_dir()
    assert set(scratch.iterdir()) == before
