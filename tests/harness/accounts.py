"""Users for the tests, made once and found again; nobody can log in to them with a password."""

from __future__ import annotations

import fcntl
import pwd
import secrets
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional

from harness import needs

LOCK = Path("/run/lock/cowstorage-tests.accounts")
PASSWORD_LOCK = Path("/run/lock/cowstorage-tests.password")


def ensure(name: str, least_uid: Optional[int] = None) -> pwd.struct_passwd:
    """The user ``name`` with a home and a shell, made if there is none.

    :param least_uid: a new user gets the first free uid from here on.
    """
    needs.root()
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            return pwd.getpwnam(name)
        except KeyError:
            _add(name, least_uid)
        return pwd.getpwnam(name)


@contextmanager
def password(name: str) -> Iterator[str]:
    """A password for a user, nobody else's knowledge, and none any more afterwards; runs wait for each other."""
    with PASSWORD_LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = secrets.token_hex(8)
        subprocess.run(["chpasswd"], input=f"{name}:{made}\n", text=True, check=True)
        try:
            yield made
        finally:
            subprocess.run(["usermod", "--password", "*", name], check=True)


def _add(name: str, least_uid: Optional[int]) -> None:
    useradd = needs.program("useradd", "passwd")
    # "*" is no password that matches; the "!" of a new user would make sshd call the account locked.
    command = [useradd, "--create-home", "--user-group", "--shell", "/bin/sh", "--password", "*"]
    if least_uid is not None:
        command += ["--uid", str(_free_uid(least_uid))]
    subprocess.run([*command, name], check=True, capture_output=True)


def _free_uid(least: int) -> int:
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    return next(uid for uid in range(least, 60000) if uid not in taken)
