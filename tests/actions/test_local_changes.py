"""What an upper is said to hold: files with their bytes, and apart from these what is marked as deleted."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from cowstorage.actions.local_changes import Tree, since, tree
from cowstorage.system.count import FEW
from database.sample import EMPTY, commit, open_database
from uppers import MARKS, Mark, make_upper


@pytest.mark.parametrize("union, mark", MARKS)
def test_marks_of_deletion_are_counted_apart_from_files(tmp_path: Path, union: str, mark: Mark) -> None:
    directory = make_upper(tmp_path)
    mark(f"{directory}/0x00/0x01", "0x03f0000000000000.blob")
    mark(directory, "0x7f")
    assert tree(directory, 10.0) == Tree(files=3, size=3, deleted=2)


def test_what_aufs_keeps_for_itself_is_nobodys_change(tmp_path: Path) -> None:
    directory = Path(make_upper(tmp_path))
    (directory / ".wh..wh.aufs").touch()
    (directory / ".wh..wh.plnk").mkdir(mode=0)
    (directory / ".wh..wh.orph").mkdir()
    (directory / ".wh..wh.orph" / "x").touch()
    assert tree(str(directory), 10.0) == Tree(files=3, size=3)


def test_an_upper_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert tree(str(tmp_path / "upper"), 10.0) == Tree(0, 0)


@pytest.mark.parametrize("directories, complete", [(FEW - 1, True), (FEW + 10, False)])
def test_a_few_directories_are_counted_however_slow_the_disk_is(
    tmp_path: Path, directories: int, complete: bool
) -> None:
    for number in range(directories):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "0.blob").touch()
    found = tree(str(tmp_path), seconds=0)
    assert found.complete == complete
    assert FEW <= found.files + 1 <= directories + 1


@pytest.mark.parametrize("transactions, complete", [(FEW, True), (FEW + 10, False)])
def test_a_few_transactions_are_counted_however_slow_the_disk_is(
    tmp_path: Path, transactions: int, complete: bool
) -> None:
    path = str(tmp_path / "Data.fs")
    with contextlib.closing(open_database(path)) as database:
        connection = database.open()
        for number in range(transactions - 1):
            commit(connection, "number", number)
    # ZODB's own first transaction is one of them.
    change = since("Data.fs", path, EMPTY, seconds=0)
    assert change.complete == complete
    assert FEW <= (change.transactions or 0) <= FEW + 1


@pytest.mark.parametrize(
    "found, text",
    [
        (Tree(1, 2000), "1 file, 2.0 kB"),
        (Tree(0, 0, deleted=26), "0 files, 0 bytes, 26 deletions"),
        (Tree(3, 5, False, 1), "more than 3 files, 5 bytes, 1 deletion"),
    ],
)
def test_deletions_are_told_where_there_are_any(found: Tree, text: str) -> None:
    assert str(found) == text
