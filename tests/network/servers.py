"""Real servers on loopback, samba and the kernel's for NFS, which would let production be written."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import List, Optional, Set

from harness import needs, processes, production
from harness.polling import until

NFSD = Path("/proc/fs/nfsd")
NFS_PORT = 2049
RPCBIND_PORT = 111
# For a server to begin, on a machine with much else to do.
SECONDS = 60


class NfsServer:
    """nfsd and its helpers, started if they don't run; ``export`` tells what is served."""

    def __init__(self) -> None:
        self._started: List[subprocess.Popen[bytes]] = []
        self._exported: Set[str] = set()
        self._mounted = False

    def start(self) -> NfsServer:
        """Serve; version 4 without the minute and a half in which it lets nobody in after a start."""
        if not os.path.ismount(NFSD):
            subprocess.run(["mount", "-t", "nfsd", "nfsd", str(NFSD)], check=True)
            self._mounted = True
        self._helper("rpcbind", "rpcbind", "-f", "-w")
        until(lambda: _answers(RPCBIND_PORT), "rpcbind answers", SECONDS)
        self._helper("rpc.mountd", "nfs-kernel-server", "--foreground")
        # Version 3 asks rpcbind for the port of mountd.
        until(lambda: "mountd" in _rpcinfo(), "rpc.mountd is registered with rpcbind", SECONDS)
        self.serve()
        return self

    def serve(self) -> None:
        """Answer requests, again after ``refuse``."""
        nfsd = needs.program("rpc.nfsd", "nfs-kernel-server")
        subprocess.run([nfsd, "--lease-time", "10", "--grace-time", "10", "4"], check=True)
        until(lambda: _answers(NFS_PORT), "nfsd answers", SECONDS)
        try:
            (NFSD / "v4_end_grace").write_text("Y\n")
        except OSError as error:
            # Newer kernels say so when no client has anything to reclaim, and it has ended already.
            if error.errno != errno.EBUSY:
                raise

    def refuse(self) -> None:
        """As a server that is down."""
        subprocess.run([needs.program("rpc.nfsd", "nfs-kernel-server"), "0"], check=True)

    def export(self, path: Path, options: str, version: str = "4.2") -> str:
        """Serve a directory to this machine; returns it as the option ``remote`` names it.

        As the root of version 4: one is needed, and the machine's own root directory can't be exported.
        """
        what = f"127.0.0.1:{path}"
        command = [
            needs.program("exportfs", "nfs-kernel-server"),
            "-o",
            f"fsid=0,no_subtree_check,insecure,{options}",
            what,
        ]
        subprocess.run(command, check=True)
        self._exported.add(what)
        return what if version.startswith("3") else "127.0.0.1:/"

    def forget(self) -> None:
        """Serve none of them any more, so that they can be deleted."""
        while self._exported:
            subprocess.run([needs.program("exportfs", "nfs-kernel-server"), "-u", self._exported.pop()], check=True)
        subprocess.run([needs.program("exportfs", "nfs-kernel-server"), "-f"], check=True)

    def stop(self) -> None:
        """End what ``start`` started."""
        self.refuse()
        while self._started:
            process = self._started.pop()
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)
        if self._mounted:
            subprocess.run(["umount", str(NFSD)], check=True)

    def _helper(self, name: str, package: str, *arguments: str) -> None:
        if not processes_named(name):
            command = [needs.program(name, package), *arguments]
            self._started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))


class SmbServer:
    """A smbd on a port of its own, with one share for one user; both may write, as far as it is concerned."""

    PASSWORD = "s3cret,with comma"

    def __init__(self, directory: Path, shared: Path):
        self.directory = directory
        self.user = production.account().pw_name
        self.port = _free_port()
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._configure(shared)

    def serve(self) -> None:
        """Answer requests, again after ``refuse``."""
        command = [needs.program("smbd", "samba"), "--foreground", "--no-process-group", "-s", str(self._configuration)]
        # At its end it sends SIGTERM to its process group, which must not be ours.
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        processes.record(self.directory, self._process.pid)
        until(lambda: _answers(self.port), "smbd answers", SECONDS)

    def refuse(self) -> None:
        """End it and its sessions, as a server that is down."""
        if self._process is not None:
            family = [self._process.pid, *processes.descendants(self._process.pid)]
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(SECONDS)
            processes.end(family[1:])
            self._process = None

    @property
    def remote(self) -> str:
        """The share as the option ``remote`` names it."""
        return "//127.0.0.1/production"

    def credentials(self, uid: int, gid: int, password: str = PASSWORD) -> Path:
        """A file as mount.cifs(8) wants it, readable for one user only."""
        path = self.directory / f"credentials-{uid}"
        path.write_text(f"username={self.user}\npassword={password}\n", encoding="utf-8")
        path.chmod(0o600)
        os.chown(path, uid, gid)
        return path

    def _configure(self, shared: Path) -> None:
        for name in ("private", "lock", "state", "cache", "pid", "ncalrpc"):
            (self.directory / name).mkdir(parents=True)
        self.directory.chmod(0o755)
        self._configuration = self.directory / "smb.conf"
        self._configuration.write_text(
            f"""
[global]
server role = standalone server
smb ports = {self.port}
interfaces = lo
bind interfaces only = yes
disable netbios = yes
load printers = no
private dir = {self.directory}/private
lock directory = {self.directory}/lock
state directory = {self.directory}/state
cache directory = {self.directory}/cache
pid directory = {self.directory}/pid
ncalrpc dir = {self.directory}/ncalrpc
log file = {self.directory}/log
passdb backend = tdbsam:{self.directory}/private/passdb.tdb
[production]
path = {shared}
read only = no
valid users = {self.user}
""",
            encoding="utf-8",
        )
        command = [needs.program("smbpasswd", "samba"), "-c", str(self._configuration), "-s", "-a", self.user]
        subprocess.run(command, input=f"{self.PASSWORD}\n{self.PASSWORD}\n", text=True, check=True, capture_output=True)


def processes_named(name: str) -> List[str]:
    """The pids of the programs of that name."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if (entry / "comm").read_text(errors="replace").strip() == name[:15]:
                    found.append(entry.name)
            except OSError:
                continue
    return found


def _rpcinfo() -> str:
    command = [needs.program("rpcinfo", "rpcbind"), "-p", "127.0.0.1"]
    return subprocess.run(command, capture_output=True, text=True).stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
