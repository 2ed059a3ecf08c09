"""Whoever kills or outruns mount(8) finds no writable mount of production's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable

import pytest

from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production

# Lists this part's mounts of production after each run of mount(8), with their options.
PROGRAM = r"""#!/bin/sh
/bin/mount "$@" || exit
awk 'index($5, "{buildout}/var/prod/") {{ print $6 }}' /proc/self/mountinfo >>'{seen}'
"""


@pytest.mark.parametrize("options", ["", "noatime"])
def test_a_directory_is_never_mounted_writable(
    options: str,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    scratch: Path,
) -> None:
    program, seen = scratch / "bin" / "mount", scratch / "seen"
    program.parent.mkdir()
    part = {"remote": str(production.path), "union": "overlay", "mount-options": options}
    buildout = make_buildout(developers.root, part)
    program.write_text(PROGRAM.format(seen=seen, buildout=buildout.path))
    program.chmod(0o755)
    buildout.run("mount", env={"PATH": f"{program.parent}:{os.environ['PATH']}"}, check=True)
    buildout.run("umount", check=True)
    lines = seen.read_text().splitlines()
    assert len(lines) >= 2
    assert [line for line in lines if not {"ro", "nosuid", "nodev"} <= set(line.split(","))] == []
    assert [line for line in lines if options == "noatime" and options not in line.split(",")] == []
