"""What the Debian release that the tests run on lacks, after packages.txt, and which tests are not run for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, FrozenSet, Iterator, List

import pytest

PACKAGES = Path(__file__).resolve().parent.parent / "packages.txt"


def codename() -> str:
    """Return the name of the release, such as ``trixie``, os-release(5); empty where the system has none."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return next((line.partition("=")[2] for line in lines if line.startswith("VERSION_CODENAME=")), "")


def lacked_by(release: str) -> FrozenSet[str]:
    """Return the packages that a release lacks: each line of packages.txt names one, and the releases without it."""
    lines = [line.split() for line in PACKAGES.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return frozenset(package for package, *without in lines if release in without)


RELEASE = codename()
LACKED = lacked_by(RELEASE)

# What somebody without root takes over a network.
DEVELOPERS_UNION = "fuse-overlayfs" if "unionfs-fuse" in LACKED else "unionfs-fuse"


def without_lacked(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Leave out the tests that need a package which the release lacks, and note how many, for ``summary``.

    They are marked ``package``, or have its name among their parameters.
    """
    left_out = {item: _wanted(item) & LACKED for item in items}
    config.stash[NOT_RUN] = Counter(name for names in left_out.values() for name in names)
    config.hook.pytest_deselected(items=[item for item, names in left_out.items() if names])
    items[:] = [item for item, names in left_out.items() if not names]


NOT_RUN = pytest.StashKey["Counter[str]"]()


def summary(config: pytest.Config) -> Iterator[str]:
    """Yield a line on each package that is lacked."""
    for name, count in sorted(config.stash.get(NOT_RUN, Counter()).items()):
        yield f"{RELEASE} has no {name}: {count} tests are not run"


def _wanted(item: pytest.Item) -> FrozenSet[str]:
    """Return the names of packages that a test has among its parameters and marks; one that mounts nothing has none."""
    marked = {str(name) for mark in item.iter_markers("package") for name in mark.args}
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    mounts = item.get_closest_marker("root") or item.get_closest_marker("machine")
    return frozenset(marked | (set(_words(list(parameters.values()))) if mounts else set()))


def _words(value: Any) -> Iterator[str]:
    """Yield the texts in nested sequences."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _words(one)
