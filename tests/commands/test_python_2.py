"""A production of Python 2: mounted, converted here by zodbupdate, gone back from, refreshed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Callable, Iterator

import pytest

from harness import database, python2, zodbupdate
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.workspace import Workspace
from refreshing import assert_opens_quietly, journal, local_blobs, log, refused, status, upper

SAMPLES = Path(__file__).parent.parent / "database" / "python2"


@pytest.fixture(scope="session")
def template(workspace: Workspace) -> Production:
    return Production.create(workspace.path / "production-of-python-2", python=2)


@pytest.fixture
def production(template: Production, scratch: Path) -> Iterator[Production]:
    """One on Python 2, in the place of the one that the other tests have."""
    copied = template.copy(scratch / "production")
    yield copied
    copied.assert_unchanged()


def convert(buildout: Buildout) -> None:
    """Convert the merged Data.fs, as README says."""
    zodbupdate.convert(str(buildout.data_fs))


def magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def test_it_is_mounted_and_used_as_python_2_does(buildout: Buildout, production: Production) -> None:
    assert upper(buildout).read_bytes() == production.data_fs.read_bytes()
    assert buildout.read() == production.expected()
    assert status(buildout)["base"]["Data.fs"]["magic"] == "FS21"
    assert ", of Python 2\n" in buildout.run("status").stdout
    buildout.commit(2, new=1, changed=1)
    assert magic(upper(buildout)) == b"FS21"
    assert len(log(buildout)) == 2
    production.commit(1)
    buildout.run("sync", "--yes", check=True)
    assert upper(buildout).read_bytes() == production.data_fs.read_bytes()
    assert buildout.run("prefetch", check=True)


def test_check_says_what_it_is_of(buildout: Buildout) -> None:
    assert "Data.fs (of Python 2) readable" in buildout.run("mount", "--check", check=True).stdout


def test_what_was_converted_goes_back_to_what_was_fetched(buildout: Buildout, production: Production) -> None:
    before = upper(buildout).read_bytes()
    buildout.run("savepoint", "of-python-2", check=True)
    convert(buildout)
    converted = upper(buildout).read_bytes()
    assert magic(upper(buildout)) == b"FS30"
    assert_opens_quietly(buildout)
    assert buildout.read() == production.expected()
    changed = "its magic was changed from FS21 (Python 2) to FS30 (Python 3)"
    assert status(buildout)["local"]["storages"]["Data.fs"]["conversion"] == changed
    assert f"Data.fs: {changed}\n" in buildout.run("log").stdout
    buildout.run("savepoint", "converted", check=True)
    buildout.commit(2, new=1, changed=1)
    assert local_blobs(buildout)
    after = buildout.run("rollback", "converted", "--yes", check=True).stdout
    assert "magic" not in after
    assert upper(buildout).read_bytes() == converted
    assert_opens_quietly(buildout)

    assert changed.replace("21 (Python 2) to FS30 (Python 3)", "") in refused(buildout, "rollback", "of-python-2")
    buildout.run("rollback", "--yes", "of-python-2", check=True)
    assert upper(buildout).read_bytes() == before
    assert set(journal(buildout)["savepoints"]) == {"of-python-2"}
    convert(buildout)
    buildout.run("rollback", "--yes", check=True)
    assert upper(buildout).read_bytes() == before
    assert status(buildout)["local"]["storages"]["Data.fs"]["conversion"] is None
    assert buildout.read() == production.expected()


def test_a_transaction_is_gone_back_to_with_the_magic_of_then(buildout: Buildout) -> None:
    states = []
    for step in (lambda: buildout.commit(1), lambda: convert(buildout), lambda: buildout.commit(1)):
        step()
        states.append(upper(buildout).read_bytes())
    tids = [entry["tid"] for entry in reversed(log(buildout))]
    for tid, content in reversed(list(zip(tids, states))):
        buildout.run("rollback", "--yes", tid, check=True)
        assert upper(buildout).read_bytes() == content
        buildout.read()
    assert magic(upper(buildout)) == b"FS21"


@pytest.mark.parametrize("commits", [0, 1])
def test_a_conversion_that_was_cut_off_is_shown_and_taken_back(buildout: Buildout, commits: int) -> None:
    """Savepoint and present state differ in the magic alone."""
    buildout.commit(commits) if commits else None
    buildout.run("savepoint", "before", check=True)
    before = upper(buildout).read_bytes()
    python2.begin_conversion(str(buildout.data_fs))
    seen = status(buildout)["local"]["storages"]["Data.fs"]
    assert seen["transactions"] == commits
    assert "no record: a conversion was cut off" in seen["conversion"]
    assert "a conversion was cut off. Back: bin/cow-rollback\n" in buildout.run("log").stdout
    buildout.run("savepoint", "broken", check=True)
    assert "a conversion was cut off" in refused(buildout, "rollback", "before")
    said = buildout.run("rollback", "--yes", "before", check=True).stdout
    assert "savepoint broken" in said
    assert upper(buildout).read_bytes() == before
    assert "already" in buildout.run("rollback", "before", check=True).stdout
    python2.begin_conversion(str(buildout.data_fs))
    buildout.run("rollback", "--yes", check=True)
    assert magic(upper(buildout)) == b"FS21"


def test_a_killed_zodbupdate_is_taken_back(buildout: Buildout) -> None:
    """It is killed when it has overwritten the magic, and has not committed yet."""
    before = upper(buildout).read_bytes()
    # Its class is replaced in the child alone.
    code = (
        "import os, signal, sys, zodbupdate.main, zodbupdate.update\n"
        "zodbupdate.update.Updater.__call__ = lambda self: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"sys.argv = {zodbupdate.command(str(buildout.data_fs))!r}\n"
        "zodbupdate.main.main()\n"
    )
    python = str(zodbupdate.PROGRAM.with_name("python"))
    killed = subprocess.run([python, "-c", code], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert upper(buildout).read_bytes() == b"FS30" + before[4:]
    assert "a conversion was cut off" in refused(buildout, "rollback")
    buildout.run("umount", check=True)
    assert "a conversion was cut off" in buildout.run("mount", check=True).stdout
    buildout.run("rollback", "--yes", check=True)
    assert upper(buildout).read_bytes() == before
    convert(buildout)
    assert_opens_quietly(buildout)


def test_a_local_pack_after_a_conversion_is_taken_back(buildout: Buildout, production: Production) -> None:
    before = upper(buildout).read_bytes()
    convert(buildout)
    buildout.pack()
    assert "packed locally" in buildout.run("status").stdout
    buildout.run("rollback", "--yes", check=True)
    assert upper(buildout).read_bytes() == before
    assert buildout.read() == production.expected()


def test_sync_brings_a_later_state_of_python_2_over_a_conversion(buildout: Buildout, production: Production) -> None:
    """What production has added is never appended to what was converted here."""
    convert(buildout)
    production.commit(2)
    assert "its magic was changed" in refused(buildout, "sync")
    buildout.run("sync", "--yes", check=True)
    assert upper(buildout).read_bytes() == production.data_fs.read_bytes()
    assert buildout.read() == production.expected()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("local", [False, True])
def test_a_conversion_of_production_is_taken_over(
    buildout: Buildout, production: Production, whole: bool, local: bool
) -> None:
    if local:
        convert(buildout)
    if whole:
        production.convert()
    else:
        with production._changing():
            python2.begin_conversion(str(production.data_fs))
    assert "production   was converted since" in buildout.run("status").stdout
    said = buildout.run("sync", "--yes", check=True).stdout
    assert "Data.fs: production was converted since, it is of Python 3 now." in said
    assert journal(buildout)["magics"] == {"Data.fs": "FS30"}
    assert upper(buildout).read_bytes() == production.data_fs.read_bytes()
    assert buildout.read() == production.expected()
    assert "has not changed since the last sync" in buildout.run("status").stdout
    buildout.commit(1)
    buildout.run("rollback", "--yes", check=True)
    assert upper(buildout).read_bytes() == production.data_fs.read_bytes()


def test_each_filestorage_has_a_magic_of_its_own(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    production.add_storage("catalog.fs", python=3)
    production.add_storage("other.fs", python=2)
    buildout = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    buildout.run("mount", check=True)
    assert journal(buildout)["magics"] == {"Data.fs": "FS21", "catalog.fs": "FS30", "other.fs": "FS21"}
    buildout.run("savepoint", "before", check=True)
    convert(buildout)
    assert {name: magic(upper(buildout, name)) for name in journal(buildout)["magics"]} == {
        "Data.fs": b"FS30",
        "catalog.fs": b"FS30",
        "other.fs": b"FS21",
    }
    buildout.run("rollback", "before", "--yes", check=True)
    for name in journal(buildout)["magics"]:
        assert upper(buildout, name).read_bytes() == (production.file_storage / name).read_bytes()
    buildout.run("umount", check=True)


@pytest.mark.parametrize("name", ["zodb5-few", "zodb3.10-few"])
def test_what_zodb_wrote_on_python_2_goes_the_whole_way(
    name: str, production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    """Its index is Python 2's, which ZODB on Python 3 neither reads nor hides."""
    with production._changing():
        shutil.rmtree(production.blob_storage)
        shutil.copytree(SAMPLES / name / "blobs", production.blob_storage)
        for file in ("Data.fs", "Data.fs.index"):
            shutil.copyfile(SAMPLES / name / file, production.file_storage / file)
    buildout = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    buildout.run("mount", check=True)
    index = upper(buildout, "Data.fs.index")
    for _ in range(2):
        assert index.read_bytes() != (SAMPLES / name / "Data.fs.index").read_bytes()
        said = subprocess.run(zodbupdate.command(str(buildout.data_fs)), capture_output=True, check=True, text=True)
        assert "Traceback" not in said.stderr
        assert "loading index" not in said.stderr
        with database.opened(str(buildout.data_fs), str(buildout.blob_storage)) as db, db.transaction() as connection:
            with connection.root()["blob"].open() as file:
                assert file.read() == b"second revision"
            assert connection.root()["utf8"] == "gr\xf6\xdfe"
        # An index that the developer's own Python 2 has left, and production's where there is none here.
        shutil.copyfile(SAMPLES / name / "Data.fs.index", buildout.path / "var" / "cow-storage" / "base" / index.name)
        buildout.run("rollback", "--yes", check=True)
        assert upper(buildout).read_bytes() == (SAMPLES / name / "Data.fs").read_bytes()
        os.unlink(buildout.path / "var" / "cow-storage" / "base" / index.name)
        python2.begin_conversion(str(buildout.data_fs))
        buildout.run("rollback", "--yes", check=True)
        assert index.is_file()
    buildout.run("umount", check=True)


