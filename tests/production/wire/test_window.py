"""What sshfs asks for waits behind one small packet at most, on a line that is simulated: its time is counted."""

from __future__ import annotations

import heapq
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import List, NamedTuple, Tuple

import pytest

from cowstorage.production.wire import ahead, completion, filling, following, window
from harness.polling import until
from production.wire.base import NEW, OLD, Database, cache, note, relative_of, served
from production.wire.line import Line, path_of
from production.wire.server import CLOSE, OPEN, READ, STAT, Server, text

PACKET_AND_HEADERS = window.PACKET + 200


class Way(NamedTuple):
    """A line.

    :param round_trip: seconds.
    :param rate: bytes a second, from the server.
    """

    round_trip: float
    rate: float


class SlowLine:
    """sshfs, the wire and a server, with a line between the latter two on which time passes, and nowhere else."""

    def __init__(self, line: Line, way: Way, patch: pytest.MonkeyPatch):
        self.line, self.way = line, way
        self.now = 1000.0
        self._free = 0.0
        self._coming: List[Tuple[float, int, bytes]] = []
        line.held = []
        for module in (window, completion, ahead, filling, following):
            patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))
        # What was noted before the clock was ours.
        line.session.has_asked()

    def _send(self) -> None:
        """Let the server have what it is asked; it answers at once, and the line takes its time."""
        line = self.line
        line.session.expire()
        until(self._has_looked, "candidates were looked for")
        line.session.expire()
        line.settle()
        asked, line.held = line.held or [], []
        for request in asked:
            answer = line.server.answer(*request)
            begin = max(self._free, self.now + self.way.round_trip / 2)
            self._free = begin + len(answer) / self.way.rate
            heapq.heappush(self._coming, (self._free + self.way.round_trip / 2, len(self._coming), answer))

    def _has_looked(self) -> bool:
        self.line.readers.take_results()
        session = self.line.session
        return not (session._filling._is_looking or (session._following and session._following._is_looking))

    def _receive(self, until_when: float = float("inf")) -> bool:
        """Let the next answer come; tell whether there was one before a time."""
        self._send()
        if not self._coming or self._coming[0][0] > until_when:
            return False
        self.now, _, answer = heapq.heappop(self._coming)
        self.line.receive_bytes(answer)
        self._send()
        return True

    def sleep(self, seconds: float) -> None:
        """sshfs asks for nothing for a while."""
        end = self.now + seconds
        while self._receive(end):
            pass
        self.now = end

    def ask(self, kind: int, body: bytes) -> Tuple[float, bytes]:
        """How long an answer takes, and the answer."""
        begun, number = self.now, self.line.ask(kind, body)
        while number not in self.line.answers:
            assert self._receive()
        return self.now - begun, self.line.answers.pop(number)[1]

    def read(self, path: bytes, size: int) -> List[float]:
        """Read a file as sshfs does, one request after the other; how long each takes."""
        took = [self.ask(STAT, text(path))[0]]
        seconds, opened = self.ask(OPEN, text(path) + struct.pack(">II", 1, 0))
        took.append(seconds)
        for offset in range(0, size, window.PIECE):
            seconds, _ = self.ask(READ, opened + struct.pack(">QI", offset, window.PIECE))
            took.append(seconds)
        self.ask(CLOSE, opened)
        return took


FAR, NOTED = range(10_000, 20_000, 1000), range(1, 100)
SIZE, NOTED_SIZE = 3 * window.PIECE, 100_000
SLOW = Way(0.100, 250_000)
WAYS = [Way(0.040, 12_500_000), Way(0.040, 1_250_000), SLOW, Way(0.0003, 125_000_000)]


