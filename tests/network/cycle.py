"""What every network file system has to go through."""

from __future__ import annotations

import json
import os
from typing import Any, Dict

from cowstorage.system import mounts
from harness.buildout import Buildout
from harness.production import Production


def status(buildout: Buildout) -> Dict[str, Any]:
    """What cow-status says."""
    return dict(json.loads(buildout.run("status", "--json").stdout))


def whole_cycle(buildout: Buildout, production: Production, union: str, at_once: bool = True) -> None:
    """Mount, read every BLOB, write, follow production, also when it was packed, and unmount.

    :param at_once: the mount can be asked what production has now.
    """
    own = buildout.create_own_database()
    buildout.run("mount", check=True, timeout=120)
    assert buildout.read() == production.expected()
    assert status(buildout)["union"] == union
    assert_read_only(buildout)

    written = buildout.commit(2, new=1, changed=1)
    assert set(written) <= set(buildout.read())
    before = production.data_fs.stat().st_size
    production.commit(2, new=1, changed=1)
    if at_once:
        assert status(buildout)["production"]["Data.fs"]["size"] == production.data_fs.stat().st_size - before
    buildout.run("sync", "--yes", check=True, timeout=120)
    assert buildout.read() == production.expected()

    buildout.commit(1)
    production.delete(1)
    production.pack()
    buildout.run("sync", "--yes", check=True, timeout=120)
    assert buildout.read() == production.expected()

    buildout.run("umount", check=True)
    assert [mount.target for mount in mounts.read() if mount.target.startswith(f"{buildout.path}/")] == []
    assert buildout.read() == own


def assert_read_only(buildout: Buildout) -> None:
    """The kernel says so, and refuses."""
    mounted = mounts.top(mounts.read(), buildout.settings.mount_point)
    assert mounted is not None
    assert mounts.is_read_only(mounted)
    refused = buildout.developer.run(["mkdir", os.path.join(buildout.settings.mount_point, "var", "written")])
    assert "Read-only file system" in refused.stderr
