"""No password reaches a command line, the output, or a file of ours: looked for while production is mounted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Callable, Dict

import pytest

from cowstorage.buildout.options import from_options
from cowstorage.errors import SettingsError
from faults import scripts
from harness import cleanup
from harness.buildout import Buildout
from harness.developer import Developers
from harness.production import Production

SECRET = "geheim-4711"

# In place of a program that mounts: shows production, and tells of each command line with the secret in it.
PROGRAM = r"""#!/bin/sh
case "$*" in
    version*) echo "rclone v1.60.1"; exit ;;
    *cifs*|*--read-only*) ;;
    *) exec /bin/mount "$@" ;;
esac
echo "$*" >>'{directory}/calls'
grep -l -F -f '{directory}/secret' /proc/[0-9]*/cmdline >>'{directory}/leaks' 2>/dev/null
for target in "$@"; do :; done
/bin/mount --bind -- '{production}' "$target" && /bin/mount -o remount,bind,ro -- "$target"
"""


@pytest.fixture
def programs(scratch: Path, production: Production) -> Path:
    """A directory with them, and with the secret."""
    directory = scratch / "programs"
    directory.mkdir()
    (directory / "secret").write_text(SECRET)
    for name in ("mount", "mount.cifs", "rclone"):
        (directory / name).write_text(PROGRAM.format(directory=directory, production=production.path))
        (directory / name).chmod(0o755)
    return directory


def credentials(programs: Path) -> Dict[str, str]:
    path = programs / "credentials"
    path.write_text(f"username=plone\npassword={SECRET}\n")
    path.chmod(0o600)
    return {"remote": "//www.example.com/plone", "mount-options": f"credentials={path}"}


def configuration(programs: Path) -> Dict[str, str]:
    path = programs / "rclone.conf"
    path.write_text(f"[backup]\ntype = sftp\npass = {SECRET}\n")
    return {"filesystem": "rclone", "remote": "backup:plone", "mount-options": f"config={path}"}


@pytest.mark.parametrize("way", [credentials, configuration])
def test_a_password_stays_where_it_is(
    way: Callable[[Path], Dict[str, str]],
    programs: Path,
    production: Production,
    developers: Developers,
    make_buildout: Callable[..., Buildout],
    monkeypatch: pytest.MonkeyPatch,
    fuse: None,
) -> None:
    """In the file that the mounting program reads."""
    buildout = make_buildout(developers.root, {"union": "overlay", **way(programs)})
    monkeypatch.setenv("RCLONE_CONFIG_PASS", SECRET)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    lines = ("mount -n", "mount -v", "status -v", "sync -v --yes", "mount --sudoers")
    said = [scripts.run(buildout, *line.split(), check=True) for line in lines]
    assert buildout.read() == production.expected()
    said.append(scripts.run(buildout, "umount", "-v", check=True))
    assert len((programs / "calls").read_text().splitlines()) >= 2
    assert (programs / "leaks").read_text() == ""
    assert [one for one in said if SECRET in one.stdout + one.stderr] == []
    files = [path for path in buildout.path.rglob("*") if path.is_file() and path.name != "Data.fs"]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    cleanup.assert_nothing_mounted(buildout.path)


@pytest.mark.parametrize(
    "options",
    [
        {"filesystem": "cifs", "remote": "//h/s", "mount-options": "username=a,password=geheim"},
        {"filesystem": "cifs", "remote": "//h/s", "mount-options": "username=a%geheim"},
        {"filesystem": "cifs", "remote": "//h/s", "mount-options": "user=a%geheim"},
        {"filesystem": "cifs", "remote": "//a:geheim@h/s", "mount-options": "guest"},
        {"filesystem": "rclone", "remote": ":sftp,pass=geheim:/p"},
        {"filesystem": "ceph", "remote": "h:/p", "mount-options": "name=a,secret=geheim"},
        {"filesystem": "davfs", "remote": "https://a:geheim@h/p"},
    ],
)
def test_passwords_in_options_are_refused_and_not_repeated(options: Dict[str, str]) -> None:
    """And not repeated in the message."""
    with pytest.raises(SettingsError) as caught:
        from_options({"file-storage": "a", "blob-storage": "b", **options}, "cow-storage", "/home/dev")
    assert "geheim" not in str(caught.value)
