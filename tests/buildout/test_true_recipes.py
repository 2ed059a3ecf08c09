"""Wiring says what Plone's own recipes write into zeo.conf and zope.conf, for the releases of each Plone."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cowstorage.buildout import wiring

pytestmark = pytest.mark.matrix

# The recipe writes its configuration from these alone; its eggs (Zope, ZEO) are not needed for that.
WRITE = """
import importlib, json, os, sys
recipe, directory, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
module = importlib.import_module(recipe + ".recipe")
maker = module.Recipe.__new__(module.Recipe)
maker.name, maker.options = "part", {"location": os.path.join(directory, "parts", "part"), **options}
maker.buildout = {"buildout": {"directory": directory}}
maker.wsgi, maker._relative_paths = True, ""
os.makedirs(os.path.join(maker.options["location"], "etc"))
os.chdir(directory)
(maker.build_zeo_conf if recipe.endswith("zeoserver") else maker.build_zope_conf)()
"""

RELEASES = [
    (wiring.ZEOSERVER, "2.0.4"),
    (wiring.ZEOSERVER, "3.0.5"),
    (wiring.ZEOSERVER, "4.0.1"),
    (wiring.ZOPE2INSTANCE, "6.6.0"),
    (wiring.ZOPE2INSTANCE, "6.13.0"),
    (wiring.ZOPE2INSTANCE, "7.1.2"),
    (wiring.ZOPE2INSTANCE, "8.0.1"),
]

OPTIONS = [
    {},
    {"var": "{directory}/data"},
    {"file-storage": "fs/Zope.fs", "blob-storage": "blobs"},
    {"file-storage": "{directory}/x/Data.fs", "blob-storage": "{directory}/y/blobs"},
    {"var": "{directory}/data", "blob-storage": "../blobs"},
]


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Directories with one release of a recipe each, without what it depends on."""
    made = {}

    def release(name, version):
        if (name, version) not in made:
            directory = tmp_path_factory.mktemp(name)
            # The older ones import six and pkg_resources, which setuptools had until 81.
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "install",
                    "-q",
                    "--no-deps",
                    "--target",
                    directory,
                    f"{name}=={version}",
                    "setuptools==80.9.0",
                    "six==1.17.0",
                ],
                check=True,
            )
            made[name, version] = directory
        return made[name, version]

    return release


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options) or "defaults")
@pytest.mark.parametrize("name, version", RELEASES)
def test_wiring_agrees_with_the_recipe(releases, tmp_path, name, version, options):
    options = {option: value.format(directory=tmp_path) for option, value in options.items()}
    # Without this the newer instance recipes ask their eggs whether there is a Plone.
    written = configuration(releases(name, version), tmp_path, name, {**options, "zodb-temporary-storage": "off"})
    found = wiring.find({"part": {"recipe": name, **options}}, str(tmp_path))
    file, blobs = (re.search(pattern, written, re.M) for pattern in (r"^\s*path (\S+\.fs)$", r"^\s*blob-dir (\S+)$"))
    assert absolute(tmp_path, file) == f"{found.file_storage}/{found.file_name}"
    assert absolute(tmp_path, blobs) == found.blob_storage


@pytest.mark.parametrize("value", ["true", "false", "False", "off"])
@pytest.mark.parametrize("version", [version for name, version in RELEASES if name == wiring.ZEOSERVER])
def test_pack_keep_old_is_read_as_the_recipe_reads_it(releases, tmp_path, version, value):
    options = {"pack-keep-old": value}
    written = configuration(releases(wiring.ZEOSERVER, version), tmp_path, wiring.ZEOSERVER, options)
    found = wiring.find({"part": {"recipe": wiring.ZEOSERVER, **options}}, str(tmp_path))
    assert bool(found.warnings) == (not re.search(r"^\s*pack-keep-old false$", written, re.M))


@pytest.mark.parametrize("version", [version for name, version in RELEASES if name == wiring.ZOPE2INSTANCE])
def test_relstorage_keeps_its_blobs_where_it_says(releases, tmp_path, version):
    options = {"rel-storage": "type postgresql\nblob-dir var/rel\nshared-blob-dir true\ndsn x", "blob-storage": "not"}
    asked = {**options, "zodb-temporary-storage": "off"}
    written = configuration(releases(wiring.ZOPE2INSTANCE, version), tmp_path, wiring.ZOPE2INSTANCE, asked)
    found = wiring.find({"part": {"recipe": wiring.ZOPE2INSTANCE, **options}}, str(tmp_path))
    assert found.file_storage is None
    assert [str(tmp_path / path) for path in re.findall(r"^\s*blob-dir (\S+)$", written, re.M)] == [found.blob_storage]


@pytest.mark.parametrize("shared", ["on", "off"])
@pytest.mark.parametrize("option", ["var", "blob-storage"])
@pytest.mark.parametrize("version", [version for name, version in RELEASES if name == wiring.ZOPE2INSTANCE])
def test_clients_look_for_blobs_where_they_are_believed_to(releases, tmp_path, version, option, shared):
    """One that shares the server's BLOBs is warned about if it looks elsewhere; one that doesn't has a cache."""
    client = {option: f"{tmp_path}/data", "zeo-client": "on", "shared-blob": shared}
    asked = {**client, "zodb-temporary-storage": "off"}
    written = configuration(releases(wiring.ZOPE2INSTANCE, version), tmp_path, wiring.ZOPE2INSTANCE, asked)
    server = {"recipe": wiring.ZEOSERVER, "pack-keep-old": "false"}
    found = wiring.find({"zeo": server, "client": {"recipe": wiring.ZOPE2INSTANCE, **client}}, str(tmp_path))
    blobs = absolute(tmp_path, re.search(r"^\s*blob-dir (\S+)$", written, re.M))
    assert blobs != found.blob_storage
    expected = f"[client] has shared-blob on, but looks for BLOBs in {blobs} and not in {found.blob_storage}."
    assert found.warnings == ((expected,) if shared == "on" else ())


def configuration(release, directory, name, options):
    """The text that the recipe writes for these options."""
    subprocess.run(
        [sys.executable, "-c", WRITE, name, str(directory), json.dumps(options)],
        env={"PYTHONPATH": str(release), "PATH": ""},
        check=True,
    )
    [path] = Path(directory, "parts", "part", "etc").glob("*.conf")
    return path.read_text(encoding="utf-8")


def absolute(directory, match):
    """The path in a configuration, as the server takes it: from the buildout directory."""
    return str(Path(directory, match.group(1)).resolve())
