"""unionfs-fuse, of both libfuses."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from cowstorage.union import kinds
from cowstorage.union.base import layer_of
from harness import needs
from harness.buildout import Buildout
from harness.developer import USER_PATH, Developers
from harness.production import Production
from production.parts import ALONE, part

# Release 3, built on libfuse 3: 3.7 said so, and mounted on a directory that isn't empty without the option.
PROGRAM = """#!/bin/sh
case "$2" in
    *,nonempty*) echo "fuse: unknown option(s): \\`-o nonempty'" >&2; exit 1 ;;
esac
options=$2
shift 2
exec '{true}' -o "$options,nonempty" "$@"
"""


def test_a_release_that_knows_no_nonempty_is_asked_again_without() -> None:
    layer = layer_of(part(remote="/srv/production"), "blobstorage", ("/srv/production",), "unionfs-fuse")
    command = kinds.UNIONS["unionfs-fuse"].mount(layer, ALONE)
    assert command.fallback
    assert command.fallback_when == "nonempty"
    assert [word.replace(",nonempty", "") for word in command.argv] == list(command.fallback)
    assert "nonempty" in command.argv[2]


@pytest.mark.package("unionfs-fuse")
def test_a_release_of_libfuse_3_mounts(
    scratch: Path, production: Production, developers: Developers, make_buildout: Callable[..., Buildout], fuse: None
) -> None:
    (scratch / "unionfs").write_text(PROGRAM.format(true=needs.program("unionfs", "unionfs-fuse")))
    (scratch / "unionfs").chmod(0o755)
    production.give_to(developers.alone.uid, developers.alone.gid)
    options = {"remote": str(production.path), "union": "unionfs-fuse", "sudo": "no"}
    buildout = make_buildout(developers.alone, options)
    # The developer's own database lies below.
    buildout.create_own_database()
    buildout.run("mount", check=True, env={"PATH": f"{scratch}:{USER_PATH}"})
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)
