"""Every script of the table can be started: it has an entry point and a module, and nothing else has."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any, List

import pytest

from cowstorage import cli, commands
from cowstorage.part.scripts import SCRIPTS


def test_the_modules_of_the_commands_are_those_of_the_table() -> None:
    assert {module.name for module in pkgutil.iter_modules(commands.__path__)} == set(SCRIPTS)


def test_the_entry_points_are_those_of_the_table() -> None:
    made = f"{cli._script.__qualname__}."
    entry_points = {name for name, value in vars(cli).items() if getattr(value, "__qualname__", "").startswith(made)}
    assert entry_points == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_module_has_what_a_script_needs(name: str) -> None:
    module = importlib.import_module(f"cowstorage.commands.{name}")
    assert list(inspect.signature(module.add_arguments).parameters) == ["parser"]
    assert list(inspect.signature(module.run).parameters) == ["context"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_entry_point_runs_the_script_of_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: List[Any] = []
    monkeypatch.setattr(cli, "main", lambda *arguments: calls.append(arguments) or 7)
    assert getattr(cli, name)({"part": "x"}) == 7
    assert calls == [(name, {"part": "x"})]
    assert getattr(cli, name).__doc__ == SCRIPTS[name].summary
