"""Find which objects refer to some BLOBs, by the oids in their pickles; nothing is unpickled.

ZODB is imported inside functions, so that scripts without need of ZODB start fast.
"""

from __future__ import annotations

import re
from typing import Any, Container, Dict, NamedTuple, Optional

from cowstorage.database.format import START
from cowstorage.database.progress import Progress, reporter
from cowstorage.database.reader import Reader

# Bytes of a longer record, which is not looked into.
LONGEST_RECORD = 10_000_000

# What pushes an oid: SHORT_BINSTRING on Python 2, SHORT_BINBYTES of zodbpickle on both; they may overlap.
OID = re.compile(rb"[UC]\x08(?=(.{8}))", re.DOTALL)


class Referrer(NamedTuple):
    """An object that refers to a BLOB.

    :param oid: 8 bytes.
    :param kind: module and name of its class; empty where that can't be told.
    """

    oid: bytes
    kind: str


def referrers(
    fs_path: str, oids: Container[bytes], progress: Optional[Progress] = None, end: Optional[int] = None
) -> Dict[bytes, Referrer]:
    """Return the last object that was written with a reference to each of some oids, where there is one.

    The whole file is scanned.

    :param progress: called with the fraction that is done; ``None``: nothing is.
    :param end: a byte offset where a transaction ends and the scan stops; ``None``: the end of the file.
    :raises DamagedDatabase: when the file is no FileStorage, or is damaged before a torn end.
    """
    found: Dict[bytes, Referrer] = {}
    with Reader(fs_path) as reader:
        reader.size = reader.size if end is None else min(end, reader.size)
        report = reporter(progress, reader.size)

        def visit(pos: int, header: Any) -> None:
            record = reader.data(pos, header, LONGEST_RECORD) or b""
            for match in OID.finditer(record):
                if match.group(1) in oids:
                    found[match.group(1)] = Referrer(header.oid, class_of(record))

        for transaction in reader.walk(START, visit):
            report(transaction.end)
    return found


def class_of(record: bytes) -> str:
    """Return module and name of the class that a data record begins with; empty where it begins otherwise."""
    import pickletools  # start-up

    try:
        for opcode, argument, _ in pickletools.genops(record[:1000]):
            if opcode.name == "GLOBAL":
                return str(argument).replace(" ", ".")
    except ValueError:
        pass
    return ""
