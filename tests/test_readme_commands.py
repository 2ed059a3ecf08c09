"""The commands of README.rst's section on iterating, run one after the other as they stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Callable, List

from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production

README = (Path(__file__).parent.parent / "README.rst").read_text(encoding="utf-8")
A_TRANSACTION = "03f2a1b4c5d6e7f8"


def commands(section: str) -> List[str]:
    """What follows the prompts in a section."""
    match = re.search(rf"^{re.escape(section)}\n=+\n(.*?)^[^\n]+\n=+\n", README, re.MULTILINE | re.DOTALL)
    assert match
    return re.findall(r"^ +\$ (.*)$", match.group(1), re.MULTILINE)


def test_iterating(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout], fuse: None
) -> None:
    buildout = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    ran = []
    for command in commands("Iterate on an upgrade"):
        program, *arguments = command.split()
        if program == "bin/instance":
            buildout.commit(1, new=1, note=arguments[-1])
        elif A_TRANSACTION not in arguments:
            buildout.developer.run([buildout.path / program, *arguments], cwd=buildout.path, check=True)
        ran.append(command)
        if command == "bin/cow-log -n 3":
            notes = [entry["description"] for entry in json.loads(buildout.run("log", "--json", check=True).stdout)]
            assert notes == ["upgrade-step-2.py 1", "upgrade-step-1.py 1"]
        if command == "bin/cow-sync --yes":
            assert buildout.read() == production.expected()
    assert ran[0] == "bin/cow-mount"
    assert "bin/cow-rollback before-content --yes" in ran


def test_going_back_to_a_transaction(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout], fuse: None
) -> None:
    (command,) = [command for command in commands("Iterate on an upgrade") if A_TRANSACTION in command]
    buildout = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    buildout.run("mount", check=True)
    buildout.commit(1, new=1, note="Step 1")
    after_the_first = buildout.read()
    buildout.commit(1, new=1, note="Step 2")
    tid = json.loads(buildout.run("log", "--json", check=True).stdout)[1]["tid"]
    program, *arguments = command.replace(A_TRANSACTION, tid).split()
    buildout.developer.run([buildout.path / program, *arguments, "--yes"], cwd=buildout.path, check=True)
    assert buildout.read() == after_the_first
    buildout.run("umount", check=True)
