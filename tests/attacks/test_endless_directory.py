"""A server's directory has no end: cow-mount gives up, nothing stays mounted, and sshfs is gone with its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator

import pytest

from attacks import endless_sftp
from cowstorage.production import look
from cowstorage.production.filesystems.sshfs import servers
from faults import scripts
from harness import cleanup
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from harness.sshd import Sshd
from stacks import Stack, developer_of, part_options, prepared

PATIENCE = 15.0

SOME = [Stack("sshfs", "overlay", "root"), Stack("sshfs", "overlay", "sudo"), Stack("sshfs", DEVELOPERS_UNION, "alone")]


@pytest.fixture(params=SOME, ids=str)
def stack(request: pytest.FixtureRequest) -> Stack:
    found: Stack = request.param
    return found


def rogue(scratch: Path, pause: float) -> str:
    """Return the command of such a server, which every user may run.

    :param pause: seconds before each answer to READDIR.
    """
    program = scratch / "endless_sftp.py"
    program.write_text(Path(endless_sftp.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    program.chmod(0o644)
    return f"/usr/bin/python3 -S {program} {pause}"


@pytest.fixture
def make(
    stack: Stack,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: Callable[..., Buildout],
    scratch: Path,
    fuse: None,
) -> Iterator[Callable[[float], Buildout]]:
    """Make a buildout over such a server."""
    developer = developer_of(stack, developers)

    with prepared(stack, production, developer):

        def made(pause: float) -> Buildout:
            sshd = make_sshd(forced=rogue(scratch, pause))
            return make_buildout(developer, part_options(stack, production, sshd))

        yield made


def less_patience() -> None:
    """Give a look at production up sooner: what is tried is that it is given up, and what is left then.

    Not of a fast server, with which sshfs runs into its limit: in ten seconds where nothing else is at work.
    """
    look.LOOK_SECONDS = PATIENCE


@pytest.mark.parametrize("pause", [0, 0.2], ids=["fast", "slow"])
def test_a_directory_without_end(make: Callable[[float], Buildout], pause: float) -> None:
    """Fast, sshfs runs into its limit; slow, the look at production takes too long, and sshfs is busy for ever."""
    buildout = make(pause)
    # On a machine with too much to do sshfs takes more than a minute to run into its limit.
    refused = scripts.start(buildout, "mount", fault=less_patience if pause else None).ended(2 * look.LOOK_SECONDS)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert (f"No answer after {PATIENCE:g} seconds" in refused.stderr) is (pause > 0)
    cleanup.assert_nothing_mounted(buildout.path)
    assert servers(buildout.settings.mount_point) == ()
