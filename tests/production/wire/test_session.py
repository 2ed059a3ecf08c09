"""What becomes of the requests of sshfs: right bytes or an error, whatever the server and the disk do."""

from __future__ import annotations

import os
import struct
import threading
import time
from pathlib import Path
from typing import Dict, List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowstorage.database.blobs import layout
from cowstorage.part.eviction import FULL
from cowstorage.production.wire import completion
from cowstorage.production.wire import store as store_module
from cowstorage.production.wire.packets import Attributes
from cowstorage.production.wire.partial import Coverage
from cowstorage.production.wire.store import Store
from harness.polling import until
from production.wire.line import BLOB, OTHER, PIECE, Error, Line, in_cache, path_of
from production.wire.server import CLOSE, OPEN, READ, STAT, TIME, VERSION, Server, packet, text

CONTENT = bytes(range(256)) * 1000
PATH = path_of(BLOB)


def requests_for(server: Server, path: bytes = PATH) -> List[int]:
    """The types of requests about a file."""
    return [kind for kind, subject in server.asked if subject == path]


def test_what_was_read_is_read_from_the_cache_in_the_same_session(tmp_path: Path) -> None:
    server = Server({PATH: CONTENT})
    line = Line(tmp_path, server)
    assert line.read(PATH) == CONTENT
    until(lambda: in_cache(tmp_path) == {BLOB: CONTENT}, "it is in the cache")
    server.asked.clear()
    assert line.read(PATH) == CONTENT
    assert server.asked == []
    cached = tmp_path / "blobstorage" / BLOB
    assert cached.stat().st_mode & 0o777 == 0o400
    assert cached.stat().st_mtime == TIME
    assert os.listdir(tmp_path / "coming") == []


@pytest.mark.parametrize("relative, found", [(BLOB, "bushy"), ("0x05/0x03f1.blob", "lawn")])
def test_the_cache_can_be_a_lower_from_then_on(relative: str, found: str, tmp_path: Path) -> None:
    line = Line(tmp_path, Server({path_of(relative): CONTENT}))
    assert line.read(path_of(relative)) == CONTENT
    line.quiet()
    assert layout(str(tmp_path / "blobstorage")) == found


def test_a_cache_of_the_other_layout_is_not_added_to(tmp_path: Path) -> None:
    (tmp_path / "blobstorage").mkdir()
    (tmp_path / "blobstorage" / ".layout").write_text("lawn")
    line = Line(tmp_path, Server({PATH: CONTENT}))
    assert line.read(PATH) == CONTENT
    line.quiet()
    assert in_cache(tmp_path) == {}
    assert layout(str(tmp_path / "blobstorage")) == "lawn"


def test_what_is_fetched_beside_it_is_used_at_once(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({}))
    with pytest.raises(Error):
        line.stat(PATH)
    cached = tmp_path / "blobstorage" / BLOB
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT)
    assert line.read(PATH) == CONTENT


def test_files_that_are_no_blobs_are_asked_for_each_time(tmp_path: Path) -> None:
    paths = [b"/srv/filestorage/Data.fs", path_of("tmp/x.blob"), path_of(".layout"), path_of(BLOB + ".old")]
    server = Server(dict.fromkeys(paths, CONTENT))
    line = Line(tmp_path, server)
    for path in paths * 2:
        assert line.read(path) == CONTENT
    line.quiet()
    assert in_cache(tmp_path) == {}
    for path in paths:
        assert requests_for(server, path).count(OPEN) == 2


def test_an_empty_file_is_kept(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: b""}))
    assert line.read(PATH) == b""
    line.quiet()
    assert in_cache(tmp_path) == {BLOB: b""}


@pytest.mark.parametrize("size", [1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE])
def test_all_sizes_are_kept(size: int, tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: CONTENT[:size]}))
    assert line.read(PATH) == CONTENT[:size]
    line.quiet()
    assert in_cache(tmp_path) == {BLOB: CONTENT[:size]}


def read_in_part(line: Line) -> None:
    """Open a file, read two parts of it, close it."""
    handle = line.open(PATH)
    assert line.pread(handle, PIECE, PIECE) == CONTENT[PIECE : 2 * PIECE]
    assert line.pread(handle, 0, 100) == CONTENT[:100]
    line.close(handle)


