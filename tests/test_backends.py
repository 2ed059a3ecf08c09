"""README's table of file systems and unions is what the code offers and what was measured; all of it works."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from benchmarks import backends
from cowstorage import network, union
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.sshd import Sshd
from stacks import STACKS, Stack, developer_of, is_clean_of, part_options, prepared

README = (Path(__file__).parent.parent / "README.rst").read_text(encoding="utf-8")
NAMES = {"root": "root", "sudo": "sudo", "user": "alone"}

# Those that the whole cycle is not run on.
OTHERS = [
    stack
    for filesystem in ("sshfs", "directory")
    for kind in union.UNIONS
    if kind != "aufs"
    for who in backends.who(filesystem, kind)
    for stack in [Stack(filesystem, kind, NAMES[who])]
    if stack not in STACKS
]


def test_readme_has_the_table() -> None:
    assert backends.table(backends.read_lines()) in README


def test_it_has_every_file_system_and_union() -> None:
    rows = list(backends.rows([]))
    assert {row.filesystem for row in rows} == {*network.NETWORKS, "other", "any of them"}
    assert {row.union for row in rows} == set(union.UNIONS)
    assert all(row.who for row in rows)


def test_whom_the_whole_cycle_is_run_for_is_in_it() -> None:
    assert [
        stack
        for stack in STACKS
        if stack.developer not in [NAMES[who] for who in backends.who(stack.filesystem, stack.union)]
    ] == []


@pytest.mark.parametrize("stack", OTHERS, ids=str)
def test_the_others_work_too(
    stack: Stack,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    developer = developer_of(stack, developers)
    sshd = make_sshd() if stack.filesystem == "sshfs" else None
    with prepared(stack, production, developer):
        buildout = make_buildout(developer, part_options(stack, production, sshd))
        assert f"with {stack.union} on top" in buildout.run("mount", check=True).stdout
        assert buildout.read() == production.expected()
        buildout.commit(1, changed=1)
        buildout.run("umount", check=True)
        is_clean_of(buildout)
