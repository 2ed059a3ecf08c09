"""ssh's command line, and whether the connection is shared; ssh itself is a script that says what the test wants."""

from __future__ import annotations

import os
import shlex
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List, Optional

import pytest

from cowstorage.buildout.options import from_options
from cowstorage.part.host import Host
from cowstorage.part.settings import Settings
from cowstorage.production import ssh
from cowstorage.production.ssh import Ssh, login_of, shares_nothing, socket_path, split_remote, takes_sockets
from production.parts import DEVELOPER, part

LOGIN = "plone@www"
UNSHARED = "user plone\ncontrolmaster false\ncontrolpersist no\n"
OURS = DEVELOPER._replace(euid=os.geteuid(), uid=os.geteuid())


class Program:
    """A program in the place of ssh.

    :param configuration: what it prints for ``-G``.
    :param master: what it does for ``-O``, in shell.
    """

    def __init__(self, directory: Path):
        self._log = directory / "ssh.log"
        self._log.touch()
        self._program = directory / "ssh"
        self.says(UNSHARED)

    def says(self, configuration: str, master: str = "exit 255") -> None:
        self._program.write_text(
            f'#!/bin/sh\necho "$@" >> {self._log}\n'
            'case " $* " in\n'
            '*" -S none "*" -G "*|*" -G "*" -S none "*) echo controlmaster auto;;\n'
            '*" -G "*" ControlPath="*) echo "$@" | sed "s/.*ControlPath=/controlpath /; s/ -o .*//";;\n'
            f'*" -G "*) printf %s {shlex.quote(configuration)};;\n*" -O "*) {master};; esac\n'
        )
        self._program.chmod(0o755)

    @property
    def calls(self) -> List[str]:
        """The arguments of each call."""
        return self._log.read_text().splitlines()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    directory = tmp_path / "programs"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return Program(directory)


@pytest.fixture
def location() -> Iterator[Path]:
    """A part's own directory, whose path is short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        made = Path(directory, "var", "cow-storage")
        made.mkdir(parents=True)
        yield made


def settings_in(location: Path, options: str = "") -> Settings:
    """Make the settings of a part whose state is in ``location``."""
    storages = {"file-storage": "var/filestorage", "blob-storage": "var/blobstorage"}
    given = {**storages, "remote": f"{LOGIN}:/srv/plone", "ssh-options": options}
    return from_options(given, "cow-storage", str(location.parent.parent))


def sharing(made: Ssh) -> Optional[str]:
    """Return the path of the socket that ssh is to use; ``None`` where it is told of none."""
    options = [word for word in made.command(False) if word.startswith("Control")]
    if not options:
        return None
    master, path, persist = options
    assert (master, persist) == ("ControlMaster=auto", f"ControlPersist={ssh.PERSIST_SECONDS}")
    return path.partition("=")[2]


@contextmanager
def listening(path: Path) -> Iterator[None]:
    """A socket that somebody listens on, and never answers."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        bound.listen()
        yield


def test_all_of_a_part_share_a_connection_by_a_socket_of_the_parts(location: Path, program: Program) -> None:
    settings = settings_in(location)
    first, second = (sharing(Ssh(settings, OURS, LOGIN)) for _ in range(2))
    assert first == second
    assert first is not None
    assert Path(first).parent == location
    assert list(location.iterdir()) == []
    others = settings_in(location, "-p 2222"), settings
    assert len({first, sharing(Ssh(others[0], OURS, LOGIN)), sharing(Ssh(others[1], OURS, "root@www"))}) == 3


def test_the_users_options_come_first_and_a_question_is_asked_once(location: Path, program: Program) -> None:
    made = Ssh(settings_in(location, "-p 2222"), OURS, LOGIN)
    command = made.command(interactive=False)
    assert command[:5] == ("ssh", "-p", "2222", "-o", "BatchMode=yes")
    assert (
        made.command(interactive=True) == tuple(word for word in command if word != "BatchMode=yes")[:3] + command[5:]
    )
    assert program.calls[0] == "-G -p 2222 -- plone@www"
    assert len(program.calls) == 2


@pytest.mark.parametrize(
    "configuration",
    [
        "controlmaster auto\ncontrolpath /home/me/.ssh/x\n",
        "controlmaster false\ncontrolpath /home/me/.ssh/x\n",
        "controlmaster true\n",
        "",
    ],
)
def test_what_the_user_shares_is_left_to_the_user(configuration: str, location: Path, program: Program) -> None:
    assert shares_nothing(UNSHARED)
    assert not shares_nothing(configuration)
    program.says(configuration)
    assert sharing(Ssh(settings_in(location), OURS, LOGIN)) is None


