"""Name the parts of a FileStorage file, and judge its magic.

``ZODB/FileStorage/format.py`` describes the format.  ZODB is not imported here, so this module costs no start-up time.
"""

from types import MappingProxyType
from typing import Mapping, NamedTuple, Optional

# The first bytes of a FileStorage, ``ZODB._compat.FILESTORAGE_MAGIC``: of Python 3, and of Python 2 before.  ZODB
# refuses the other Python's; besides these bytes, and the strings in the pickles, both are the same.
MAGIC = b"FS30"
PYTHON_2_MAGIC = b"FS21"
MAGIC_SIZE = len(MAGIC)
PYTHONS = {PYTHON_2_MAGIC: "Python 2", MAGIC: "Python 3"}
NO_MAGICS: Mapping[str, bytes] = MappingProxyType({})

# The length of a transaction is written in so many bytes, at both of its ends.
LENGTH_SIZE = 8

# The directories of BLOBs that each oid below 65,536 is in, ``ZODB.blob.BushyLayout``, each in the one before.
FIRST_DIRECTORIES = tuple("/".join(["0x00"] * depth) for depth in range(1, 7))

# Smaller than the tid of any transaction.
NO_TID = "0" * 16


class Position(NamedTuple):
    """The end of a transaction in a FileStorage file; ``START`` in a file without transactions.

    :param size: bytes from the beginning of the file to the end of the transaction.
    :param tid: the tid of the transaction, 16 hex digits.
    """

    size: int
    tid: str


START = Position(MAGIC_SIZE, NO_TID)


class Transaction(NamedTuple):
    """A transaction in a FileStorage file.

    :param tid: 16 hex digits.
    :param time: Unix seconds at which the transaction began.
    :param objects: the number of data records.
    :param size: bytes of the whole transaction record.
    :param end: byte offset of the end of the transaction record.
    """

    tid: str
    time: float
    user: str
    description: str
    objects: int
    size: int
    end: int

    @property
    def position(self) -> Position:
        """Return the end of the transaction as a position."""
        return Position(self.end, self.tid)


def magic_problem(magic: bytes) -> Optional[str]:
    """Return why a file with this magic can't be used, as text for the user; ``None`` for a usable file.

    :param magic: the first ``MAGIC_SIZE`` bytes of the file, fewer of a shorter file.
    """
    if magic in PYTHONS:
        return None
    return f"this isn't a FileStorage: it begins with {magic!r} instead of {MAGIC!r} or {PYTHON_2_MAGIC!r}"