@pytest.mark.parametrize("short", [1 << 20, 1000])
def test_the_rest_of_a_file_that_is_read_in_part_is_read_when_it_is_closed(short: int, tmp_path: Path) -> None:
    server = Server({PATH: CONTENT}, short=short)
    line = Line(tmp_path, server)
    read_in_part(line)
    line.quiet()
    assert in_cache(tmp_path) == {BLOB: CONTENT}
    assert server.opened == {}


def test_so_is_a_file_that_the_kernel_has_in_memory(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: CONTENT}))
    line.close(line.open(PATH))
    line.quiet()
    assert in_cache(tmp_path) == {BLOB: CONTENT}


def test_the_rest_of_a_large_file_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "SMALL_REST", 1000)
    server = Server({PATH: CONTENT * 5})
    line = Line(tmp_path, server)
    read_in_part(line)
    line.quiet()
    assert in_cache(tmp_path) == {}
    assert os.listdir(tmp_path / "coming") == []
    assert server.opened == {}


def test_the_rest_is_asked_for_when_sshfs_waits_for_nothing(tmp_path: Path) -> None:
    server = Server({PATH: CONTENT * 5, path_of(OTHER): CONTENT * 5})
    line = Line(tmp_path, server)
    handle, other = line.open(PATH), line.open(path_of(OTHER))
    far = 30 * PIECE
    line.held = []
    asked = line.ask(READ, text(other) + struct.pack(">QI", far, PIECE))
    line.close(handle)
    assert len(line.held) == 1
    line.receive_bytes(server.answer(*line.held.pop()))
    line.settle()
    assert line.wait(asked)[1][4:] == (CONTENT * 5)[far : far + PIECE]
    assert sum(struct.unpack_from(">I", body, len(body) - 4)[0] for _, _, body in line.held) == completion.WINDOW
    line.release()
    line.close(other)
    line.quiet()
    assert set(in_cache(tmp_path)) == {BLOB, OTHER}


def test_the_rest_of_a_file_that_is_shorter_than_told_is_not_kept(tmp_path: Path) -> None:
    server = Server({PATH: CONTENT[:100_000]}, lies={PATH: 110_000})
    line = Line(tmp_path, server)
    line.close(line.open(PATH))
    line.quiet()
    assert in_cache(tmp_path) == {}
    assert server.opened == {}


def test_two_readers_complete_one_file(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: CONTENT}))
    first, second = line.open(PATH), line.open(PATH)
    half = len(CONTENT) // 2
    assert line.pread(first, half, half) == CONTENT[half:]
    line.close(first)
    assert line.pread(second, 0, half) == CONTENT[:half]
    line.close(second)
    line.quiet()
    assert in_cache(tmp_path) == {BLOB: CONTENT}


@settings(max_examples=25)
@given(st.integers(1, 20_000), st.lists(st.tuples(st.integers(0, 250_000), st.integers(1, 60_000)), max_size=8))
def test_bytes_at_random_are_right_however_short_the_answers_are(
    tmp_path_factory: pytest.TempPathFactory, short: int, ranges: List[tuple[int, int]]
) -> None:
    location = tmp_path_factory.mktemp("cache")
    line = Line(location, Server({PATH: CONTENT[:250_000]}, short=short), cut=7919)
    for _ in range(2):
        handle = line.open(PATH)
        for offset, length in ranges:
            assert line.pread(handle, offset, length) == CONTENT[:250_000][offset : offset + length]
        line.close(handle)
        assert line.read(PATH) == CONTENT[:250_000]
    line.quiet()
    assert in_cache(location) == {BLOB: CONTENT[:250_000]}


def test_a_file_that_is_shorter_than_told_is_an_error_and_not_kept(tmp_path: Path) -> None:
    """At its end sshfs would see the end of the file, and the kernel would fill up with zeros."""
    line = Line(tmp_path, Server({PATH: CONTENT[:50_000]}, lies={PATH: 60_000}))
    with pytest.raises(Error):
        line.read(PATH)
    line.quiet()
    assert in_cache(tmp_path) == {}


def test_a_file_that_is_longer_than_told_has_the_bytes_that_were_told_of(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: CONTENT}, lies={PATH: 1000}))
    handle = line.open(PATH)
    assert line.pread(handle, 0, PIECE) == CONTENT[:1000]
    line.close(handle)
    line.quiet()
    assert in_cache(tmp_path) == {BLOB: CONTENT[:1000]}


