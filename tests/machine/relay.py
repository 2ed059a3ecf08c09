"""Runs marked tests in the machine and reports each of them as if it had run here.

The outer pytest boots once for all the marked tests of a module and a kernel that were asked for; the inner one writes
every report as one line of JSON, which the outer one reads back.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest

from machine import boot

INSIDE = "COWSTORAGE_IN_MACHINE"
MARKER = "machine"
REPORTS = "reports.jsonl"

# For one test, on a machine with much else to do.
SECONDS = 600.0


# What a test's mark may ask for: ``machine(kernel="aufs")``.
AUFS = "aufs"


def kernel_of(item: pytest.Item) -> Optional[str]:
    """The kernel that a test asks for; ``None``: Debian's."""
    mark = item.get_closest_marker(MARKER)
    return mark.kwargs.get("kernel") if mark else None


def without_kernel(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Leave out the tests that need a kernel with aufs where there is none, and note how many, for ``summary``."""
    lacking = INSIDE not in os.environ and not boot.AUFS.program.exists()
    left_out = [item for item in items if lacking and kernel_of(item) == AUFS]
    config.stash[NOT_RUN] = len(left_out)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if kernel_of(item) != AUFS]


NOT_RUN = pytest.StashKey[int]()


def summary(config: pytest.Config) -> Iterator[str]:
    """Yield a line on the kernel that is lacked."""
    count = config.stash.get(NOT_RUN, 0)
    if count:
        yield f"no kernel with aufs at {boot.AUFS.program}: {count} tests are not run"


def belongs_inside(item: pytest.Item) -> bool:
    """Whether a test is one that only the machine can run, and this is not the machine."""
    return item.get_closest_marker(MARKER) is not None and INSIDE not in os.environ


class Outer:
    """Runs the machine when the first test of a module is due, and hands out the reports."""

    def __init__(self) -> None:
        self._reports: Dict[Tuple[str, Optional[str]], Dict[str, List[Dict[str, Any]]]] = {}
        self._console = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: Optional[pytest.Item]) -> Optional[bool]:
        if not belongs_inside(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports_of(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def _reports_of(self, item: pytest.Item) -> List[pytest.TestReport]:
        boots = _boot_of(item)
        if boots not in self._reports:
            self._reports[boots] = {}
            self._run([one for one in item.session.items if _boot_of(one) == boots and belongs_inside(one)])
        found = self._reports[boots].get(item.nodeid)
        if not found:
            return [self._not_run(item)]
        hook = item.config.hook
        return [hook.pytest_report_from_serializable(config=item.config, data=data) for data in found]

    def _run(self, items: List[pytest.Item]) -> None:
        # Not /tmp, which may be small.
        exchange = Path(tempfile.mkdtemp(prefix="cowstorage-machine-", dir="/var/tmp"))
        reports = exchange / REPORTS
        try:
            script = inner_script([item.nodeid for item in items], exchange)
            kernel = boot.AUFS if kernel_of(items[0]) == AUFS else None
            self._console = boot.run(script, exchange, items[0].config.rootpath, reports, SECONDS, kernel)
            self._reports[_boot_of(items[0])] = read_reports(reports)
        except pytest.fail.Exception as error:
            self._console = str(error)
        finally:
            shutil.rmtree(exchange)

    def _not_run(self, item: pytest.Item) -> pytest.TestReport:
        tail = "\n".join(self._console.splitlines()[-60:])
        return pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords=dict.fromkeys(item.keywords, 1),
            outcome="failed",
            longrepr=f"The machine ended before this test did. The end of its console:\n{tail}",
            when="call",
        )


def _boot_of(item: pytest.Item) -> Tuple[str, Optional[str]]:
    """What tells one boot from another: module and kernel."""
    return str(item.path), kernel_of(item)


def inner_script(nodes: List[str], exchange: Path) -> str:
    """The shell script that runs these tests in the machine."""
    command = [sys.executable, "-m", "pytest", "-p", "machine.relay", "-p", "no:cacheprovider", "-q", *nodes]
    variables = {INSIDE: str(exchange / REPORTS), "PYTHONPATH": "src:tests", "PYTHONDONTWRITEBYTECODE": "1"}
    environment = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f"{environment} PATH=$PATH:/usr/sbin:/sbin {shlex.join(command)}\n"


def read_reports(path: Path) -> Dict[str, List[Dict[str, Any]]]:
    """The reports of each test, by its name; a line that was cut off is left out."""
    reports = defaultdict(list)
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                data = json.loads(line)
            except ValueError:
                continue
            reports[data["nodeid"]].append(data)
    return dict(reports)


class Inner:
    """Writes each report at once, so that a hang loses only what comes after."""

    def __init__(self, config: pytest.Config, path: str):
        self._config = config
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(data) + "\n")
            file.flush()
            os.fsync(file.fileno())


def pytest_configure(config: pytest.Config) -> None:
    """As a plugin of the inner run."""
    if INSIDE in os.environ:
        config.pluginmanager.register(Inner(config, os.environ[INSIDE]))
