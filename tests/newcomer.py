"""Does what README.rst tells a new user, command by command, with Zope and an sshd; changes the machine it runs on.

``sh tests/fresh`` runs it, as root, on a machine of its own.  Of what a new user has there are made: production, on a
server that is reached by ssh; and a buildout with an instance, built by a user without sudo.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import textwrap
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, List

CHECKOUT = Path(__file__).resolve().parent.parent
README = (CHECKOUT / "README.rst").read_text(encoding="utf-8")
A_TRANSACTION = "03f2a1b4c5d6e7f8"
USE = "Use it in your Plone buildout"
HTTP_PORT = 8089
SSH_PORT = 2222

INSTANCE = """
[buildout]
parts = instance
develop = {checkout}

[instance]
recipe = plone.recipe.zope2instance
user = admin:secret
http-address = 127.0.0.1:{http}
zodb-temporary-storage = off
eggs =

[versions]
{versions}
"""

CONTENT = """
import transaction
from persistent.mapping import PersistentMapping
from ZODB.blob import Blob

app.documents = PersistentMapping({str(number): Blob(b"x" * 1000 * number) for number in range(30)})
transaction.commit()
"""

STEP = """
import transaction
from ZODB.blob import Blob

assert sum(len(blob.open("r").read()) for blob in app.documents.values()) > 400_000
app.documents["new"] = Blob(b"new")
transaction.get().note("NAME")
transaction.commit()
"""


def section(title: str) -> str:
    """The text below a section's title, of either level."""
    match = re.search(rf"^{re.escape(title)}\n([=-])\1+\n(.*?)(?=^[^\n]+\n(?:=+|\1+)\n|\Z)", README, re.M | re.S)
    assert match, f"README.rst has no section {title}"
    return match.group(2)


def commands(title: str) -> List[str]:
    """What follows the prompts in a section."""
    return re.findall(r"^ +\$ (.*)$", section(title), re.MULTILINE)


