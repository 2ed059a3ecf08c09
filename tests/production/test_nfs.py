"""NFS: its command, and what it takes as remote."""

from __future__ import annotations

import pytest

from production.parts import DEVELOPER, DIRECTORY, NFS, mounting, options_of, part


def test_nfs_is_mounted_by_root_with_options_that_are_explained_in_its_module() -> None:
    command = mounting(NFS)
    assert command.root
    assert command.argv == (
        *("mount", "-t", "nfs", "-o"),
        "soft,timeo=50,retrans=2,acdirmin=3600,acdirmax=3600,acregmin=3600,acregmax=3600,nocto,"
        "lookupcache=positive,nolock,retry=0,nosuid,nodev,noexec,ro",
        *("--", "server:/export/plone", f"{DIRECTORY}/var/prod"),
    )


def test_nfs_caches_on_disk_where_cachefilesd_runs() -> None:
    assert "fsc" in options_of(mounting(NFS, DEVELOPER._replace(cachefilesd=True)))
    assert "fsc" not in options_of(mounting(NFS))
    given_options = options_of(mounting(NFS, DEVELOPER._replace(cachefilesd=True), mount_options="nofsc"))
    assert "fsc" not in given_options
    assert "nofsc" in given_options


@pytest.mark.parametrize(
    "remote, kept",
    [("server:/", "server:/"), ("server:/srv/", "server:/srv"), ("[2001:db8::1]:/srv", "[2001:db8::1]:/srv")],
)
def test_the_root_directory_of_a_server_stays_one(remote: str, kept: str) -> None:
    assert part(filesystem="nfs", remote=remote).remote == kept
