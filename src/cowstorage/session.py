"""What can't be read off the system: one lock and one journal per part, in ``location``."""

from __future__ import annotations

import fcntl
import json
import os
import time
from typing import Any, Dict, Iterator, List, Optional

from cowstorage.errors import JournalUnusable, Locked, PathUnusable

FORMAT = 1
JOURNAL = "journal.json"
LOCK = "lock"


class Journal:
    """What the scripts remember between runs, as plain data.

    :ivar mounted: how the present mounts were made, or ``None``: ``settings``, ``union``, ``tried`` (pairs of union and
        reason), ``sample`` (a BLOB's relative path), ``storages`` (production's) and ``hidden`` (those not fetched).
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


# Field → what its value must be; damage is reported, never guessed at.
SHAPES: Dict[str, Any] = {
    "mounted": (dict, type(None)),
    "uppers": dict,
    "bases": dict,
    "synced": (int, float, type(None)),
    "remote": (str, type(None)),
    "savepoints": dict,
    "operation": (dict, type(None)),
    "unfinished": (dict, type(None)),
}


def parse_journal(text: str, path: str) -> Journal:
    """The journal in a text.

    :raises JournalUnusable: when it is damaged or of a later format.
    """
    advice = "Unmount by hand what cow-status shows, move this file away and run cow-sync; local BLOBs stay in place."
    try:
        data = json.loads(text)
    except ValueError as error:
        raise JournalUnusable(path, f"is damaged ({error}). {advice}") from None
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise JournalUnusable(path, f"is damaged (no format number). {advice}")
    if data["format"] > FORMAT:
        raise JournalUnusable(
            path, f"was written by a later cowstorage (format {data['format']}, known is {FORMAT}). Use that release."
        )
    for name, shape in SHAPES.items():
        if not isinstance(data.get(name), shape):
            raise JournalUnusable(path, f"is damaged ({name} is {data.get(name)!r}). {advice}")
    for name, position in data["bases"].items():
        if not is_position(position):
            raise JournalUnusable(path, f"is damaged (the base of {name} is {position!r}). {advice}")
    return Journal(**{name: data[name] for name in SHAPES})


def is_position(value: Any) -> bool:
    """Whether a value of the journal is a ``[size, tid]``."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], int)
        and isinstance(value[1], str)
        and len(value[1]) == 16
    )


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
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
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
    """One command at a time per part: flock(2) on ``location``/lock, given back when the process ends.

    :param waits: seconds to wait for another command before giving up.
    """

    def __init__(self, location: str, command: str, waits: float = 0.0):
        self.path = os.path.join(location, LOCK)
        self.command = command
        self.waits = waits
        self._descriptor: Optional[int] = None

    def __enter__(self) -> Lock:
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise PathUnusable(self.path, f"can't be opened: {error.strerror}. It must belong to you.") from None
        for _ in self._tries():
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                continue
        else:
            text = os.pread(self._descriptor, 200, 0).decode("utf-8", "replace").strip()
            os.close(self._descriptor)
            raise Locked(self.path, text or "unknown")
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{self.command} (pid {os.getpid()})\n".encode(), 0)
        return self

    def _tries(self) -> Iterator[None]:
        deadline = time.monotonic() + self.waits
        yield
        while time.monotonic() < deadline:
            time.sleep(0.1)
            yield

    def __exit__(self, *exception: object) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None
