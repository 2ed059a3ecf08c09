"""What every command is given: settings and journal of its part, facts about the host, ways to run and say things."""

from __future__ import annotations

import argparse
import os
from functools import cached_property
from typing import TYPE_CHECKING, FrozenSet, Optional, Tuple

from cowstorage.errors import PathUnusable
from cowstorage.part import journal, operation
from cowstorage.part.host import Host, facts_about
from cowstorage.part.settings import Settings, from_script, to_script
from cowstorage.production import filesystems
from cowstorage.production.filesystems.base import FileSystem
from cowstorage.system.output import Output
from cowstorage.system.programs import Runner
from cowstorage.union import kinds

if TYPE_CHECKING:
    from cowstorage.actions.plan import Execution, Plan
    from cowstorage.part.paths import StoragePaths

# What root that works for another takes from the journal: how to unmount, not where, and nothing that is run.
TRUSTED_FOR_ANOTHER = ("filesystem", "union")


class Context:
    """One run of one script.

    :ivar command: ``cow-mount`` and so on: what the user typed.
    :ivar settings: the part's, as the script has them.
    :ivar journal: what the scripts remember.
    :param host: the facts about the host; ``None``: those of this machine, now.
    """

    def __init__(self, command: str, settings: Settings, arguments: argparse.Namespace, host: Optional[Host] = None):
        self.command = command
        self.settings = settings
        self.arguments = arguments
        self.host = host or facts_about(settings, programs_of(settings))
        self.output = Output(arguments.quiet, arguments.verbose, settings.directory)
        self.runner = Runner(self.host.sudo, self.host.interactive, self.output.detail if arguments.verbose else None)
        self.reload()

    @cached_property
    def filesystem(self) -> FileSystem:
        """The part's network file system."""
        return self.filesystem_of(self.settings)

    def filesystem_of(self, settings: Settings) -> FileSystem:
        """Return the network file system of these settings on this machine."""
        by_root = any(union.needs_root for union in kinds.candidates(settings.union))
        return filesystems.make(settings, self.host, by_root)

    @property
    def made_with(self) -> Settings:
        """The settings that the present mounts were made with, from the journal; without mounts, the part's.

        The journal may be of another release, and the buildout may have been moved since, mounts and all.
        """
        if not self.journal.mounted:
            return self.settings
        written = self.journal.mounted["settings"]
        # Whoever owns location writes the journal: what root does for another goes by the script alone.
        trusted = TRUSTED_FOR_ANOTHER if self.host.for_another else Settings._fields
        known = {name: written[name] for name in trusted if name in written}
        return from_script({**to_script(self.settings), **known, "directory": self.settings.directory})

    @property
    def daemons(self) -> FrozenSet[str]:
        """The programs that serve the FUSE mounts that this part may have."""
        served = [filesystems.backend(settings.filesystem) for settings in (self.settings, self.made_with)]
        unions = (daemon for union in kinds.UNIONS.values() for daemon in union.daemons)
        return frozenset((*unions, *(daemon for filesystem in served for daemon in filesystem.daemons)))

    @property
    def developer(self) -> Tuple[int, int]:
        """uid and gid of whoever runs Plone here."""
        return self.host.uid, self.host.gid

    @property
    def by_developer(self) -> bool:
        """Whether FUSE mounts of unions are an ordinary user's, who unmounts them without root."""
        return self.host.uid != 0

    def paths(self, name: str) -> StoragePaths:
        """Return the paths of a FileStorage of the part."""
        from cowstorage.part.paths import storage_paths  # start-up

        return storage_paths(self.settings, self.filesystem.root, name)

    def script(self, command: str) -> str:
        """Return a script of the same part as one would type it: ``bin/cow-sync``."""
        return f"bin/{self.settings.prefix}-{command}"

    def reload(self) -> None:
        """Read the journal again."""
        self.journal = journal.load(self.settings.location)
        self._written = self.journal.as_text()

    def save(self) -> None:
        """Write the journal, where it has changed: each writing waits for the disk, up to a second where it is busy."""
        text = self.journal.as_text()
        if text != self._written:
            journal.save(self.settings.location, self.journal)
            self._written = text

    def make_location(self) -> None:
        """Make the part's own directory, private.

        :raises PathUnusable: when it can't be made or is somebody else's.
        """
        location = self.settings.location
        try:
            os.makedirs(location, mode=0o700, exist_ok=True)
        except OSError as error:
            advice = f"Give {os.path.dirname(location)} to yourself, or set location."
            raise PathUnusable(location, f"can't be made: {error.strerror}. {advice}") from None
        if os.stat(location).st_uid != self.host.uid:
            raise PathUnusable(location, "belongs to somebody else. Set location to a directory of your own.")

    def run(self, plan: Plan) -> None:
        """Run a plan; when a step fails, undo those before it."""
        with self.execution() as execution:
            execution.run(plan)

    def execution(self) -> Execution:
        """Return what runs plans, with each step in the journal while it is under way."""
        from cowstorage.actions.plan import Execution  # start-up

        return Execution(self.runner, self.output, self._remember)

    def _remember(self, step: Optional[str]) -> None:
        """Note the step that is under way; ``None``: no step."""
        self.journal.operation = {"command": self.command, "step": step} if step else None
        operation.note(self.settings.location, self.journal.operation)

    def forget_operation(self) -> None:
        """Forget the step that an earlier command was killed in, at the good end of this one."""
        if self.journal.operation:
            self._remember(None)

    def begin(self, again: str, mounted: bool) -> None:
        """Note in the journal that the database is in between two states, until ``finish``.

        :param again: the command that finishes it, as one types it.
        :param mounted: whether the unions are to be mounted again.
        """
        self.journal.unfinished = {"command": self.command, "again": again, "mounted": mounted}
        self.save()

    def finish(self) -> None:
        """Note in the journal that the database is whole again."""
        self.end_change()
        self.save()

    def end_change(self) -> None:
        """Note for the journal's next writing that the database is whole again."""
        self.journal.unfinished = None


def programs_of(settings: Settings) -> FrozenSet[str]:
    """Return the programs that the part's file system, and any union, may need."""
    unions = (program for union in kinds.UNIONS.values() for program in union.programs)
    return frozenset((*unions, *filesystems.backend(settings.filesystem).programs))