def test_a_file_whose_size_changes_is_not_kept(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    told = Attributes(len(CONTENT), TIME, regular=True)
    coming = store.begin(BLOB, told)
    assert coming is not None
    coming.add(0, memoryview(CONTENT[:-1]))
    store.check(BLOB, told)
    assert not coming.failed
    store.check(BLOB, told._replace(size=len(CONTENT) - 1))
    coming.add(len(CONTENT) - 1, memoryview(CONTENT[-1:]))
    assert not coming.is_complete


def test_what_is_no_regular_file_is_not_kept(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: CONTENT}, mode=0o120777))
    assert line.read(PATH) == CONTENT
    line.quiet()
    assert in_cache(tmp_path) == {}


def test_answers_in_any_order_and_many_at_a_time_are_right(tmp_path: Path) -> None:
    server = Server({path_of(f"0x{number:02x}/0x03f1.blob"): bytes([number]) * 70_000 for number in range(16)})
    line = Line(tmp_path, server)
    handles = {path: line.open(path) for path in server.files}
    line.held = []
    asked: Dict[int, tuple[bytes, int]] = {}
    for offset in (0, PIECE, 2 * PIECE):
        for path, handle in handles.items():
            number = line.ask(READ, text(handle) + struct.pack(">QI", offset, PIECE))
            asked[number] = (path, offset)
    line.release(backwards=True)
    for number, (path, offset) in asked.items():
        assert line.wait(number)[1][4:] == server.files[path][offset : offset + PIECE]
    for handle in handles.values():
        line.close(handle)
    line.quiet()
    assert len(in_cache(tmp_path)) == 16


def test_another_version_of_sftp_goes_through(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: CONTENT}, version=4))
    assert line.read(PATH) == CONTENT
    line.quiet()
    assert in_cache(tmp_path) == {}


@pytest.mark.parametrize("malformed", [packet(OPEN, 77, b"\xff\xff\xff\xff"), packet(STAT, 77), packet(READ, 77, b"")])
def test_behind_a_request_that_is_malformed_all_goes_through(malformed: bytes, tmp_path: Path) -> None:
    server = Server({PATH: CONTENT})
    line = Line(tmp_path, server)
    line.send_bytes(malformed)
    assert line.to_server == malformed
    line.to_server = b""
    assert line.read(PATH) == CONTENT
    line.quiet()
    assert in_cache(tmp_path) == {}


def test_an_answer_that_is_malformed_goes_through(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: CONTENT}))
    line.held = []
    asked = line.ask(STAT, text(PATH))
    kind, number, _ = line.held.pop(0)
    assert kind == STAT
    line.receive_bytes(packet(105, number, b"\0\0\0\1"))
    line.release()
    assert line.answers.pop(asked)[1] == b"\0\0\0\1"
    assert line.read(PATH) == CONTENT


def test_what_is_open_stays_open_when_the_cache_is_deleted(tmp_path: Path) -> None:
    server = Server({PATH: CONTENT, path_of(OTHER): CONTENT})
    line = Line(tmp_path, server)
    line.read(PATH)
    until(lambda: in_cache(tmp_path) == {BLOB: CONTENT}, "it is in the cache")
    handle = line.open(PATH)
    coming = line.open(path_of(OTHER))
    line.pread(coming, 0, PIECE)
    os.rename(tmp_path / "blobstorage", tmp_path / "trash")
    for path in (tmp_path / "coming").iterdir():
        path.unlink()
    assert line.pread(handle, 0, PIECE) == CONTENT[:PIECE]
    assert line.pread(coming, PIECE, PIECE) == CONTENT[PIECE : 2 * PIECE]
    line.close(handle)
    line.close(coming)
    assert line.read(PATH) == CONTENT
    line.quiet()
    assert in_cache(tmp_path) == {BLOB: CONTENT}


def test_a_file_of_the_cache_that_shrinks_is_an_error(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: CONTENT}))
    line.read(PATH)
    until(lambda: in_cache(tmp_path) == {BLOB: CONTENT}, "it is in the cache")
    handle = line.open(PATH)
    cached = tmp_path / "blobstorage" / BLOB
    cached.chmod(0o600)
    os.truncate(cached, 10)
    with pytest.raises(Error):
        line.pread(handle, 0, PIECE)
    line.close(handle)


