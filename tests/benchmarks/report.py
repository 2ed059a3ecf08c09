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


def cell(row: Row, name: str) -> str:
    """Seconds, for a run as a ratio to the plain local copy in turn with it, and megabytes over the line."""
    one = row.measured.get(name)
    if one is None:
        return ""
    ratio = f" ({one.seconds / one.local:.2f}x)" if name in RUNS else ""
    return f"{one.seconds:.2f} s{ratio}, {one.moved / 1e6:.2f} MB"


def table(rows: List[Row], least: Mapping[str, Any]) -> str:
    """A list-table of reStructuredText."""
    cells = [["round trip", "way", *COLUMNS.values()]]
    cells += [[f"{row.round_trip:.0f} ms", row.way, *(cell(row, name) for name in COLUMNS)] for row in rows]
    cells.append(["any", "least possible", *(f"{least[name].moved / 1e6:.3g} MB" for name in COLUMNS)])
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for one in cells:
        lines += [f"   {'* -' if number == 0 else '  -'} {text}".rstrip() for number, text in enumerate(one)]
    return "\n".join(lines)


def write(rows: List[Row], least: Mapping[str, Any], facts: str, directory: Path) -> None:
    """``RESULTS.rst`` and ``plot.png``."""
    print(table(rows, least))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"
    text = TEXT.format(facts=facts, machine=machine, table=table(rows, least))
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
                ratio = row.measured[name].seconds / row.measured[name].local
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
- The run: change each object, read a third of the BLOBs, write a tenth as many new ones. Before each, the same run on
  a plain local copy, so that both meet the machine in the same mood. Of the full copy, and of cowstorage from its
  second run on: medians of seven such pairs, each after a return to the clean state; the most bytes of the seven.
- *Prefetch itself*: of all BLOBs, none of which is here.
- Each cell: seconds; of a run the ratio to the plain local copy in turn with it; megabytes over the line.
- *Least possible*: Data.fs and its index, or what was added, compressed by xz; the BLOBs that are read, or all of them.

.. image:: plot.png

{table}
"""
