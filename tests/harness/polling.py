"""Wait for a condition, never for a time."""

from __future__ import annotations

import time
from typing import Callable, TypeVar

Value = TypeVar("Value")

INTERVAL = 0.01


def until(condition: Callable[[], Value], what: str, seconds: float = 60) -> Value:
    """The first true value of ``condition()``.

    :param what: what is waited for, for the message.
    :raises AssertionError: when it did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"After {seconds:g} seconds still not: {what}")
        time.sleep(INTERVAL)
