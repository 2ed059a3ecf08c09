"""Read the index file that ZODB keeps beside a FileStorage, without unpickling the file and without loading it whole.

``ZODB.fsIndex.fsIndex.save`` writes an index file as a sequence of pickles: first an int, the byte offset at the end of
the last indexed transaction; then, for each prefix of oids, a pair of bytes: the prefix (6 bytes) and its bucket, an
fsBucket as bytes, which maps the other 2 bytes of each oid to 6 bytes of position; at last None.

On Python 2 the bytes are its strings, and ZODB 3.10 (Plone 4.3) uses protocol 0 or 1.  ZODB on Python 3 reads neither:
UnicodeDecodeError in the log, then a scan of the whole file.  ZODB 5 on Python 2 reads what Python 3 writes.
"""

from __future__ import annotations

import io
import os
from typing import BinaryIO, Dict, List, NamedTuple, Optional, Tuple, Union

from cowstorage.system.files import open_regular

Constant = Union[int, bytes]

# The opcodes that push an int, and those that push bytes; Python 2's are texts, and its strings.
INTS = ("BININT", "BININT1", "BININT2", "LONG1")
BYTES = ("SHORT_BINBYTES", "BINBYTES")
PYTHON_2_INTS = ("INT", "LONG")
PYTHON_2_BYTES = ("SHORT_BINSTRING", "BINSTRING")

# What each of these is in a shape.
KINDS = {
    **dict.fromkeys(INTS, "int"),
    **dict.fromkeys(BYTES, "bytes"),
    **dict.fromkeys(PYTHON_2_INTS, "int of 2"),
    **dict.fromkeys(PYTHON_2_BYTES, "bytes of 2"),
}

# The opcodes of the three kinds of pickles that fsIndex.save writes, see KINDS.  A file with any other pickle in it is
# not used.
SHAPES = (
    ("PROTO", "int", "STOP"),
    ("PROTO", "bytes", "bytes", "TUPLE2", "STOP"),
    ("PROTO", "NONE", "STOP"),
)
# The same of Python 2, by ZODB 5 and ZODB 3.10; what Python 3 can't read is any of these.
PYTHON_2_SHAPES = (
    ("PROTO", "int of 2", "STOP"),
    ("int of 2", "STOP"),
    ("PROTO", "bytes of 2", "bytes of 2", "TUPLE2", "STOP"),
    ("MARK", "bytes of 2", "bytes of 2", "TUPLE", "STOP"),
    ("NONE", "STOP"),
)
LONGEST_SHAPE = max(len(shape) for shape in (*SHAPES, *PYTHON_2_SHAPES))

# The newest protocol that zodbpickle reads.
NEWEST_PROTOCOL = 3

# The most bytes that one opcode of fsIndex.save pushes: a bucket with all 65,536 oids that share a prefix.
LONGEST_BYTES = 65536 * 8

# The most prefixes of oids in an index that is used: 4.3 billion objects, since ZODB counts oids up; 20 MB of memory.
MOST_BUCKETS = 65536

# Bytes; longer than the pickle of any file offset, and so short that reading them on a slow mount takes one round trip.
FIRST_PICKLE = 64


class Pickle(NamedTuple):
    """One pickle of an index.

    :param values: the ints and bytes in it.
    :param of_python_2: Python 3 can't read it, or not as what it is.
    """

    values: List[Constant]
    of_python_2: bool


def parsed(file: BinaryIO) -> Pickle:
    """Return the pickle at the file's position, and leave the position behind the pickle.

    An index may come from a stranger.  An Unpickler executes opcodes, even an Unpickler whose ``find_class`` refuses
    every class: a forged LONG_BINPUT of five bytes makes the C unpickler reserve gigabytes for its memo.  So
    ``pickletools.genops`` is used, which only parses opcodes, on a file that refuses to read more than a bucket at
    once: a length of 2 GB in a sparse file would be read.

    :raises ValueError: when the pickle is not one that fsIndex writes.
    """
    import pickletools  # start-up

    shape: List[str] = []
    values: List[Constant] = []
    for opcode, argument, _ in pickletools.genops(_Bounded(file)):  # type: ignore[arg-type]
        shape.append(KINDS.get(opcode.name, opcode.name))
        if opcode.name in KINDS:
            values.append(_constant(argument))
        if opcode.name == "PROTO" and argument > NEWEST_PROTOCOL:  # type: ignore[operator]
            raise ValueError(f"pickle protocol {argument}")
        if len(shape) > LONGEST_SHAPE:
            break
    if tuple(shape) not in (*SHAPES, *PYTHON_2_SHAPES):
        raise ValueError("no pickle of an index")
    return Pickle(values, tuple(shape) in PYTHON_2_SHAPES)


def _constant(argument: object) -> Constant:
    """Return what an opcode pushes; pickletools gives a string of Python 2 as text, decoded from latin-1.

    :raises ValueError: for a truth value, which Python 2 writes as a kind of int.
    """
    if isinstance(argument, str):
        return argument.encode("latin-1")
    if isinstance(argument, bool) or not isinstance(argument, (int, bytes)):
        raise ValueError("no constant of an index")
    return argument


