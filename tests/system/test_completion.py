"""What shells complete: options and their values, savepoints and transactions, in bash and in fish themselves."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Callable, List

import pytest

from cowstorage import cli
from cowstorage.buildout.options import from_options
from cowstorage.part.scripts import SCRIPTS
from cowstorage.part.settings import to_script
from harness import needs

OPTIONS = {"remote": "h:/srv", "file-storage": "var/filestorage", "blob-storage": "var/blobstorage"}

# A script of the part that knows two savepoints and one transaction.
KNOWS = """#!/bin/sh
case "$*" in
    "--list --json") printf '%s\\n' '[' ' {' '  "name": "before-content",' '  "time": 1.0' ' },' '  "name": "b2",' ;;
    "--number 50 --json") printf '%s\\n' ' {' '  "tid": "03f2a1b4c5d6e7f8",' '  "user": "",' ;;
esac
"""

BASH = r"""
source ./completion
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
complete -p "${1##*/}" > /dev/null && _cowstorage_cow
printf '%s\n' "${COMPREPLY[@]}"
"""
FISH = "source ./completion; complete -C (string join ' ' -- $argv)"


@pytest.fixture(params=["bash", "fish"])
def complete(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., List[str]]:
    """What a shell offers for the last of these words."""
    shell = str(request.param)
    program = needs.program(shell, shell)
    settings = to_script(from_options(OPTIONS, "cow-storage", str(tmp_path)))
    assert cli.main("status", settings, ["--completion", shell]) == 0
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    (tmp_path / "bin").mkdir()
    for name in SCRIPTS:
        (tmp_path / "bin" / f"cow-{name}").write_text(KNOWS)
        (tmp_path / "bin" / f"cow-{name}").chmod(0o755)

    def complete(*words: str) -> List[str]:
        argv = [program, "-c", BASH, "bash", *words] if shell == "bash" else [program, "-N", "-c", FISH, *words]
        done = subprocess.run(
            argv, cwd=tmp_path, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        return sorted(line.partition("\t")[0] for line in done.stdout.splitlines() if line)

    return complete


def test_options_are_those_of_the_script(complete: Callable[..., List[str]]) -> None:
    assert complete("bin/cow-mount", "--of") == ["--offline"]
    assert complete("bin/cow-sync", "--of") == []
    assert complete("bin/cow-sync", "--ye") == ["--yes"]


def test_the_values_of_an_option_are_its_choices(complete: Callable[..., List[str]]) -> None:
    assert complete("bin/cow-status", "--completion", "f") == ["fish"]


@pytest.mark.parametrize("directory", ["bin/", "./bin/"])
def test_a_rollback_leads_to_savepoints_and_transactions(complete: Callable[..., List[str]], directory: str) -> None:
    assert complete(f"{directory}cow-rollback", "b") == ["b2", "before-content"]
    assert complete(f"{directory}cow-rollback", "03") == ["03f2a1b4c5d6e7f8"]


def test_nothing_is_a_file(complete: Callable[..., List[str]]) -> None:
    assert complete("bin/cow-umount", "bi") == []
