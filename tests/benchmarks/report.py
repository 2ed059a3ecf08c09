"""The measurements as a table for people, and as a plot."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple

# What was measured → its heading.
COLUMNS = {
    "first": "first usable database",
    "refresh": "refresh",
    "back": "back to clean",
    "upgrade": "first run",
    "again": "second run",
    "prefetched": "run after prefetch",
    "offline": "run offline",
    "prefetch": "prefetch itself",
}
RUNS = ("upgrade", "again", "prefetched", "offline")


class Row(NamedTuple):
    """One way of working at one round trip (ms); ``measured`` by the names of ``COLUMNS``."""

    round_trip: float
    way: str
    measured: Mapping[str, Any]


def line(row: Row) -> str:
    """One row, for the terminal."""
    cells = (f"{name} {one.seconds:.2f} s {one.moved / 1e6:.2f} MB" for name, one in row.measured.items())
    return f"{row.round_trip:.0f} ms, {row.way}: " + "; ".join(cells)


def local_run(rows: List[Row], round_trip: float) -> float:
    """Seconds of the upgrade on the plain local copy, measured beside the others."""
    return next(
        row.measured["upgrade"].seconds for row in rows if (row.round_trip, row.way) == (round_trip, "full copy")
    )


def cell(rows: List[Row], row: Row, name: str) -> str:
    """Seconds, for a run as a ratio to the local copy, and megabytes over the line."""
    one = row.measured.get(name)
    if one is None:
        return ""
    ratio = f" ({one.seconds / local_run(rows, row.round_trip):.2f}x)" if name in RUNS else ""
    return f"{one.seconds:.2f} s{ratio}, {one.moved / 1e6:.2f} MB"


def table(rows: List[Row]) -> str:
    """A list-table of reStructuredText."""
    cells = [["round trip", "way", *COLUMNS.values()]]
    cells += [[f"{row.round_trip:.0f} ms", row.way, *(cell(rows, row, name) for name in COLUMNS)] for row in rows]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for one in cells:
        lines += [f"   {'* -' if number == 0 else '  -'} {text}".rstrip() for number, text in enumerate(one)]
    return "\n".join(lines)


def write(rows: List[Row], facts: str, directory: Path) -> None:
    """``RESULTS.rst`` and ``plot.png``."""
    print(table(rows))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"
    text = TEXT.format(facts=facts, machine=machine, table=table(rows))
    (directory / "RESULTS.rst").write_text(text, encoding="utf-8")
    plot(rows, directory / "plot.png")


def plot(rows: List[Row], path: Path) -> None:
    """The upgrade-like run, as ratios to the local copy, over the round trip."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    series: Dict[str, Dict[float, float]] = {}
    for row in rows:
        for name in RUNS:
            if name in row.measured and row.way != "full copy":
                ratio = row.measured[name].seconds / local_run(rows, row.round_trip)
                series.setdefault(f"{row.way}: {COLUMNS[name]}", {})[row.round_trip] = ratio
    figure, axes = pyplot.subplots(figsize=(8, 5))
    for label, points in series.items():
        axes.plot(list(points), list(points.values()), marker="o", label=label)
    axes.set(xlabel="round trip, ms", ylabel="time, plain local copy = 1", yscale="log", title="An upgrade-like run")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110, bbox_inches="tight")


TEXT = """============================
Speed, compared by measuring
============================

Command, as root: ``PYTHONPATH=src:tests python3 -m benchmarks`` (once before: ``python3 -m pip install matplotlib``).
It writes this page.

- Data: {facts}. Machine: {machine}.
- Line: 100 Mbit/s each way with the round trip that the table says, in front of a real sshd on the same machine.
- *Full copy*: ``rsync -az --delete`` of var/filestorage and var/blobstorage, the upgrade on plain local files.
- *Published script*: sshfs, overlay, and ``rsync -az`` of Data.fs and of Data.fs.index; back to clean is the same two
  rsyncs, and a new upper directory for BLOBs.
- *cowstorage*: ``cow-mount``, ``cow-sync``, ``cow-rollback``, ``cow-prefetch``, ``cow-mount --offline``.
- The run: change each object, read a third of the BLOBs, write a tenth as many new ones. Local runs, those after
  prefetch and those offline are medians of five.
- Each cell: seconds; of a run the ratio to the plain local copy at the same round trip; megabytes over the line.

.. image:: plot.png

{table}
"""
