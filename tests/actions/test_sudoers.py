"""The lines of sudoers: each sudo takes them, and allows with them the command that they name and no other."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Callable, Iterator

import pytest

from cowstorage.actions import sudoers
from cowstorage.errors import PathUnusable
from harness import needs
from harness.developer import Developers
from harness.workspace import Workspace

pytestmark = pytest.mark.root

NAMES = ["a", "a,b:c=d", "[x]", "a\"b'c#d!(e)", "a\\b", "a\\\\b", "Ümläut", "%a", "a@b+c~d&e;f|g<h>i$j`k^l{m}"]
# What a line for sudo-rs can't have → what the message calls it.
ONLY_SUDO = {"a b": "a blank", "a*b": r"\*", "a?b": r"\?"}

SUDOS = {"sudo": ("visudo", sudoers.SUDO), "sudo-rs": ("visudo-rs", sudoers.SUDO_RS)}


@pytest.fixture(params=list(SUDOS))
def sudo(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def allowed(workspace: Workspace, developers: Developers, sudo: str) -> Iterator[Callable[..., None]]:
    """Allow a command to the developer who is allowed nothing else."""
    path = Path(f"{workspace.sudoers}-line")
    visudo, grammar = SUDOS[sudo]

    def allow(*argv: str) -> None:
        path.write_text(sudoers.line(developers.alone.name, argv, grammar) + "\n", encoding="utf-8")
        path.chmod(0o440)
        subprocess.run([needs.program(visudo, sudo), "-c", "-f", str(path)], check=True, capture_output=True)

    yield allow
    path.unlink()


@pytest.mark.parametrize("name", [*NAMES, *ONLY_SUDO])
def test_a_line_allows_the_command_that_it_names_and_no_other(
    name: str, sudo: str, allowed: Callable[..., None], developers: Developers
) -> None:
    argv = ["echo", "-n", f"/srv/{name}/var"]
    if name in ONLY_SUDO and sudo == "sudo-rs":
        with pytest.raises(PathUnusable, match=f"has {ONLY_SUDO[name]} in it"):
            sudoers.line(developers.alone.name, argv, sudoers.SUDO_RS)
        allowed("echo")
        return
    allowed(*argv)
    program = needs.program(sudo, sudo)
    assert developers.alone.run([program, "-n", *argv], check=True).stdout == argv[-1]
    for other in (f"/srv/{name}", "/srv/Z/var", "/srv/aZb/var", f"/srv/{name}/var/more"):
        refused = developers.alone.run([program, "-n", "echo", "-n", other])
        assert refused.returncode != 0, other


def test_the_installed_sudo_tells_its_grammar(sudo: str) -> None:
    assert sudoers.grammar_of(needs.program(sudo, sudo)) == SUDOS[sudo][1]
