"""Fixtures: production, an sshd, developers, and the promises that every test is held to.

Whoever uses them gets these checks at the end of the test: production is as the test itself left it, sshd got no
write request, nothing is mounted and nothing runs any more.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, Callable, Iterator, List, Mapping, Optional

import pytest
from hypothesis import HealthCheck, settings

from harness import cleanup, needs, release
from harness.buildout import Buildout
from harness.developer import Developer, Developers
from harness.disk import Disk
from harness.production import Production
from harness.runtime import Runtime
from harness.sshd import Sshd
from harness.workspace import Workspace
from harness.zope import Workshop
from machine import relay

# A shell's background job ignores it, and so would all that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The suite tries the same examples every time; COWSTORAGE_HYPOTHESIS=random tries others, and many more, for hours.
# What fails is printed with the decorator that repeats it.  How long an example takes is the machine's affair.
_unhurried = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("seeded", _unhurried, derandomize=True, database=None)
settings.register_profile("random", _unhurried, derandomize=False, max_examples=5000)
settings.load_profile(os.environ.get("COWSTORAGE_HYPOTHESIS", "seeded"))


def pytest_configure(config: pytest.Config) -> None:
    """The plugin that runs the tests marked ``machine`` elsewhere."""
    if relay.INSIDE not in os.environ:
        config.pluginmanager.register(relay.Outer(), "cowstorage-machine")


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Mark what needs root with ``root``, and with ``quick`` what has none of the markers that keep it out of that."""
    for item in items:
        if "workspace" in getattr(item, "fixturenames", ()):
            item.add_marker("root")
        if not any(item.get_closest_marker(name) for name in _NOT_QUICK):
            item.add_marker("quick")
    release.without_lacked(config, items)
    relay.without_kernel(config, items)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what was not run, and why."""
    for line in (*release.summary(config), *relay.summary(config)):
        terminalreporter.line(line)


_NOT_QUICK = ("root", "matrix", "machine", "slow", "idle")


@pytest.fixture(scope="session")
def workspace() -> Iterator[Workspace]:
    """The run's directory, removed at its end."""
    needs.root()
    made = Workspace.create()
    yield made
    made.remove()


@pytest.fixture
def scratch(workspace: Workspace, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory of the test's own on a real disk, which every user can look into."""
    path = workspace.scratch(request.node.name)
    yield path
    try:
        cleanup.assert_nothing_mounted(path)
        cleanup.assert_nothing_running(path)
    finally:
        cleanup.remove(path)


@pytest.fixture(scope="session")
def production_template(workspace: Workspace) -> Production:
    """Made once; every test gets a copy."""
    return Production.create(workspace.path / "production")


@pytest.fixture
def production(production_template: Production, scratch: Path) -> Iterator[Production]:
    """A production site, which nobody but the test itself may change, and only by its methods."""
    copied = production_template.copy(scratch / "production")
    yield copied
    copied.assert_unchanged()


@pytest.fixture
def developers(workspace: Workspace, scratch: Path) -> Iterator[Developers]:
    """With sudo, without, and root."""
    made = Developers(*(make(workspace, scratch) for make in _KINDS))
    yield made
    for developer in made:
        developer.close()


_KINDS = (Developer.with_sudo, Developer.without_sudo, Developer.root)


@pytest.fixture
def make_sshd(scratch: Path, developers: Developers) -> Iterator[Callable[..., Sshd]]:
    """Start an sshd, with the keywords of ``Sshd``; all developers can log in to it and trust it."""
    made: List[Sshd] = []

    def make(**keywords: Any) -> Sshd:
        sshd = Sshd(scratch / f"sshd-{len(made)}", **keywords)
        made.append(sshd)
        sshd.start()
        for developer in developers:
            sshd.authorize(developer.public_key)
            developer.trust(sshd)
        return sshd

    yield make
    for sshd in made:
        sshd.stop()
    for sshd in made:
        sshd.assert_no_write_requests()


@pytest.fixture
def sshd(make_sshd: Callable[..., Sshd]) -> Sshd:
    """A stock sshd."""
    return make_sshd()


@pytest.fixture(scope="session")
def runtime(workspace: Workspace) -> Runtime:
    """A Python with cowstorage for all users."""
    return Runtime(workspace.path / "runtime")


@pytest.fixture(scope="session")
def workshop(workspace: Workspace) -> Workshop:
    """A zc.buildout with the distributions of ZEO and Zope for all users."""
    return Workshop(workspace.path / "workshop")


@pytest.fixture
def make_buildout(scratch: Path, runtime: Runtime) -> Callable[..., Buildout]:
    """Make a developer's buildout from the part's options."""

    def make(
        developer: Developer, options: Mapping[str, str], name: str = "buildout", part: Optional[str] = None
    ) -> Buildout:
        return Buildout(scratch / name, developer, runtime, options, part or "cow-storage")

    return make


@pytest.fixture
def disk(scratch: Path) -> Iterator[Disk]:
    """A small disk that can be filled."""
    made = Disk(scratch)
    yield made
    made.remove()


@pytest.fixture
def fuse() -> None:
    """FUSE for every user."""
    needs.fuse()
