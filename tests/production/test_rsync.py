"""rsync: what it is never asked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List

import pytest

from cowstorage.production import rsync
from cowstorage.system.programs import Runner


def test_production_is_never_the_target_of_a_list() -> None:
    with pytest.raises(TypeError):
        rsync.fetch_listed(rsync.Source("h:/x/", True), rsync.Source("h:/y", True), (), (), "n", print, 0)  # type: ignore[arg-type]


def test_progress_is_told_while_the_line_is_not_ended() -> None:
    told: List[int] = []
    take = rsync._progress(told.append)
    for piece in "\r          32768   0%    0.00kB/s    0:00:00  \r  60000000 100%   30.39MB/s":
        take(piece)
    assert told == [32768]
    for piece in '    0:00:01 (xfr#1, to-chk=0/1)\nskipping non-regular file "12 3%"\n':
        take(piece)
    assert told == [32768, 60000000]


@pytest.mark.root
@pytest.mark.parametrize("since", [0, 300_000])
def test_progress_is_that_in_the_file_whatever_is_appended(since: int, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(500_000))
    target.write_bytes(source.read_bytes()[:since])
    told: List[int] = []
    command = rsync.fetch(
        rsync.Source(str(source), False), rsync.Target(str(target)), (), None, 500_000, since > 0, told.append
    )
    assert Runner(sudo=None, interactive=False).run(command) == ""
    assert target.read_bytes() == source.read_bytes()
    assert told[-1] == 500_000
    assert all(since < position <= 500_000 for position in told)
