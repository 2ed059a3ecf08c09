"""Data.fs is fetched whole, with an index that fits, and with the storages that belong to it."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Callable, Optional

import pytest

from harness import database
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from refreshing import assert_is_production, assert_opens_quietly, in_place_of_rsync, journal, mounted, status, upper


@pytest.mark.parametrize("length", [None, 1, 30])
def test_a_torn_tail_is_not_fetched(buildout: Buildout, production: Production, length: Optional[int]) -> None:
    mounted(buildout)
    production.commit(1)
    end = production.torn_tail(length)
    buildout.run("sync", "--yes", check=True)
    assert_is_production(buildout, production, production.data_fs.read_bytes()[:end])


def test_a_torn_tail_is_not_fetched_the_first_time_either(buildout: Buildout, production: Production) -> None:
    end = production.torn_tail()
    mounted(buildout)
    assert_is_production(buildout, production, production.data_fs.read_bytes()[:end])


def test_what_is_fetched_while_production_is_writing_is_whole(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    script = (
        f"import sys; sys.path[0:0] = {sys.path!r}\n"
        "from harness import database\n"
        f"with database.opened({str(production.data_fs)!r}, None) as db:\n"
        "    print('writing', flush=True)\n"
        "    while True:\n"
        "        with db.transaction() as connection:\n"
        "            connection.root()['busy'] = __import__('os').urandom(5000)\n"
    )
    with production._changing():
        writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        try:
            assert writer.stdout
            assert writer.stdout.readline() == "writing\n"
            for _ in range(4):
                buildout.run("sync", "--yes", check=True)
                assert writer.poll() is None
                local = upper(buildout).read_bytes()
                with production.data_fs.open("rb") as file:
                    assert file.read(len(local)) == local
                assert_opens_quietly(buildout)
        finally:
            writer.kill()
            writer.communicate()


@pytest.mark.parametrize("state", ["missing", "stale", "damaged", "ahead"])
def test_an_index_that_does_not_fit_is_rebuilt(buildout: Buildout, production: Production, state: str) -> None:
    index = production.data_fs.with_name("Data.fs.index")
    old = index.read_bytes()
    production.pack()
    with production._changing():
        if state == "missing":
            index.unlink()
        elif state == "stale":
            index.write_bytes(old)
        elif state == "damaged":
            index.write_bytes(index.read_bytes()[:-30])
        else:
            content = production.data_fs.read_bytes()
            database.commit(str(production.data_fs), str(production.blob_storage), n=2)
            production.data_fs.write_bytes(content)
    result = buildout.run("mount", check=True)
    line = r"Building the index of Data.fs: production has none that fits\. Reads all \S+ \S+B once\."
    assert re.search(line, result.stdout)
    assert_opens_quietly(buildout)


def test_only_the_storages_of_the_option_are_fetched_and_shown(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    production.add_storage("catalog.fs")
    options = {"remote": str(production.path), "union": "overlay", "storages": "Data.fs"}
    buildout = make_buildout(developers.root, options)
    result = buildout.run("mount", check=True)
    assert "catalog.fs of production was not fetched and is hidden" in result.stderr
    assert "name it in storages" in result.stderr
    assert not (buildout.file_storage / "catalog.fs").exists()
    assert not upper(buildout, "catalog.fs").is_file()
    assert status(buildout)["hidden"] == ["catalog.fs"]

    buildout.configure({**options, "storages": "Data.fs catalog.fs"})
    buildout.run("sync", "--yes", check=True)
    assert status(buildout)["hidden"] == []
    assert upper(buildout, "catalog.fs").read_bytes() == (production.file_storage / "catalog.fs").read_bytes()
    buildout.run("umount", check=True)


def test_a_storage_that_is_new_on_production_is_hidden_until_the_next_sync(
    buildout: Buildout, production: Production
) -> None:
    mounted(buildout)
    buildout.run("umount", check=True)
    production.add_storage("catalog.fs")
    assert "catalog.fs of production was not fetched" in buildout.run("mount", check=True).stderr
    assert not (buildout.file_storage / "catalog.fs").exists()
    buildout.run("sync", "--yes", check=True)
    assert (buildout.file_storage / "catalog.fs").exists()


def test_a_first_fetch_that_was_interrupted_between_two_storages_is_completed(
    buildout: Buildout, production: Production
) -> None:
    production.add_storage("catalog.fs")
    environment = in_place_of_rsync(buildout, 'case "$*" in *catalog.fs*) exit 1;; esac; exec "$real" "$@"')
    assert buildout.run("mount", env=environment).returncode == 1
    mounted(buildout)
    assert sorted(journal(buildout)["bases"]) == ["Data.fs", "catalog.fs"]
    assert status(buildout)["hidden"] == []
