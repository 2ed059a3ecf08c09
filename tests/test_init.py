"""``python -m cowstorage init``: the scripts without a buildout, and beside one that is another Python's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Tuple

import pytest

from cowstorage import init
from cowstorage.buildout import zope_conf
from cowstorage.errors import SettingsError
from cowstorage.part.scripts import SCRIPTS
from harness import database
from harness.production import Production

SETUP = Path(__file__).parent.parent / "setup.py"
REMOTE = "plone@www.example.com:/srv/plone"

PLONE_5 = """
%define INSTANCE {directory}/parts/instance
instancehome $INSTANCE
<zodb_db main>
    # Main database
    cache-size 30000
    <blobstorage>
      blob-dir {directory}/var/blobs
      <filestorage>
        path {directory}/var/fs/Data.fs
      </filestorage>
    </blobstorage>
    mount-point /
</zodb_db>
<zodb_db temporary>
    <filestorage>
      path /tmp/x.fs
    </filestorage>
</zodb_db>
"""
TEMPORARY = """
<zodb_db temporary>
    <filestorage>
      path /tmp/x.fs
      blob-dir /tmp/blobs
    </filestorage>
</zodb_db>
"""
COOKIEPLONE = """
%define INSTANCE {directory}/instance
%define DATA ${{INSTANCE}}/../data
<zodb_db main>
    <filestorage>
      path $DATA/filestorage/Data.fs
      blob-dir $DATA/blobs
    </filestorage>
    mount-point /
</zodb_db>
"""
MKWSGIINSTANCE = COOKIEPLONE.replace("$DATA/filestorage/Data.fs", "$INSTANCE/var/Data.fs").replace(
    "$DATA/blobs", "$INSTANCE/var/blobs"
)
ZEO_CLIENT = """
<zodb_db main>
    <zeoclient>
      blob-dir {directory}/var/cache
      server 8100
    </zeoclient>
</zodb_db>
"""
ZEO_SERVER = """
<zeo>
  address 8100
</zeo>
<filestorage 1>
  path {directory}/var/filestorage/Data.fs
  blob-dir {directory}/var/blobstorage
</filestorage>
"""
RELSTORAGE = """
<zodb_db main>
    <relstorage>
        blob-dir {directory}/var/blobs
        shared-blob-dir true
        <postgresql>
            dsn host='x'
        </postgresql>
    </relstorage>
