"""The combinations of network file system, union and user that the cycle is run on."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import Callable, Dict, Iterator, NamedTuple, Optional

import pytest

from cowstorage.system import mounts
from harness.buildout import Buildout
from harness.developer import Developer, Developers
from harness.fuse_conf import user_allow_other
from harness.production import Production
from harness.sshd import Sshd


class Stack(NamedTuple):
    """One combination; ``developer`` is a field of ``Developers``."""

    filesystem: str
    union: str
    developer: str

    def __str__(self) -> str:
        return f"{self.filesystem}-{self.union}-{self.developer}"


STACKS = [
    Stack(filesystem, union, developer)
    for filesystem in ("sshfs", "directory")
    for union, developer in (
        ("overlay", "root"),
        ("overlay", "sudo"),
        ("fuse-overlayfs", "alone"),
        ("unionfs-fuse", "alone"),
    )
]


# In user-mode Linux, whose kernel has aufs.
ON_AUFS = [
    pytest.param(stack, marks=[pytest.mark.machine(kernel="aufs"), pytest.mark.root], id=str(stack))
    for stack in (Stack("sshfs", "aufs", "sudo"), Stack("directory", "aufs", "root"))
]


def part_options(stack: Stack, production: Production, sshd: Optional[Sshd]) -> Dict[str, str]:
    """The part's options for a combination."""
    remote = sshd.remote(production.path) if sshd else str(production.path)
    options = {"remote": remote, "filesystem": stack.filesystem, "union": stack.union}
    if stack.developer == "alone":
        options["sudo"] = "no"
    return options


def developer_of(stack: Stack, developers: Developers) -> Developer:
    """The user of a combination."""
    return {"root": developers.root, "sudo": developers.dev, "alone": developers.alone}[stack.developer]


@contextmanager
def prepared(stack: Stack, production: Production, developer: Developer) -> Iterator[None]:
    """What a user would have set up before: the line in /etc/fuse.conf, readable files for ``directory``."""
    with ExitStack() as cleanups:
        if stack.filesystem == "sshfs":
            cleanups.enter_context(user_allow_other(stack.union in ("overlay", "aufs")))
        elif stack.developer != "root":
            production.give_to(developer.uid, developer.gid)
        yield


@contextmanager
def built(
    stack: Stack,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    name: str = "buildout",
) -> Iterator[Buildout]:
    """A buildout for a combination, prepared for the time; the last two callables are the fixtures of these names."""
    developer = developer_of(stack, developers)
    sshd = make_sshd() if stack.filesystem == "sshfs" else None
    with prepared(stack, production, developer):
        yield make_buildout(developer, part_options(stack, production, sshd), name)


def is_clean_of(buildout: Buildout) -> None:
    """Nothing of the part is mounted."""
    here = [mount.target for mount in mounts.read() if mount.target.startswith(f"{buildout.path}/")]
    assert here == []
