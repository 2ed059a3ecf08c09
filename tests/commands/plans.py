"""Contexts, surveys and facts made up for tests of what commands decide and plan: nothing is mounted or run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence

from cowstorage.actions.choose_union import Choice
from cowstorage.actions.compare import Finding
from cowstorage.actions.context import Context
from cowstorage.actions.facts import Facts
from cowstorage.actions.plan import Step
from cowstorage.actions.survey import MOUNTED, NOT_MOUNTED, PartMount, Survey
from cowstorage.buildout.options import from_options
from cowstorage.database.format import Position
from cowstorage.part.host import Host
from cowstorage.part.settings import Settings, to_script
from cowstorage.production.look import Production
from cowstorage.system.mounts import Mount
from cowstorage.union import kinds

DEVELOPER = Host(
    euid=1000,
    uid=1000,
    gid=1000,
    sudo="/usr/bin/sudo",
    interactive=False,
    programs=frozenset("mount sshfs ssh fusermount3 unionfs fuse-overlayfs".split()),
    user_allow_other=True,
    fuse=True,
)

SSHFS = {"remote": "plone@www:/srv/plone"}
DIRECTORY = {"remote": "/srv/plone"}
NFS = {"filesystem": "nfs", "remote": "www:/srv/plone"}

BASE = Position(1000, "03f0000000000001")
LATER = Position(2000, "03f0000000000002")


def part(directory: Path, options: Dict[str, str]) -> Settings:
    """Make the settings of a part of the buildout in a directory."""
    storages = {"file-storage": "var/filestorage", "blob-storage": "var/blobstorage"}
    return from_options({**storages, **options}, "cow-storage", str(directory))


def context(
    directory: Path, command: str, options: Dict[str, str] = SSHFS, host: Host = DEVELOPER, **arguments: Any
) -> Context:
    """Make the context of a command.

    :param arguments: as argparse gives them; the common ones have their defaults.
    """
    common = {"quiet": True, "verbose": False, "dry_run": False, "yes": False, "offline": False, "lazy": False}
    parsed = argparse.Namespace(**{**common, "check": False, "sudoers": False, "target": None, **arguments})
    return Context(f"cow-{command}", part(directory, options), parsed, host)


def synced(made: Context, union: str = "overlay", **mounted: Any) -> Context:
    """Note in a context's journal, in memory only, that Data.fs was fetched and the part is mounted."""
    made.journal.bases = {"Data.fs": list(BASE)}
    made.journal.synced = 1.0
    made.journal.mounted = {
        "settings": to_script(made.settings),
        "union": union,
        "tried": [],
        "sample": "0x00/x.blob",
        "storages": ["Data.fs"],
        "hidden": [],
        "offline": False,
        **mounted,
    }
    return made


def mount(target: str, kind: str = "overlay", source: str = "cowstorage") -> Mount:
    """Make a line of mountinfo, read-only unless it is a union."""
    options = ("rw",) if source == "cowstorage" else ("ro",)
    return Mount(1, 0, "0:1", "/", target, options, kind, source, options)


def mounts_of(made: Context, network: bool = True, unions: bool = True) -> List[Mount]:
    """Make what mountinfo shows of a part."""
    settings = made.settings
    kind = "fuse.sshfs" if settings.filesystem == "sshfs" else "ext4"
    found = [mount(target, kind, settings.remote) for target in made.filesystem.targets] if network else []
    return found + [mount(path) for path in (settings.blob_storage, str(settings.file_storage)) if unions]


def survey(made: Context, network: str = MOUNTED, unions: str = MOUNTED, **fields: Any) -> Survey:
    """Make a survey; ``network`` and ``unions`` are states, with a mount unless not mounted."""

    def one(name: str, target: str, state: str) -> PartMount:
        return PartMount(name, target, None if state == NOT_MOUNTED else mount(target), state)

    settings = made.settings
    seen = [one("network", target, network) for target in made.filesystem.targets]
    seen += [one("blobstorage", settings.blob_storage, unions), one("filestorage", str(settings.file_storage), unions)]
    return Survey(tuple(seen), settings, **{"as_configured": True, "offline": False, **fields})


class GivenFacts(Facts):
    """Facts that the test gives."""

    def __init__(self, made: Context, findings: Sequence[Finding] = (), union: str = "overlay"):
        super().__init__(made)
        self.given = list(findings)
        self.choice = Choice(kinds.UNIONS[union])
        self.asked: List[str] = []

    def production(self, known: Optional[str] = None) -> Production:
        self.asked.append("production")
        storages = {one.name: one.remote_size for one in self.given} or {"Data.fs": 0}
        return Production(storages, dict.fromkeys(storages, 0), known)

    def union(self, production: Production, fresh: bool = False) -> Choice:
        self.asked.append("union")
        return self.choice

    def findings(self, production: Production) -> List[Finding]:
        return self.given

    def lost_blobs(self, production: Production) -> List[Finding]:
        return []


def titles(plan: Iterable[Step], directory: Path) -> List[str]:
    """Return the titles of a plan's steps, paths relative to the buildout."""
    return [step.title.replace(f"{directory}/", "") for step in plan]


def programs(plan: Iterable[Step]) -> List[str]:
    """Return the programs that a plan runs, in order."""
    return [command.argv[0] for step in plan for command in step.commands]
