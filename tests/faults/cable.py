"""A production behind a cable that can be cut: an sshd in a network namespace, reached over a veth pair."""

from __future__ import annotations

import contextlib
import ctypes
import secrets
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import List

from harness import needs

CLONE_NEWNET = 0x40000000  # sched.h


class Cable:
    """The two ends; what comes back while it is cut is lost without a word, as on a dead line.

    :param port: served on this machine's loopback, and by the cable at the same port of ``address``.
    """

    def __init__(self, port: int) -> None:
        needs.root()
        self.port = port
        self.name = f"cow{secrets.token_hex(3)}"
        net = f"100.{64 + secrets.randbelow(64)}.{secrets.randbelow(256)}"
        self.near, self.address = f"{net}.1", f"{net}.2"
        near, far = f"{self.name}a", f"{self.name}b"
        ip("netns", "add", self.name)
        ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", self.name)
        ip("address", "add", f"{self.near}/30", "dev", near)
        ip("link", "set", near, "up")
        ip("-n", self.name, "address", "add", f"{self.address}/30", "dev", far)
        ip("-n", self.name, "link", "set", far, "up")
        self._sockets: List[socket.socket] = []
        with ThreadPoolExecutor(1) as inside:
            self._listener = inside.submit(self._listening).result()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def ssh_options(self) -> str:
        """The part's: the same server, by way of the cable."""
        return f"-o HostName={self.address} -o HostKeyAlias=[127.0.0.1]:{self.port}"

    def cut(self) -> None:
        """No answer comes any more."""
        ip("-n", self.name, "route", "add", "blackhole", f"{self.near}/32")

    def mend(self) -> None:
        """Undo ``cut``."""
        ip("-n", self.name, "route", "delete", "blackhole", f"{self.near}/32")

    def remove(self) -> None:
        """Namespace, pair and all connections."""
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        ip("netns", "delete", self.name)
        subprocess.run(["ip", "link", "delete", f"{self.name}a"], capture_output=True)

    def _listening(self) -> socket.socket:
        """A socket in the namespace; it stays there, and the thread that made it ends."""
        with open(f"/run/netns/{self.name}") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return socket.create_server((self.address, self.port))

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.port))
                except ConnectionRefusedError:
                    client.close()
                    continue
                self._sockets += [client, server]
                for one, other in ((client, server), (server, client)):
                    threading.Thread(target=_copy, args=(one, other), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            data = source.recv(65536)
            if not data:
                break
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def ip(*arguments: str) -> None:
    """ip(8)."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