def test_a_full_disk_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    line = Line(tmp_path, Server({PATH: CONTENT}))
    monkeypatch.setattr(os, "pwritev", full)
    assert line.read(PATH) == CONTENT
    line.quiet()
    assert in_cache(tmp_path) == {}
    assert os.listdir(tmp_path / "coming") == []


def test_a_directory_that_can_not_be_written_is_passed_by(tmp_path: Path) -> None:
    (tmp_path / "coming").write_text("no directory")
    line = Line(tmp_path, Server({PATH: CONTENT}))
    assert line.read(PATH) == CONTENT


def test_room_is_left_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RESERVE", 1 << 60)
    line = Line(tmp_path, Server({PATH: CONTENT}))
    assert line.read(PATH) == CONTENT
    line.quiet()
    assert in_cache(tmp_path) == {}


def test_a_size_that_no_disk_has_takes_no_room(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: CONTENT}, lies={PATH: 1 << 62}))
    handle = line.open(PATH)
    assert line.pread(handle, 0, PIECE) == CONTENT[:PIECE]
    assert not (tmp_path / "coming").exists()


def test_a_disk_that_is_slower_than_the_line_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "WAITING", 100)
    line = Line(tmp_path, Server({PATH: CONTENT}))
    assert line.read(PATH) == CONTENT
    line.quiet()
    assert in_cache(tmp_path) == {}


def test_the_limit_of_the_cache_holds(tmp_path: Path) -> None:
    files = {path_of(f"0x{number:02x}/0x03f1.blob"): bytes([number]) * 70_000 for number in range(1, 9)}
    line = Line(tmp_path, Server(files), limit=300_000)
    until(lambda: line.store.limit.counted is not None, "what is there is counted")
    for number, (path, content) in enumerate(files.items(), 1):
        assert line.read(path) == content
        # What comes while the disk is behind is not kept.
        until(lambda number=number: len(in_cache(tmp_path)) >= min(4, number), "it is in the cache")
    line.quiet()
    assert len(in_cache(tmp_path)) == 4
    more = Line(tmp_path, Server({PATH: CONTENT[:70_000]}), limit=300_000)
    until(lambda: more.store.limit.counted is not None, "what is there is counted")
    assert more.read(PATH) == CONTENT[:70_000]
    more.quiet()
    assert len(in_cache(tmp_path)) == 4


def test_what_finds_no_room_has_some_made(tmp_path: Path) -> None:
    full = tmp_path / FULL
    files = {path_of(f"0x{number:02x}/0x03f1.blob"): bytes([number]) * 70_000 for number in range(1, 9)}
    line = Line(tmp_path, Server(files), limit=150_000)
    until(lambda: line.store.limit.counted is not None, "what is there is counted")
    names = list(files)
    for path in names[:2]:
        line.read(path)
        assert not full.exists()
    line.read(names[2])
    until(lambda: line.store.limit.is_full, "no room is noted")
    assert full.exists()
    until(lambda: len(in_cache(tmp_path)) == 2, "the others are in the cache")
    # As it is made when the unions are laid.
    full.unlink()
    os.unlink(tmp_path / "blobstorage" / "0x01" / "0x03f1.blob")
    line.read(names[3])
    until(lambda: line.store.limit.counted == 70_000, "what is there is counted anew")
    line.read(names[5])
    until(lambda: len(in_cache(tmp_path)) == 2, "there is room again")
    assert not full.exists()


def test_what_is_on_its_way_into_the_cache_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr(store_module, "_write_out", lambda path: goes_on.wait(10))
    limit = Line(tmp_path, Server({PATH: CONTENT}), limit=1_000_000)
    until(lambda: limit.store.limit.counted is not None, "what is there is counted")
    limit.read(PATH)
    until(lambda: limit.store._unsettled, "it is on its way")
    limit.store.limit._count_files()
    assert limit.store.limit.counted == len(CONTENT)
    goes_on.set()
    limit.quiet()
    limit.store.limit._count_files()
    assert limit.store.limit.counted == len(CONTENT)


def test_what_is_larger_than_the_cache_has_no_room_made(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: CONTENT}), limit=1000)
    until(lambda: line.store.limit.counted is not None, "what is there is counted")
    line.read(PATH)
    line.quiet()
    assert not (tmp_path / FULL).exists()


