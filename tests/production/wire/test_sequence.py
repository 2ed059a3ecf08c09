"""Who reads BLOBs in the order of their making has the next ones asked for meanwhile; nobody else has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Dict, Iterable, List, Sequence, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowstorage.production.wire import ahead, following, sequence
from cowstorage.production.wire.fetch import FIRST_WINDOW, FOLLOWING_WINDOW
from cowstorage.production.wire.store import Store
from harness.polling import until
from production.wire.base import BUSHY, LAWN, NEW, OLD, Database, cache, relative_of, served
from production.wire.line import PIECE, Line, path_of
from production.wire.server import OPEN, READ, STAT, Server, text

# Objects without a BLOB between them, as pages have.
OIDS = [*range(100, 200, 2), *range(201, 400, 3)]


def tid(number: int) -> bytes:
    return number.to_bytes(8, "big")


def predictor(location: Path, tids: Dict[int, bytes]) -> Callable[..., List[int]]:
    """A function: which oids are predicted when one is read."""
    made = sequence.Sequence(Store(str(location)), Database(tids))
    oids = {relative_of(oid, tids[oid]): oid for oid in tids}

    def read(oid: int, has_come: bool = False, is_crowded: bool = False) -> List[int]:
        return [oids[name] for name in made.next(relative_of(oid, tids[oid]), has_come, is_crowded)]

    return read


# Which are predicted


@pytest.mark.parametrize("step", [1, 3, -1, -2])
def test_the_third_in_order_tells_the_fourth(step: int, tmp_path: Path) -> None:
    read = predictor(tmp_path, dict.fromkeys(OIDS, NEW))
    order = OIDS[::step]
    assert [read(oid) for oid in order[:3]] == [[], [], [order[3]]]
    assert read(order[3]) == order[4:6]
    assert read(order[4]) == order[5:9]
    assert read(order[5]) == order[6:14]
    assert read(order[6]) == order[7:15]


def test_what_was_made_together_is_read_from_the_last_oid_on(tmp_path: Path) -> None:
    """As ZODB gives oids to what is new in a transaction."""
    tids = {oid: tid(oid // 10) for oid in range(100, 200)}
    read = predictor(tmp_path, tids)
    order = [oid for ten in range(100, 200, 10) for oid in reversed(range(ten, ten + 10))][::3]
    assert [read(oid) for oid in order[:3]] == [[], [], [order[3]]]
    # Counted downwards there is none behind it.
    assert read(order[3]) == []
    assert read(order[4]) == order[5:7]
    assert read(order[5]) == order[6:10]


def test_no_order_predicts_nothing(tmp_path: Path) -> None:
    read = predictor(tmp_path, dict.fromkeys(OIDS, NEW))
    assert [read(OIDS[number]) for number in (0, 1, 3, 2, 10, 30, 29, 27, 60, 4)] == [[]] * 10


def test_another_one_than_predicted_ends_it(tmp_path: Path) -> None:
    read = predictor(tmp_path, dict.fromkeys(OIDS, NEW))
    assert [read(oid) for oid in OIDS[:3]][-1] == OIDS[3:4]
    assert read(OIDS[20]) == []
    assert [read(oid) for oid in OIDS[21:24]] == [[], OIDS[23:24], OIDS[24:26]]


def test_far_away_is_no_distance(tmp_path: Path) -> None:
    read = predictor(tmp_path, dict.fromkeys(range(0, 100_000, sequence.REACH + 1), NEW))
    assert [read(number * (sequence.REACH + 1)) for number in range(6)] == [[]] * 6


def test_one_that_is_read_twice_counts_once(tmp_path: Path) -> None:
    read = predictor(tmp_path, dict.fromkeys(OIDS, NEW))
    order = [oid for oid in OIDS[:3] for _ in range(2)]
    assert [read(oid) for oid in order][4:] == [OIDS[3:4], []]
    assert read(OIDS[3]) == OIDS[4:6]


def test_there_are_no_more_where_they_come_in_time_and_fewer_where_they_wait(tmp_path: Path) -> None:
    read = predictor(tmp_path, dict.fromkeys(OIDS, NEW))
    depths = [len(read(oid)) for oid in OIDS[:6]]
    assert depths == [0, 0, 1, 2, 4, 8]
    assert [len(read(oid, has_come=True)) for oid in OIDS[6:8]] == [8, 8]
    assert [len(read(oid, is_crowded=True)) for oid in OIDS[8:13]] == [4, 2, 1, 1, 1]
    assert [len(read(oid)) for oid in OIDS[13:17]] == [2, 4, 8, 8]


def test_what_the_cache_has_is_passed_over(tmp_path: Path) -> None:
    cache(tmp_path, relative_of(OIDS[4]))
    read = predictor(tmp_path, dict.fromkeys(OIDS, NEW))
    assert [read(oid) for oid in OIDS[:4]][-1] == [OIDS[5]]


def test_a_sync_changes_the_names(tmp_path: Path) -> None:
    database = Database(dict.fromkeys(OIDS, OLD))
    made = sequence.Sequence(Store(str(tmp_path)), database)
    for oid in OIDS[:3]:
        made.next(relative_of(oid, OLD), False, False)
    database.state, database.tids[OIDS[5]] = 2, NEW
    expected = [relative_of(OIDS[4], OLD), relative_of(OIDS[5], NEW)]
    assert made.next(relative_of(OIDS[3], OLD), False, False) == expected


def test_an_expected_one_may_be_gone_with_a_sync(tmp_path: Path) -> None:
    database = Database(dict.fromkeys(OIDS, NEW))
    made = sequence.Sequence(Store(str(tmp_path)), database)
    for oid in OIDS[:3]:
        made.next(relative_of(oid), False, False)
    database.state = 2
    del database.tids[OIDS[3]]
    assert made.next(relative_of(OIDS[3]), False, False) == []
    assert not made.is_found


@given(st.lists(st.integers(min_value=0, max_value=(1 << 64) - 1), max_size=8), st.booleans())
def test_any_oids_are_looked_at(oids: List[int], bushy: bool) -> None:
    """At the ends of all oids, too; those that nothing is known of as well."""
    made = sequence.Sequence(Store("/nonexistent"), Database(dict.fromkeys(oids[::2], NEW)))
    for oid in oids:
        relative = relative_of(oid, NEW, BUSHY if bushy else LAWN)
        assert relative not in made.next(relative, False, False)


@given(st.lists(st.tuples(st.integers(min_value=0, max_value=9), st.booleans(), st.booleans(), st.integers(0, 1023))))
def test_any_reader_of_any_databases_is_followed(reads: List[Tuple[int, bool, bool, int]]) -> None:
    """The local database changes at any time; each bit says whether an object has a BLOB."""
    database = Database({})
    made = sequence.Sequence(Store("/nonexistent"), database)
    for oid, has_come, is_crowded, bits in reads:
        database.state, database.tids = bits, {other: NEW for other in range(10) if bits >> other & 1}
        assert set(made.next(relative_of(oid), has_come, is_crowded)) <= {relative_of(one) for one in database.tids}


# What becomes of it


def reading(location: Path, oids: Iterable[int], content: bytes, **keywords: object) -> Line:
    """A session over a server that has these, and whose local database knows them."""
    oids = list(oids)
    files = served(*map(relative_of, oids), content=content)
    return Line(location, Server(files), knowledge=Database(dict.fromkeys(oids, NEW)), **keywords)  # type: ignore[arg-type]


def asked(line: Line, kind: int) -> List[bytes]:
    """What the server was asked for so, once."""
    found = [subject for asked_kind, subject in line.server.asked if asked_kind == kind]
    line.server.asked = []
    return found


def read(line: Line, oids: Sequence[int]) -> None:
    """Read files in order, and let be done what follows."""
    for oid in oids:
        assert line.read(path_of(relative_of(oid))) == line.server.files[path_of(relative_of(oid))]
        line.work_until(lambda: not line.session._following._is_looking, "what follows was looked for")


def test_the_next_are_asked_for_before_they_are_read(tmp_path: Path) -> None:
    line = reading(tmp_path, OIDS, b"x" * 100)
    read(line, OIDS[:2])
    for oid, following_oid in zip(OIDS[2:10], OIDS[3:11]):
        read(line, [oid])
        # It comes in time, and so one is enough.
        until(lambda: line.store.has(relative_of(following_oid)), "the next is in the cache")  # noqa: B023
    assert asked(line, OPEN) == [path_of(relative_of(oid)) for oid in OIDS[:11]]


def test_one_whose_size_has_come_is_told_with_its_directory(tmp_path: Path) -> None:
    line = reading(tmp_path, OIDS, b"x" * 100)
    read(line, OIDS[:3])
    asked(line, STAT)
    line.held = []
    directory, file = os.path.dirname(relative_of(OIDS[3])), relative_of(OIDS[3])
    for name in (directory, file):
        line.wait(line.ask(STAT, text(path_of(name))))
    assert asked(line, STAT) == []


def test_those_that_have_come_whole_and_are_not_read_keep_no_others_away(tmp_path: Path) -> None:
    """Below a union that has the cache as a lower, sshfs never asks for what is there."""
    line = reading(tmp_path, OIDS, b"x" * 100)
    for begin in range(0, 60, 4):
        read(line, OIDS[begin : begin + 3])
        assert asked(line, OPEN)[-1] == path_of(relative_of(OIDS[begin + 3]))
    assert len(line.server.opened) <= ahead.MOST_UNCLAIMED + 1


@pytest.mark.parametrize("queue, most", [(60.0, FOLLOWING_WINDOW), (-60.0, FIRST_WINDOW)])
def test_a_large_one_that_follows_is_asked_for_as_far_as_the_line_has_room(
    queue: float, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "QUEUE_SECONDS", queue)
    line = reading(tmp_path, OIDS, bytes(FIRST_WINDOW))
    large = path_of(relative_of(OIDS[3]))
    line.server.files[large] = bytes(FOLLOWING_WINDOW + 1)
    read(line, OIDS[:3])
    assert asked(line, READ).count(large) * PIECE == most
    assert line.read(large) == line.server.files[large]


def test_where_all_is_in_the_cache_it_is_looked_no_more(tmp_path: Path) -> None:
    oids = range(100, 140)
    cache(tmp_path, *map(relative_of, oids))
    line = reading(tmp_path, [*oids, 500], b"old")
    looked = []
    find = line.session._following._find
    line.session._following._find = lambda: looked.append(1) or find()
    read(line, oids)
    assert len(looked) == following.MOST_IN_VAIN
    read(line, [500])
    assert len(looked) == following.MOST_IN_VAIN + 1


def test_a_large_one_that_is_read_much_later_is_fetched_whole_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = reading(tmp_path, OIDS, bytes(FIRST_WINDOW))
    large = relative_of(OIDS[3])
    line.server.files[path_of(large)] = bytes(FOLLOWING_WINDOW + 5 * PIECE)
    read(line, OIDS[:3])
    monkeypatch.setattr(ahead, "UNCLAIMED_SECONDS", -1.0)
    line.work_until(lambda: line.store.has(large), "it is in the cache")
    reads = [subject for kind, subject in line.server.asked if kind == READ]
    assert reads.count(path_of(large)) == (FOLLOWING_WINDOW + 5 * PIECE) // PIECE
    line.settle()
    assert path_of(large) not in line.server.opened.values()


def test_of_many_at_once_the_last_are_followed(tmp_path: Path) -> None:
    line = reading(tmp_path, OIDS, b"x" * 100)
    for oid in OIDS[: following.MOST_WAITING + 10]:
        line.session._following.has_opened(following.Opened(relative_of(oid), False, False, False))
    line.work_until(lambda: not line.session._following._is_looking, "what follows was looked for")
    assert not line.session._following._opened