@pytest.mark.parametrize(
    "host, login", [(OURS._replace(euid=0, uid=1000), LOGIN), (OURS, None)], ids=["root", "daemon"]
)
def test_what_can_not_be_shared_is_not(host: Host, login: Optional[str], location: Path, program: Program) -> None:
    """Root's keys in a directory of the developer's; and rsync that asks a daemon."""
    assert sharing(Ssh(settings_in(location), host, login)) is None
    assert Ssh(settings_in(location), OURS, LOGIN).command(False, shared=False)[-2:] == (
        "-o",
        f"ServerAliveCountMax={ssh.ALIVE_COUNT}",
    )


# The socket


def test_a_long_path_and_one_that_ssh_would_expand_have_their_socket_elsewhere(tmp_path: Path) -> None:
    short, uid = "/srv/b", os.geteuid()
    for directory in ("/srv/a b", "/srv/%h", "/srv/${HOME}", "/srv/ü", "/srv/" + "x" * 70):
        path = socket_path(settings_in(Path(directory, "var/cow-storage")), LOGIN, uid)
        assert path.startswith(f"/tmp/cowstorage-{uid}/ssh-")
        assert ssh.fits(path)
    assert socket_path(settings_in(Path(short, "var/cow-storage")), LOGIN, uid).startswith(f"{short}/var/cow-storage/")


def test_a_path_that_fits_can_be_bound_as_ssh_binds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for length, fits in ((90, True), (91, False)):
        path = "x" * length
        assert ssh.fits(path) is fits
        with socket.socket(socket.AF_UNIX) as bound:
            if fits:
                bound.bind(path + "." + "y" * 16)
            else:
                with pytest.raises(OSError, match="too long"):
                    bound.bind(path + "." + "y" * 16)


def test_a_directory_that_others_can_write_to_or_that_is_none_takes_no_socket(location: Path) -> None:
    mine, shared = location / "mine", location / "shared"
    mine.mkdir(mode=0o755)
    shared.mkdir()
    shared.chmod(0o770)
    (location / "link").symlink_to(mine)
    assert takes_sockets(str(mine / "s"))
    assert list(mine.iterdir()) == []
    for name in ("shared", "link", "missing"):
        assert not takes_sockets(str(location / name / "s"))
    assert not takes_sockets("/proc/s")


def test_a_directory_elsewhere_is_made_for_its_user_alone(location: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "ELSEWHERE", str(location))
    assert takes_sockets(str(location / "cowstorage-1" / "s"))
    assert (location / "cowstorage-1").stat().st_mode & 0o777 == 0o700


# The master


def test_a_master_that_answers_is_used(location: Path, program: Program) -> None:
    settings = settings_in(location)
    program.says(UNSHARED, "echo Master running")
    path = Path(socket_path(settings, LOGIN, os.geteuid()))
    with listening(path):
        assert sharing(Ssh(settings, OURS, LOGIN)) == str(path)
        assert path.exists()
    assert program.calls[-1] == f"-F none -o ControlPath={path} -O check -- {LOGIN}"


@pytest.mark.parametrize("master", ["exit 255", "exec sleep 60"], ids=["dead", "hung"])
def test_a_master_that_does_not_answer_is_replaced(
    master: str, location: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "MASTER_SECONDS", 0.2)
    settings = settings_in(location)
    program.says(UNSHARED, master)
    path = Path(socket_path(settings, LOGIN, os.geteuid()))
    with listening(path):
        assert sharing(Ssh(settings, OURS, LOGIN)) == str(path)
        assert not path.exists()


def test_the_master_is_ended_where_there_is_one(location: Path, program: Program) -> None:
    made = Ssh(settings_in(location), OURS, LOGIN)
    made.disconnect()
    assert program.calls == []
    path = Path(socket_path(settings_in(location), LOGIN, os.geteuid()))
    with listening(path):
        made.disconnect()
    assert program.calls == [f"-F none -o ControlPath={path} -O exit -- {LOGIN}"]


# Remotes


@pytest.mark.parametrize(
    "remote, parts",
    [
        ("plone@www:/srv/plone", ("plone@www", "/srv/plone")),
        ("www:", ("www", "")),
        ("plone@[2001:db8::1]:/srv", ("plone@2001:db8::1", "/srv")),
        ("/srv/plone", None),
    ],
)
def test_a_remote_has_a_login_and_a_path(remote: str, parts: object) -> None:
    assert split_remote(remote) == parts


@pytest.mark.parametrize(
    "remote, login",
    [("www:/srv", "www"), ("www::module/x", None), ("rsync://www/module", None), ("/srv", None), ("u@h:", "u@h")],
)
def test_rsync_logs_in_by_ssh_unless_it_asks_a_daemon(remote: str, login: Optional[str]) -> None:
    assert login_of(remote) == login


def test_files_of_ssh_options_are_below_the_buildout() -> None:
    assert ssh.ssh_options(part(remote="www:/srv", ssh_options="-i key -F none"))[1:] == (
        f"{part(remote='www:/srv').directory}/key",
        "-F",
        "none",
    )
