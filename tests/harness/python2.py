"""FileStorages of Python 2, written and read by ZODB on Python 3.

What ``tests/database/python2`` has was written by ZODB on Python 2.7 itself; this makes more of the same while tests
run, where there is no Python 2: the magic is its, and text is pickled as its strings.
"""

from __future__ import annotations

import importlib
import os
import struct
from contextlib import contextmanager
from typing import Any, Callable, ClassVar, Dict, Iterator
from unittest import mock

import ZODB.ConflictResolution
import ZODB.serialize
from zodbpickle import pickle_3

MAGIC = b"FS21"
OF_PYTHON_3 = b"FS30"

# Its class hides the module of the same name.
_MODULE = importlib.import_module("ZODB.FileStorage.FileStorage")


class _Pickler(pickle_3._Pickler):
    """Python 2's: text is a string of bytes, with the opcodes SHORT_BINSTRING and BINSTRING."""

    dispatch: ClassVar[Dict[type, Callable[..., None]]] = dict(pickle_3._Pickler.dispatch)

    def save_text(self, text: str) -> None:
        encoded = text.encode("utf-8")
        short = len(encoded) < 256
        self.write(b"U" + bytes([len(encoded)]) if short else b"T" + struct.pack("<i", len(encoded)))
        self.write(encoded)
        self.memoize(text)

    dispatch[str] = save_text


def _persistent_pickler(persistent_id: Callable[[Any], Any], *arguments: Any) -> _Pickler:
    pickler = _Pickler(*arguments)
    pickler.persistent_id = persistent_id
    return pickler


@contextmanager
def python_2() -> Iterator[None]:
    """ZODB is as on Python 2: it takes FileStorages of that kind only, and writes its strings."""
    with mock.patch.object(_MODULE, "packed_version", MAGIC), mock.patch.object(
        ZODB.serialize, "PersistentPickler", _persistent_pickler
    ), mock.patch.object(ZODB.ConflictResolution, "PersistentPickler", _persistent_pickler):
        yield


def is_of_python_2(data_fs: str) -> bool:
    """Whether a FileStorage has the magic of Python 2; none has it where there is no file."""
    if not os.path.exists(data_fs):
        return False
    with open(data_fs, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def begin_conversion(data_fs: str) -> None:
    """What zodbupdate does before anything else: a conversion that is cut off then leaves no more than this."""
    with open(data_fs, "r+b") as file:
        file.write(OF_PYTHON_3)
