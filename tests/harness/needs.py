"""What a test needs of the machine; what is missing fails the test and says how to get it."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

FUSE_DEVICE = Path("/dev/fuse")
MTAB = Path("/etc/mtab")
ADMIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def root() -> None:
    """Mounts, users and an sshd can't be had otherwise."""
    if os.geteuid() != 0:
        pytest.fail("This test needs root: it makes users and mounts. Run pytest as root.", pytrace=False)


def program(name: str, package: str) -> str:
    """The absolute path of a program; ``package`` is the Debian package that has it."""
    found = shutil.which(name, path=ADMIN_PATH)
    if not found:
        pytest.fail(f"This test needs the program {name}: apt install {package}", pytrace=False)
    return found


def fuse() -> None:
    """FUSE, usable by ordinary users; without udev its device has the wrong mode, which is put right."""
    root()
    program("fusermount3", "fuse3")
    if not FUSE_DEVICE.exists() or not stat.S_ISCHR(FUSE_DEVICE.stat().st_mode):
        pytest.fail(f"This test needs {FUSE_DEVICE}: modprobe fuse (in a container: --device /dev/fuse)", pytrace=False)
    if not MTAB.exists():
        pytest.fail(f"fusermount3 needs {MTAB} to unmount: ln -s ../proc/self/mounts {MTAB}", pytrace=False)
    if stat.S_IMODE(FUSE_DEVICE.stat().st_mode) & 0o666 != 0o666:
        FUSE_DEVICE.chmod(0o666)
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR))
    except OSError as error:
        pytest.fail(f"This test needs FUSE: {error}", pytrace=False)
