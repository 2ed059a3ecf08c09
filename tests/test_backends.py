"""README's table of file systems and unions is what the code offers and what was measured; all of it works."""

from __future__ import annotations

from typing import Callable

import pytest

from benchmarks import backends
from cowstorage.production import filesystems
from cowstorage.union import kinds
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.sshd import Sshd
from stacks import STACKS, Stack, built, is_clean_of
from test_readme import README

NAMES = {"root": "root", "sudo": "sudo", "user": "alone"}

# Those that the whole cycle is not run on.
OTHERS = [
    stack
    for filesystem in ("sshfs", "directory")
    for kind in kinds.UNIONS
    if kind != "aufs"
    for who in backends.who(filesystem, kind)
    for stack in [Stack(filesystem, kind, NAMES[who])]
    if stack not in STACKS
]


def test_readme_has_the_table_of_what_was_measured() -> None:
    assert backends.table(backends.read_lines()) in README


def test_the_table_has_every_file_system_and_union() -> None:
    rows = list(backends.rows([]))
    assert {row.filesystem for row in rows} == {*filesystems.FILESYSTEMS, "other", "any of them"}
    assert {row.union for row in rows} == set(kinds.UNIONS)
    assert all(row.who for row in rows)


def test_the_table_has_whom_the_whole_cycle_is_run_for() -> None:
    assert [
        stack
        for stack in STACKS
        if stack.developer not in [NAMES[who] for who in backends.who(stack.filesystem, stack.union)]
    ] == []


@pytest.mark.parametrize("stack", OTHERS, ids=str)
def test_the_other_combinations_work_too(
    stack: Stack,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    with built(stack, production, developers, make_sshd, make_buildout) as buildout:
        assert f"with {stack.union} on top" in buildout.run("mount", check=True).stdout
        assert buildout.read() == production.expected()
        buildout.commit(1, changed=1)
        buildout.run("umount", check=True)
        is_clean_of(buildout)
