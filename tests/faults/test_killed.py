"""SIGKILL at every point of every command, and at random instants; reboots; SIGHUP, SIGINT and SIGTERM.

``COWSTORAGE_TEST_KILLS=200`` kills each command at that many random instants instead of 15, and at every point
instead of every third one; ``COWSTORAGE_TEST_SEED=2``, or 3, chooses other instants, and points in between.  Over
sshfs and without root, which takes longer, it is a fifth of the instants, and few points.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from faults import scripts
from faults.conftest import LOCAL, REMOTE
from faults.points import killed_at
from faults.scene import AGAIN, ConvertedScene, Scene
from stacks import Stack

KILLS = int(os.environ.get("COWSTORAGE_TEST_KILLS", "15"))
SEED = int(os.environ.get("COWSTORAGE_TEST_SEED", "1"))
STRIDE = 1 if KILLS > 15 else 3
COMMANDS = sorted(AGAIN)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_killed_at_any_point_is_finished_by_the_next(scene: Scene, command: str) -> None:
    """After two of three kills the command is simply run again, after the third there is a reboot."""
    before = scene.production.snapshot()
    for number in range(SEED % STRIDE, 1000, STRIDE):
        scene.prepare(command)
        result = scene.run(command, *AGAIN[command], fault=killed_at(number))
        if number % 3 == 2:
            scene.reboot()
        finishes(scene, command, before, f"killed at point {number}")
        if result.returncode == 0:
            break
        assert result.returncode == -signal.SIGKILL, result
    assert number > 2


@pytest.mark.parametrize("command", ["sync", "rollback"])
def test_a_command_killed_over_a_conversion_is_finished_by_the_next(
    converted_scene: ConvertedScene, command: str
) -> None:
    """Whatever is shown, and whatever it is finished to, has the magic of its own state."""
    before = converted_scene.production.snapshot()
    for point in range(SEED % (4 * STRIDE), 1000, 4 * STRIDE):
        converted_scene.prepare(command)
        result = converted_scene.run(command, *AGAIN[command], fault=killed_at(point))
        finishes(converted_scene, command, before, f"killed at point {point}")
        if result.returncode == 0:
            break
    assert point > 2


@pytest.mark.parametrize("stack", [REMOTE], ids=str)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_killed_over_sshfs_is_finished_by_the_next(scene: Scene, stack: Stack, command: str) -> None:
    """After every second kill there is a reboot."""
    before = scene.production.snapshot()
    for turn, point in enumerate(range(SEED % 3, 1000, 10 * STRIDE)):
        scene.prepare(command)
        result = scene.run(command, *AGAIN[command], fault=killed_at(point))
        if turn % 2:
            scene.reboot()
        finishes(scene, command, before, f"killed at point {point}")
        if result.returncode == 0:
            break
    assert turn > 0


@pytest.mark.parametrize("stack", [LOCAL, REMOTE], ids=str)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_killed_at_random_instants_is_finished_by_the_next(scene: Scene, stack: Stack, command: str) -> None:
    before = scene.production.snapshot()
    instants = random.Random(f"{SEED} {command}")
    scene.prepare(command)
    length = scripts.duration_of(lambda: scene.run(command, *AGAIN[command], check=True))
    scene.reboot()
    for number in range(KILLS if stack == LOCAL else KILLS // 5):
        scene.prepare(command)
        instant = instants.uniform(0, length)
        running = scripts.start(scene.buildout, command, *AGAIN[command])
        # The instant is what is injected: nothing is waited for here.
        time.sleep(instant)
        running.send(signal.SIGKILL)
        running.ended()
        # fusermount3 would take the union away between a look at what is mounted and the reading of it.
        running.programs_ended()
        finishes(scene, command, before, f"kill {number}, after {instant:.4f} of {length:.4f} seconds")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_interrupted_command_undoes_what_it_did_and_exits_by_the_signal(
    scene: Scene, command: str, number: int
) -> None:
    """At every twentieth point: what was done is undone, the exit code says which signal it was."""
    before = scene.production.snapshot()
    for point in range(1 + number, 1000, 20):
        scene.prepare(command)
        was = scene.mounted()
        result = scene.run(command, *AGAIN[command], fault=killed_at(point, number))
        if result.returncode == 0:
            break
        assert result.returncode == 128 + number
        assert "Interrupted" in result.stderr
        assert scene.mounted() == was or scene.journal().unfinished or scene.journal().operation is None, point
        finishes(scene, command, before, f"interrupted at point {point}")
    assert point > 1


def finishes(scene: Scene, command: str, before: object, what: str) -> None:
    """See ``Scene.finishes``; a failure says what was done before."""
    try:
        scene.finishes(command, before)
    except AssertionError as error:
        raise AssertionError(f"{command} {what}: {error}") from error
