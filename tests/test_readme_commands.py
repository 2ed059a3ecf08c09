"""The commands of README.rst's sections on iterating and on Python 2, run one after the other as they stand there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Callable, List

from harness import zodbupdate
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production

README = (Path(__file__).parent.parent / "README.rst").read_text(encoding="utf-8")
A_TRANSACTION = "03f2a1b4c5d6e7f8"


def commands(section: str) -> List[str]:
    """What follows the prompts in a section, of either level."""
    match = re.search(
        rf"^{re.escape(section)}\n([=-])\1+\n(.*?)^[^\n]+\n(?:=+|\1+)\n", README, re.MULTILINE | re.DOTALL
    )
    assert match
    return re.findall(r"^ +\$ (.*)$", match.group(2), re.MULTILINE)


def test_the_commands_of_the_section_on_iterating_work(
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


def test_the_command_that_goes_back_to_a_transaction_works(
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


def test_the_commands_of_the_section_on_python_2_work(
    scratch: Path, developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    """With the true zodbupdate and zodbverify."""
    production = Production.create(scratch / "of-python-2", python=2)
    buildout = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    for name in ("zodbupdate", "zodbverify"):
        (buildout.path / "bin" / name).symlink_to(zodbupdate.PROGRAM.with_name(name))
    magics, noted = [], []
    for command in commands("From Python 2 to Python 3"):
        program, *arguments = command.split()
        if program == "bin/instance":
            noted = sorted(buildout.commit(1, new=1, note=arguments[-1]))
        else:
            buildout.developer.run([buildout.path / program, *arguments], cwd=buildout.path, check=True)
        if command == "bin/cow-rollback converted --yes":
            assert noted
            assert buildout.read() == production.expected()
        magics.append((command.split()[0], buildout.data_fs.read_bytes()[:4]))
    changes = [now for before, now in zip([("", b""), *magics], magics) if before[1] != now[1]]
    assert changes == [("bin/cow-mount", b"FS21"), ("bin/zodbupdate", b"FS30"), ("bin/cow-rollback", b"FS21")]
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)
    production.assert_unchanged()
