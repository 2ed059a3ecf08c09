"""A long, narrow line to a local TCP port, for machines whose kernel can't emulate one (``tc qdisc … netem``).

Every byte arrives late, and no more of them in a second than the line takes, each way for itself; all connections
share the line, as they share a real one.  By hand::

    python -m benchmarks.slow_link TARGET-PORT ROUND-TRIP-SECONDS MEGABITS-PER-SECOND
"""

from __future__ import annotations

import contextlib
import queue
import socket
import sys
import threading
import time
from types import TracebackType
from typing import List, Optional, Tuple, Type

READ_SIZE = 1 << 15
# What a router on the way would hold beside what is on the line: a tenth of a second of it.
BUFFER_SECONDS = 0.1

Chunk = Tuple[float, bytes]


class _Direction:
    """One way of the line: when which byte arrives.

    :ivar bytes: how many were sent so far.
    """

    def __init__(self, delay: float, rate: float):
        self._delay = delay
        self._rate = rate
        self._lock = threading.Lock()
        self._free = 0.0
        self.bytes = 0

    @property
    def depth(self) -> int:
        """How many reads may be under way in one connection: what fills the line, and the buffer before it."""
        return 2 + int((self._delay + BUFFER_SECONDS) * self._rate / READ_SIZE)

    def arrival(self, count: int) -> float:
        """Take the line for ``count`` bytes as soon as it is free; the ``time.monotonic()`` of their arrival."""
        with self._lock:
            self._free = max(self._free, time.monotonic()) + count / self._rate
            self.bytes += count
            return self._free + self._delay


class SlowLink:
    """A port on 127.0.0.1 that leads to ``target_port`` there over the line; use it as a context.

    :param delay_seconds_one_way: half the round trip.
    :param bytes_per_second: each way; 12.5e6 are 100 Mbit/s.
    :ivar port: where to connect instead.
    :ivar bytes_up: sent by the clients so far.
    :ivar bytes_down: sent to them.
    """

    def __init__(self, target_port: int, delay_seconds_one_way: float, bytes_per_second: float):
        self._target = ("127.0.0.1", target_port)
        self._delay = delay_seconds_one_way
        self._up = _Direction(delay_seconds_one_way, bytes_per_second)
        self._down = _Direction(delay_seconds_one_way, bytes_per_second)
        self._sockets: List[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> SlowLink:
        _start(self._accept)
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    @property
    def bytes_up(self) -> int:
        return self._up.bytes

    @property
    def bytes_down(self) -> int:
        return self._down.bytes

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            _start(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        # The handshake of TCP, which the client had with us at once.
        time.sleep(2 * self._delay)
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        self._sockets.append(server)
        for source, sink, direction in ((client, server, self._up), (server, client, self._down)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            on_the_way: queue.Queue[Chunk] = queue.Queue(direction.depth)
            _start(_take, source, direction, on_the_way)
            _start(_deliver, sink, on_the_way)


def _start(function: object, *arguments: object) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()  # type: ignore[arg-type]


def _take(source: socket.socket, direction: _Direction, on_the_way: queue.Queue[Chunk]) -> None:
    """Read what is sent until there is no more, which is told as no bytes."""
    data = b"more"
    while data:
        try:
            data = source.recv(READ_SIZE)
        except OSError:
            data = b""
        on_the_way.put((direction.arrival(len(data)), data))


def _deliver(sink: socket.socket, on_the_way: queue.Queue[Chunk]) -> None:
    while True:
        due, data = on_the_way.get()
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)
        except OSError:
            data = b""
            _drain(on_the_way)
            return


def _drain(on_the_way: queue.Queue[Chunk]) -> None:
    """Let the reader end that would wait for room."""
    while on_the_way.get()[1]:
        pass


def main(arguments: List[str]) -> None:
    """Serve until Ctrl-C; says where."""
    target, round_trip, megabits = arguments
    with SlowLink(int(target), float(round_trip) / 2, float(megabits) * 1e6 / 8) as link:
        print(f"127.0.0.1:{link.port}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1:])