class User:
    """Somebody with a home, who runs commands as one types them."""

    def __init__(self, name: str):
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", "--password", "*", name], check=True)
        self.account = pwd.getpwnam(name)
        self.home = Path(self.account.pw_dir)
        self.buildout = self.home / "plone"

    def start(self, command: str, **keywords: Any) -> subprocess.Popen[str]:
        """Start a command line, as the leader of a session."""
        print(f"   $ {command}", flush=True)
        change = ("setpriv", f"--reuid={self.account.pw_uid}", f"--regid={self.account.pw_gid}", "--init-groups", "--")
        environment = {"HOME": str(self.home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        keywords.setdefault("cwd", self.buildout)
        words = [*change, "sh", "-c", command]
        return subprocess.Popen(words, env=environment, start_new_session=True, text=True, **keywords)

    def run(self, command: str, **keywords: Any) -> str:
        """Run a command line to its end, which must be a good one; what it has printed."""
        process = self.start(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, **keywords)
        output = process.communicate(timeout=600)[0]
        print("".join(f"     {line}\n" for line in output.splitlines()), end="", flush=True)
        assert process.returncode == 0, f"{command} ended with {process.returncode}"
        return output

    def write(self, path: Path, text: str) -> None:
        """Write a file of one's own that nobody else may change."""
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        self.own(path.parent)

    def own(self, path: Path) -> None:
        """Be the owner of all that is there."""
        subprocess.run(["chown", "-R", f"{self.account.pw_uid}:{self.account.pw_gid}", str(path)], check=True)


class Newcomer(User):
    """Who has a buildout with an instance, and then does what README.rst says."""

    def build(self) -> None:
        """A buildout as it is before cowstorage, with a database of its own."""
        checkout = self.home / "cowstorage"
        shutil.copytree(CHECKOUT, checkout)
        versions = re.findall(r"^([\w.-]+)==(\S+)$", (CHECKOUT / "tests" / "zope.txt").read_text(), re.MULTILINE)
        pins = "\n".join(f"{name} = {version}" for name, version in versions)
        self.write(self.buildout / "base.cfg", INSTANCE.format(checkout=checkout, versions=pins, http=HTTP_PORT))
        self.write(self.buildout / "buildout.cfg", "[buildout]\nextends = base.cfg\n")
        self.write(self.buildout / "content.py", CONTENT)
        for name in ("upgrade.py", "upgrade-step-1.py", "upgrade-step-2.py"):
            self.write(self.buildout / name, STEP.replace("NAME", name))
        self.own(self.home)
        self.run("python3 -m venv .")
        tools = [f"{name}=={version}" for name, version in versions if name in ("setuptools", "wheel", "zc.buildout")]
        self.run(f"bin/pip install --quiet --disable-pip-version-check {' '.join(tools)}")
        self.run("bin/buildout -q")
        self.run("bin/instance run content.py")

    def follow(self, title: str) -> None:
        """Type all commands of a section, one after the other."""
        print(f"\n{title}\n{'-' * len(title)}", flush=True)
        for command in commands(title):
            self.type(command)

    def type(self, command: str) -> None:
        """Type a command; what is only an example in it becomes what is there."""
        if A_TRANSACTION in command:
            self.run("bin/cow-mount && bin/instance run upgrade-step-1.py && bin/instance run upgrade-step-2.py")
            tid = json.loads(self.run("bin/cow-log --json"))[1]["tid"]
            self.run(f"{command.replace(A_TRANSACTION, tid)} --yes")
        elif command.endswith("bin/instance fg"):
            self.look(command)
        else:
            self.run(command)

    def look(self, command: str) -> None:
        """Start the instance, look at it with a browser, and stop it."""
        process = self.start(command)
        try:
            while not answers():
                assert process.poll() is None, f"{command} ended with {process.returncode}"
                time.sleep(0.2)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(60)


def answers() -> bool:
    """Whether the instance serves HTTP."""
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{HTTP_PORT}/", timeout=30).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


class Production(User):
    """The server, at the address that README.rst has, and with a copy of the newcomer's own database."""

    def __init__(self, name: str, host: str, directory: Path, newcomer: Newcomer):
        super().__init__(name)
        self.directory = directory
        directory.mkdir()
        shutil.copytree(newcomer.buildout / "var", directory / "var")
        self.own(directory)
        newcomer.write(newcomer.home / ".ssh" / "config", f"Host {host}\n  HostName 127.0.0.1\n  Port {SSH_PORT}\n")
        newcomer.run("ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
        key = (newcomer.home / ".ssh" / "id_ed25519.pub").read_text()
        self.write(self.home / ".ssh" / "authorized_keys", key)
        self.start_ssh(newcomer)

    def start_ssh(self, newcomer: Newcomer) -> None:
        """Start sshd, and make its key known to the newcomer."""
        os.makedirs("/run/sshd", exist_ok=True)
        words = ["/usr/sbin/sshd", "-D", "-p", str(SSH_PORT), "-o", "ListenAddress=127.0.0.1"]
        self.sshd = subprocess.Popen(words)
        newcomer.run(
            f"until ssh-keyscan -p {SSH_PORT} 127.0.0.1 2> /dev/null | grep . > ~/.ssh/known_hosts; do :; done"
        )

    def stop_ssh(self) -> None:
        """End sshd and its connections."""
        subprocess.run(["pkill", "-TERM", "-P", str(self.sshd.pid)], check=False)
        self.sshd.terminate()
        self.sshd.wait(30)

    def digest(self) -> str:
        """Of every name, owner, mode, time and byte."""
        words = ["tar", "--sort=name", "-C", str(self.directory), "-c", "."]
        return hashlib.sha256(subprocess.run(words, check=True, capture_output=True).stdout).hexdigest()


def main() -> None:
    """All of it; what doesn't end well ends it."""
    install = re.search(r"^ +apt (install .*)$", section(USE), re.MULTILINE)
    remote = re.search(r"^ +remote = (\w+)@([\w.]+):(\S+)$", section(USE), re.MULTILINE)
    part = re.search(r"^( +)\[buildout\]\n(?:\1.*\n|\n)+", section(USE), re.MULTILINE)
    assert install
    assert remote
    assert part
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (install.group(1).split(), ["install", "openssh-server", "procps", "python3-venv"]):
        subprocess.run(["apt-get", "-y", "-qq", "--no-install-recommends", *words], check=True, env=environment)

    newcomer = Newcomer("developer")
    newcomer.build()
    production = Production(remote.group(1), remote.group(2), Path(remote.group(3)), newcomer)
    before = production.digest()
    base = "[buildout]\nextends = base.cfg\n"
    newcomer.write(newcomer.buildout / "buildout.cfg", base + textwrap.dedent(part.group()))
    newcomer.run("bin/buildout")

    newcomer.follow(USE)
    newcomer.follow("Scripts")
    newcomer.follow("Iterate on an upgrade")
    newcomer.run("bin/cow-sync --yes")
    *online, offline = commands("BLOBs at local speed")
    for command in online:
        newcomer.type(command)
    newcomer.run("bin/cow-umount")
    production.stop_ssh()
    newcomer.type(offline)
    newcomer.run("bin/instance run upgrade.py")
    newcomer.run("bin/cow-umount")
    production.start_ssh(newcomer)
    newcomer.follow("The first time")
    newcomer.follow("Every day")

    assert production.digest() == before, "production was changed"
    assert str(newcomer.home) not in Path("/proc/self/mountinfo").read_text(), "something is mounted still"
    production.stop_ssh()
    print("\nAll of README.rst's commands do what it says.")


if __name__ == "__main__":
    main()
