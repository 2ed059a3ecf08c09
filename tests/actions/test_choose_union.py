"""Which union is tried, and which lies there already."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Dict, List, Optional

import pytest

from commands.plans import DEVELOPER, DIRECTORY, SSHFS, context
from cowstorage.actions.choose_union import choose
from cowstorage.errors import UnionUnusable
from cowstorage.part.host import Host
from cowstorage.union.base import Layer, Union
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from refreshing import journal, mounted, status

ALONE = DEVELOPER._replace(sudo=None)
WITHOUT_UNIONFS = ALONE._replace(programs=DEVELOPER.programs - {"unionfs"})


def failing(*names: str) -> Callable[[Union, Layer], Optional[str]]:
    """Return a trial that the unions of these names fail."""
    return lambda union, layer: "fails" if union.name in names else None


@pytest.mark.parametrize(
    "options, host, fails, expected",
    [
        (SSHFS, DEVELOPER, (), "overlay"),
        (SSHFS, ALONE, (), "unionfs-fuse"),
        (SSHFS, ALONE, ("unionfs-fuse",), "fuse-overlayfs"),
        (SSHFS, WITHOUT_UNIONFS, (), "fuse-overlayfs"),
        (DIRECTORY, ALONE, (), "fuse-overlayfs"),
    ],
)
def test_auto_takes_the_first_that_works_and_one_that_it_avoids_when_no_other_does(
    tmp_path: Path, options: Dict[str, str], host: Host, fails: List[str], expected: str
) -> None:
    choice = choose(context(tmp_path, "mount", options, host), failing(*fails))
    assert choice.union.name == expected
    is_last_resort = options == SSHFS and expected == "fuse-overlayfs"
    assert bool(choice.avoided) == is_last_resort
    assert {name for name, _ in choice.tried} >= set(fails)


def test_a_union_that_is_asked_for_is_not_avoided(tmp_path: Path) -> None:
    asked = context(tmp_path, "mount", {**SSHFS, "union": "fuse-overlayfs"}, ALONE)
    assert choose(asked, failing()).avoided is None


def test_where_none_works_each_is_named_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(UnionUnusable) as refused:
        choose(context(tmp_path, "mount", SSHFS, WITHOUT_UNIONFS), failing("fuse-overlayfs"))
    for words in ("overlay: needs root", "fuse-overlayfs: fails", "unionfs-fuse: not installed", "aufs: needs root"):
        assert words in str(refused.value)


def test_a_union_that_lies_there_is_not_tried_again(buildout: Buildout, production: Production) -> None:
    mounted(buildout)
    production.commit(1)
    said = buildout.run("sync", "--yes", "--verbose", check=True).stderr
    assert "mount -t overlay" in said
    assert "/trial/" not in said


@pytest.mark.package("unionfs-fuse")
def test_a_union_that_was_passed_over_is_tried_again_after_a_sync(
    buildout: Buildout, production: Production, make_buildout: Callable[..., Buildout], developers: Developers
) -> None:
    """The upper was the reason, and it is a new one now."""
    made = unmounted_from(make_buildout(developers.root, options(production, "unionfs-fuse"), "changed"), deletes=True)
    made.configure(options(production))
    said = made.run("mount", check=True).stdout
    upper = "var/blobstorage.prod"
    assert f"overlay would be used, but {upper} was written by unionfs-fuse and can't be read by another union" in said
    assert status(made)["union"] == "unionfs-fuse"
    made.run("sync", "--yes", check=True)
    assert status(made)["union"] == "overlay"
    made.run("umount", check=True)


@pytest.mark.parametrize("first, then", [("unionfs-fuse", "overlay"), ("fuse-overlayfs", "unionfs-fuse")])
def test_an_upper_without_deletions_is_free_for_the_better_union(
    first: str,
    then: str,
    production: Production,
    make_buildout: Callable[..., Buildout],
    developers: Developers,
    fuse: None,
) -> None:
    made = make_buildout(developers.root, options(production, first), "changed")
    before = unmounted_from(made, deletes=False)
    made.configure(options(production, "auto" if then == "overlay" else then))
    made.run("mount", check=True)
    assert status(made)["union"] == then
    assert journal(before)["uppers"] == {"blobstorage": then, "filestorage": then}
    assert made.read() == production.expected()
    made.run("umount", check=True)


@pytest.mark.package("unionfs-fuse")
def test_local_files_are_read_by_the_better_union(
    production: Production, make_buildout: Callable[..., Buildout], developers: Developers, fuse: None
) -> None:
    made = make_buildout(developers.root, options(production, "unionfs-fuse"), "changed")
    made.run("mount", check=True)
    made.commit(2, new=1, changed=1)
    local = made.read()
    made.run("umount", check=True)
    made.configure(options(production))
    made.run("mount", check=True)
    assert status(made)["union"] == "overlay"
    assert made.read() == local
    made.run("umount", check=True)


@pytest.mark.package("unionfs-fuse")
def test_a_check_names_the_upper_itself(
    production: Production, make_buildout: Callable[..., Buildout], developers: Developers, fuse: None
) -> None:
    made = unmounted_from(make_buildout(developers.root, options(production, "unionfs-fuse"), "changed"), deletes=True)
    made.configure(options(production))
    said = made.run("mount", "--check", check=True).stdout
    assert f"{made.path}/var/blobstorage.prod was written by unionfs-fuse" in said
    assert "/trial/" not in said


def options(production: Production, union: str = "auto") -> Dict[str, str]:
    """The part's."""
    return {"remote": str(production.path), "sudo": "no", "union": union}


def unmounted_from(buildout: Buildout, deletes: bool) -> Buildout:
    """Mount, have a BLOB of production's deleted or not, and unmount."""
    buildout.run("mount", check=True)
    if deletes:
        buildout.delete(2)
        buildout.pack()
    buildout.run("umount", check=True)
    return buildout
