"""The ways to a server that ssh knows: over another host, by a configuration of one's own, a password, an agent."""

from __future__ import annotations

import os
import re
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator

import pytest

from cowstorage.production.ssh import socket_path
from cowstorage.production.through_mount import MOST
from harness import accounts, processes
from harness.buildout import Buildout
from harness.developer import Developer, Developers
from harness.fuse_conf import user_allow_other
from harness.polling import until
from harness.production import Production
from harness.release import DEVELOPERS_UNION
from harness.sshd import Sshd
from refreshing import append_bytes
from stacks import is_clean_of

pytestmark = pytest.mark.usefixtures("fuse")


def configuration(developer: Developer, sshd: Sshd, *more: str) -> str:
    """What the developer's ``~/.ssh/config`` may have: another name for the server, and all that leads there."""
    lines = (
        "Host production",
        "    HostName 127.0.0.1",
        f"    Port {sshd.port}",
        f"    User {sshd.account.pw_name}",
        f"    UserKnownHostsFile {developer.known_hosts}",
        *(f"    {line}" for line in more),
    )
    return "\n".join(lines) + "\n"


def put(buildout: Buildout, name: str, text: str) -> Path:
    """A file of the developer's own in the buildout."""
    path = buildout.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    os.chown(path, buildout.developer.uid, buildout.developer.gid)
    return path


def works(buildout: Buildout, production: Production) -> None:
    """Mounted, and it can be read; production goes on, a sync brings that."""
    assert buildout.read() == production.expected()
    production.commit(1)
    buildout.run("sync", "--yes", check=True)
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)
    is_clean_of(buildout)


