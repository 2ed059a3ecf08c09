"""samba and the kernel's SMB client."""

from __future__ import annotations

from typing import Callable

import pytest

from cowstorage.system import mounts
from harness.buildout import Buildout
from harness.developer import Developer, Developers
from harness.production import Production
from network.cycle import whole_cycle
from network.servers import SmbServer

pytestmark = pytest.mark.machine


def made(
    make_buildout: Callable[..., Buildout], developer: Developer, server: SmbServer, union: str = "auto", more: str = ""
) -> Buildout:
    credentials = server.credentials(developer.uid, developer.gid)
    options = f"port={server.port},credentials={credentials}{more}"
    return make_buildout(developer, {"remote": server.remote, "mount-options": options, "union": union})


@pytest.mark.parametrize("union", ["overlay", "fuse-overlayfs", "unionfs-fuse"])
def test_the_whole_cycle_over_smb(
    union: str,
    smb_server: SmbServer,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    whole_cycle(made(make_buildout, developers.dev, smb_server, union), production, union)


def test_a_credentials_file_that_others_can_read_is_refused(
    smb_server: SmbServer, developers: Developers, make_buildout: Callable[..., Buildout]
) -> None:
    buildout = made(make_buildout, developers.dev, smb_server)
    smb_server.credentials(developers.dev.uid, developers.dev.gid).chmod(0o640)
    refused = buildout.run("mount")
    assert refused.returncode == 1
    assert "chmod 600" in refused.stderr


def test_a_wrong_password_is_said_and_not_shown(
    smb_server: SmbServer, developers: Developers, make_buildout: Callable[..., Buildout], fuse: None
) -> None:
    buildout = made(make_buildout, developers.dev, smb_server)
    smb_server.credentials(developers.dev.uid, developers.dev.gid, "wr0ng")
    refused = buildout.run("mount", "--verbose")
    assert refused.returncode == 1
    assert "rejected user or password" in refused.stderr
    assert "wr0ng" not in refused.stdout + refused.stderr


def test_nocase_has_the_kernels_overlay_passed_over(
    smb_server: SmbServer,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    fuse: None,
) -> None:
    buildout = made(make_buildout, developers.dev, smb_server, more=",nocase")
    mounted = buildout.run("mount", "--verbose", check=True)
    assert "can't lie over a mount with nocase" in mounted.stderr
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)
    assert mounts.top(mounts.read(), buildout.settings.mount_point) is None