def waits(location: Path, way: Way, patch: pytest.MonkeyPatch, thinks: float, fills: bool) -> Tuple[List[float], int]:
    """How long sshfs's requests take while it reads a file now and then, and how many files were asked for besides."""
    cache(location, *(relative_of(oid, OLD) for oid in NOTED))
    note(location, *NOTED)
    files = served(*map(relative_of, NOTED), content=bytes(NOTED_SIZE))
    files.update(served(*map(relative_of, FAR), content=bytes(SIZE)))
    known = Database(dict.fromkeys((*NOTED, *FAR), NEW))
    slow = SlowLine(Line(location, Server(files), knowledge=known, fills=fills), way, patch)
    took: List[float] = []
    for oid in FAR:
        slow.sleep(thinks)
        took += slow.read(path_of(relative_of(oid)), SIZE)
    asked = {subject for kind, subject in slow.line.server.asked if kind == READ}
    return took, len(asked) - len(FAR)


def longer(top: Path, way: Way, patch: pytest.MonkeyPatch, thinks: float) -> float:
    """How many packets any request waits longer since there is filling."""
    without, asked = waits(top / "without", way, patch, thinks, fills=False)
    assert asked == 0
    with_it, asked = waits(top / "filling", way, patch, thinks, fills=True)
    assert asked > 0
    assert len(without) == len(with_it)
    return max(one - other for one, other in zip(with_it, without)) / (PACKET_AND_HEADERS / way.rate)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("thinks", [0.01, 0.8])
def test_filling_costs_a_packet_at_most(
    thinks: float, way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert longer(tmp_path, way, monkeypatch, thinks) <= 1


def test_on_a_fast_line_more_is_fetched_when_sshfs_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    way = WAYS[0]
    _, asked = waits(tmp_path / "busy", way, monkeypatch, window.QUIET_SECONDS / 2, fills=True)
    _, more = waits(tmp_path / "quiet", way, monkeypatch, 4 * window.QUIET_SECONDS, fills=True)
    assert more > 3 * asked


# What follows in an order


ORDER = range(100, 120)


def line_to_the_order(location: Path, way: Way, patch: pytest.MonkeyPatch) -> SlowLine:
    files = served(*map(relative_of, ORDER), relative_of(FAR[0]), content=bytes(SIZE))
    known = Database(dict.fromkeys((*ORDER, *FAR), NEW))
    return SlowLine(Line(location, Server(files), knowledge=known), way, patch)


def without_following(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(following.Following, "has_opened", lambda self, opened: None)


def test_who_reads_in_an_order_waits_for_a_third_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(location: Path) -> float:
        slow = line_to_the_order(location, WAYS[0], monkeypatch)
        return sum(sum(slow.read(path_of(relative_of(oid)), SIZE)) for oid in ORDER)

    followed = seconds(tmp_path / "order")
    without_following(monkeypatch)
    assert followed < seconds(tmp_path / "none") / 3


def wait_behind_the_order(location: Path, way: Way, patch: pytest.MonkeyPatch) -> Tuple[float, int]:
    """How long somebody waits, in seconds, who reads files in an order and asks for another one then; files opened."""
    slow = line_to_the_order(location, way, patch)
    for oid in ORDER[:9]:
        slow.read(path_of(relative_of(oid)), SIZE)
    # What follows the last one is asked for while it is opened.
    slow.ask(STAT, text(path_of(relative_of(ORDER[9]))))
    slow.ask(OPEN, text(path_of(relative_of(ORDER[9]))) + struct.pack(">II", 1, 0))
    waited, _ = slow.ask(STAT, text(path_of(relative_of(FAR[0]))))
    return waited, len({subject for kind, subject in slow.line.server.asked if kind == OPEN})


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_who_leaves_the_order_waits_behind_one_file_at_most(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited, opened = wait_behind_the_order(tmp_path / "order", way, monkeypatch)
    without_following(monkeypatch)
    without, fewer = wait_behind_the_order(tmp_path / "none", way, monkeypatch)
    assert waited - without <= (SIZE + 1000) / way.rate
    assert opened >= fewer
    assert opened > fewer or way.rate < WAYS[0].rate


# The test itself


def test_a_window_that_does_not_care_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "Careful", lambda: window.Steady(window.MOST))
    assert longer(tmp_path, SLOW, monkeypatch, 0.8) > 10
