"""How fast small BLOBs are read over NFS and CIFS, near and far, below each union; by hand, as root::

    PYTHONPATH=src:tests python3 -m machine.speeds [local] [nfs-4.2] [nfs-3] [cifs] [overlay] …

prints lines of JSON.  All of it runs in the machine, whose system calls are slow: the ratio to its own disk tells.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Dict, Iterable, List, Sequence

from benchmarks.backends import BLOBS, ROUND_TRIPS, SIZE, once
from harness.buildout import Buildout
from harness.developer import Developer
from harness.production import Production
from harness.runtime import Runtime
from harness.workspace import Workspace
from machine import boot
from network.line import Line
from network.servers import NfsServer, SmbServer

CHECKOUT = Path(__file__).parent.parent.parent
RESULT = "speeds.jsonl"
INSIDE = "--inside"

UNIONS = ("overlay", "fuse-overlayfs", "unionfs-fuse")
# System calls are slow there.
SECONDS = 60.0


def main(names: Sequence[str]) -> None:
    """Outside: boot, and show what was measured."""
    exchange = Path(tempfile.mkdtemp(prefix="cowstorage-machine-", dir="/var/tmp"))
    result = exchange / RESULT
    script = f"PYTHONPATH=src:tests {shlex.join([sys.executable, '-m', 'machine.speeds', INSIDE, str(result), *names])}"
    try:
        console = boot.run(script, exchange, CHECKOUT, result, 600.0)
        print(result.read_text(encoding="utf-8") if result.exists() else console, end="")
    finally:
        shutil.rmtree(exchange)


def measure(result: Path, names: Sequence[str]) -> None:
    """Inside: every file system, union and distance."""
    workspace = Workspace.create()
    scratch = workspace.scratch("speeds")
    runtime = Runtime(workspace.path / "runtime")
    developer = Developer.with_sudo(workspace, scratch)
    production = Production.create(workspace.path / "production")
    production.commit(BLOBS // 20, new=20, sizes=[SIZE])
    # The kernel's overlay wants files of the developer's; samba's are whom its user may read.
    shared = production.copy(workspace.path / "shared")
    production.give_to(developer.uid, developer.gid)
    nfs, smb, line = NfsServer().start(), SmbServer(scratch / "samba", shared.path), Line()
    smb.serve()
    squashed = f"rw,all_squash,anonuid={developer.uid},anongid={developer.gid}"
    credentials = smb.credentials(developer.uid, developer.gid)
    share = {"remote": smb.remote, "mount-options": f"port={smb.port},credentials={credentials}"}
    parts: Dict[str, Dict[str, str]] = {"local": {"remote": str(production.path), "filesystem": "directory"}}
    for version in ("4.2", "3"):
        remote = nfs.export(production.path, squashed, version)
        parts[f"nfs-{version}"] = {"remote": remote, "filesystem": "nfs", "mount-options": f"vers={version}"}
    parts["nfs-4.2-by-default"] = {
        **parts["nfs-4.2"],
        "mount-options": "vers=4.2,acregmin=3,acregmax=60,acdirmin=30,acdirmax=60,cto,lookupcache=all",
    }
    parts["cifs"] = share
    parts["cifs-by-default"] = {**share, "mount-options": f"{share['mount-options']},actimeo=1"}
    try:
        for round_trip in ROUND_TRIPS:
            for name, options in parts.items():
                for union in chosen(UNIONS, names) if name in chosen(parts, names) else ():
                    buildout = Buildout(scratch / "buildout", developer, runtime, {**options, "union": union})
                    with line.delay(round_trip if name != "local" else 0.0):
                        figures = once(buildout, production, SECONDS)
                    with result.open("a", encoding="utf-8") as file:
                        line_of = {"filesystem": name, "union": union, "round_trip_ms": round_trip * 1e3, **figures}
                        file.write(json.dumps(line_of) + "\n")
                    shutil.rmtree(buildout.path)
    finally:
        nfs.forget()
        nfs.stop()
        smb.refuse()
        workspace.remove()


def chosen(of: Iterable[str], names: Sequence[str]) -> List[str]:
    """Those that are named, or all."""
    every = list(of)
    return [name for name in every if name in names] or every


if __name__ == "__main__":
    if sys.argv[1:2] == [INSIDE]:
        measure(Path(sys.argv[2]), sys.argv[3:])
    else:
        main(sys.argv[1:])
