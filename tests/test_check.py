"""cow-mount --check and --sudoers."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Callable, Dict

from harness.buildout import Buildout
from harness.developer import Developers
from harness.fuse_conf import user_allow_other
from harness.production import Production
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
        is_clean_of(buildout)
    assert shown["sshfs"].startswith("works  Data.fs readable")
    assert shown["overlay"] == "works"
    assert shown["unionfs-fuse"] == "works"
    assert shown["fuse-overlayfs"].startswith("works  not chosen by union = auto: too slow over sshfs")
    assert shown["user_allow_other"].endswith("allowed")


def test_the_line_for_fuse_conf(
    production: Production, sshd: Sshd, developers: Developers, make_buildout: MakeBuildout, fuse: None
) -> None:
    with user_allow_other(False):
        buildout = make_buildout(developers.dev, {"remote": sshd.remote(production.path)})
        shown = table(buildout.run("mount", "--check", check=True).stdout)
        is_clean_of(buildout)
    assert "/etc/fuse.conf: user_allow_other" in shown["user_allow_other"]
    assert shown["overlay"].startswith("no")


def test_what_can_not_be_mounted_fails(
    production: Production, sshd: Sshd, developers: Developers, make_buildout: MakeBuildout, fuse: None
) -> None:
    sshd.stop()
    buildout = make_buildout(developers.alone, {"remote": sshd.remote(production.path), "sudo": "no"})
    result = buildout.run("mount", "--check")
    assert result.returncode == 1
    assert "nothing listens there" in table(result.stdout)["sshfs"]
    is_clean_of(buildout)


def test_while_mounted(production: Production, developers: Developers, make_buildout: MakeBuildout, fuse: None) -> None:
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