CONTENTS = [
    b"",
    b"FS",
    b"SQLite format 3\0" * 10,
    b"FS99" + b"\0" * 100,
    b"version https://git-lfs.github.com/spec/v1\n",
]


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("fetched", [False, True])
def test_what_is_no_filestorage_is_refused_before_it_is_fetched(
    content: bytes,
    fetched: bool,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
) -> None:
    buildout = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    if fetched:
        buildout.run("mount", check=True)
        buildout.commit(1)
    before = upper(buildout).read_bytes() if fetched else None
    true = production.data_fs.read_bytes()
    with production._changing():
        production.data_fs.write_bytes(content)
    for command in (["mount"], ["mount", "--check"], ["sync", "--yes"]):
        if fetched and command == ["mount"]:
            continue
        result = buildout.run(*command)
        assert result.returncode == 1
        assert "var/filestorage/Data.fs: this isn't a FileStorage: it begins with" in result.stdout + result.stderr
        assert "packed meanwhile" not in result.stderr
        incoming = buildout.path / "var" / "cow-storage" / "incoming"
        assert not incoming.exists() or not list(incoming.iterdir())
    if fetched:
        assert upper(buildout).read_bytes() == before
        assert journal(buildout)["unfinished"] is None
        buildout.run("rollback", "--yes", check=True)
    with production._changing():
        production.data_fs.write_bytes(true)
    buildout.run("sync" if fetched else "mount", "--yes", check=True)
    assert upper(buildout).read_bytes() == true
    buildout.run("umount", check=True)


def test_another_file_that_is_none_is_left_out_by_storages(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    with production._changing():
        (production.file_storage / "old.fs").write_bytes(b"gzip")
    buildout = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    assert "To do without it, set storages = Data.fs." in refused(buildout, "mount")
    buildout.configure({"remote": str(production.path), "union": "overlay", "storages": "Data.fs"})
    buildout.run("mount", check=True)
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)
