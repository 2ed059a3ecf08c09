"""Production's BLOB directory: how it is laid out, how big its files are, and how they come here."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Callable, Iterator, NamedTuple, Optional, Tuple

from cowstorage.database import blobs
from cowstorage.errors import CommandFailed, RemoteUnusable
from cowstorage.production import rsync
from cowstorage.production.filesystems.base import FileSystem
from cowstorage.production.look import LOOK_SECONDS
from cowstorage.system.files import open_regular
from cowstorage.system.output import human_size, one_line
from cowstorage.system.programs import Command, Runner
from cowstorage.system.time_limits import Begun, within

# rsync(1): some files vanished, or could not be read; the others came.
PARTIAL = (23, 24)
# Reading 1,000 BLOBs of 4 kB to 4 MB through overlay on sshfs at 40 ms takes 209 s by one reader, 57 s by four.
READERS = 8
# How many files are handed to the readers at once.
BATCH = 256
# Bytes that are copied at once.
PIECE = 1 << 20

Tells = Callable[[int, str], None]


class BlobSource:
    """Production's BLOB directory, read by rsync over the network where that can be had, else through the mount.

    :param incoming: the directory that files are fetched into.
    :param detail: takes what rsync says about files that did not come.
    :param is_mounted: whether production is mounted, as the part has it.
    """

    def __init__(
        self,
        filesystem: FileSystem,
        incoming: str,
        runner: Runner,
        detail: Callable[[str], None],
        is_mounted: bool = False,
    ):
        settings = filesystem.settings
        self.filesystem = filesystem
        self.incoming = incoming
        self.runner = runner
        self.detail = detail
        # With a slash at its end rsync takes what is in the directory.
        self.source = filesystem.source(settings.remote_blob_storage + "/")
        self.mounted = os.path.join(filesystem.root, settings.remote_blob_storage)
        self.is_mounted = is_mounted
        self._looking: Optional[Begun] = None

    def begin(self) -> None:
        """Begin to ask for the layout, where that comes sooner through the mount; ``layout`` takes the answer."""
        if not self._looking and self.is_mounted and self.source.remote and self.filesystem.reads_little:
            self._looking = Begun(LOOK_SECONDS, f"reading {self.mounted}", lambda: blobs.layout(self.mounted))

    def layout(self, scratch: str) -> str:
        """Return how production's BLOBs are laid out: ``bushy`` or ``lawn``.

        Without a marker ZODB takes a directory that has BLOBs for a lawn.

        :param scratch: a directory of ours.
        :raises RemoteUnusable: for any other word in the marker.
        """
        directory, found = self.mounted, self._layout_in_mount()
        if self.source.remote and not found:
            with open(_marker_list(scratch), "wb") as file:
                file.write(blobs.LAYOUT_MARKER.encode("ascii") + b"\0")
            self._run(self._rsync(_marker_list(scratch), _nothing, largest=0, target=scratch))
            directory = scratch
        found = found or within(LOOK_SECONDS, f"reading {directory}", lambda: blobs.layout(directory)) or "lawn"
        if found not in blobs.LAYOUT_NAMES:
            remote = self.filesystem.settings.remote
            raise RemoteUnusable(remote, f"its BLOBs are laid out in an unknown way: {one_line(found)}.")
        return found

    def _layout_in_mount(self) -> Optional[str]:
        """Return the marker's word where that comes sooner through the mount; ``None``: there is none, or no mount."""
        self.begin()
        looking, self._looking = self._looking, None
        try:
            found: Optional[str] = looking.result() if looking else None
        except OSError:
            return None
        return found

    def sizes(self, names: str, count: int, tells: Tells) -> None:
        """Call ``tells`` with size and path of each of the named files that production has.

        :param names: a file of relative paths, each ended by a zero byte.
        :param count: how many there are.
        """
        if self.source.remote:
            told = Told(tells)
            # Where production has all of them rsync is not waited for: its farewell takes three round trips.
            command = self._rsync(names, told.take, largest=0, only_sizes=True)
            self._run(command._replace(done=lambda: told.count >= count))
            return
        for relative, size in _in_parallel(self._size, names):
            if size is not None:
                tells(size, relative)

    def fetch(self, names: str, count: int, tells: Tells, largest: int) -> None:
        """Bring the named files into ``incoming``; ``tells`` gets size and path of each, after it is complete.

        :param names: a file of relative paths, each ended by a zero byte.
        :param count: how many there are.
        :param largest: bytes of the largest of them, as ``sizes`` has told; no more is accepted.
        :raises RemoteUnusable: when production sends more.
        """
        if not self.source.remote:
            for relative, size in _in_parallel(partial(self._copy, largest), names):
                if size is not None:
                    tells(size, relative)
            return
        told = ToldBefore(tells)
        command = self._rsync(names, told.take, largest)
        try:
            self._run(command._replace(done=lambda: told.count == count - 1 and self._has_come(told.last)))
        finally:
            told.take("")

    def _has_come(self, told: Optional[Entry]) -> bool:
        """Tell whether a file that rsync has told of has its name."""
        return told is not None and os.path.exists(os.path.join(self.incoming, told.relative))

    def commands(self, scratch: str, missing: str, wanted: str) -> Tuple[Command, Command, Command]:
        """Return what ``layout``, ``sizes`` and ``fetch`` run where production is read over the network.

        :param scratch: as for ``layout``.
        :param missing: the names that ``sizes`` is given.
        :param wanted: the names that ``fetch`` is given.
        """
        return (
            self._rsync(_marker_list(scratch), _nothing, largest=0, target=scratch),
            self._rsync(missing, _nothing, largest=0, only_sizes=True),
            self._rsync(wanted, _nothing, largest=0),
        )

    def _rsync(
        self,
        names: str,
        tells: Callable[[str], None],
        largest: int,
        only_sizes: bool = False,
        target: Optional[str] = None,
    ) -> Command:
        shell = self.filesystem.remote_shell()
        options = self.filesystem.settings.rsync_options or ()
        into = rsync.Target(target or self.incoming)
        return rsync.fetch_listed(self.source, into, shell, options, names, tells, largest, only_sizes)

    def _run(self, command: Command) -> None:
        try:
            self.runner.run(command)
        except CommandFailed as error:
            if rsync.sent_too_much(error):
                remote = self.filesystem.settings.remote
                problem = (
                    f"sends more than the {human_size(command.largest or 0)} that its largest BLOB of these had before"
                )
                raise RemoteUnusable(remote, f"{problem}. Look at it on the server, then run it again.") from None
            if error.exit_code_of_command not in PARTIAL:
                raise
            self.detail(str(error))

    def _size(self, relative: str) -> Optional[int]:
        """Return the bytes of a BLOB; ``None`` where there is none, or something that is no file."""
        try:
            status = os.stat(os.path.join(self.mounted, relative))
        except FileNotFoundError:
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def _copy(self, largest: int, relative: str) -> Optional[int]:
        """Copy a BLOB, as many bytes as it has when it is opened, and return that.

        :returns: ``None`` where there is none, or one of more than ``largest`` bytes; no byte of it is copied.
        """
        incoming = os.path.join(self.incoming, relative)
        os.makedirs(os.path.dirname(incoming), 0o700, exist_ok=True)
        try:
            source = open_regular(os.path.join(self.mounted, relative))
        except FileNotFoundError:
            return None
        with source:
            size = os.fstat(source.fileno()).st_size
            if size > largest:
                return None
            # Whatever was there is put away with the directory, when the next run begins.
            descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb") as target:
                for begin in range(0, size, PIECE):
                    target.write(source.read(min(PIECE, size - begin)))
                os.fchmod(descriptor, 0o400)
        return size


