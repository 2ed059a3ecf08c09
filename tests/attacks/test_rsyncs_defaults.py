"""What rsync takes from the developer's home, the environment and /etc adds no option to ours: popt(3), rsync(1)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Callable, Dict, Iterator, List

import pytest

from harness.buildout import Buildout
from harness.developer import Developer, Developers
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from harness.sshd import Sshd

MakeBuildout = Callable[..., Buildout]

ALIAS = "rsync alias --times --times --remove-source-files\n"

COMMANDS = (("mount",), ("sync", "--yes"), ("prefetch",), ("umount",))

# Mounts a directory over /etc, for the program that follows alone.
OVER_ETC = """
mount -t overlay -o lowerdir=/etc,upperdir=$1/upper,workdir=$1/work none /etc
shift
exec "$@"
"""


def with_alias(path: Path, text: str = ALIAS) -> Path:
    """Write popt's file into a directory that every user can look into."""
    path.parent.mkdir(parents=True)
    path.parent.chmod(0o755)
    path.write_text(text)
    path.chmod(0o644)
    return path.parent


@pytest.fixture(params=["directory", "sshfs"])
def buildout(
    request: pytest.FixtureRequest,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: MakeBuildout,
    fuse: None,
) -> Iterator[Buildout]:
    """A buildout of somebody's who may write production."""
    developer = developers.alone
    remote = str(production.path)
    if request.param == "directory":
        production.give_to(developer.uid, developer.gid)
    else:
        remote = make_sshd().remote(production.path)
    made = make_buildout(developer, {"remote": remote, "union": DEVELOPERS_UNION, "sudo": "no"})
    yield made
    made.run("umount", "--lazy")


def refresh(buildout: Buildout, production: Production, env: Dict[str, str]) -> None:
    """Run each command that runs rsync, and see that what is local is production's."""
    for command in COMMANDS:
        production.commit(1)
        buildout.run(*command, env=env, check=True)
        if command[0] == "sync":
            assert buildout.read() == production.expected()


def test_an_alias_in_the_home_has_rsync_remove_nothing(
    buildout: Buildout, production: Production, scratch: Path
) -> None:
    refresh(buildout, production, {"HOME": str(with_alias(scratch / "home" / ".popt"))})


def test_the_environment_has_no_options_for_rsync(buildout: Buildout, production: Production, scratch: Path) -> None:
    names = ("RSYNC_RSH", "RSYNC_CONNECT_PROG", "RSYNC_SHELL", "RSYNC_CHECKSUM_LIST", "RSYNC_ICONV")
    refresh(buildout, production, {name: f"touch {scratch}/proof" for name in names})
    assert not (scratch / "proof").exists()


def test_what_is_shown_is_what_is_run(
    production: Production, developers: Developers, sshd: Sshd, make_buildout: MakeBuildout, scratch: Path
) -> None:
    buildout = make_buildout(developers.root, {"remote": sshd.remote(production.path), "rsync-options": "-z4"})
    env = {"HOME": str(with_alias(scratch / "home" / ".popt")), "RSYNC_OLD_ARGS": "1", "RSYNC_PASSWORD": "geheim"}
    shown = buildout.run("mount", "--dry-run", env=env, check=True).stdout
    assert "env -u RSYNC_OLD_ARGS HOME=/dev/null rsync --copy-links" in shown
    assert f"env HOME={env['HOME']} ssh -4 " in shown
    assert "geheim" not in shown


@pytest.fixture
def key_at_home(developers: Developers, sshd: Sshd) -> Iterator[List[str]]:
    """Options of ssh that name files below the home which the user has in passwd(5)."""
    developer = developers.alone
    there = developer.home / ".ssh" / sshd.host
    there.mkdir(parents=True)
    for source, name in ((developer.key, "key"), (developer.known_hosts, "hosts")):
        (there / name).write_bytes(source.read_bytes())
        (there / name).chmod(0o600)
    for path in (there.parent, there, *there.iterdir()):
        os.chown(path, developer.uid, developer.gid)
    # What follows exec is run by a shell, for which ~ is HOME, as it is for a ProxyCommand.
    match = f'Match originalhost {sshd.host} exec "test -e ~/.ssh/{sshd.host}/key"\n'
    login = f"HostName 127.0.0.1\nPort {sshd.port}\nUser {sshd.account.pw_name}\n"
    files = f"IdentityFile ~/.ssh/{sshd.host}/key\nIdentitiesOnly yes\nUserKnownHostsFile ~/.ssh/{sshd.host}/hosts\n"
    (there / "config").write_text(match + login + files)
    (there / "config").chmod(0o644)
    yield ["-F", str(there / "config")]
    for path in there.iterdir():
        path.unlink()
    there.rmdir()


def test_ssh_finds_its_keys_and_programs_at_home(
    production: Production, developers: Developers, sshd: Sshd, key_at_home: List[str], make_buildout: MakeBuildout
) -> None:
    options = {"remote": sshd.remote(production.path), "ssh-options": " ".join(key_at_home), "sudo": "no"}
    buildout = make_buildout(developers.alone, {**options, "union": DEVELOPERS_UNION})
    for command in COMMANDS:
        buildout.run(*command, check=True)


class System:
    """Runs scripts of a developer's on a system whose /etc has more in it."""

    def __init__(self, developer: Developer, scratch: Path):
        self.developer = developer
        self.top = scratch / "etc"
        (self.top / "work").mkdir(parents=True)

    def run(self, buildout: Buildout, *command: str) -> str:
        script = [str(buildout.script(command[0])), *command[1:]]
        argv = ["unshare", "--mount", "sh", "-ec", OVER_ETC, "sh", str(self.top), *script]
        return self.developer.run(argv, cwd=buildout.path).stderr


@pytest.mark.parametrize("name", ["popt", "popt.d/site"])
@pytest.mark.parametrize("text", [ALIAS, f"# ours\n  rs\\\nync{ALIAS[5:]}", f"r*{ALIAS[5:]}"], ids=["", "cut", "any"])
def test_an_alias_of_the_system_is_refused(
    name: str,
    text: str,
    production: Production,
    developers: Developers,
    sshd: Sshd,
    make_buildout: MakeBuildout,
    scratch: Path,
    fuse: None,
) -> None:
    buildout = make_buildout(developers.root, {"remote": sshd.remote(production.path), "union": "overlay"})
    system = System(developers.root, scratch)
    with_alias(system.top / "upper" / name, text)
    assert re.search(r"/etc/popt\S*: gives rsync options", system.run(buildout, "mount"))
    for command in COMMANDS:
        system.run(buildout, *command)


def test_what_popt_is_told_of_other_programs_is_not_refused(
    production: Production, developers: Developers, make_buildout: MakeBuildout, scratch: Path
) -> None:
    buildout = make_buildout(developers.root, {"remote": str(production.path), "union": "overlay"})
    system = System(developers.root, scratch)
    with_alias(system.top / "upper" / "popt", "# rsync has none\nrpm alias --all --rsync\n")
    for command in COMMANDS:
        assert system.run(buildout, *command) == ""
