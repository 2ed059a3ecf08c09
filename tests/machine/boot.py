"""Boot the machine, run one script in it as root, and wait for its end or its time limit."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path
from typing import List

from machine.parts import Parts

MEMORY = "3G"
CPUS = "2"
DISK_BYTES = 4 * 1024**3

MODULES = "overlay fuse loop ext4 nfs nfsd cifs sd_mod virtio_scsi"

# The root file system is the host's; what is written to it stays in the machine's memory. /var/tmp gets a disk.
BEGINNING = """
modprobe --all {modules}
disk=$(ls /dev/sd? /dev/vd? 2>/dev/null | head -n 1)
mount -t ext4 "$disk" /var/tmp
chmod 1777 /var/tmp
chmod 666 /dev/fuse
mkdir -p /run/lock /run/sshd
ip link set lo up
cd {directory}
"""


def run(parts: Parts, script: str, exchange: Path, directory: Path, seconds: float) -> str:
    """Run a shell script in the machine and return what its console showed.

    KVM is off: in nested virtualization it hangs.

    :param exchange: a directory that machine and host share, writable.
    :param directory: where the script begins.
    """
    inside = exchange / "inside.sh"
    inside.write_text(BEGINNING.format(modules=MODULES, directory=shlex.quote(str(directory))) + script)
    command = [
        str(parts.vng),
        *("--verbose", "--disable-kvm", "--run", str(parts.kernel), "--user", "root"),
        *("--memory", MEMORY, "--cpus", CPUS, "--disk", str(_disk(exchange)), f"--rwdir={exchange}"),
        *("--", f"sh {shlex.quote(str(inside))}"),
    ]
    console = exchange / "console.log"
    with console.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_environment(parts),
            start_new_session=True,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return console.read_text(encoding="utf-8", errors="replace")


def _environment(parts: Parts) -> dict[str, str]:
    path: List[str] = [str(parts.vng.parent), os.environ.get("PATH", os.defpath), "/usr/sbin:/sbin"]
    return {**os.environ, "PATH": ":".join(path)}


def _disk(exchange: Path) -> Path:
    image = exchange / "disk.img"
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    return image
