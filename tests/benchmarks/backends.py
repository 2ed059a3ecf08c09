"""Every network file system below every union: who may use it, and how fast small BLOBs are read the first time.

By hand, as root; the first line measures what needs no other kernel and takes ten minutes, the second one prints the
table of README.rst, which a test compares with it::

    PYTHONPATH=src:tests python3 -m benchmarks.backends measure [directory] [sshfs] [rclone]
    PYTHONPATH=src:tests python3 -m benchmarks.backends table

NFS and CIFS are measured by ``machine.speeds``, whose lines belong into ``backends.jsonl``, too.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from benchmarks.slow_link import SlowLink
from cowstorage.actions.context import programs_of
from cowstorage.buildout.options import from_options
from cowstorage.part.host import Host
from cowstorage.production import filesystems
from cowstorage.union import kinds
from harness.buildout import Buildout
from harness.developer import Developer
from harness.fuse_conf import user_allow_other
from harness.production import Production
from harness.runtime import Runtime
from harness.sshd import Sshd
from harness.workspace import Workspace

# What a file system is compared with, below overlay: a directory of the same machine.
LOCAL = {"nfs": "local", "cifs": "local"}

DATA = Path(__file__).parent / "backends.jsonl"
BLOBS, SIZE = 100, 4_000
ROUND_TRIPS = (0.0, 0.04)
BYTES_PER_SECOND = 12.5e6
SECONDS = 15.0

# What stands for "any other type" here.
OTHER = "davfs"
REMOTES = {
    "sshfs": "production:/srv/plone",
    "nfs": "server:/srv/plone",
    "cifs": "//server/share",
    "rclone": "production:/srv/plone",
    "directory": "/",
    "other": "https://server/plone",
}

READ = """
import json, sys, time
begun, read = time.perf_counter(), 0
for path in json.load(sys.stdin):
    if time.perf_counter() - begun > {seconds}:
        break
    with open(path, "rb") as file:
        file.read()
    read += 1
print((time.perf_counter() - begun) / read * 1e3)
"""


# Who may use what: the code's own judgement

_USER = Host(
    euid=1000,
    uid=1000,
    gid=1000,
    sudo=None,
    interactive=False,
    programs=frozenset(),
    user_allow_other=True,
    fuse=True,
    aufs=True,
)
HOSTS = {
    "root": _USER._replace(euid=0),
    "sudo": _USER._replace(sudo="/usr/bin/sudo"),
    "user": _USER,
}


def who(filesystem: str, kind: str) -> Tuple[str, ...]:
    """Those of ``HOSTS`` who can use a union on a network file system, everything installed."""
    options = {"remote": REMOTES[filesystem], "filesystem": OTHER if filesystem == "other" else filesystem}
    if filesystem == "cifs":
        options["mount-options"] = "guest"
    part = from_options({**options, "blob-storage": "b", "union": kind}, "cow-storage", "/srv/buildout")
    union = kinds.UNIONS[kind]

    def can(host: Host) -> bool:
        equipped = host._replace(programs=programs_of(part))
        mounted = filesystems.make(part, equipped, union.needs_root)
        problem = mounted.problem() or union.problem(part, equipped)
        return not problem and not (union.needs_root and mounted.root_may_look())

    return tuple(name for name, host in HOSTS.items() if can(host))


# The table


class Row(NamedTuple):
    """One of README's."""

    filesystem: str
    union: str
    who: str
    near: str
    far: str


HEADING = Row("filesystem", "union", "works for", "near", "at 40 ms")
# Only a kernel in user-mode Linux has it.
UNMEASURED = "not measured"


def rows(lines: Sequence[Dict[str, Any]]) -> Iterator[Row]:
    """A row for each file system and union that the code has."""
    for filesystem in (*filesystems.FILESYSTEMS, "other"):
        for kind in kinds.UNIONS:
            if kind != "aufs":
                speeds = [_speed(lines, filesystem, kind, round_trip) for round_trip in ROUND_TRIPS]
                yield Row(filesystem, kind, ", ".join(who(filesystem, kind)), *speeds)
    yield Row("any of them", "aufs", ", ".join(who("directory", "aufs")), UNMEASURED, UNMEASURED)


def _speed(lines: Sequence[Dict[str, Any]], filesystem: str, kind: str, round_trip: float) -> str:
    if not filesystems.backend(filesystem).is_remote and round_trip:
        return "no network"
    local = [line["first_ms"] for line in lines if _is(line, LOCAL.get(filesystem, "directory"), "overlay", 0.0)]
    # There may be several versions of one protocol.
    found = [line["first_ms"] / local[-1] for line in lines if local and _is(line, filesystem, kind, round_trip)]
    return " to ".join(dict.fromkeys(_ratio(one) for one in (min(found), max(found)))) if found else UNMEASURED


def _is(line: Dict[str, Any], filesystem: str, kind: str, round_trip: float) -> bool:
    about = (line["filesystem"].partition("-")[0], line["union"], line["round_trip_ms"])
    return about == (filesystem, kind, round_trip * 1e3) and "first_ms" in line


