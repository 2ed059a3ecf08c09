"""Opening and closing the database through a union: production is asked for nothing, and nothing of it is copied."""

from __future__ import annotations

from typing import Callable

import pytest

from cowstorage.actions.mounting import OPENED
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from harness.sshd import Sshd
from stacks import Stack, built, is_clean_of

SSHFS = [Stack("sshfs", "overlay", "root"), Stack("sshfs", DEVELOPERS_UNION, "alone")]
THEIRS = "production's"


@pytest.mark.parametrize("stack", SSHFS, ids=str)
def test_who_opens_the_database_asks_nothing_of_production(
    stack: Stack,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    """Where an instance runs there, too; and behind a rollback, which drops what was here."""
    with production._changing():
        for suffix in OPENED:
            (production.file_storage / f"Data.fs{suffix}").write_text(THEIRS)
    sshd = make_sshd(log_level="DEBUG3")
    with built(stack, production, developers, lambda: sshd, make_buildout) as buildout:
        buildout.run("mount", check=True)
        opened = [buildout.file_storage / f"Data.fs{suffix}" for suffix in OPENED]
        assert buildout.developer.run(["cat", *opened], check=True).stdout == ""
        # Its new index, which is made and renamed, is asked for once.
        buildout.commit(1)
        buildout.run("rollback", "--yes", check=True)
        sshd.forget_requests()
        buildout.commit(1)
        beside = f"{production.file_storage}/Data.fs"
        assert [line for line in sshd.requests() if beside in line] == []
        buildout.run("umount", check=True)
        is_clean_of(buildout)
