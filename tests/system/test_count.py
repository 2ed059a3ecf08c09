"""What is counted for display: a few in any case, more while there is time."""

from __future__ import annotations

from cowstorage.system.count import FEW, Count


def added(count: Count, number: int) -> list[bool]:
    return [count.add() for _ in range(number)]


def test_a_few_are_counted_without_any_time() -> None:
    count = Count(seconds=-1)
    assert added(count, FEW + 2) == [True] * FEW + [False] * 2
    assert count.number == FEW + 2


def test_more_are_counted_while_there_is_time() -> None:
    assert all(added(Count(seconds=60), FEW + 2))
