"""The journal of a part, in the part's ``location``: what the scripts remember and the system does not show."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

from cowstorage.errors import JournalUnusable
from cowstorage.part.operation import Operation, noted

if TYPE_CHECKING:
    from cowstorage.database.format import Position

FORMAT = 1

JOURNAL = "journal.json"


class Journal:
    """What the scripts of a part remember between runs, as plain data.

    :ivar mounted: how the present mounts were made, or ``None``: ``settings``, ``union``, ``tried`` (pairs of union and
        reason), ``sample`` (a BLOB's relative path), ``storages`` (production's), ``hidden`` (those not fetched),
        ``offline`` (without production), ``alone`` (production without unions), ``where`` (machine, boot, mount
        namespace) and ``outdated`` (files came into the BLOB cache since, which the unions don't show).
    :ivar uppers: storage (``filestorage``, ``blobstorage``) → the union that wrote its upper directory.
    :ivar bases: FileStorage file name → ``[size, tid]`` of its last transaction at the last sync.
    :ivar magics: FileStorage file name → the magic of its base; those that an earlier release fetched are of Python 3.
    :ivar synced: the time of the last sync, unix seconds.
    :ivar remote: the remote of the last sync.
    :ivar savepoints: name → ``{"time": …, "positions": {file name: [size, tid]}, "inodes": {file name: n}, "magics":
        {file name: magic}}``.
    :ivar operation: ``command`` and ``step`` that are under way, or ``None``; in a file of its own, see ``operation``.
    :ivar prepare: ``due`` while what was fetched is still to be prepared; or ``None``.
    :ivar unfinished: what must be finished before the database is shown again: ``command``, ``again`` (to be typed),
        ``mounted`` (whether unions were there); or ``None``.
    """

    def __init__(self, **values: Any):
        self.mounted: Optional[Dict[str, Any]] = values.get("mounted")
        self.uppers: Dict[str, str] = values.get("uppers", {})
        self.bases: Dict[str, List[Any]] = values.get("bases", {})
        self.magics: Dict[str, str] = values.get("magics") or {}
        self.synced: Optional[float] = values.get("synced")
        self.remote: Optional[str] = values.get("remote")
        self.savepoints: Dict[str, Dict[str, Any]] = values.get("savepoints", {})
        self.prepare: Optional[str] = values.get("prepare")
        self.operation: Operation = values.get("operation")
        self.unfinished: Optional[Dict[str, Any]] = values.get("unfinished")

    @property
    def union(self) -> str:
        """The name of the present mounts' union; empty without mounts, and before the union was chosen."""
        return str((self.mounted or {}).get("union") or "")

    @property
    def sample(self) -> Optional[str]:
        """The BLOB that the present mounts were tried with, relative to production's BLOB directory; or ``None``."""
        return (self.mounted or {}).get("sample")

    @property
    def is_offline(self) -> bool:
        """Whether the present mounts are made without production."""
        return bool((self.mounted or {}).get("offline"))

    @property
    def is_alone(self) -> bool:
        """Whether production is mounted alone, without unions."""
        return bool((self.mounted or {}).get("alone"))

    @property
    def is_outdated(self) -> bool:
        """Whether the present unions don't show what was prefetched since they were laid."""
        return bool((self.mounted or {}).get("outdated"))

    def base_of(self, name: str) -> Optional[Position]:
        """Return the base of the FileStorage ``name``; ``None`` when that was never fetched."""
        return self.base_positions().get(name)

    def base_positions(self) -> Dict[str, Position]:
        """Return the base of each FileStorage."""
        return _positions(self.bases)

    def base_magic(self, name: str) -> bytes:
        """Return the magic of the base of the FileStorage ``name``."""
        return _magic(self.magics, name)

    def base_magics(self) -> Dict[str, bytes]:
        """Return the magic of each FileStorage's base."""
        return {name: _magic(self.magics, name) for name in self.bases}

    def positions_of(self, savepoint: str) -> Dict[str, Position]:
        """Return the position of each FileStorage at a savepoint."""
        return _positions(self.savepoints[savepoint]["positions"])

    def magics_of(self, savepoint: str) -> Dict[str, bytes]:
        """Return the magic of each FileStorage at a savepoint."""
        noted = self.savepoints[savepoint]
        return {name: _magic(noted.get("magics") or {}, name) for name in noted["positions"]}

    def as_data(self) -> Dict[str, Any]:
        """Return what is in the journal's file as plain data: the fields and the format number."""
        return {"format": FORMAT, **{name: value for name, value in vars(self).items() if name != "operation"}}

    def as_text(self) -> str:
        """Return the text of the journal's file."""
        return json.dumps(self.as_data(), indent=1, sort_keys=True)


def _positions(values: Dict[str, List[Any]]) -> Dict[str, Position]:
    """Return the positions for ``[size, tid]`` of each FileStorage."""
    from cowstorage.database.format import Position  # start-up

    return {name: Position(*value) for name, value in values.items()}


def _magic(magics: Dict[str, str], name: str) -> bytes:
    """Return a magic of the journal; earlier releases noted none, and fetched FileStorages of Python 3 only."""
    from cowstorage.database.format import MAGIC  # start-up

    return magics[name].encode("ascii") if name in magics else MAGIC


Check = Callable[[Any], bool]


def of(*types: type) -> Check:
    """Return a check for a value of these types; a ``bool`` is no ``int``."""
    return lambda value: isinstance(value, types) and not (isinstance(value, bool) and bool not in types)


def listing(item: Check) -> Check:
    """Return a check for a list of such items."""
    return lambda value: isinstance(value, list) and all(map(item, value))


def mapping(item: Check) -> Check:
    """Return a check for a mapping of names to such items."""
    return lambda value: isinstance(value, dict) and all(map(item, value.values()))


def record(**fields: Check) -> Check:
    """Return a check for a dictionary with at least these fields; further ones may be another release's."""
    return lambda value: isinstance(value, dict) and all(check(value.get(name)) for name, check in fields.items())


def optional(check: Check) -> Check:
    """Return a check for ``None``, or such an item."""
    return lambda value: value is None or check(value)


def is_position(value: Any) -> bool:
    """Tell whether a value of the journal is a ``[size, tid]``."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    size, tid = value
    return is_size(size) and isinstance(tid, str) and re.fullmatch("[0-9a-f]{16}", tid) is not None


def is_magic(value: Any) -> bool:
    """Tell whether a value of the journal is the magic of a FileStorage."""
    from cowstorage.database.format import PYTHONS  # start-up

    return isinstance(value, str) and value.encode("utf-8", "replace") in PYTHONS


def is_size(value: Any) -> bool:
    """Tell whether a value of the journal is a number of bytes, or of an inode, that a file may have."""
    return of(int)(value) and 0 <= value < 1 << 64


def is_time(value: Any) -> bool:
    """Tell whether a value of the journal is unix seconds that have a date; NaN, which JSON may have, has none."""
    return of(int, float)(value) and 0 <= value < LAST_TIME


def is_text(value: Any) -> bool:
    """Tell whether a value of the journal is text that may be a path or an argument: without what no path has."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def is_name(value: Any) -> bool:
    """Tell whether a value of the journal is a file's name: it can't lead out of the directory that the file is in."""
    return is_text(value) and "/" not in value and value not in ("", ".", "..")


def named(item: Check) -> Check:
    """Return a check for a mapping of file names to such items."""
    return lambda value: mapping(item)(value) and all(map(is_name, value))


# Unix seconds; the year 4147.
LAST_TIME = 1 << 36
TEXTS = listing(is_text)

# Field of ``Settings`` → what its value must be, where it is there: another release may have more or fewer.
SETTINGS: Dict[str, Check] = {
    **dict.fromkeys(("part", "prefix", "directory", "remote", "filesystem", "union", "sudo", "found"), is_text),
    **dict.fromkeys(("remote_file_storage", "remote_blob_storage", "blob_storage"), is_text),
    **dict.fromkeys(("mount_point", "location"), is_text),
    **dict.fromkeys(("rsync_remote", "file_storage"), optional(is_text)),
    **dict.fromkeys(("mount_options", "ssh_options", "storages", "prepare"), TEXTS),
    "rsync_options": optional(TEXTS),
    "cache_size": optional(is_size),
    "read_through": of(bool),
}

# Those that are compared before anything else, to see whether the buildout was moved.
NEEDED_SETTINGS = ("directory", "location")


def is_settings(value: Any) -> bool:
    """Tell whether a value of the journal is what ``settings.to_script`` made."""
    return record(**{name: SETTINGS[name] for name in NEEDED_SETTINGS})(value) and all(
        check(value[name]) for name, check in SETTINGS.items() if name in value
    )


# Field → what its value must be; damage is reported, never guessed at.
SHAPES: Dict[str, Check] = {
    "mounted": optional(
        record(
            settings=is_settings,
            union=is_text,
            tried=listing(TEXTS),
            sample=optional(is_text),
            storages=listing(is_name),
            hidden=listing(is_name),
            offline=optional(of(bool)),
            alone=optional(of(bool)),
            where=optional(mapping(is_text)),
            outdated=optional(of(bool)),
        )
    ),
    "uppers": mapping(is_text),
    "bases": named(is_position),
    "magics": optional(named(is_magic)),
    "synced": optional(is_time),
    "remote": optional(is_text),
    "savepoints": named(
        record(
            time=is_time,
            positions=named(is_position),
            inodes=optional(named(is_size)),
            magics=optional(named(is_magic)),
        )
    ),
    "prepare": optional(is_text),
    "unfinished": optional(record(command=is_text, again=is_text, mounted=of(bool))),
}

# Fields that an earlier release's journal of this format has not.
LATER_FIELDS = ("magics", "prepare")

# The most bytes that are read: a savepoint takes some 300.
LONGEST = 64_000_000

ADVICE = (
    "Unmount by hand what findmnt shows below your buildout, move this file away, and run cow-mount. Nothing local is "
    "touched by that; only where production's part of the database ends is not known any more until the next cow-sync."
)


def parse_journal(text: str, path: str) -> Journal:
    """Return the journal in a text.

    :param path: the journal's file, for messages.
    :raises JournalUnusable: when the text is damaged or of a later format.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JournalUnusable(path, f"is damaged ({error}). {ADVICE}") from None
    if not isinstance(data, dict) or not of(int)(data.get("format")):
        raise JournalUnusable(path, f"is damaged (no format number). {ADVICE}")
    if data["format"] > FORMAT:
        raise JournalUnusable(
            path, f"was written by a later cowstorage (format {data['format']}, known is {FORMAT}). Use that release."
        )
    for name, fits in SHAPES.items():
        if (name not in data and name not in LATER_FIELDS) or not fits(data.get(name)):
            raise JournalUnusable(path, f"is damaged ({name} is {data.get(name)!r:.200}). {ADVICE}")
    return Journal(**{name: data.get(name) for name in SHAPES})


def load(location: str) -> Journal:
    """Return the journal in ``location``; an empty one where there is none yet.

    :raises JournalUnusable: when the journal is damaged, of a later format, no file of its own, or can't be read.
    """
    path = os.path.join(location, JOURNAL)
    try:
        # A FIFO would make every command wait for whoever writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise JournalUnusable(path, f"is damaged (it is no file). {ADVICE}")
            if status.st_size > LONGEST:
                raise JournalUnusable(path, f"is damaged (it has {status.st_size} bytes). {ADVICE}")
            found = parse_journal(file.read(LONGEST).decode("utf-8"), path)
    except FileNotFoundError:
        found = Journal()
    except UnicodeDecodeError as error:
        raise JournalUnusable(path, f"is damaged ({error}). {ADVICE}") from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise JournalUnusable(path, f"is damaged (it is no file). {ADVICE}") from None
        raise JournalUnusable(path, f"can't be read: {error}.") from None
    found.operation = noted(location)
    return found


def save(location: str, journal: Journal) -> None:
    """Write the journal whole or not at all: a new file, fsync, rename, rename(2)."""
    path = os.path.join(location, JOURNAL)
    new = path + ".new"
    # Left by a command that was killed, or put there: whatever it is, it is not written to.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(journal.as_text())
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path)
    directory = os.open(location, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
