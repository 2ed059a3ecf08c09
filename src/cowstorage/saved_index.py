"""The index file that ZODB keeps beside a FileStorage, read without unpickling it and without loading it whole.

Its layout is that of ``ZODB.fsIndex.fsIndex.save``: the pickle of an int (the end of the last transaction that is
indexed), then one pickle of ``(first 6 bytes of oids, bucket of their positions)`` after the other, then that of None.
"""

from __future__ import annotations

from typing import BinaryIO, Dict, List, Optional, Tuple, Union

Constant = Union[int, bytes]

INTS = ("BININT", "BININT1", "BININT2", "LONG1")
BYTES = ("SHORT_BINBYTES", "BINBYTES")

# The opcodes of the three kinds of pickles that fsIndex.save writes; a file with anything else in it is not used.
SHAPES = (
    ("PROTO", INTS, "STOP"),
    ("PROTO", BYTES, BYTES, "TUPLE2", "STOP"),
    ("PROTO", "NONE", "STOP"),
)
NEWEST_PROTOCOL = 3  # that zodbpickle reads

# Longer than the pickle of any file offset: the first read of an index on a slow mount stays small.
FIRST_PICKLE = 64


def constants(file: BinaryIO) -> List[Constant]:
    """The ints and bytes of the pickle at the file's position, which moves behind it.

    Opcodes are told apart, never executed: nothing that a file says can import, call or reserve memory for long.

    :raises ValueError: for what isn't a pickle as fsIndex writes it.
    """
    import pickletools

    shape: List[Union[str, Tuple[str, ...]]] = []
    values: List[Constant] = []
    for opcode, argument, _ in pickletools.genops(file):
        kind = next((kind for kind in (INTS, BYTES) if opcode.name in kind), None)
        shape.append(kind or opcode.name)
        if kind:
            values.append(argument)  # type: ignore[arg-type]
        if opcode.name == "PROTO" and argument > NEWEST_PROTOCOL:  # type: ignore[operator]
            raise ValueError(f"pickle protocol {argument}")
        if len(shape) > max(map(len, SHAPES)):
            break
    if tuple(shape) not in SHAPES:
        raise ValueError("no pickle of an index")
    return values


def index_position(index_path: str) -> Optional[int]:
    """Byte offset of the end of the last transaction that an index file knows.

    :returns: ``None`` for a file that is missing or damaged, or of ZODB before 3.10.
    :raises OSError: when the file is there and can't be read.
    """
    import io

    try:
        with open(index_path, "rb", buffering=0) as file:
            values = constants(io.BytesIO(file.read(FIRST_PICKLE)))
    except (FileNotFoundError, ValueError):
        return None
    if len(values) != 1 or not isinstance(values[0], int) or values[0] < 0:
        return None
    return values[0]


class SavedIndex:
    """The positions of single objects, looked up in an index file.

    Opening reads the file once through; memory is some hundred bytes for 65,536 oids.

    :raises ValueError: for a file that is damaged anywhere but inside a bucket.
    """

    def __init__(self, index_path: str):
        self._file = open(index_path, "rb")  # noqa: SIM115
        self._offsets: Dict[bytes, int] = {}
        try:
            self._find_buckets()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def _find_buckets(self) -> None:
        values = constants(self._file)
        while values:
            offset = self._file.tell()
            values = constants(self._file)
            if values:
                prefix, _ = self._checked(values)
                self._offsets[prefix] = offset

    def get(self, oid: bytes, default: int = 0) -> int:
        """Byte offset of an object's current data record, as ``fsIndex.get``."""
        from BTrees.fsBTree import fsBucket
        from ZODB.utils import u64

        offset = self._offsets.get(oid[:6])
        if offset is None:
            return default
        self._file.seek(offset)
        _, bucket = self._checked(constants(self._file))
        position: Optional[bytes] = fsBucket().fromString(bucket).get(oid[6:])
        return default if position is None else int(u64(b"\0\0" + position))

    @staticmethod
    def _checked(values: List[Constant]) -> List[bytes]:
        """Prefix of oids and bucket.

        :raises ValueError: when they have not the lengths that fsIndex gives them: 6 bytes; 2 + 6 for each oid.
        """
        pair = [value for value in values if isinstance(value, bytes)]
        if len(values) != 2 or len(pair) != 2 or len(pair[0]) != 6 or len(pair[1]) % 8:
            raise ValueError("no bucket")
        return pair
