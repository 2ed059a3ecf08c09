"""rclone: its command, and the process that serves a mount."""

from __future__ import annotations

import subprocess
from typing import Dict, Tuple

import pytest

from cowstorage.part.host import Host
from cowstorage.production.filesystems import rclone
from cowstorage.production.filesystems.rclone import serves
from production.parts import ALONE, DEVELOPER, DIRECTORY, RCLONE, ROOT, filesystem_of, made_of, mounting


def test_rclone_is_run_by_the_developer_read_only_and_keeps_what_it_read() -> None:
    command = mounting(RCLONE, ALONE)
    assert not command.root
    assert command.argv == (
        *("rclone", "mount", "--daemon", "--ask-password=false", "--sftp-ask-password=false"),
        f"--cache-dir={DIRECTORY}/var/cow-storage/cache/rclone",
        *("--umask=077", "--vfs-cache-mode=full", "--vfs-cache-max-age=8760h", "--dir-cache-time=1h"),
        *("--poll-interval=0", "--contimeout=10s", "--timeout=30s", "--low-level-retries=3"),
        *("--vfs-handle-caching=0", "--read-only"),
        *("--", "my remote:srv/plo ne", f"{DIRECTORY}/var/prod"),
    )


@pytest.mark.parametrize(
    "host, more, allowed",
    [
        (DEVELOPER, {}, True),
        (DEVELOPER, {"union": "overlay"}, True),
        (DEVELOPER, {"union": "unionfs-fuse"}, False),
        (DEVELOPER._replace(user_allow_other=False), {}, False),
        (ALONE, {}, False),
        (ROOT, {}, True),
    ],
)
def test_rclone_lets_root_look_in_only_for_the_kernels_overlay_and_others_never(
    host: Host, more: Dict[str, str], allowed: bool
) -> None:
    argv = mounting(RCLONE, host, **more).argv
    assert ("--allow-other" in argv) is allowed
    assert ("--default-permissions" in argv) is allowed


def test_rclone_run_by_root_gives_the_files_to_the_developer() -> None:
    assert {"--uid=1000", "--gid=100"} <= set(mounting(RCLONE, ROOT).argv)


@pytest.mark.parametrize("version, known", [((0, 0), False), ((1, 73), False), ((1, 74), True), ((1, 75), True)])
def test_what_was_read_is_kept_at_once_by_rclones_that_keep_files_open(version: Tuple[int, int], known: bool) -> None:
    argv = mounting(RCLONE, DEVELOPER._replace(rclone=version)).argv
    assert ("--vfs-handle-caching=0" in argv) is known


def test_an_rclone_that_ends_while_it_is_told_to_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    looks = iter([(ended.pid,), (ended.pid,), ()])
    monkeypatch.setattr(rclone, "servers", lambda target: next(looks))
    monkeypatch.setattr(rclone, "END_SECONDS", -1.0)
    filesystem_of(made_of(RCLONE)).after_unmount()
    assert next(looks, None) is None


@pytest.mark.parametrize("version, verb", [((1, 60), "mount2"), ((1, 61), "mount"), ((1, 75), "mount")])
def test_rclone_builds_that_fail_below_the_kernels_overlay_use_the_other_mount(
    version: Tuple[int, int], verb: str
) -> None:
    assert mounting(RCLONE, DEVELOPER._replace(rclone=version)).argv[1] == verb


def test_rclone_options_are_flags_and_the_users_win() -> None:
    argv = mounting(RCLONE, mount_options="vfs-cache-max-size=20G,vfs-cache-max-age=30m,config=rclone.conf").argv
    assert "--vfs-cache-max-size=20G" in argv
    assert [word for word in argv if "max-age" in word] == ["--vfs-cache-max-age=30m"]
    assert f"--config={DIRECTORY}/rclone.conf" in argv


def test_rclone_writes_no_log_since_its_daemon_would_keep_our_pipes() -> None:
    assert not [word for word in mounting(RCLONE).argv if "log" in word]


@pytest.mark.parametrize(
    "arguments, yes",
    [
        (("/usr/bin/rclone", "mount2", "--daemon", "--", "x:", "/srv/var/prod"), True),
        (("rclone", "mount", "x:", "/srv/var/prod"), True),
        (("rclone", "mount", "x:", "/srv/var/production"), False),
        (("rclone", "ls", "x:", "/srv/var/prod"), False),
        (("vim", "mount", "/srv/var/prod"), False),
        ((), False),
    ],
)
def test_the_process_of_a_mount_is_known_by_its_arguments(arguments: Tuple[str, ...], yes: bool) -> None:
    assert serves(arguments, "/srv/var/prod") is yes
