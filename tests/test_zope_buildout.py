"""A real buildout with Zope and a ZEO server: an instance runs on the merged directories, and is used over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import signal
import subprocess
import textwrap
import urllib.error
import urllib.request
from pathlib import Path
from typing import Iterator, Optional

import pytest

from harness.developer import Developers
from harness.fuse_conf import user_allow_other
from harness.polling import until
from harness.production import Production
from harness.runtime import Runtime
from harness.sshd import Sshd, free_port
from harness.zope import Workshop, ZopeBuildout
from stacks import is_clean_of

pytestmark = pytest.mark.matrix

FILEBOX = Path(__file__).parent / "filebox"
CONTENT = bytes(range(256)) * 2000
BOUNDARY = "3d6b6a416f9b5"


class Instance:
    """A Zope client with shared BLOBs, and its server, at ports of the loopback."""

    def __init__(self, buildout: ZopeBuildout, port: int):
        self.buildout = buildout
        self.url = f"http://127.0.0.1:{port}"

    def foreground(self) -> subprocess.Popen[str]:
        """``bin/instance fg``, only on production's data, as README.rst says; it ends as soon as that is missing."""
        command = ["sh", "-c", "bin/cow-status -q && exec bin/instance fg"]
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return self.buildout.developer.popen(command, cwd=self.buildout.path, **streams)

    def answers(self) -> bool:
        """Whether somebody serves HTTP."""
        try:
            self.get("/")
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def get(self, path: str, body: Optional[bytes] = None) -> bytes:
        """What is published at a path, as the administrator; with a body by POST."""
        request = urllib.request.Request(self.url + path, body)
        request.add_header("Authorization", "Basic " + base64.b64encode(b"admin:secret").decode())
        if body is not None:
            request.add_header("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read()

    def upload(self, name: str, content: bytes) -> None:
        """As a browser's form does."""
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        self.get(f"/box/upload?name={name}", head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode())


@pytest.fixture
def instance(
    scratch: Path,
    production: Production,
    sshd: Sshd,
    developers: Developers,
    runtime: Runtime,
    workshop: Workshop,
    fuse: None,
) -> Iterator[Instance]:
    """Of a developer with sudo, who has written no more than ``remote``."""
    address, port = f"127.0.0.1:{free_port()}", free_port()
    parts = {
        "zeoserver": {"recipe": "plone.recipe.zeoserver", "zeo-address": address, "pack-keep-old": "false"},
        "instance": {
            "recipe": "plone.recipe.zope2instance",
            "eggs": "filebox",
            "user": "admin:secret",
            "http-address": f"127.0.0.1:{port}",
            "zeo-client": "on",
            "zeo-address": address,
            "shared-blob": "on",
            "zodb-temporary-storage": "off",
            "enable-product-installation": "off",
        },
    }
    options = {"remote": sshd.remote(production.path)}
    with user_allow_other():
        buildout = ZopeBuildout(scratch / "buildout", developers.dev, runtime, options, workshop, parts, [FILEBOX])
        yield Instance(buildout, port)
        buildout.bin("zeoserver", "stop", check=False)
        buildout.run("umount", "--lazy")


def test_readmes_example_prepares_a_copy(
    scratch: Path, production: Production, developers: Developers, runtime: Runtime, workshop: Workshop
) -> None:
    """Its lines and its script, on a site that is put in by a line before them."""
    readme = (Path(__file__).parent.parent / "README.rst").read_text(encoding="utf-8")
    example = re.search(r"^    prepare =\n((?:        bin/instance .*\n)+)", readme, re.MULTILINE)
    script = re.search(r"^    import transaction\n\n    for path, host (?:.*\n)(?:    .*\n|\n)+", readme, re.MULTILINE)
    assert example
    assert script
    options = {"remote": str(production.path), "union": "overlay"}
    parts = {
        "instance": {
            "recipe": "plone.recipe.zope2instance",
            "eggs": "filebox",
            "user": "admin:secret",
            "zodb-temporary-storage": "off",
            "enable-product-installation": "off",
        }
    }
    options["prepare"] = f"\n        bin/instance run install.py\n{example.group(1)}"
    buildout = ZopeBuildout(scratch / "buildout", developers.root, runtime, options, workshop, parts, [FILEBOX])
    (buildout.path / "install.py").write_text("import filebox\n\nfilebox.install(app)\n", encoding="utf-8")
    (buildout.path / "prepare.py").write_text(textwrap.dedent(script.group()), encoding="utf-8")
    buildout.run("mount", check=True)
    said = buildout.run("log", check=True).stdout
    assert said.index("-- savepoint prepared --") < said.index("Prepared for development")
    (buildout.path / "look.py").write_text(LOOK, encoding="utf-8")
    seen = json.loads(buildout.bin("instance", "run", "look.py").stdout.splitlines()[-1])
    assert seen == {
        "mail": ["127.0.0.1", 1025],
        "members": [
            {"fullname": "Member 0", "email": "member0@example.com"},
            {"fullname": "Member 1", "email": "member1@example.com"},
        ],
        "users": ["developer"],
    }
    buildout.run("rollback", "production", "--yes", check=True)
    assert buildout.read() == production.expected()
    buildout.run("umount", check=True)


LOOK = """
import json

host, members = app.site.MailHost, app.site.portal_membership.listMembers()
print(json.dumps({
    "mail": [host.smtp_host, host.smtp_port],
    "members": [member.properties for member in members],
    "users": [name for name in app.acl_users.getUserNames() if name == "developer"],
}))
"""


def test_an_instance_serves_the_merged_directories(instance: Instance, production: Production) -> None:
    buildout = instance.buildout
    assert instance.foreground().wait(20) == 3, "it must not start without production's data"

    buildout.run("mount", check=True)
    buildout.bin("zeoserver", "start")
    install = buildout.path / "install.py"
    install.write_text("import filebox\n\nfilebox.install(app)\n", encoding="utf-8")
    buildout.bin("instance", "run", str(install))
    zope = instance.foreground()
    until(lambda: instance.answers() or zope.poll() is not None, "Zope answers", 60)

    for name, document in production.expected().items():
        assert hashlib.sha256(instance.get(f"/box/document?name={name}")).hexdigest() == document.sha256
    instance.upload("picture", CONTENT)
    assert instance.get("/box/download?name=picture") == CONTENT
    uppers = (buildout.path / "var" / "blobstorage.prod").rglob("*.blob")
    assert CONTENT in [path.read_bytes() for path in uppers]
    assert "Uploaded picture" in buildout.run("log", check=True).stdout
    production.assert_unchanged()
    assert "pid" in buildout.run("sync", "--yes").stderr

    # As Ctrl-C does: to all of the foreground, since the script starts the server as its child.
    os.killpg(zope.pid, signal.SIGINT)
    zope.wait(30)
    buildout.bin("zeoserver", "stop")
    buildout.run("sync", "--yes", check=True)
    assert buildout.read() == production.expected()
    assert "Uploaded picture" not in buildout.run("log", check=True).stdout
    buildout.run("umount", check=True)
    is_clean_of(buildout)
