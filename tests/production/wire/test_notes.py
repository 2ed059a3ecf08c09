"""Notes of what was read."""

from __future__ import annotations

from pathlib import Path

from cowstorage.part.blob_cache import noted
from cowstorage.production.wire.names import directory_of, object_of
from cowstorage.production.wire.notes import MOST, Notes
from cowstorage.production.wire.threads import Worker
from production.wire.base import LAWN
from production.wire.line import BLOB, OTHER


def test_each_object_is_noted_once_whichever_session_reads_it(tmp_path: Path) -> None:
    for names in ((BLOB, OTHER, BLOB), (OTHER, "0x05/0x03f1.blob")):
        writer = Worker()
        notes = Notes(str(tmp_path / "cache"), writer)
        for name in names:
            notes.add(name)
        writer.finish(10)
    directories = [str(Path(name).parent) for name in (BLOB, OTHER, "0x05/x")]
    assert list(noted(str(tmp_path / "cache" / "read"))) == directories


def test_many_objects_take_little_memory(tmp_path: Path) -> None:
    count = 50_000
    lines = (directory_of(2 * number, LAWN) + "\n" for number in range(count))
    (tmp_path / "read").write_text("".join(lines))
    writer = Worker()
    notes = Notes(str(tmp_path), writer)
    for oid in (2 * count - 2, 2 * count - 1, MOST - 1, MOST, 1 << 63):
        notes.add(f"{directory_of(oid, LAWN)}/0x03f1.blob")
    writer.finish(60)
    assert len(notes._noted["lawn"]) <= MOST // 8
    assert [object_of(name) for name in noted(str(tmp_path / "read"))][count:] == [2 * count - 1, MOST - 1]


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "read").write_text("0x01\n0x02")
    assert list(noted(str(tmp_path / "read"))) == ["0x01"]


def test_what_can_not_be_noted_is_passed_by(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("no directory")
    writer = Worker()
    Notes(str(tmp_path / "cache"), writer).add(BLOB)
    writer.finish(10)
    assert (tmp_path / "cache").read_text() == "no directory"
