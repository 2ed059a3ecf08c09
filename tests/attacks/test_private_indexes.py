"""An index that everybody may read, as Plone's umask makes it, is copied: the copy is for its owner alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Callable, List

import pytest

from faults import scripts
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.sshd import Sshd
from stacks import STACKS, Stack, built


@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_indexes_that_others_may_read_are_copied(
    stack: Stack,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    with built(stack, production, developers, make_sshd, make_buildout) as buildout:
        location = buildout.path / "var" / "cow-storage"
        base = location / "base" / "Data.fs.index"
        savepoint = location / "savepoints" / "s" / "Data.fs.index"
        local = buildout.path / "var" / "filestorage.prod" / "Data.fs.index"
        scripts.run(buildout, "mount", check=True)
        for command, targets in (
            (("savepoint", "s"), [savepoint]),
            # Once more, over copies that are open to all.
            (("savepoint", "s", "--force"), [savepoint]),
            (("rollback", "s", "--yes"), [local]),
            (("rollback", "--yes"), [local]),
            (("sync", "--yes"), [local, base]),
        ):
            if command[0] != "savepoint":
                buildout.commit(1)
            production.commit(1)
            for index in filter(Path.exists, (local, base, savepoint)):
                index.chmod(0o666)
            scripts.run(buildout, *command, fault=lambda: os.umask(0) and None, check=True)
            assert modes(targets) == [0o600] * len(targets), command
            assert {target.stat().st_uid for target in targets} == {buildout.developer.uid}
        scripts.run(buildout, "umount", check=True)


def modes(paths: List[Path]) -> List[int]:
    return [stat.S_IMODE(path.stat().st_mode) for path in paths]
