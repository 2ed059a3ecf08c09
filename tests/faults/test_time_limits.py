"""README's table of what waits how long, compared with the code; that it is true is tested where the network goes."""

from __future__ import annotations

import re
from typing import Dict, Iterable

from cowstorage import cli
from cowstorage.actions import absent_blobs, compare
from cowstorage.production import blob_source, look, rsync, ssh
from cowstorage.production.filesystems import cifs, nfs, other, rclone, sshfs
from cowstorage.system import in_use, mounts
from cowstorage.union import copy_up
from cowstorage.union.trial import TRIAL_SECONDS
from test_readme import README, section_text


def number(options: Iterable[str], name: str) -> int:
    """The value of ``name=NUMBER`` or ``name=NUMBERs``."""
    (found,) = re.findall(rf"^{name}=(\d+)s?$", "\n".join(options), re.MULTILINE)
    return int(found)


# nfs(5): tenths of a second, each time as much more; cifs: mount.cifs(8).
NFS = sum(number(nfs.OPTIONS, "timeo") * turn for turn in range(1, number(nfs.OPTIONS, "retrans") + 2)) // 10
LOOKS = {look.LOOK_SECONDS, blob_source.LOOK_SECONDS, compare.COMPARE_SECONDS, copy_up.COMPARE_SECONDS}

LIMITS: Dict[str, float] = {
    "a reader whose connection is lost, sshfs": ssh.ALIVE_INTERVAL * (ssh.ALIVE_COUNT + 1),
    "the same, NFS": NFS,
    "the same, Windows share": 2 * number(cifs.OPTIONS, "echo_interval"),
    "the same, rclone": number(rclone.FLAGS, "timeout") * number(rclone.FLAGS, "low-level-retries"),
    "ssh or rsync, for a server that doesn't answer": ssh.CONNECT_SECONDS,
    "rsync, where a connection that is there has just gone: that, and another try": (
        ssh.ALIVE_INTERVAL * (ssh.ALIVE_COUNT + 1) + ssh.CONNECT_SECONDS
    ),
    "``cow-mount`` and ``cow-sync`` over sshfs, for the same: tried twice, and asked why": 3 * ssh.CONNECT_SECONDS,
    "mounting, for a server that answers but does not go on: sshfs, Windows share": max(
        sshfs.MOUNT_SECONDS, cifs.MOUNT_SECONDS
    ),
    "the same: NFS, rclone, other": max(nfs.MOUNT_SECONDS, rclone.MOUNT_SECONDS, other.MOUNT_SECONDS),
    "``cow-status``, for each mount, all at the same time": mounts.PROBE_SECONDS,
    "``cow-status`` and ``cow-mount``, for a count of the BLOBs that are gone since production was packed": (
        absent_blobs.CHILD_SECONDS
    ),
    "a look at production, or at one of its files": max(LOOKS),
    "a union that is tried, or looked at": TRIAL_SECONDS,
    "rsync, without a byte": rsync.IO_SECONDS,
    "``cow-umount``, while the search for what is open meets a dead mount": in_use.SCAN_SECONDS,
    "one mount that is taken away, by ``cow-umount`` with all that is not on disk yet": mounts.UNMOUNT_SECONDS,
    "a command, for another one of the same part": cli.LOCK_SECONDS,
}


def test_readme_has_the_limits_of_the_code() -> None:
    text = section_text("Faults and time limits").partition("Nothing waits for ever.")[2]
    rows = re.findall(r"^   \* - (.*)\n     - (\d+)$", text, re.MULTILINE)
    assert {what: float(seconds) for what, seconds in rows} == LIMITS


def test_readme_has_the_options_of_ssh() -> None:
    interval, count = f"ServerAliveInterval={ssh.ALIVE_INTERVAL}", f"ServerAliveCountMax={ssh.ALIVE_COUNT}"
    assert f"``-o {interval} -o {count} -o ConnectTimeout={ssh.CONNECT_SECONDS}``" in README
