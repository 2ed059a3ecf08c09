"""rclone over SFTP, as an ordinary user; the remote is in that user's own configuration."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

from cowstorage.production.filesystems.rclone import servers
from harness import cleanup, needs
from harness.buildout import Buildout
from harness.developer import Developer, Developers
from harness.fuse_conf import user_allow_other
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from harness.sshd import Sshd
from network.cycle import whole_cycle

pytestmark = [pytest.mark.usefixtures("fuse", "installed"), pytest.mark.package("rclone")]


@pytest.fixture
def installed() -> None:
    needs.program("rclone", "rclone")


def configured(developer: Developer, sshd: Sshd, scratch: Path) -> Path:
    """What ``rclone config`` writes for a server that this user can log in to."""
    path = scratch / f"rclone-{developer.name}.conf"
    lines = (
        "[our production]",
        "type = sftp",
        "host = 127.0.0.1",
        f"port = {sshd.port}",
        f"user = {sshd.account.pw_name}",
        f"key_file = {developer.key}",
        f"known_hosts_file = {developer.known_hosts}",
        "shell_type = unix",
    )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def make(
    scratch: Path, production: Production, sshd: Sshd, make_buildout: Callable[..., Buildout]
) -> Iterator[Callable[..., Buildout]]:
    """A buildout whose production is a remote of rclone."""
    made: List[Buildout] = []

    def make_one(developer: Developer, union: str, remote: str = "our production") -> Buildout:
        options = {
            "filesystem": "rclone",
            "remote": f"{remote}:{production.path}",
            "mount-options": f"config={configured(developer, sshd, scratch)}",
            "union": union,
        }
        made.append(make_buildout(developer, options))
        return made[-1]

    yield make_one
    for buildout in made:
        buildout.run("umount", "--lazy")


@pytest.mark.parametrize("union", ["fuse-overlayfs", "unionfs-fuse"])
def test_the_whole_cycle_over_rclone_without_root(
    union: str, make: Callable[..., Buildout], production: Production, developers: Developers
) -> None:
    buildout = make(developers.alone, union)
    whole_cycle(buildout, production, union, at_once=False)
    assert servers(buildout.settings.mount_point) == ()


def test_the_whole_cycle_over_rclone_below_the_kernels_overlay(
    make: Callable[..., Buildout], production: Production, developers: Developers
) -> None:
    with user_allow_other():
        whole_cycle(make(developers.dev, "overlay"), production, "overlay", at_once=False)


def test_others_can_not_look_into_a_mount_that_root_can(
    make: Callable[..., Buildout], production: Production, developers: Developers
) -> None:
    with user_allow_other():
        buildout = make(developers.dev, "overlay")
        buildout.run("mount", check=True)
        for path in ("var/prod", "var/prod/var/filestorage/Data.fs", "var/blobstorage", "var/filestorage/Data.fs"):
            assert developers.alone.run(["head", "-c1", str(buildout.path / path)]).stdout == ""
            assert developers.alone.run(["ls", str(buildout.path / path)]).returncode != 0 or path.endswith(".fs")
        buildout.run("umount", check=True)


def test_what_was_read_once_is_on_disk_also_after_mounting_again(
    make: Callable[..., Buildout], production: Production, developers: Developers, sshd: Sshd
) -> None:
    buildout = make(developers.alone, DEVELOPERS_UNION)
    buildout.run("mount", check=True)
    assert buildout.read() == production.expected()
    assert blobs_opened(sshd)
    buildout.run("umount", check=True)
    assert list(Path(buildout.settings.location, "cache", "rclone").rglob("*.blob"))

    sshd.forget_requests()
    buildout.run("mount", check=True)
    assert buildout.read() == production.expected()
    # cow-mount itself looks at one of them.
    assert blobs_opened(sshd) == []
    buildout.run("umount", check=True)


def blobs_opened(sshd: Sshd) -> List[str]:
    return [line for line in sshd.requests() if line.startswith("open ") and ".blob" in line]


def test_a_remote_that_rclone_does_not_know_is_said(make: Callable[..., Buildout], developers: Developers) -> None:
    refused = make(developers.alone, DEVELOPERS_UNION, "elsewhere").run("mount", timeout=120)
    assert refused.returncode == 1
    assert "rclone has no remote of that name" in refused.stderr


# rclone tries thrice, and waits between: 75 seconds, measured.
GIVES_UP = 150


def test_a_server_that_is_gone_is_an_error_in_time_and_what_was_read_stays(
    make: Callable[..., Buildout], production: Production, developers: Developers, sshd: Sshd
) -> None:
    """What was read is there still; the rest is an error in time, and all is unmounted; nothing is fetched twice."""
    buildout = make(developers.alone, DEVELOPERS_UNION)
    buildout.run("mount", check=True)
    small, *_, big = by_size(buildout)
    buildout.commit(1)
    content = buildout.developer.run(["sha256sum", small], check=True).stdout
    sshd.kill()
    assert buildout.developer.run(["sha256sum", small], check=True).stdout == content
    begun = time.monotonic()
    reader = buildout.developer.popen(["sha256sum", big])
    refused = buildout.run("umount")
    assert f"pid {reader.pid}, user {developers.alone.name}: sha256sum" in refused.stderr
    assert reader.wait(GIVES_UP) == 1
    print(f"an error after {time.monotonic() - begun:.1f} s")
    buildout.run("umount", check=True)
    assert servers(buildout.settings.mount_point) == ()
    cleanup.assert_nothing_mounted(buildout.path)

    sshd.start()
    sshd.forget_requests()
    buildout.run("mount", check=True)
    assert buildout.developer.run(["sha256sum", small], check=True).stdout == content
    assert [line for line in blobs_opened(sshd) if small.name in line] == []
    assert set(production.expected()) < set(buildout.read())
    buildout.run("umount", check=True)


def by_size(buildout: Buildout) -> List[Path]:
    """The BLOB files that Plone sees, the smallest first."""
    found = buildout.developer.run(["find", buildout.blob_storage, "-name", "*.blob", "-printf", "%s %p\n"], check=True)
    lines = [line.split(" ", 1) for line in found.stdout.splitlines()]
    return [Path(path) for _, path in sorted(lines, key=lambda line: int(line[0]))]