@pytest.fixture
def alone(
    production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> Callable[..., Buildout]:
    """Make a buildout of the developer without sudo."""

    def make(remote: str, ssh_options: str = "") -> Buildout:
        options: Dict[str, str] = {"remote": remote, "union": DEVELOPERS_UNION, "sudo": "no"}
        return make_buildout(developers.alone, {**options, "ssh-options": ssh_options})

    return make


@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_directories_that_are_links_on_production_are_followed_there(
    kind: str, sshd: Sshd, alone: Callable[..., Buildout], production: Production
) -> None:
    """An absolute link would lead to a path of this machine if it were followed here."""
    disk = production.path / "disk"
    with production._changing():
        disk.mkdir()
        for directory in (production.blob_storage, production.data_fs.parent):
            moved = directory.rename(disk / directory.name)
            directory.symlink_to(moved if kind == "absolute" else Path("..", "disk", directory.name))
    buildout = alone(sshd.remote(production.path))
    buildout.run("mount", check=True)
    assert buildout.read() == production.expected()
    assert "Everything is here" in buildout.run("prefetch", check=True).stdout
    works(buildout, production)


@pytest.mark.parametrize("way", ["-J {jump}", '-o "ProxyCommand=ssh -W %h:%p {jump}"'])
def test_mount_and_sync_go_over_a_jump_host(
    way: str, make_sshd: Callable[..., Sshd], alone: Callable[..., Buildout], production: Production
) -> None:
    sshd, jump = make_sshd(), make_sshd()
    buildout = alone(sshd.remote(production.path), way.format(jump=jump.host))
    buildout.run("mount", check=True)
    works(buildout, production)
    assert jump.logins() == sshd.logins() == 1


def test_a_jump_host_that_is_gone_is_said(
    make_sshd: Callable[..., Sshd], alone: Callable[..., Buildout], production: Production
) -> None:
    sshd, jump = make_sshd(), make_sshd()
    jump.stop()
    buildout = alone(sshd.remote(production.path), f"-J {jump.host}")
    refused = buildout.run("mount", timeout=30)
    assert refused.returncode == 1
    assert "nothing listens there" in refused.stderr
    is_clean_of(buildout)


def test_a_jump_host_that_goes_while_mounted_is_said_and_all_is_unmounted(
    make_sshd: Callable[..., Sshd], alone: Callable[..., Buildout], production: Production
) -> None:
    sshd, jump = make_sshd(), make_sshd()
    buildout = alone(sshd.remote(production.path), f"-J {jump.host}")
    buildout.run("mount", check=True)
    jump.kill()
    until(lambda: buildout.run("status", "-q").returncode == 4, "cow-status says that it is broken", 30)
    buildout.run("umount", check=True)
    is_clean_of(buildout)


@pytest.mark.parametrize("place", ["", 'of mine, "$HOME"/'])
def test_a_configuration_and_a_key_of_the_buildout_are_found(
    place: str,
    sshd: Sshd,
    alone: Callable[..., Buildout],
    production: Production,
    developers: Developers,
    scratch: Path,
) -> None:
    """Their relative paths are the buildout's, wherever the script is started."""
    buildout = alone(f"production:{production.path}", f"-F '{place}ssh_config' -i '{place}key'")
    put(buildout, f"{place}ssh_config", configuration(developers.alone, sshd))
    put(buildout, f"{place}key", developers.alone.key.read_text(encoding="utf-8"))
    buildout.run("mount", check=True, cwd=scratch)
    works(buildout, production)


# How often somebody logs in


class Counted:
    """A buildout, and how often it logs in to its server."""

    def __init__(self, buildout: Buildout, sshd: Sshd):
        self.buildout, self.sshd = buildout, sshd

    def logins(self, command: str, *arguments: str) -> int:
        """Run a script, which must succeed, and return how often it has logged in."""
        before = self.sshd.logins()
        self.buildout.run(command, *arguments, check=True)
        return self.sshd.logins() - before


def larger(production: Production) -> None:
    """Let production's Data.fs grow by more than what comes through the mount."""
    append_bytes(production, 2 * MOST)


def test_one_login_serves_all_from_mount_to_umount(
    sshd: Sshd, alone: Callable[..., Buildout], production: Production
) -> None:
    buildout = alone(sshd.remote(production.path))
    counted = Counted(buildout, sshd)
    larger(production)
    assert counted.logins("mount") == 1
    production.commit(1)
    assert counted.logins("sync", "--yes") == 0
    larger(production)
    assert counted.logins("sync", "--yes") == 0
    assert buildout.read() == production.expected()
    production.commit(1, new=2)
    assert counted.logins("sync", "--yes") == 0
    assert counted.logins("prefetch") == 0
    assert counted.logins("prefetch", "--missing") == 0
    assert counted.logins("status") == 0
    # Packed, so that production is mounted anew.
    production.delete(1)
    production.pack()
    assert counted.logins("sync", "--yes") == 0
    assert buildout.read() == production.expected()
    assert counted.logins("umount") == 0
    is_clean_of(buildout)
    assert not shared(buildout)
    assert counted.logins("prefetch", "--missing") == 1


def shared(buildout: Buildout) -> str:
    """The path of the socket of the connection that a part shares; empty where there is none."""
    settings = buildout.settings
    path = socket_path(settings, settings.remote.partition(":")[0], buildout.developer.uid)
    return path if Path(path).exists() else ""


def test_where_the_server_allows_one_session_each_logs_in(
    make_sshd: Callable[..., Sshd], alone: Callable[..., Buildout], production: Production
) -> None:
    sshd = make_sshd(sessions=1)
    counted = Counted(alone(sshd.remote(production.path)), sshd)
    larger(production)
    assert counted.logins("mount") == 2
    larger(production)
    assert counted.logins("sync", "--yes") == 1
    works(counted.buildout, production)


def test_a_connection_whose_master_was_killed_is_made_anew(
    sshd: Sshd, alone: Callable[..., Buildout], production: Production
) -> None:
    buildout = alone(sshd.remote(production.path))
    counted = Counted(buildout, sshd)
    assert counted.logins("mount") == 1
    (master,) = (pid for pid in processes.all_pids() if re.search(f"{shared(buildout)} .* -N", processes.command(pid)))
    os.kill(master, signal.SIGKILL)
    until(lambda: buildout.run("status", "-q").returncode == 4, "cow-status says that it is broken", 30)
    assert shared(buildout)
    assert counted.logins("mount") == 1
    works(buildout, production)


@pytest.mark.parametrize("option", ["-o ControlPath=none", "-S none"])
def test_who_shares_nothing_logs_in_for_each(
    option: str, sshd: Sshd, alone: Callable[..., Buildout], production: Production
) -> None:
    counted = Counted(alone(sshd.remote(production.path), option), sshd)
    larger(production)
    assert counted.logins("mount") == 2
    works(counted.buildout, production)


PROMPT = "'s password: "


def test_a_password_is_asked_for_once_on_the_terminal(
    make_sshd: Callable[..., Sshd], alone: Callable[..., Buildout], production: Production
) -> None:
    sshd = make_sshd(passwords=True)
    sshd.revoke_all()
    buildout = alone(sshd.remote(production.path))
    with accounts.password(sshd.account.pw_name) as password:
        mounted = buildout.run("mount", tty=True, answers=[(PROMPT, f"{password}\n")])
        assert mounted.returncode == 0, mounted
        assert password not in mounted.stdout
        assert buildout.read() == production.expected()
        production.commit(1)
        for command in (("sync", "--yes"), ("prefetch",)):
            ended = buildout.run(*command, tty=True)
            assert ended.returncode == 0, ended
            assert PROMPT not in ended.stdout
        assert buildout.read() == production.expected()
        buildout.run("umount", check=True)
    is_clean_of(buildout)


def test_a_password_is_asked_for_once_where_the_user_shares_the_connection(
    make_sshd: Callable[..., Sshd], alone: Callable[..., Buildout], production: Production, scratch: Path
) -> None:
    sshd = make_sshd(passwords=True)
    sshd.revoke_all()
    buildout = alone(sshd.remote(production.path), "-o ControlMaster=auto -o ControlPath=/tmp/cowstorage-%C")
    with accounts.password(sshd.account.pw_name) as password:
        for command, answers in (("mount", [(PROMPT, f"{password}\n")]), ("sync", [])):
            ended = buildout.run(command, tty=True, answers=answers)
            assert ended.returncode == 0, ended
            assert sshd.logins() == 1
            assert buildout.read() == production.expected()
            production.commit(1)
        buildout.run("umount", check=True)
    is_clean_of(buildout)


def test_a_wrong_password_is_said(
    make_sshd: Callable[..., Sshd], alone: Callable[..., Buildout], production: Production
) -> None:
    sshd = make_sshd(passwords=True)
    sshd.revoke_all()
    buildout = alone(sshd.remote(production.path), "-o NumberOfPasswordPrompts=1")
    refused = buildout.run("mount", tty=True, answers=[(PROMPT, "wrong\n")])
    assert refused.returncode == 1
    assert "the server rejected the key or password" in refused.stdout
    is_clean_of(buildout)


def test_a_password_without_a_terminal_is_an_error_at_once(
    make_sshd: Callable[..., Sshd], alone: Callable[..., Buildout], production: Production
) -> None:
    sshd = make_sshd(passwords=True)
    sshd.revoke_all()
    buildout = alone(sshd.remote(production.path))
    refused = buildout.run("mount", timeout=20)
    assert refused.returncode == 1
    assert "There is no terminal to ask for a password on" in refused.stderr
    is_clean_of(buildout)


@contextmanager
def agent(developer: Developer) -> Iterator[Dict[str, str]]:
    """The developer's agent with the only key; what a login would have in its environment."""
    printed = developer.run(["ssh-agent", "-s"], check=True).stdout
    environment = dict(re.findall(r"(SSH_\w+)=([^;]+);", printed))
    try:
        developer.run(["ssh-add", "-q", developer.key], env=environment, check=True)
        yield environment
    finally:
        developer.run(["ssh-agent", "-k"], env=environment, check=True)


@pytest.fixture
def with_agent_only(
    sshd: Sshd, production: Production, developers: Developers, make_buildout: Callable[..., Buildout]
) -> Iterator[Buildout]:
    """A buildout of the developer with sudo, whose ssh finds no key in a file."""
    options = {"remote": f"production:{production.path}", "union": "overlay", "ssh-options": "-F ssh_config"}
    with user_allow_other():
        buildout = make_buildout(developers.dev, options)
        put(buildout, "ssh_config", configuration(developers.dev, sshd, "IdentityFile none"))
        yield buildout
        buildout.run("umount", "--lazy")


def test_an_agent_is_enough_below_an_overlay_that_root_mounts(
    with_agent_only: Buildout, production: Production
) -> None:
    buildout = with_agent_only
    refused = buildout.run("mount")
    assert refused.returncode == 1
    assert "the server rejected the key or password" in refused.stderr
    with agent(buildout.developer) as environment:
        buildout.run("mount", check=True, env=environment)
        assert buildout.read() == production.expected()
        production.commit(1)
        buildout.run("sync", "--yes", check=True, env=environment)
    # Its connection stays, also without the agent.
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)
    is_clean_of(buildout)


def test_a_script_that_is_run_by_sudo_says_how_to_keep_the_agent(
    with_agent_only: Buildout, production: Production
) -> None:
    buildout = with_agent_only

    def by_sudo(command: str, *options: str, environment: Dict[str, str]) -> tuple[int, str]:
        words = ["sudo", "-n", *options, str(buildout.script(command))]
        result = buildout.developer.run(words, cwd=buildout.path, env=environment)
        return result.returncode, result.stderr

    with agent(buildout.developer) as environment:
        code, said = by_sudo("mount", environment=environment)
        assert code == 1
        assert "Run it without sudo" in said
        (option,) = re.findall(r"sudo (--preserve-env=\w+)", said)
        assert by_sudo("mount", option, environment=environment) == (0, "")
    assert buildout.read() == production.expected()
    assert by_sudo("umount", environment={}) == (0, "")
    is_clean_of(buildout)
