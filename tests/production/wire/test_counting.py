"""What is counted of a session, and that it is written now and then."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from cowstorage.part.counters import saved
from cowstorage.production.wire import counting
from cowstorage.production.wire.counting import Counting
from cowstorage.production.wire.threads import Worker
from harness.polling import until
from production.wire.base import NEW, Database, relative_of, served
from production.wire.line import BLOB, PIECE, Line, in_cache, path_of
from production.wire.server import Server

CONTENT = bytes(range(256)) * 1000
PATH = path_of(BLOB)


def test_reads_hits_and_bytes_are_counted(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: CONTENT, b"/srv/Data.fs": CONTENT}))
    line.read(PATH)
    line.read(b"/srv/Data.fs")
    counted = line.session.counters
    assert (counted.reads, counted.hits, counted.from_cache) == (1, 0, 0)
    assert counted.from_production == len(CONTENT)
    until(lambda: in_cache(tmp_path), "it is in the cache")
    line.read(PATH)
    assert (counted.reads, counted.hits, counted.from_cache) == (2, 1, len(CONTENT))
    assert (counted.from_production, counted.beforehand) == (len(CONTENT), 0)


def test_a_small_file_that_comes_before_it_is_opened_is_no_hit(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: CONTENT[:1000]}))
    line.stat(PATH)
    until(lambda: in_cache(tmp_path), "it is in the cache")
    for hits in (0, 1):
        line.read(PATH)
        counted = line.session.counters
        assert (counted.reads, counted.hits, counted.from_cache) == (hits + 1, hits, hits * 1000)
        assert counted.from_production == 1000


def test_what_nobody_has_asked_for_is_counted_apart(tmp_path: Path) -> None:
    content = CONTENT * 3
    files = served(relative_of(100), relative_of(101), content=content)
    line = Line(tmp_path, Server(files), knowledge=Database({100: NEW, 101: NEW}), fills=True)
    handle = line.open(path_of(relative_of(100)))
    line.pread(handle, 0, PIECE)
    line.close(handle)
    line.idle()
    counted = line.session.counters
    assert counted.from_production + counted.beforehand == 2 * len(content)
    assert counted.beforehand >= len(content)


def test_they_are_written_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(counting, "time", SimpleNamespace(monotonic=lambda: now[0]))
    writer = Worker()
    one = Counting(str(tmp_path), writer)
    assert one.expire() is None
    one.counters.reads = 1
    now[0] += counting.SAVE_SECONDS / 2
    assert one.expire() == counting.SAVE_SECONDS / 2
    now[0] += counting.SAVE_SECONDS
    assert one.expire() is None
    one.counters.reads = 2
    one.save()
    writer.finish(10)
    found = saved(str(tmp_path))
    assert found is not None
    assert found.reads == 2
