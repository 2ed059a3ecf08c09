"""What every command works with: settings, facts, journal, and the way to run and to say things."""

from __future__ import annotations

import argparse
import os
from typing import Optional, Tuple

from cowstorage import network, session
from cowstorage.errors import PathUnusable
from cowstorage.host import Host, look
from cowstorage.output import Output
from cowstorage.plan import Execution
from cowstorage.settings import Settings, from_script, to_script
from cowstorage.system import Runner


class Context:
    """One run of one script.

    :ivar command: ``cow-mount`` and so on: what the user typed.
    :ivar settings: the part's, as the script has them.
    :ivar mounted: the settings that the present mounts were made with, from the journal; else ``None``.
    """

    def __init__(self, command: str, settings: Settings, arguments: argparse.Namespace):
        self.command = command
        self.settings = settings
        self.arguments = arguments
        self.host: Host = look(settings)
        self.output = Output(quiet=arguments.quiet, verbose=arguments.verbose)
        self.runner = Runner(self.host.sudo, self.host.interactive, self.output.detail if arguments.verbose else None)
        self.journal = session.load(settings.location)

    @property
    def network(self) -> network.Network:
        """The back end of the part's network file system."""
        return network.get(self.settings.filesystem)

    @property
    def mounted(self) -> Optional[Settings]:
        """See the class.

        The journal may be of another release, and the buildout may have been moved since, mounts and all.
        """
        if not self.journal.mounted:
            return None
        written = self.journal.mounted["settings"]
        known = {name: written[name] for name in Settings._fields if name in written}
        return from_script({**to_script(self.settings), **known, "directory": self.settings.directory})

    @property
    def developer(self) -> Tuple[int, int]:
        """uid and gid of whoever runs Plone here."""
        return self.host.uid, self.host.gid

    def script(self, command: str) -> str:
        """A script of the same part as one would type it: ``bin/cow-sync``."""
        return f"bin/{self.settings.prefix}-{command}"

    def reload(self) -> None:
        """Read the journal again."""
        self.journal = session.load(self.settings.location)

    def save(self) -> None:
        """Write the journal."""
        session.save(self.settings.location, self.journal)

    def make_location(self) -> None:
        """Our own directory, private.

        :raises PathUnusable: when it can't be made or isn't ours.
        """
        location = self.settings.location
        try:
            os.makedirs(location, mode=0o700, exist_ok=True)
        except OSError as error:
            advice = f"Give {os.path.dirname(location)} to yourself, or set location."
            raise PathUnusable(location, f"can't be made: {error.strerror}. {advice}") from None
        owner = os.stat(location).st_uid
        if self.host.euid == 0 and owner != self.host.uid:
            os.chown(location, self.host.uid, self.host.gid)
        elif self.host.euid != 0 and owner != self.host.euid:
            raise PathUnusable(location, "belongs to somebody else. Set location to a directory of your own.")

    def execution(self) -> Execution:
        """Runs plans, with each step in the journal while it is under way."""

        def remember(step: Optional[str]) -> None:
            self.journal.operation = {"command": self.command, "step": step} if step else None
            self.save()

        return Execution(self.runner, self.output, remember)

    def forget_operation(self) -> None:
        """A command has ended well: whatever step an earlier one was killed in is of no interest any more."""
        if self.journal.operation:
            self.journal.operation = None
            self.save()

    def begin(self, again: str, mounted: bool) -> None:
        """From here on the database is in between: the journal says so until ``finish``.

        :param again: the command that finishes it, as one types it.
        :param mounted: whether the unions are to be laid again.
        """
        self.journal.unfinished = {"command": self.command, "again": again, "mounted": mounted}
        self.save()

    def finish(self) -> None:
        """The database is whole again."""
        self.journal.unfinished = None
        self.save()
