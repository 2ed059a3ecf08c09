"""cow-mount --production-only, and productions that are reached in other ways."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Callable

import pytest

from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.sshd import Sshd
from refreshing import refused, status


@pytest.fixture
def over_ssh(
    sshd: Sshd, production: Production, developers: Developers, make_buildout: Callable[..., Buildout], fuse: None
) -> Buildout:
    return make_buildout(developers.alone, {"remote": sshd.remote(production.path)})


def blobs_below(buildout: Buildout) -> list[str]:
    """What the developer reads at the path that README names."""
    directory = str(buildout.path / "var" / "prod" / "var" / "blobstorage")
    found = buildout.developer.run(["find", directory, "-name", "*.blob", "-printf", "%P\n"], check=True)
    return sorted(found.stdout.splitlines())


def test_production_alone_is_mounted_over_a_development_of_its_own(over_ssh: Buildout, production: Production) -> None:
    own = over_ssh.create_own_database()
    said = over_ssh.run("mount", "--production-only", check=True).stdout
    assert f"  BLOBs: {over_ssh.path}/var/prod/var/blobstorage\n" in said
    wanted = sorted(str(path.relative_to(production.blob_storage)) for path in production.blob_storage.rglob("*.blob"))
    assert blobs_below(over_ssh) == wanted
    assert over_ssh.read() == own
    over_ssh.commit(1)
    assert not (over_ssh.path / "var" / "filestorage.prod").exists()
    seen = over_ssh.run("status", "--json")
    assert seen.returncode == 3
    assert json.loads(seen.stdout)["state"] == "production only"
    assert [mount["name"] for mount in json.loads(seen.stdout)["mounts"]] == ["network"]
    assert "is mounted already, alone" in over_ssh.run("mount", "--production-only", check=True).stdout
    over_ssh.run("umount", check=True)
    assert status(over_ssh)["state"] == "not mounted"


def test_from_it_to_the_unions_and_back(over_ssh: Buildout, production: Production) -> None:
    over_ssh.run("mount", "--production-only", check=True)
    over_ssh.run("mount", check=True)
    assert over_ssh.read() == production.expected()
    written = over_ssh.commit(1)
    over_ssh.run("mount", "--production-only", check=True)
    assert status(over_ssh)["state"] == "production only"
    assert os.listdir(over_ssh.file_storage) == []
    over_ssh.run("mount", check=True)
    assert over_ssh.read() == {**production.expected(), **written}
    over_ssh.run("umount", check=True)


def test_a_sync_leaves_it_alone(over_ssh: Buildout, production: Production) -> None:
    over_ssh.run("mount", "--production-only", check=True)
    over_ssh.run("sync", "--yes", check=True)
    assert status(over_ssh)["state"] == "production only"
    over_ssh.run("mount", check=True)
    assert over_ssh.read() == production.expected()
    over_ssh.run("umount", check=True)


def test_the_database_may_be_anything(over_ssh: Buildout, production: Production) -> None:
    """Of Python 2, or damaged: it is neither fetched nor read."""
    with production._changing():
        production.data_fs.write_bytes(b"FS21" + bytes(100))
    over_ssh.run("mount", "--production-only", check=True)
    over_ssh.run("umount", check=True)


def test_a_local_directory_too(buildout: Buildout) -> None:
    buildout.run("mount", "--production-only", "--dry-run", check=True)
    assert status(buildout)["state"] == "mounted"
    buildout.run("mount", "--production-only", check=True)
    assert status(buildout)["state"] == "production only"
    process = subprocess.Popen(["sleep", "60"], cwd=buildout.path / "var" / "prod" / "var" / "blobstorage")
    try:
        assert "sleep" in refused(buildout, "mount")
    finally:
        process.kill()
        process.wait()
    buildout.run("mount", check=True)
    assert status(buildout)["state"] == "mounted"


def test_files_of_a_containers_user_are_reached_by_sudo_on_the_server(
    sshd: Sshd,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    scratch: Path,
    fuse: None,
) -> None:
    """By README's wrapper and sudoers; who logs in may not read production by himself."""
    readme = (Path(__file__).parent.parent.parent / "README.rst").read_text(encoding="utf-8")
    section = readme.partition("\nProduction made by cookieplone\n")[2].partition("\nOver a VPN")[0]
    (allowed,) = re.findall(r"``deploy ALL=(\(root\) NOPASSWD: [^`]*)``", " ".join(section.split()))
    server = re.findall(r"exec sudo -n (\S+) -R", section)[0]
    if not os.path.exists(server):
        pytest.fail("needs openssh-sftp-server", pytrace=False)
    production.give_to(0, 0)
    options = {"remote": sshd.remote(production.path)}
    plain = make_buildout(developers.alone, {**options, "script-prefix": "plain"}, "plain")
    refused(plain, "mount")

    wrapper = scratch / "sftp-as-root"
    wrapper.write_text(f"#!/bin/sh\nexec sudo -n {server} -R\n")
    wrapper.chmod(0o755)
    sudoers = Path("/etc/sudoers.d") / f"{scratch.name}"[:40].replace(".", "-")
    sudoers.write_text(f"{sshd.account.pw_name} ALL={allowed}\n")
    sudoers.chmod(0o440)
    try:
        by_sudo = {"mount-options": f"sftp_server={wrapper}", "rsync-options": "-z '--rsync-path=sudo -n rsync'"}
        buildout = make_buildout(developers.alone, {**options, **by_sudo})
        buildout.run("mount", check=True)
        assert buildout.read() == production.expected()
        buildout.run("prefetch", check=True)
        buildout.run("umount", check=True)
    finally:
        sudoers.unlink()
