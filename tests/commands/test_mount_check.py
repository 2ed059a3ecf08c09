"""cow-mount --check and --sudoers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Callable, Dict

import pytest

from harness.buildout import Buildout
from harness.developer import Developers
from harness.fuse_conf import user_allow_other
from harness.production import Production
from harness.release import DEVELOPERS_UNION, LACKED
from harness.sshd import Sshd
from stacks import is_clean_of

MakeBuildout = Callable[..., Buildout]


def table(text: str) -> Dict[str, str]:
    """First column → the rest of the line."""
    return {line.split()[0]: line.split(None, 1)[1] for line in text.splitlines()}


def test_everything_is_tried_and_nothing_left(
    production: Production, sshd: Sshd, developers: Developers, make_buildout: MakeBuildout, fuse: None
) -> None:
    with user_allow_other():
        buildout = make_buildout(developers.dev, {"remote": sshd.remote(production.path)})
        shown = table(buildout.run("mount", "--check", check=True).stdout)
        reasons = table(buildout.run("mount", "--check", "-v", check=True).stdout)
        is_clean_of(buildout)
    assert shown["sshfs"].startswith("works  Data.fs readable")
    assert shown["overlay"] == "works"
    assert shown["unionfs-fuse"].split()[0] == ("no" if "unionfs-fuse" in LACKED else "works")
    last_resort = "works  taken by union = auto when no other works"
    assert shown["fuse-overlayfs"] == last_resort
    assert reasons["fuse-overlayfs"].startswith(f"{last_resort}: slow over sshfs")
    assert shown["user_allow_other"].endswith("allowed")
    assert re.fullmatch(r"-\s+[\d.]+ kB to fetch, [\d.]+ GB free", shown["disk"])
    assert shown["Ready:"] == "bin/cow-mount will use overlay."


def test_a_line_that_fuse_conf_lacks_is_shown(
    production: Production, sshd: Sshd, developers: Developers, make_buildout: MakeBuildout, fuse: None
) -> None:
    with user_allow_other(False):
        buildout = make_buildout(developers.dev, {"remote": sshd.remote(production.path)})
        shown = table(buildout.run("mount", "--check", check=True).stdout)
        is_clean_of(buildout)
    assert "/etc/fuse.conf: user_allow_other" in shown["user_allow_other"]
    assert shown["overlay"].startswith("no")
    assert shown["Ready:"] == f"bin/cow-mount will use {DEVELOPERS_UNION}."


def test_what_can_not_be_mounted_fails(
    production: Production, sshd: Sshd, developers: Developers, make_buildout: MakeBuildout, fuse: None
) -> None:
    sshd.stop()
    buildout = make_buildout(developers.alone, {"remote": sshd.remote(production.path), "sudo": "no"})
    result = buildout.run("mount", "--check")
    assert result.returncode == 1
    assert "nothing listens there" in table(result.stdout)["sshfs"]
    assert result.stdout.splitlines()[-1] == "Not ready: see to sshfs."
    is_clean_of(buildout)


def test_a_union_that_does_not_work_and_is_asked_for_is_not_ready(
    production: Production, developers: Developers, make_buildout: MakeBuildout, fuse: None
) -> None:
    """Though another one would do."""
    production.give_to(developers.alone.uid, developers.alone.gid)
    part = {"remote": str(production.path), "union": "overlay", "sudo": "no"}
    result = make_buildout(developers.alone, part).run("mount", "--check")
    assert result.returncode == 1
    assert table(result.stdout)["fuse-overlayfs"] == "works"
    assert result.stdout.splitlines()[-1] == "Not ready: no union works, of union = overlay."


def test_a_check_while_mounted_disturbs_nothing(
    production: Production, developers: Developers, make_buildout: MakeBuildout, fuse: None
) -> None:
    buildout = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    buildout.run("mount", check=True)
    assert table(buildout.run("mount", "--check", check=True).stdout)["overlay"] == "works"
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)


def test_sudoers_lines_are_enough(
    production: Production,
    sshd: Sshd,
    developers: Developers,
    make_buildout: MakeBuildout,
    fuse: None,
    scratch: Path,
) -> None:
    """A user who may do nothing else by sudo runs the whole cycle with overlay; a name with awkward characters."""
    alone = developers.alone
    with user_allow_other():
        options = {"remote": sshd.remote(production.path), "union": "overlay"}
        buildout = make_buildout(alone, options, name="a, b: c=d*")
        assert buildout.run("mount").returncode == 1
        lines = buildout.run("mount", "--sudoers", check=True).stdout
        sudoers = Path("/etc/sudoers.d/cowstorage-test-check")
        try:
            sudoers.write_text(lines)
            sudoers.chmod(0o440)
            subprocess.run(["visudo", "-c", "-q", "-f", str(sudoers)], check=True)
            buildout.run("mount", check=True)
            assert buildout.read() == production.expected()
            buildout.commit(1)
            buildout.run("sync", "--yes", check=True)
            buildout.run("umount", check=True)
            assert alone.run(["sudo", "-n", "mount"]).returncode != 0
        finally:
            sudoers.unlink()


@pytest.mark.parametrize("name", ["a\nALL ALL=(ALL) NOPASSWD: ALL", "a\tb", "a\x7f", "a\x1b[2J"])
def test_a_path_that_sudoers_can_not_have_is_refused(
    name: str, production: Production, developers: Developers, make_buildout: MakeBuildout
) -> None:
    buildout = make_buildout(developers.dev, {"remote": str(production.path), "union": "overlay"}, name=name)
    refused = buildout.run("mount", "--sudoers")
    assert refused.returncode == 1
    assert "control character" in refused.stderr
    assert refused.stdout == ""
    assert refused.stderr.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "name", ["a b", "a,b:c=d*[x]?", "a\"b'c#d!(e)", "a\\b", "Ümläut", "%a", "a@b+c~d&e;f|g<h>i$j`k^l{m}"]
)
def test_lines_for_awkward_paths_are_what_visudo_takes(
    name: str, production: Production, developers: Developers, make_buildout: MakeBuildout, scratch: Path
) -> None:
    buildout = make_buildout(developers.dev, {"remote": str(production.path), "union": "overlay"}, name=name)
    lines = scratch / "sudoers"
    lines.write_text(buildout.run("mount", "--sudoers", check=True).stdout)
    lines.chmod(0o440)
    subprocess.run(["visudo", "-c", "-q", "-f", str(lines)], check=True)
    assert "can become root" in lines.read_text()
    assert "exactly" not in lines.read_text()
