"""The way of the tests' reports out of the machine; the machine itself is proven by tests/network."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from harness import processes
from harness.polling import until
from machine import boot, relay

pytest_plugins = ["pytester"]


def test_each_test_has_its_reports_and_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / relay.REPORTS
    lines = [json.dumps({"nodeid": node, "when": when}) for node in ("a", "b") for when in ("setup", "call")]
    path.write_text("\n".join(lines) + '\n{"nodeid": "b", "when": "tea')
    reports = relay.read_reports(path)
    assert {node: [report["when"] for report in found] for node, found in reports.items()} == {
        "a": ["setup", "call"],
        "b": ["setup", "call"],
    }


def test_without_a_file_of_reports_there_are_none(tmp_path: Path) -> None:
    assert relay.read_reports(tmp_path / relay.REPORTS) == {}


def test_the_inner_run_gets_exactly_these_tests(tmp_path: Path) -> None:
    nodes = ["tests/network/test_nfs.py::test_cycle[v3 it's]", "tests/x.py::test_y"]
    words = shlex.split(relay.inner_script(nodes, tmp_path))
    assert words[-2:] == nodes
    assert f"{relay.INSIDE}={tmp_path / relay.REPORTS}" in words


@pytest.mark.root
def test_a_machine_that_shows_no_progress_is_ended(tmp_path: Path) -> None:
    """And what does is not ended: the sign grows for longer than the limit."""
    growing = f"for turn in 1 2 3 4 5 6 7 8; do echo >> {tmp_path}/sign; sleep 2; done; echo alive"
    # To come up takes some seconds where other machines are at work.
    console = boot.run(f"{growing}; sleep 1000", tmp_path, Path("/"), tmp_path / "sign", 12.0)
    assert "alive" in console
    assert "reboot" not in console
    until(lambda: not [pid for pid in processes.all_pids() if str(tmp_path) in processes.command(pid)], "all ended")


def test_a_machine_that_does_not_come_up_fails_its_tests_with_its_console(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "run", lambda *arguments: "kernel panic")
    pytester.makeconftest(
        """
        from machine import relay

        def pytest_configure(config):
            config.addinivalue_line("markers", "machine: elsewhere")
            config.pluginmanager.register(relay.Outer())
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.machine
        def test_elsewhere(): pass

        def test_here(): pass
        """
    )
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*The machine ended before this test did*", "kernel panic"])