class _Bounded:
    """A wrapper of an open file for ``pickletools.genops`` that reads no more than ``LONGEST_BYTES`` at once."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        """Read ``count`` bytes.

        :raises ValueError: for more than ``LONGEST_BYTES``.
        """
        if count > LONGEST_BYTES:
            raise ValueError(f"a length of {count} bytes")
        return self._file.read(count)

    def readline(self) -> bytes:
        """Read a line, or the first ``FIRST_PICKLE`` bytes of one that is longer: an offset is the only text here."""
        return self._file.readline(FIRST_PICKLE)


def index_position(index_path: str) -> Optional[int]:
    """Return the byte offset at the end of the last transaction that is in an index file.

    Only the first ``FIRST_PICKLE`` bytes of the file are read.

    :returns: ``None`` for a file that is missing, damaged, or written by ZODB before 3.10.
    :raises OSError: when the file exists and can't be read.
    """
    try:
        with open_regular(index_path, buffering=0) as file:
            values = parsed(io.BytesIO(file.read(FIRST_PICKLE))).values
    except (FileNotFoundError, ValueError):
        return None
    if len(values) != 1 or not isinstance(values[0], int) or values[0] < 0:
        return None
    return values[0]


class SavedIndex:
    """An open index file in which the positions of single objects are looked up.

    Opening reads the whole file once and remembers where each bucket lies: some hundred bytes for 65,536 oids.

    :raises ValueError: when the file is damaged anywhere but inside a bucket.
    """

    def __init__(self, index_path: str):
        self._file = open_regular(index_path)
        self._offsets: Dict[bytes, int] = {}
        self._last = (b"", b"")
        try:
            self._find_buckets()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _find_buckets(self) -> None:
        """Map each prefix of oids to the byte offset of the pickle with its bucket."""
        values = parsed(self._file).values
        while values:
            offset = self._file.tell()
            values = parsed(self._file).values
            if values:
                prefix, _ = checked(values)
                self._offsets[prefix] = offset
            if len(self._offsets) > MOST_BUCKETS:
                raise ValueError("too many buckets")

    def get(self, oid: bytes, default: int = 0) -> int:
        """Return the byte offset of an object's current data record, as ``ZODB.fsIndex.fsIndex.get`` does.

        :param oid: 8 bytes.
        :param default: returned for an object that is not in the index.
        :raises ValueError: when the bucket is damaged.
        """
        prefix, key = oid[:6], oid[6:]
        if prefix not in self._offsets:
            return default
        if self._last[0] != prefix:
            self._file.seek(self._offsets[prefix])
            self._last = (prefix, checked(parsed(self._file).values)[1])
        bucket = self._last[1]
        # fsBucket.toString: all keys, sorted, then all values.
        count = len(bucket) // 8
        low, high = 0, count
        while low < high:
            middle = (low + high) // 2
            if bucket[2 * middle : 2 * middle + 2] < key:
                low = middle + 1
            else:
                high = middle
        if low == count or bucket[2 * low : 2 * low + 2] != key:
            return default
        value = 2 * count + 6 * low
        return int.from_bytes(bucket[value : value + 6], "big")


def checked(values: List[Constant]) -> Tuple[bytes, bytes]:
    """Return the prefix of oids and the bucket.

    :param values: those of one pickle.
    :raises ValueError: unless these are 6 bytes of prefix, and 2 + 6 bytes of bucket for each oid, as in fsIndex.
    """
    pair = [value for value in values if isinstance(value, bytes)]
    if len(values) != 2 or len(pair) != 2 or len(pair[0]) != 6 or len(pair[1]) % 8:
        raise ValueError("no bucket")
    return pair[0], pair[1]


def write_for_python_3(index_path: str) -> bool:
    """Write an index of Python 2 anew, as ZODB on Python 3 does, which ZODB 5 on Python 2 reads as well.

    The old index stays until the new one is on disk.

    :returns: whether it was one of Python 2.
    :raises ValueError: when the file is damaged; it is left as it is.
    """
    with open_regular(index_path) as source:
        # The position looks alike; the first bucket doesn't, and all are of one kind.
        if not (parsed(source).of_python_2 or parsed(source).of_python_2):
            return False
        source.seek(0)
        # The name is ZODB's own, so that ZODB overwrites the file that an interruption leaves.
        temporary = index_path + ".index_tmp"
        with open(temporary, "wb") as target:
            _copy_pickles(source, target)
            target.flush()
            os.fsync(target.fileno())
    os.replace(temporary, index_path)
    return True


def _copy_pickles(source: BinaryIO, target: BinaryIO) -> None:
    """Write the pickles of an index in Python 3's form."""
    import pickle  # start-up

    values = parsed(source).values
    target.write(pickle.dumps(values[0], 3))
    while values:
        values = parsed(source).values
        target.write(_pickle_of(*checked(values)) if values else pickle.dumps(None, 3))


def _pickle_of(prefix: bytes, bucket: bytes) -> bytes:
    """Return the pickle of a pair of bytes as ZODB writes it: without a memo, unlike ``pickle.dumps``."""
    return b"\x80\3" + _push(prefix) + _push(bucket) + b"\x86."  # PROTO 3, TUPLE2, STOP


def _push(value: bytes) -> bytes:
    """Return the opcode that pushes bytes: SHORT_BINBYTES or BINBYTES."""
    if len(value) < 256:
        return b"C" + bytes([len(value)]) + value
    return b"B" + len(value).to_bytes(4, "little") + value
