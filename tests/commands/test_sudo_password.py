"""A sudo that wants a password: asked for once on the terminal, and said where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator, Tuple

import pytest

from harness import accounts, needs
from harness.buildout import Buildout
from harness.developer import ASKED_BY_SUDO, Developer
from harness.production import Production
from harness.workspace import Workspace
from refreshing import status

# sudo asks "[sudo] password for …", sudo-rs "[sudo: authenticate] Password:".
PROMPT = "[sudo"


@pytest.fixture(params=["sudo", "sudo-rs"])
def asked(
    request: pytest.FixtureRequest,
    workspace: Workspace,
    scratch: Path,
    production: Production,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> Iterator[Tuple[Buildout, str]]:
    """A buildout of somebody whom sudo asks, and the password."""
    developer = Developer.asked_by_sudo(workspace, scratch)
    production.give_to(developer.uid, developer.gid)
    options = {"remote": str(production.path), "sudo": needs.program(request.param, request.param)}
    with accounts.password(ASKED_BY_SUDO) as password:
        yield make_buildout(developer, options), password
    developer.close()


def test_the_password_is_asked_for_once_on_the_terminal(asked: Tuple[Buildout, str], production: Production) -> None:
    buildout, password = asked
    answers = [(PROMPT, f"{password}\n")]
    mounted = buildout.run("mount", tty=True, answers=answers)
    assert mounted.returncode == 0, mounted
    assert mounted.stdout.count(PROMPT) == 1
    assert status(buildout)["union"] == "overlay"
    assert buildout.read() == production.expected()
    unmounted = buildout.run("umount", tty=True, answers=answers)
    assert unmounted.returncode == 0, unmounted


def test_without_a_terminal_it_is_said_that_a_password_is_wanted(asked: Tuple[Buildout, str]) -> None:
    buildout, _ = asked
    refused = buildout.run("mount")
    assert refused.returncode == 1
    assert "wants a password and there is no terminal to ask on" in refused.stderr
