"""What the machine is made of, fetched once: programs by apt, kernel and modules unpacked, virtme-ng by pip."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List, NamedTuple

import pytest

CACHE_VARIABLE = "COWSTORAGE_MACHINE_CACHE"

# What stands for the newest kernel of the distribution; it depends on the true package.
KERNEL = "linux-image-amd64"

SERVERS = ("nfs-kernel-server", "nfs-common", "rpcbind", "samba", "cifs-utils")
EMULATOR = ("qemu-system-x86", "busybox-static", "kmod", "e2fsprogs")

POLICY = Path("/usr/sbin/policy-rc.d")


class Parts(NamedTuple):
    """Where things are.

    :param kernel: the bootable image; its modules lie beside it as in a root directory.
    :param vng: virtme-ng's program.
    """

    kernel: Path
    vng: Path


def cache() -> Path:
    """Where they are kept; not below /tmp or /var, which the machine sees in another way."""
    named = os.environ.get(CACHE_VARIABLE)
    path = Path(named) if named else Path.home() / ".cache" / "cowstorage-tests"
    path.mkdir(parents=True, exist_ok=True)
    return path


def ready() -> Parts:
    """All parts, fetched if they are not there; fails the test with apt's or pip's words if they can't be had."""
    with _locked():
        install(SERVERS + EMULATOR)
        return Parts(_kernel(), _vng())


def install(packages: tuple[str, ...]) -> None:
    """Install Debian packages, without starting the servers that are in them."""
    missing = [package for package in packages if not _installed(package)]
    if missing:
        _run("apt-get", "-qq", "update")
        with _no_service_starts():
            _run("apt-get", "-qq", "--yes", "--no-install-recommends", "install", *missing)


def _installed(package: str) -> bool:
    command = ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package]
    return subprocess.run(command, capture_output=True, text=True).stdout == "installed"


@contextmanager
def _no_service_starts() -> Iterator[None]:
    """invoke-rc.d asks this program; 101 is no."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def _kernel() -> Path:
    found = sorted(cache().glob("kernel/boot/vmlinuz-*"))
    if found:
        return found[-1]
    package = _newest_kernel()
    with tempfile.TemporaryDirectory(dir=cache(), prefix="fetching-") as directory:
        _run("apt-get", "-qq", "download", package, cwd=directory)
        (archive,) = Path(directory).glob("*.deb")
        unpacked = Path(directory) / "kernel"
        unpacked.mkdir()
        _unpack(archive, unpacked)
        shutil.rmtree(cache() / "kernel", ignore_errors=True)
        unpacked.rename(cache() / "kernel")
    (image,) = (cache() / "kernel" / "boot").glob("vmlinuz-*")
    return image


def _newest_kernel() -> str:
    for attempt in range(2):
        output = subprocess.run(["apt-cache", "depends", KERNEL], capture_output=True, text=True).stdout
        match = re.search(r"Depends: (linux-image-\S+)", output)
        if match:
            return match.group(1)
        if attempt == 0:
            _run("apt-get", "-qq", "update")
    pytest.fail(f"No package {KERNEL}: the machine for NFS and CIFS is made of Debian's packages.", pytrace=False)


def _unpack(archive: Path, target: Path) -> None:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as deb:
        subprocess.run(["tar", "-x", "-C", str(target), "./boot", "./lib/modules"], stdin=deb.stdout, check=True)


def _vng() -> Path:
    environment = cache() / "venv"
    program = environment / "bin" / "vng"
    if not program.exists():
        _run(sys.executable, "-m", "venv", "--clear", str(environment))
        _run(str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "virtme-ng")
    return program


@contextmanager
def _locked() -> Iterator[None]:
    with (cache() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(*command: str, cwd: str | None = None) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    result = subprocess.run(
        list(command), cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if result.returncode:
        tail: List[str] = result.stdout.splitlines()[-10:]
        pytest.fail(f"{' '.join(command)}\n" + "\n".join(tail), pytrace=False)
