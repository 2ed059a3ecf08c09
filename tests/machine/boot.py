"""Boot the machine, run one script in it as root, and wait for its end or its time limit."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, Callable, List

from machine.parts import Parts

MEMORY = "3G"
CPUS = "2"
DISK_BYTES = 4 * 1024**3

BOOT_SECONDS = 90.0
TRIES = 3

MODULES = "virtio_blk ext4 overlay fuse loop nfs nfsd cifs"

# virtme-ng's own view of the host asks it for every read. So the host is mounted once more, with a cache, ten times
# faster, and what is written over it goes to a disk; /var/tmp lies on that disk directly, as tests of unions need it.
BEGINNING = """
modprobe --all {modules}
new=/run/machine
mkdir -p $new/disk $new/host $new/root
until test -b /dev/vda; do sleep 0.1; done
mount -t ext4 /dev/vda $new/disk
mkdir $new/disk/upper $new/disk/work $new/disk/tmp
chmod 1777 $new/disk/tmp
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 host $new/host
mount -t overlay -o lowerdir=$new/host,upperdir=$new/disk/upper,workdir=$new/disk/work root $new/root
for name in proc sys dev; do mount --rbind /$name $new/root/$name; done
mount -t tmpfs run $new/root/run
mount --bind $new/disk/tmp $new/root/var/tmp
mkdir -p $new/root/run/lock $new/root/run/sshd
mount --bind {exchange} $new/root{exchange}
chmod 666 /dev/fuse
ip link set lo up
exec chroot $new/root sh {inside}
"""


def run(parts: Parts, script: str, exchange: Path, directory: Path, seconds: float) -> str:
    """Run a shell script in the machine and return what its console showed.

    :param exchange: a directory that machine and host share, writable.
    :param directory: where the script begins.
    :param seconds: for the script.
    """
    begun = exchange / "begun"
    beginning, inside = exchange / "beginning.sh", exchange / "inside.sh"
    beginning.write_text(BEGINNING.format(modules=MODULES, exchange=exchange, inside=inside))
    inside.write_text(f"touch {begun}\ncd {shlex.quote(str(directory))}\n{script}")
    tries = 0
    # Emulated on a busy host a kernel now and then hangs while it starts.
    while not begun.exists() and tries < TRIES:
        tries += 1
        _live(parts, exchange, beginning, begun, seconds)
    return (exchange / "console.log").read_text(encoding="utf-8", errors="replace")


def _live(parts: Parts, exchange: Path, beginning: Path, begun: Path, seconds: float) -> None:
    """One life of the machine: until it ends by itself, is too late to begin, or takes too long."""
    with (exchange / "console.log").open("wb") as console:
        process = _start(parts, exchange, beginning, console)
        try:
            if _within(BOOT_SECONDS, lambda: begun.exists() or process.poll() is not None):
                _within(seconds, lambda: process.poll() is not None)
        finally:
            _end(process)


def _start(parts: Parts, exchange: Path, beginning: Path, console: IO[bytes]) -> subprocess.Popen[bytes]:
    """KVM is off: in nested virtualization it hangs; so does the emulated HPET, now and then."""
    command = [
        str(parts.vng),
        *("--verbose", "--disable-kvm", "--force-9p", "--run", str(parts.kernel), "--user", "root"),
        *("--memory", MEMORY, "--cpus", CPUS, f"--rwdir={exchange}", "--append", "hpet=disable"),
        f"--qemu-opts=-drive file={_disk(exchange)},if=virtio,format=raw",
        "--qemu-opts=-virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        *("--", f"sh {beginning}"),
    ]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=console,
        stderr=console,
        env=_environment(parts),
        start_new_session=True,
    )


def _within(seconds: float, true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment(parts: Parts) -> dict[str, str]:
    path: List[str] = [str(parts.vng.parent), os.environ.get("PATH", os.defpath), "/usr/sbin:/sbin"]
    return {**os.environ, "PATH": ":".join(path)}


def _disk(exchange: Path) -> Path:
    image = exchange / "disk.img"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    return image
