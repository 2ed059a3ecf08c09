"""The README's ways to protect production on the server, each with a whole mount and sync."""

from __future__ import annotations

import subprocess
from typing import Callable

import pytest

from faults import scripts
from harness import cleanup, needs
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from harness.sshd import SFTP_SERVERS, Sshd

MakeSshd = Callable[..., Sshd]
MakeBuildout = Callable[..., Buildout]


@pytest.mark.parametrize("forced", ["command", "internal-sftp"])
def test_a_server_that_only_lets_read_is_enough(
    production: Production,
    developers: Developers,
    make_sshd: MakeSshd,
    make_buildout: MakeBuildout,
    fuse: None,
    forced: str,
) -> None:
    """One key for the mount, and another, which may only start ``rrsync -ro``, for rsync."""
    alone = developers.alone
    rrsync = needs.program("rrsync", "rsync")
    mount = make_sshd(forced="internal-sftp -R") if forced == "internal-sftp" else make_sshd()
    if forced == "command":
        server = next(path for path in SFTP_SERVERS if subprocess.run(["test", "-x", path]).returncode == 0)
        mount.revoke_all()
        mount.authorize(alone.public_key, f'restrict,command="{server} -R"')
    fetch = make_sshd()
    fetch.revoke_all()
    fetch.authorize(alone.public_key, f'restrict,command="{rrsync} -ro {production.path}"')
    options = {
        "remote": mount.remote(production.path),
        "rsync-remote": fetch.remote("/"),
        "union": DEVELOPERS_UNION,
        "sudo": "no",
    }
    buildout = make_buildout(alone, options)
    scripts.run(buildout, "mount", check=True)
    assert buildout.read() == production.expected()
    buildout.commit(1)
    production.commit(1)
    scripts.run(buildout, "sync", "--yes", check=True)
    assert buildout.read() == production.expected()
    fetched = scripts.run(buildout, "prefetch", check=True)
    assert "Everything is here" in fetched.stdout
    scripts.run(buildout, "umount", check=True)
    cleanup.assert_nothing_mounted(buildout.path)