def _ratio(number: float) -> str:
    """Two digits are what repeats."""
    return f"{float(f'{number:.2g}'):,.0f}x" if number >= 10 else f"{number:.1f}x"


def read_lines(path: Path = DATA) -> List[Dict[str, Any]]:
    """What was measured."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(lines: Sequence[Dict[str, Any]]) -> str:
    """A simple table of reStructuredText."""
    cells = [HEADING, *rows(lines)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADING))]
    rule = "  ".join("=" * width for width in widths)
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]
    return "\n".join([rule, text[0], rule, *text[1:], rule])


# Measuring


class Place(NamedTuple):
    """A production near or far, and a developer with sudo."""

    directory: Path
    production: Production
    developer: Developer
    sshd: Sshd
    port: int


def options(filesystem: str, place: Place) -> Dict[str, str]:
    """The part's, without the union."""
    path, developer = place.production.path, place.developer
    if filesystem == "directory":
        return {"remote": str(path)}
    if filesystem == "sshfs":
        return {"remote": place.sshd.remote(path)}
    lines = (
        *("[production]", "type = sftp", "host = 127.0.0.1", f"port = {place.port}"),
        *(f"user = {place.sshd.account.pw_name}", f"key_file = {developer.key}", "shell_type = unix"),
    )
    configuration = place.directory / "rclone.conf"
    configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"remote": f"production:{path}", "filesystem": "rclone", "mount-options": f"config={configuration}"}


def measure(workspace: Workspace, names: Sequence[str]) -> Iterator[Dict[str, Any]]:
    """A line for each file system, union and distance."""
    template = Production.create(workspace.path / "production")
    template.commit(BLOBS // 20, new=20, sizes=[SIZE])
    runtime = Runtime(workspace.path / "runtime")
    for round_trip in ROUND_TRIPS:
        directory = workspace.scratch(f"{round_trip * 1e3:.0f}-ms")
        developer = Developer.with_sudo(workspace, directory)
        with ExitStack() as cleanups:
            cleanups.enter_context(user_allow_other())
            sshd = Sshd(directory / "sshd").start()
            cleanups.callback(sshd.stop)
            sshd.authorize(developer.public_key)
            real_port = port = sshd.port
            if round_trip:
                port = cleanups.enter_context(SlowLink(real_port, round_trip / 2, BYTES_PER_SECOND)).port
            sshd.port = port
            developer.trust(sshd)
            sshd.port = real_port
            for name in names:
                if round_trip and not filesystems.backend(name).is_remote:
                    continue
                site = template.copy(directory / f"production-{name}")
                if name == "directory":
                    site.give_to(developer.uid, developer.gid)
                place = Place(directory, site, developer, sshd, port)
                for kind in (one for one in kinds.UNIONS if one != "aufs"):
                    buildout = Buildout(
                        directory / f"{name}-{kind}", developer, runtime, {**options(name, place), "union": kind}
                    )
                    figures = once(buildout, site, SECONDS)
                    yield {"filesystem": name, "union": kind, "round_trip_ms": round_trip * 1e3, **figures}


def once(buildout: Buildout, site: Production, seconds: float) -> Dict[str, Any]:
    """Mount, read BLOBs that nobody remembers, and read them again: milliseconds for each; or the ``problem``.

    :param seconds: what does not finish in this time is judged by the BLOBs that it has read.
    """
    small = [path for path in sorted(site.blob_storage.rglob("*.blob")) if path.stat().st_size == SIZE]
    paths = [path.relative_to(site.blob_storage) for path in random.Random(0).sample(small, BLOBS)]
    subprocess.run(["sh", "-c", "sync; echo 3 > /proc/sys/vm/drop_caches"], check=True)
    mounted = buildout.run("mount", timeout=300)
    if mounted.returncode:
        return {"problem": mounted.stderr.strip()}
    through = [os.path.join(buildout.blob_storage, path) for path in paths]
    first = _read(buildout, through, seconds)
    again = _read(buildout, through, seconds)
    buildout.run("umount", timeout=300, check=True)
    return {"first_ms": first, "again_ms": again}


def _read(buildout: Buildout, paths: List[str], limit: float) -> float:
    """Milliseconds for each."""
    command = [buildout.runtime.python, "-c", READ.format(seconds=limit)]
    return round(float(buildout.developer.run(command, input=json.dumps(paths), timeout=300, check=True).stdout), 4)


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    if arguments[:1] == ["table"]:
        print(table(read_lines()))
        return
    names = list(arguments[1:]) or ["directory", "sshfs", "rclone"]
    kept = [line for line in read_lines() if line["filesystem"] not in names] if DATA.exists() else []
    workspace = Workspace.create()
    try:
        for line in measure(workspace, names):
            print(json.dumps(line), flush=True)
            kept.append(line)
            DATA.write_text("".join(json.dumps(one) + "\n" for one in kept), encoding="utf-8")
    finally:
        workspace.remove()


if __name__ == "__main__":
    main(sys.argv[1:])
