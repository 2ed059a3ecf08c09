"""Report how far a scan of a file is."""

from __future__ import annotations

from typing import Callable, Optional

# Called with the fraction that is done, from 0 to 1.
Progress = Callable[[float], None]


def reporter(progress: Optional[Progress], size: int) -> Callable[[int], None]:
    """Return a function that takes a byte offset and calls ``progress`` at most once for each percent.

    :param progress: what is called; ``None``: nothing.
    :param size: the size of the scanned file in bytes.
    """
    reported = -1

    def report(offset: int) -> None:
        nonlocal reported
        percent = offset * 100 // (size or 1)
        if progress is not None and percent > reported:
            reported = percent
            progress(min(percent, 100) / 100)

    return report