def _nothing(line: str) -> None:
    """Take a line of rsync's that tells nothing."""


def _marker_list(scratch: str) -> str:
    """Return the path of the list that has the name of the layout's marker only."""
    return os.path.join(scratch, "names")


class Entry(NamedTuple):
    """What rsync tells of a file."""

    size: int
    relative: str


def _entry(line: str) -> Optional[Entry]:
    """Read a line of rsync's, ``MOVED SIZE PATH``; what is not about a BLOB is about a directory, or led elsewhere."""
    words = line.rstrip("\n").split(" ")
    if len(words) != 3 or words[2].startswith("/") or ".." in words[2].split("/"):
        return None
    if words[1].isdecimal() and blobs.tid_of(os.path.basename(words[2])):
        return Entry(int(words[1]), words[2])
    return None


class Told:
    """Hands on what rsync tells of each file.

    :ivar count: how many were handed on.
    """

    def __init__(self, tells: Tells):
        self._tells = tells
        self.count = 0

    def take(self, line: str) -> None:
        """Take a line of rsync's."""
        entry = _entry(line)
        if entry:
            self._hand_on(entry)

    def _hand_on(self, entry: Entry) -> None:
        self._tells(*entry)
        # Last: another thread goes on when it has the number that it waits for.
        self.count += 1


class ToldBefore(Told):
    """Hands on what rsync has told of the file before.

    rsync tells of a file right before it gives the file its name: told one later, each has its name.

    :ivar last: what was told last, and not handed on yet.
    """

    def __init__(self, tells: Tells):
        super().__init__(tells)
        self.last: Optional[Entry] = None

    def take(self, line: str) -> None:
        """Take a line of rsync's; an empty one is the end."""
        entry = _entry(line)
        if entry or not line:
            before, self.last = self.last, entry
            if before:
                self._hand_on(before)


def _in_parallel(function: Callable[[str], Optional[int]], names: str) -> Iterator[Tuple[str, Optional[int]]]:
    """Yield each name with the function's result: several readers wait for the network at once."""
    with ThreadPoolExecutor(READERS) as pool:
        left = _names_in(names)
        batch = list(islice(left, BATCH))
        while batch:
            yield from zip(batch, pool.map(function, batch))
            batch = list(islice(left, BATCH))


def _names_in(path: str) -> Iterator[str]:
    """Yield the names in a file, each ended by a zero byte."""
    rest = b""
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 16), b""):
            *names, rest = (rest + block).split(b"\0")
            yield from (name.decode("ascii") for name in names)