</zodb_db>
"""


def run(directory: Path, *arguments: str) -> Tuple[int, str]:
    """Run it as one types it."""
    command = [sys.executable, "-m", "cowstorage", "init", *arguments]
    packages = [path for path in sys.path if path.endswith("-packages")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(SETUP.parent / "src"), *packages))}
    ended = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment
    )
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stdout + ended.stderr


def done(directory: Path, *arguments: str) -> str:
    code, said = run(directory, *arguments)
    assert code == 0, said
    return said


def refused(directory: Path, *arguments: str) -> str:
    code, said = run(directory, *arguments)
    assert code == 1, said
    return said


def tree(directory: Path) -> Dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def scripts(directory: Path) -> List[str]:
    return sorted(path.name for path in (directory / "bin").iterdir())


@pytest.mark.parametrize(
    "text, expected",
    [
        (PLONE_5, ("/d/var/fs/Data.fs", "/d/var/blobs")),
        (COOKIEPLONE, ("/d/data/filestorage/Data.fs", "/d/data/blobs")),
        (TEMPORARY + COOKIEPLONE, ("/d/data/filestorage/Data.fs", "/d/data/blobs")),
        (TEMPORARY + ZEO_CLIENT, None),
        (MKWSGIINSTANCE, ("/d/instance/var/Data.fs", "/d/instance/var/blobs")),
        (ZEO_SERVER, ("/d/var/filestorage/Data.fs", "/d/var/blobstorage")),
        (ZEO_SERVER.replace("  blob-dir", "  #blob-dir"), ("/d/var/filestorage/Data.fs", None)),
        (RELSTORAGE, (None, "/d/var/blobs")),
        (RELSTORAGE.replace("shared-blob-dir true", ""), None),
        (ZEO_CLIENT, None),
        ("", None),
        ("</a>\n<b\n<>\n%define\n<filestorage>\n", None),
    ],
)
def test_the_paths_of_a_configuration(text: str, expected: object) -> None:
    assert zope_conf.parse(text.format(directory="/d"), "/d") == expected


def test_a_client_is_passed_over_for_its_server_and_two_that_differ_are_refused() -> None:
    texts = {"zope.conf": ZEO_CLIENT.format(directory="/d"), "zeo.conf": ZEO_SERVER.format(directory="/d")}
    found = zope_conf.find(texts, "/d")
    assert found
    assert found[0] == "zeo.conf"
    with pytest.raises(SettingsError, match="in different places"):
        zope_conf.find({**texts, "other.conf": PLONE_5.format(directory="/d")}, "/d")


def test_scripts_and_their_configuration_are_written_and_written_again(tmp_path: Path) -> None:
    said = done(tmp_path, REMOTE)
    assert "these are the defaults" in said
    assert "Next: bin/cow-mount --check" in said
    assert scripts(tmp_path) == sorted(f"cow-{name}" for name in SCRIPTS)
    configuration = (tmp_path / "cowstorage.cfg").read_text()
    assert configuration.endswith(f"\n[cow-storage]\nremote = {REMOTE}\n")
    before = tree(tmp_path)
    done(tmp_path)
    assert tree(tmp_path) == before

    (tmp_path / "cowstorage.cfg").write_text(
        configuration + "# mine\nprepare =\n    a b\n    c\nscript-prefix = prod\n"
    )
    said = done(tmp_path, "--set", "union=overlay")
    assert "Removed bin/cow-mount" in said
    assert scripts(tmp_path) == sorted(f"prod-{name}" for name in SCRIPTS)
    text = (tmp_path / "bin" / "prod-sync").read_text()
    assert "'prepare': ('a b', 'c')," in text
    assert "'union': 'overlay'," in text
    assert "# mine\n" in (tmp_path / "cowstorage.cfg").read_text()
    help_ = subprocess.run([tmp_path / "bin" / "prod-mount", "--help"], cwd="/", capture_output=True, text=True)
    assert help_.stdout.startswith("usage: prod-mount ")


@pytest.mark.parametrize(
    "place, text, over",
    [
        ("parts/instance/etc/zope.conf", PLONE_5, "var/fs and {0}/var/blobs"),
        ("instance/etc/zope.conf", COOKIEPLONE, "data/filestorage and {0}/data/blobs"),
        ("backend/instance/etc/zope.conf", COOKIEPLONE, "data/filestorage and {0}/data/blobs"),
        ("parts/zeoserver/etc/zeo.conf", ZEO_SERVER, "var/filestorage and {0}/var/blobstorage"),
    ],
)
def test_the_paths_are_taken_from_what_is_there(place: str, text: str, over: str, tmp_path: Path) -> None:
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text(text.format(directory=tmp_path))
    said = done(tmp_path, REMOTE)
    assert f" over {tmp_path}/{over.format(tmp_path)}. Taken from {place}.\n" in said


def test_blobs_below_the_directory_of_data_fs_are_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "instance" / "etc").mkdir(parents=True)
    (tmp_path / "instance" / "etc" / "zope.conf").write_text(MKWSGIINSTANCE.format(directory=tmp_path))
    said = refused(tmp_path, REMOTE)
    assert "and a union can't lie over both. Move Data.fs and" in said
    assert not (tmp_path / "cowstorage.cfg").exists()


def test_relstorage_is_blobs_only(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "zope.conf").write_text(RELSTORAGE.format(directory=tmp_path))
    assert f"over {tmp_path}/var/blobs. Taken from" in done(tmp_path, REMOTE)


def test_of_a_buildout_of_python_2_nothing_is_touched(tmp_path: Path) -> None:
    """Its parts, scripts and what it has installed stay, whatever is done here."""
    for name, text in {
        "buildout.cfg": "[buildout]\nparts = instance\n",
        ".installed.cfg": "[buildout]\ninstalled_develop_eggs = \nparts = instance\n",
        "bin/instance": "#!/usr/bin/python2.7\n",
        "parts/instance/etc/zope.conf": PLONE_5.format(directory=tmp_path),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    before = tree(tmp_path)
    done(tmp_path, REMOTE)
    done(tmp_path)
    after = tree(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"cowstorage.cfg", *(f"bin/cow-{name}" for name in SCRIPTS)}


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "remote: is required"),
        (["host"], "filesystem: can't be told from remote"),
        ([REMOTE, "--set", "unoin=auto"], "unoin: there is no such option. Did you mean union?"),
        ([REMOTE, "--set", "union"], "--set: 'union' has no value"),
        ([REMOTE, "--set", "instance=instance"], "instance: is for buildouts"),
        ([REMOTE, "--set", "location=var/filestorage/x"], "Each needs a directory of its own"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(arguments: List[str], says: str, tmp_path: Path) -> None:
    assert says in refused(tmp_path, *arguments)
    assert tree(tmp_path) == {}


def test_scripts_of_the_recipe_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cow-mount").write_text("#!/usr/bin/python3\nimport cowstorage.cli\n")
    before = tree(tmp_path)
    assert "bin/cow-mount: is there, and was not made by this" in refused(tmp_path, REMOTE)
    assert tree(tmp_path) == before
    assert "acceptance-mount" in done(tmp_path, REMOTE, "--part", "acceptance-storage")


def test_two_sections_are_two_parts_that_may_not_meet(tmp_path: Path) -> None:
    done(tmp_path, REMOTE)
    said = refused(tmp_path, REMOTE, "--part", "acceptance-storage")
    assert "are in conflict" in said
    paths = ["--set", "file-storage=var-a/filestorage", "--set", "blob-storage=var-a/blobstorage"]
    done(tmp_path, REMOTE, "--part", "acceptance-storage", *paths)
    assert len(scripts(tmp_path)) == 2 * len(SCRIPTS)


def test_a_damaged_configuration_is_said(tmp_path: Path) -> None:
    (tmp_path / "cowstorage.cfg").write_text("remote = x\n")
    assert "cowstorage.cfg: can't be read" in refused(tmp_path)


@pytest.mark.parametrize(
    "text, after",
    [
        ("", "[p]\na = 2\n"),
        ("[p]\nb = 1\n", "[p]\nb = 1\na = 2\n"),
        ("[p]\na = 1\n    more\n# c\n", "[p]\na = 2\n# c\n"),
        ("[p]\nab = 1\n\n[q]\na = 1\n", "[p]\nab = 1\na = 2\n\n[q]\na = 1\n"),
        ("# x\n[q]\na = 1", "# x\n[q]\na = 1\n\n[p]\na = 2\n"),
    ],
)
def test_an_option_is_set_and_all_else_stays(text: str, after: str) -> None:
    assert init.with_option(text, "p", "a", "2") == after


def test_a_path_with_a_blank_is_run_by_a_shell(tmp_path: Path) -> None:
    python = tmp_path / "a b" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    script = tmp_path / "script"
    script.write_text(init._shebang(str(python)) + "import sys\nprint(sys.argv[1:])\n")
    script.chmod(0o755)
    assert subprocess.run([script, "x y"], capture_output=True, text=True).stdout == "['x y']\n"
    assert init._shebang("/usr/bin/python3") == "#!/usr/bin/python3\n"


def test_a_python_in_uvs_cache_is_said() -> None:
    assert init._is_passing("/home/me/.cache/uv/archive-v0/x/bin/python")
    assert not init._is_passing("/home/me/.local/share/uv/tools/cowstorage/bin/python")


def test_setup_says_at_once_which_python_is_needed(tmp_path: Path) -> None:
    """As an old Python 2 would: it is told before anything that it doesn't know."""
    lines = SETUP.read_text(encoding="ascii")
    code = f"import sys\nsys.version_info = (2, 7)\nexec(compile({lines!r}, 'setup.py', 'exec'))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("cowstorage needs Python 3.8 or later.")
    assert 'f"' not in lines
    assert lines.index("sys.exit(") < lines.index("from pathlib")


@pytest.mark.root
def test_what_it_wrote_mounts(scratch: Path, production: Production) -> None:
    here = scratch / "project"
    here.mkdir()
    done(here, str(production.path), "--set", "union=overlay")
    for command in (["mount"], ["status"], ["umount"]):
        ended = subprocess.run([here / "bin" / f"cow-{command[0]}"], cwd="/", capture_output=True, text=True)
        assert ended.returncode == 0, ended
        if command == ["mount"]:
            data_fs, blobs = here / "var" / "filestorage" / "Data.fs", here / "var" / "blobstorage"
            assert database.read(str(data_fs), str(blobs)) == production.expected()
    assert os.listdir(here / "var" / "filestorage") == []
