"""The command line of the wire, as sshfs gets it."""

from __future__ import annotations

import re
import shlex
from typing import List

from cowstorage.part.host import Host
from cowstorage.production.filesystems.sshfs import ssh_command_option
from cowstorage.production.wire import __main__ as program
from cowstorage.production.wire.command import PROGRAM, wire
from production.parts import ALONE, DEVELOPER, DIRECTORY, ROOT, made_of, mounting

REMOTE = {"remote": "plone@www:/srv/plone"}
SSH = ("ssh", "-o", 'ProxyCommand=ssh -W "%h:%p" jump')


def words(host: Host = DEVELOPER, **more: str) -> List[str]:
    """The words that the wire is run with, taken apart as env(1) does."""
    settings = made_of({**REMOTE, **{name.replace("_", "-"): value for name, value in more.items()}})
    option = ssh_command_option(wire(settings, host, "/srv/plone", SSH))
    command = option[len("ssh_command=env -S") :].replace("\\\\", "\\").replace("\\,", ",").replace("\\_", " ")
    return shlex.split(command)


def test_sshfs_runs_the_wire_which_runs_ssh() -> None:
    assert PROGRAM in mounting(REMOTE, ALONE).argv[2]
    before, after = words()[: words().index("--")], words()[words().index("--") + 1 :]
    assert before[1:6] == ["-I", "-S", "-X", "utf8", PROGRAM]
    assert tuple(after) == SSH


def test_without_reading_through_sshfs_runs_ssh() -> None:
    assert re.match("ssh_command=(setsid )?ssh ", mounting(REMOTE, read_through="no").argv[2])


def test_the_program_takes_what_it_is_given() -> None:
    root = ROOT._replace(uid=1000)
    arguments = program.parse(words(root, cache_size="1M")[6:])
    cache = f"{DIRECTORY}/var/cow-storage/cache"
    assert arguments == ("/srv/plone/var/blobstorage/", cache, 1_000_000, "1000:100", list(SSH))
    assert program.parse(words()[6:])[2:4] == (None, None)
