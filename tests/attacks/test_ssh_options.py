"""Words in ``ssh-options`` and options of sshfs that would have production's shell run something else."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from cowstorage.buildout.options import from_options
from cowstorage.errors import SettingsError
from cowstorage.part.settings import Settings
from harness.developer import Developers
from harness.sshd import Sshd

PATHS = {"file-storage": "a", "blob-storage": "b", "remote": "h:/p"}


def made(**options: str) -> Settings:
    given = {name.replace("_", "-"): value for name, value in options.items()}
    return from_options({**PATHS, **given}, "cow-storage", "/srv/buildout")


def test_a_word_that_is_no_option_is_a_command_on_production(
    developers: Developers, make_sshd: Callable[..., Sshd], scratch: Path
) -> None:
    """Why it is refused: rsync's own arguments come after it, and so does the host."""
    sshd, proof = make_sshd(), scratch / "proof"
    proof.touch()
    proof.chmod(0o666)
    shell = f"ssh -v {sshd.host} 'echo written >{proof};:'"
    developers.root.run(["rsync", "-e", shell, "--", f"{sshd.host}:/x", str(scratch)])
    assert proof.read_text() == "written\n"
    with pytest.raises(SettingsError, match="no option of ssh"):
        made(ssh_options=shell.partition(" ")[2])


@pytest.mark.parametrize(
    "value", ["host", "-v host", "-p 22 host", "-p22 host", "-- host", "-vp 22 host", "-o A=b c", "''", "- x", "-p"]
)
def test_what_ssh_would_take_for_a_host_or_command_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="ssh-options"):
        made(ssh_options=value)


@pytest.mark.parametrize(
    "value",
    [
        "-p 2222 -i key",
        "-p2222",
        "-vvC -p 22",
        "-vp 22",
        "-oA=b",
        "-o 'ProxyCommand=nc %h %p' -4",
        "-F none -J a,b",
        "",
    ],
)
def test_options_of_ssh_are_accepted(value: str) -> None:
    assert made(ssh_options=value)


@pytest.mark.parametrize("option", [r"s\uid", r"al\low_other", r"a=b\054suid", "ssh_command=touch x"])
def test_what_libfuse_would_read_otherwise_is_refused(option: str) -> None:
    """libfuse takes a backslash away, fuse_opt_parse: ``s\\uid`` is ``suid``."""
    with pytest.raises(SettingsError):
        made(mount_options=option)
