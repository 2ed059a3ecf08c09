"""What can't be read off the system: one lock and one journal per part, in ``location``."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

from cowstorage.errors import JournalUnusable, Locked, PathUnusable

FORMAT = 1
JOURNAL = "journal.json"
LOCK = "lock"


class Journal:
    """What the scripts remember between runs, as plain data.

    :ivar mounted: how the present mounts were made, or ``None``: ``settings``, ``union``, ``tried`` (pairs of union and
        reason), ``sample`` (a BLOB's relative path), ``storages`` (production's), ``hidden`` (those not fetched) and
        ``offline`` (without production).
    :ivar uppers: storage (``filestorage``, ``blobstorage``) → the union that wrote its upper directory.
    :ivar bases: FileStorage file name → ``[size, tid]`` of its last transaction at the last sync.
    :ivar synced: when that was, unix seconds.
    :ivar remote: what was synced from.
    :ivar savepoints: name → ``{"time": …, "positions": {file name: [size, tid]}, "inodes": {file name: n}}``.
    :ivar operation: the command and step under way, or ``None``.
    :ivar unfinished: what must be finished before the database is shown again: ``command``, ``again`` (to be typed),
        ``mounted`` (whether unions were there); or ``None``.
    """

    def __init__(self, **values: Any):
        self.mounted: Optional[Dict[str, Any]] = values.get("mounted")
        self.uppers: Dict[str, str] = values.get("uppers", {})
        self.bases: Dict[str, List[Any]] = values.get("bases", {})
        self.synced: Optional[float] = values.get("synced")
        self.remote: Optional[str] = values.get("remote")
        self.savepoints: Dict[str, Dict[str, Any]] = values.get("savepoints", {})
        self.operation: Optional[Dict[str, Any]] = values.get("operation")
        self.unfinished: Optional[Dict[str, Any]] = values.get("unfinished")

    def as_data(self) -> Dict[str, Any]:
        """What is written: the fields and the format number."""
        return {"format": FORMAT, **vars(self)}


Check = Callable[[Any], bool]


def of(*types: type) -> Check:
    """A check: one of these types; a truth value is no number."""
    return lambda value: isinstance(value, types) and not (isinstance(value, bool) and bool not in types)


def listing(item: Check) -> Check:
    """A check: a list of such."""
    return lambda value: isinstance(value, list) and all(map(item, value))


def mapping(item: Check) -> Check:
    """A check: names → such."""
    return lambda value: isinstance(value, dict) and all(map(item, value.values()))


def record(**fields: Check) -> Check:
    """A check: a dictionary with at least these; what else is in it is another release's."""
    return lambda value: isinstance(value, dict) and all(check(value.get(name)) for name, check in fields.items())


def optional(check: Check) -> Check:
    """A check: ``None``, or such."""
    return lambda value: value is None or check(value)


def is_position(value: Any) -> bool:
    """Whether a value of the journal is a ``[size, tid]``."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    size, tid = value
    return of(int)(size) and size >= 0 and isinstance(tid, str) and re.fullmatch("[0-9a-f]{16}", tid) is not None


TEXT, NUMBER = of(str), of(int, float)

# Field → what its value must be; damage is reported, never guessed at.
SHAPES: Dict[str, Check] = {
    "mounted": optional(
        record(
            settings=mapping(of(str, list, int, type(None))),
            union=TEXT,
            tried=listing(listing(TEXT)),
            sample=optional(TEXT),
            storages=listing(TEXT),
            hidden=listing(TEXT),
            offline=optional(of(bool)),
        )
    ),
    "uppers": mapping(TEXT),
    "bases": mapping(is_position),
    "synced": optional(NUMBER),
    "remote": optional(TEXT),
    "savepoints": mapping(record(time=NUMBER, positions=mapping(is_position), inodes=optional(mapping(of(int))))),
    "operation": optional(record(command=TEXT, step=TEXT)),
    "unfinished": optional(record(command=TEXT, again=TEXT, mounted=of(bool))),
}

ADVICE = (
    "Unmount by hand what findmnt shows below your buildout, move this file away, and run cow-mount. Nothing local is "
    "touched by that; only where production's part of the database ends is not known any more until the next cow-sync."
)


def parse_journal(text: str, path: str) -> Journal:
    """The journal in a text.

    :raises JournalUnusable: when it is damaged or of a later format.
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
        if name not in data or not fits(data[name]):
            raise JournalUnusable(path, f"is damaged ({name} is {str(data.get(name))[:200]}). {ADVICE}")
    return Journal(**{name: data[name] for name in SHAPES})


def load(location: str) -> Journal:
    """The journal in ``location``; an empty one where there is none yet."""
    path = os.path.join(location, JOURNAL)
    try:
        with open(path, encoding="utf-8") as file:
            return parse_journal(file.read(), path)
    except FileNotFoundError:
        return Journal()
    except (OSError, UnicodeDecodeError) as error:
        raise JournalUnusable(path, f"can't be read: {error}.") from None


def save(location: str, journal: Journal) -> None:
    """Write the journal whole or not at all: a new file, fsync, rename, rename(2)."""
    path = os.path.join(location, JOURNAL)
    new = path + ".new"
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(journal.as_data(), file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path)
    directory = os.open(location, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Lock:
    """One command at a time per part: flock(2) on ``location``/lock.

    Given back when the process ends, and whatever it has handed ``descriptor`` to.

    :param waits: seconds to wait for another command before giving up.
    """

    def __init__(self, location: str, command: str, waits: float = 0.0):
        self.path = os.path.join(location, LOCK)
        self.command = command
        self.waits = waits
        self.descriptor: Optional[int] = None

    def __enter__(self) -> Lock:
        try:
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise PathUnusable(self.path, f"can't be opened: {error.strerror}. It must belong to you.") from None
        for _ in self._tries():
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                continue
        else:
            text = os.pread(self.descriptor, 200, 0).decode("utf-8", "replace").strip()
            os.close(self.descriptor)
            raise Locked(self.path, text or "unknown")
        # sh closes it for all programs but those that are to have it.
        os.set_inheritable(self.descriptor, True)
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, f"{self.command} (pid {os.getpid()})\n".encode(), 0)
        return self

    def _tries(self) -> Iterator[None]:
        deadline = time.monotonic() + self.waits
        yield
        while time.monotonic() < deadline:
            time.sleep(0.1)
            yield

    def __exit__(self, *exception: object) -> None:
        if self.descriptor is not None:
            os.ftruncate(self.descriptor, 0)
            os.close(self.descriptor)
            self.descriptor = None
