"""Boot the machine, run one script in it as root, and wait for its end, or for a sign of life that doesn't come."""

from __future__ import annotations

import lzma
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, Optional

from harness import needs

MEMORY_BYTES = 2 * 1024**3
DISK_BYTES = 4 * 1024**3


class Kernel(NamedTuple):
    """A kernel to boot.

    :param program: its path; ``.xz``: compressed.
    :param modules: the directory of its modules, as a shell reads it; ``None``: all that the tests need is built in.
    """

    program: Path
    modules: Optional[str] = None


# By the Debian package.
DEBIAN_MODULES = "/usr/lib/uml/modules/$(uname -r)"
TO_LOAD = "fuse loop nfs nfsd cifs sch_netem"

# Beside the checkout, unless the variable says otherwise: no Debian release of today has aufs.
AUFS = Kernel(
    Path(
        os.environ.get("COWSTORAGE_AUFS_KERNEL")
        or Path(__file__).parent.parent.parent.parent / "shared" / "aufs" / "linux-aufs.xz"
    )
)

# A directory on the machine's own disk, which every user can look into.
WORK = "/machine"

# The host's files are seen as they are, wherever a checkout or a virtual environment lies; what is written over them
# goes to the machine's own disk. That is thrown away, so nothing waits until the host has it on a disk (nobarrier).
BEGINNING = """
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t tmpfs run /run
mkdir /run/disk /run/root
mount -t ext4 -o nobarrier /dev/ubda /run/disk
mkdir /run/disk/upper /run/disk/work /run/disk/free
{load_overlay}
mount -t overlay -o lowerdir=/,upperdir=/run/disk/upper,workdir=/run/disk/work root /run/root
cd /run/root
mkdir -p lib/modules dev/pts dev/shm .{work} .{exchange}
{link_modules}
mount -t proc proc proc
mount -t sysfs sys sys
mount -t tmpfs run run
mount -t devtmpfs dev dev
mkdir dev/pts dev/shm run/lock run/sshd
ln -s /proc/self/fd dev/fd
mount -t devpts -o ptmxmode=666 pts dev/pts
mount -t tmpfs shm dev/shm
mount --bind /run/disk/free .{work}
chmod 1777 .{work} dev/shm run/lock
# hostfs takes a path as an option, which fsconfig(2) of util-linux 2.39 and later can't hand over.
LIBMOUNT_FORCE_MOUNT2=always mount -t hostfs -o {exchange} exchange .{exchange}
hostname localhost
ip link set lo up
mkdir -p old
{pivot_root}
umount --lazy old
sh {inside} || true
sync
"""

# By the system call, since not every release has the program at hand. With mount --move and chroot the kernel itself
# would keep the old root, and find no module there that NFS and CIFS ask for.
PIVOT_ROOT = "import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(155, b'.', b'old'))"

# The namespace has a copy of each mount, and a daemon of FUSE that serves one doesn't end before the copy has gone:
# those of other tests, which would wait for it.
WITHOUT_FUSE = (
    "timeout 5 umount --all --lazy --no-canonicalize "
    '--types fuse.sshfs,fuse.unionfs-fuse,fuse.fuse-overlayfs,fuse.rclone > /dev/null 2>&1; exec "$@"'
)

# Nobody else can: Debian's minimal systems have no program for it.
POWER_OFF = "import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)"

INSIDE = """
{load_modules}
chmod 666 /dev/fuse
cd {directory}
export COWSTORAGE_TEST_BASE={work}
{script}
"""


def debian() -> Kernel:
    """The kernel of Debian's package."""
    return Kernel(Path(needs.program("linux.uml", "user-mode-linux")), DEBIAN_MODULES)


def run(
    script: str, exchange: Path, directory: Path, sign: Path, seconds: float, kernel: Optional[Kernel] = None
) -> str:
    """Run a shell script in the machine and return what its console showed.

    :param exchange: a directory that machine and host share, writable.
    :param directory: where the script begins.
    :param sign: a file that the script lets grow.
    :param seconds: after which the machine is ended when that did not grow.
    :param kernel: ``None``: Debian's.
    """
    kernel = kernel or debian()
    inside = exchange / "inside.sh"
    inside.write_text(
        INSIDE.format(
            load_modules=f"modprobe --all {TO_LOAD}" if kernel.modules else "",
            directory=shlex.quote(str(directory)),
            work=WORK,
            script=script,
        ),
        encoding="utf-8",
    )
    beginning = exchange / "beginning.sh"
    beginning.write_text(
        "#!/bin/sh\n"
        + f"trap {shlex.quote(shlex.join([sys.executable, '-c', POWER_OFF]))} EXIT\n"
        + BEGINNING.format(
            load_overlay=f"insmod {kernel.modules}/kernel/fs/overlayfs/overlay.ko" if kernel.modules else "",
            link_modules=f"ln -s {kernel.modules} lib/modules/" if kernel.modules else "",
            pivot_root=shlex.join([sys.executable, "-c", PIVOT_ROOT]),
            work=WORK,
            exchange=exchange,
            inside=inside,
        ),
        encoding="utf-8",
    )
    beginning.chmod(0o755)
    console = exchange / "console.log"
    with console.open("wb") as file:
        process = subprocess.Popen(
            _command(_program(kernel, exchange), exchange, beginning),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": _memory_directory(exchange), "HOME": str(exchange)},
        )
        try:
            _wait(process, sign, seconds)
        finally:
            process.kill()
            process.wait()
    return console.read_text(encoding="utf-8", errors="replace")


def _program(kernel: Kernel, exchange: Path) -> Path:
    """The kernel, uncompressed."""
    if kernel.program.suffix != ".xz":
        return kernel.program
    program = exchange / kernel.program.stem
    program.write_bytes(lzma.decompress(kernel.program.read_bytes()))
    program.chmod(0o755)
    return program


def _command(program: Path, exchange: Path, beginning: Path) -> list[str]:
    """In a process namespace, with which all its processes end: when that does, or we do."""
    return [
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("unshare", "--pid", "--mount-proc", "--fork", "--kill-child", "--"),
        *("sh", "-c", WITHOUT_FUSE, "sh"),
        str(program),
        f"mem={MEMORY_BYTES >> 20}M",
        f"ubd0={_disk(exchange)}",
        *("rootfstype=hostfs", "rootflags=/", "ro"),
        # The console goes to standard output, and there is no other.
        *("con=null", "con0=null,fd:1", "ssl=null"),
        # A panic is an end, not a wait for a reset.
        *("panic=-1", "quiet"),
        f"init={beginning}",
    ]


def _memory_directory(exchange: Path) -> str:
    """Where its memory lies, as one sparse file: in memory, too, unless a container has little of that to share."""
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).free > MEMORY_BYTES:
        return str(shared)
    return str(exchange)


def _wait(process: subprocess.Popen[bytes], sign: Path, seconds: float) -> None:
    """Until the machine has ended by itself, or has shown no progress for too long."""
    size, deadline = 0, time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        now = sign.stat().st_size if sign.exists() else 0
        if now > size:
            size, deadline = now, time.monotonic() + seconds
        time.sleep(0.1)


def _disk(exchange: Path) -> Path:
    image = exchange / "disk.img"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run([needs.program("mkfs.ext4", "e2fsprogs"), "-q", "-F", str(image)], check=True)
    return image
