"""The emulated line of the benchmarks: as late and as narrow as it is told, and nothing lost."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Iterator

import pytest

from benchmarks.slow_link import SlowLink

pytestmark = pytest.mark.slow


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def exchange(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as connection:

        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=send).start()
        received = bytearray()
        while part := connection.recv(65536):
            received += part
    return bytes(received)


def test_a_byte_there_and_back_takes_a_round_trip_after_that_of_the_handshake(echo: int) -> None:
    with SlowLink(echo, 0.05, 12.5e6) as link, socket.create_connection(("127.0.0.1", link.port)) as connection:
        took = []
        for _ in range(3):
            start = time.monotonic()
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
            took.append(time.monotonic() - start)
    assert 0.2 <= took[0] < 0.3
    assert all(0.1 <= seconds < 0.15 for seconds in took[1:])


def test_all_arrives_in_order_at_the_rate_of_the_line(echo: int) -> None:
    data = os.urandom(1_000_000)
    with SlowLink(echo, 0.01, 2e6) as link:
        start = time.monotonic()
        assert exchange(link.port, data) == data
        took = time.monotonic() - start
        assert (link.bytes_up, link.bytes_down) == (len(data), len(data))
    assert 0.5 <= took < 1.0


def test_connections_share_the_line(echo: int) -> None:
    data = os.urandom(500_000)
    with SlowLink(echo, 0.0, 2e6) as link:
        start = time.monotonic()
        threads = [threading.Thread(target=exchange, args=(link.port, data)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - start
    assert took >= 0.5


def test_a_target_that_is_gone_closes_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with SlowLink(port, 0.0, 1e6) as link, socket.create_connection(("127.0.0.1", link.port)) as connection:
        assert connection.recv(1) == b""
