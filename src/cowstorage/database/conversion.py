"""Tell for which Python a FileStorage is: by its magic, and by what its transactions have written.

``zodbupdate --convert-py3`` overwrites the magic in place before anything else, and then appends all records anew.  So
the magic belongs to a state of the file as its last transaction does: a position alone doesn't tell the magic of then.
ZODB is imported inside functions, so that scripts without need of ZODB start fast.
"""

from __future__ import annotations

from typing import Optional, Set

from cowstorage.database.blobs import LONGEST_BLOB_RECORD, is_blob_record
from cowstorage.database.format import MAGIC, MAGIC_SIZE, PYTHON_2_MAGIC, Position
from cowstorage.database.reader import Reader
from cowstorage.system.files import open_unbuffered

# The opcodes that only Python 2 writes, and those that Python 3 writes for each name of an attribute.
PYTHON_2_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
TEXTS = {"UNICODE", "BINUNICODE"}

# Data records of a transaction that are looked into: zodbupdate writes 100,001 at once, and all alike.
RECORDS = 100

# Bytes of a longer record, which is not looked into: pickletools reads some 5 MB in a second.
LONGEST_RECORD = 1_000_000


def magic_of(path: str) -> bytes:
    """Return the magic of a file: fewer bytes than ``MAGIC_SIZE`` for a shorter file.

    :raises OSError: when the file can't be opened or read.
    """
    with open_unbuffered(path) as file:
        return file.read(MAGIC_SIZE)


def magic_at(path: str, base: Position, base_magic: bytes, position: Position) -> bytes:
    """Return the magic that a file had when its last transaction was another one, by what was written up to there.

    Of the transactions up to the position the last one decides that has records of its own other than BLOBs, and text
    in them: Python 2 pickles the names of attributes as strings of an opcode that Python 3 doesn't write.

    :param base: where all before is of ``base_magic``.
    :param position: the end of a transaction, at ``base`` or after it.
    :raises DamagedDatabase: when the file can't be read between the two.
    """
    with Reader(path) as reader:
        # Nothing is ever converted back, so what lies between two states of one kind is of that kind.
        if base_magic == reader.magic or base_magic == MAGIC:
            return base_magic
        end = position.size
        while end > base.size:
            start = reader.start_of(end)
            magic = _written_for(reader, start)
            if magic is not None:
                return magic
            end = start
    return base_magic


def _written_for(reader: Reader, start: int) -> Optional[bytes]:
    """Return the magic that fits to what a transaction has written; ``None`` when that tells nothing.

    :param start: byte offset of the transaction.
    """
    seen: Set[str] = set()
    looked_into = 0
    for pos, header in reader.records(start):
        record = reader.data(pos, header, LONGEST_RECORD) if header.plen else b""
        if not record or (len(record) <= LONGEST_BLOB_RECORD and is_blob_record(record)):
            continue
        seen |= opcodes(record)
        looked_into += 1
        if seen & PYTHON_2_STRINGS:
            return PYTHON_2_MAGIC
        if looked_into == RECORDS:
            break
    return MAGIC if seen & TEXTS else None


def opcodes(record: bytes) -> Set[str]:
    """Return the names of the opcodes in the pickles of a data record, up to damage; nothing is executed."""
    import io  # start-up
    import pickletools  # start-up

    names: Set[str] = set()
    stream = io.BytesIO(record)
    try:
        while stream.tell() < len(record):
            names.update(opcode.name for opcode, _, _ in pickletools.genops(stream))
    except ValueError:
        pass
    return names