def test_when_a_file_was_read_last_is_known(tmp_path: Path) -> None:
    line = Line(tmp_path, Server({PATH: CONTENT}))
    begun = time.time()
    line.read(PATH)
    until(lambda: in_cache(tmp_path) == {BLOB: CONTENT}, "it is in the cache")
    cached = tmp_path / "blobstorage" / BLOB
    assert cached.stat().st_atime >= int(begun)
    os.utime(cached, (1_700_000_000, TIME))
    line.stat(PATH)
    assert line.read(PATH) == CONTENT
    line.quiet()
    assert cached.stat().st_atime >= int(begun)
    assert cached.stat().st_mtime == TIME


def test_what_a_killed_one_left_is_deleted_and_what_another_writes_is_not(tmp_path: Path) -> None:
    coming = tmp_path / "coming"
    coming.mkdir()
    (coming / "999999999-1").write_text("left")
    (coming / f"{os.getppid()}-1").write_text("another's")
    Line(tmp_path, Server({}))
    assert [path.name for path in coming.iterdir()] == [f"{os.getppid()}-1"]


def test_a_sparse_file_stays_sparse(tmp_path: Path) -> None:
    content = b"begin" + bytes(10_000_000) + b"end"
    line = Line(tmp_path, Server({PATH: content}))
    assert line.read(PATH) == content
    line.quiet()
    assert in_cache(tmp_path) == {BLOB: content}
    assert (tmp_path / "blobstorage" / BLOB).stat().st_blocks * 512 < 1_000_000


def test_handles_of_ours_are_not_the_servers(tmp_path: Path) -> None:
    server = Server({PATH: CONTENT, b"/srv/other": b"other"})
    line = Line(tmp_path, server)
    line.read(PATH)
    until(lambda: in_cache(tmp_path) == {BLOB: CONTENT}, "it is in the cache")
    ours, its = line.open(PATH), line.open(b"/srv/other")
    assert ours not in server.opened
    assert line.pread(its, 0, 10) == b"other"
    line.close(its)
    with pytest.raises(Error):
        line.pread(its, 0, 10)
    line.close(ours)
    with pytest.raises(Error):
        line.close(ours)
    assert requests_for(server, b"?").count(CLOSE) == 1


def test_a_server_that_gives_one_handle_to_two_files_is_not_believed(tmp_path: Path) -> None:
    server = Server({PATH: CONTENT, path_of(OTHER): CONTENT[::-1]})
    line = Line(tmp_path, server)
    first = line.open(PATH)
    line.pread(first, 0, PIECE)
    server._number -= 1
    second = line.open(path_of(OTHER))
    assert second == first
    for offset in range(0, len(CONTENT), PIECE):
        line.pread(first, offset, PIECE)
    line.quiet()
    assert in_cache(tmp_path) == {}


def test_a_server_that_gives_one_handle_to_one_file_twice_is_believed(tmp_path: Path) -> None:
    server = Server({PATH: CONTENT})
    line = Line(tmp_path, server)
    first = line.open(PATH)
    server._number -= 1
    assert line.open(PATH) == first
    line.close(first)
    server.opened[first] = PATH
    line.pread(first, 0, len(CONTENT))
    line.close(first)
    line.quiet()
    assert in_cache(tmp_path) == {BLOB: CONTENT}


def test_opening_for_writing_goes_to_the_server(tmp_path: Path) -> None:
    server = Server({PATH: CONTENT})
    line = Line(tmp_path, server)
    line.read(PATH)
    until(lambda: in_cache(tmp_path) == {BLOB: CONTENT}, "it is in the cache")
    server.asked.clear()
    line.wait(line.ask(OPEN, text(PATH) + struct.pack(">II", 3, 0)))
    assert server.asked == [(OPEN, PATH)]


# The test itself, and the pieces


def test_the_client_begins_as_sshfs_does(tmp_path: Path) -> None:
    assert Line(tmp_path, Server({}, version=4)).first == (4, (VERSION, b""))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 15)), max_size=20), st.integers(0, 50), st.integers(0, 20))
def test_coverage_is_that_of_a_set(added: List[tuple[int, int]], begin: int, length: int) -> None:
    coverage, model = Coverage(), set()
    for start, count in added:
        coverage.add(start, start + count)
        model |= set(range(start, start + count))
    assert coverage.has(begin, begin + length) == (set(range(begin, begin + length)) <= model)
    assert coverage.intervals == len([n for n in model if n - 1 not in model])
