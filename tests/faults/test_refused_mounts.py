"""Systems that let nobody mount: containers, made of namespaces and docker's default capabilities; and AppArmor.

Each gets one diagnosis, with the way out; and a container with the flags that it is told works.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Callable, Dict, Iterator, List

import pytest

from harness import needs
from harness.buildout import Buildout
from harness.developer import Developer, Developers, Result
from harness.production import Production
from harness.sshd import Sshd

MakeBuildout = Callable[..., Buildout]

# Those of docker run, docker(1); --cap-add SYS_ADMIN adds one.
CAPABILITIES = (
    "chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod "
    "audit_write setfcap"
).split()
ADDED = "sys_admin"

# A /dev as docker makes it.
DEVICES = "null zero full random urandom tty"
PREPARE = """
dev=$1; devices=$2; shift 2
for name in $devices; do touch "$dev/$name"; mount --bind "/dev/$name" "$dev/$name"; done
mkdir "$dev/pts" "$dev/shm"; mount --bind /dev/pts "$dev/pts"; mount --bind /dev/shm "$dev/shm"
ln -s /proc/self/fd "$dev/fd"
mount --rbind "$dev" /dev
exec "$@"
"""


def in_container(buildout: Buildout, scratch: Path, command: str, *flags: str) -> Result:
    """Run a shell command in the buildout's directory, in a container that was started with some of the flags."""
    devices = DEVICES + (" fuse" if "device" in flags else "")
    allowed = CAPABILITIES + ([ADDED] if "capability" in flags else [])
    device_directory = scratch / "-".join(("dev", *flags))
    device_directory.mkdir()
    bounded = ["setpriv", "--inh-caps=-all", "--bounding-set=-all," + ",".join(f"+{name}" for name in allowed), "--"]
    argv: List[str] = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-ec", PREPARE, "sh"]
    argv += [
        str(device_directory),
        devices,
        *bounded,
        *as_user(buildout.developer),
        "sh",
        "-c",
        f"cd '{buildout.path}'; {command}",
    ]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=120)
    return Result(ended.returncode, ended.stdout, ended.stderr)


def as_user(developer: Developer) -> List[str]:
    """Return the words that make a program the developer's."""
    if developer.is_root:
        return []
    return ["setpriv", f"--reuid={developer.uid}", f"--regid={developer.gid}", "--init-groups", "--"]


@pytest.fixture(params=["root", "alone"])
def developer_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["sshfs", "directory"])
def buildout(
    request: pytest.FixtureRequest,
    developer_name: str,
    production: Production,
    developers: Developers,
    make_sshd: Callable[..., Sshd],
    make_buildout: MakeBuildout,
    fuse: None,
) -> Buildout:
    """Of root, as in most containers, and of a user without sudo."""
    developer = getattr(developers, developer_name)
    options: Dict[str, str] = {"sudo": "no"} if developer_name == "alone" else {}
    if request.param == "sshfs":
        options["remote"] = make_sshd().remote(production.path)
    else:
        production.give_to(developer.uid, developer.gid)
        options["remote"] = str(production.path)
    return make_buildout(developer, options)


def test_a_container_that_may_not_mount_is_told_the_flags(buildout: Buildout, scratch: Path) -> None:
    refused = in_container(buildout, scratch, "bin/cow-mount", "device")
    assert refused.returncode == 1, refused
    assert "This machine or container doesn't let you mount" in refused.stderr
    assert "--cap-add SYS_ADMIN --device /dev/fuse" in refused.stderr
    assert "dmesg" not in refused.stderr
    assert "SFTP" not in refused.stderr


def test_a_container_without_the_device_is_told_the_flags(buildout: Buildout, scratch: Path) -> None:
    refused = in_container(buildout, scratch, "bin/cow-mount --check", "capability")
    assert "/dev/fuse can't be opened by you" in refused.stdout
    assert "--device /dev/fuse" in refused.stdout


def test_a_container_with_the_flags_mounts(buildout: Buildout, scratch: Path, production: Production) -> None:
    commands = "bin/cow-mount && bin/cow-status -q && ls var/blobstorage && bin/cow-umount"
    done = in_container(buildout, scratch, commands, "device", "capability")
    assert done.returncode == 0, done
    assert set(done.stdout.split()) >= {path.name for path in production.blob_storage.glob("0x*")}


@pytest.fixture
def overlay_directory(scratch: Path) -> Iterator[Path]:
    """A directory on an overlay, as the root directory of a container is."""
    for name in ("image", "written", "work", "merged"):
        (scratch / name).mkdir()
    options = f"lowerdir={scratch}/image,upperdir={scratch}/written,workdir={scratch}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "container", str(scratch / "merged")], check=True)
    yield scratch / "merged"
    subprocess.run(["umount", str(scratch / "merged")], check=True)


@pytest.mark.parametrize("name", ["root", "alone"])
def test_a_buildout_on_the_overlay_of_a_container_gets_a_union_of_fuse(
    name: str,
    overlay_directory: Path,
    production: Production,
    developers: Developers,
    make_buildout: MakeBuildout,
    fuse: None,
) -> None:
    """The kernel's overlay takes no upper that is on an overlay."""
    developer = getattr(developers, name)
    production.give_to(developer.uid, developer.gid)
    buildout = make_buildout(
        developer, {"remote": str(production.path), "sudo": "no"}, f"{overlay_directory.name}/site"
    )
    assert "fuse" in buildout.run("mount", check=True).stdout
    local = {**production.expected(), **buildout.commit(1, new=1, changed=1)}
    assert buildout.read() == local
    buildout.run("umount", check=True)
    buildout.run("mount", check=True)
    assert buildout.read() == local
    buildout.run("umount", check=True)


# As Ubuntu's profile has it say, whatever the server would.
REFUSING = "#!/bin/sh\necho 'fusermount3: mount failed: Permission denied' >&2\nexit 1\n"


def test_a_refusal_of_apparmors_is_not_taken_for_the_servers(
    scratch: Path, production: Production, developers: Developers, sshd: Sshd, make_buildout: MakeBuildout, fuse: None
) -> None:
    """libfuse looks for fusermount3 where it was installed, whatever PATH is: a false one lies over the true one."""
    false = scratch / "fusermount3"
    false.write_text(REFUSING)
    false.chmod(0o755)
    buildout = make_buildout(developers.alone, {"remote": sshd.remote(production.path), "sudo": "no"})
    true = needs.program("fusermount3", "fuse3")
    over = ["unshare", "--mount", "sh", "-ec", f"mount --bind '{false}' '{true}'; exec \"$@\"", "sh"]
    command = [*over, *as_user(developers.alone), str(buildout.script("mount"))]
    refused = subprocess.run(command, cwd=buildout.path, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 1
    assert "AppArmor doesn't let fusermount3 mount here" in refused.stderr
    assert "administrator" not in refused.stderr
    assert "may not look into" not in refused.stderr
