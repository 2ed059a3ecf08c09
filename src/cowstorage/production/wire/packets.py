"""Read and make the packets of SFTP version 3, draft-ietf-secsh-filexfer-02; pure functions of bytes.

A packet is its length (4 bytes), its type (1 byte) and, but for the first of each side, its id (4 bytes).
"""

from __future__ import annotations

import struct
from typing import List, NamedTuple, Optional, Tuple, Union

VERSION_3 = 3

# Types of packets: requests, and answers.
INIT, VERSION, OPEN, CLOSE, READ, LSTAT, FSTAT = 1, 2, 3, 4, 5, 7, 8
OPENDIR, READDIR, STAT, EXTENDED = 11, 12, 17, 200
STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED_REPLY = 101, 102, 103, 104, 105, 201

# Codes of STATUS.
OK, EOF, NO_SUCH_FILE, FAILURE = 0, 1, 2, 4

# The flag of OPEN that asks for reading; alone it asks for nothing else.
FOR_READING = 1

# What the flags of attributes say is there, and how it is packed.
SIZE, UIDGID, PERMISSIONS, ACMODTIME, MORE = 1, 2, 4, 8, 0x80000000

# The bits of a mode that tell what a file is, and those of two types, inode(7).
FILE_TYPE, REGULAR, DIRECTORY = 0o170000, 0o100000, 0o040000

# What most file systems tell of a small directory.
DIRECTORY_SIZE = 4096

HEADER = struct.Struct(">IBI")
_LENGTH = struct.Struct(">I")
_DATA_HEADER = struct.Struct(">IBII")
_OFFSET_AND_LENGTH = struct.Struct(">QI")

Buffer = Union[bytes, memoryview]


class Malformed(ValueError):
    """A packet that is not as the protocol has it."""


class Attributes(NamedTuple):
    """What a server tells of a file.

    :param size: bytes.
    :param modified: Unix seconds.
    :param regular: whether it surely is a regular file.
    """

    size: int
    modified: int
    regular: bool


def id_of(packet: Buffer) -> int:
    """Return the id of a packet; of the first packet of each side, its version."""
    return int(HEADER.unpack_from(packet)[2])


def text(packet: Buffer, offset: int = HEADER.size) -> Tuple[bytes, int]:
    """Return the string at an offset of a packet, and the offset behind it.

    :raises Malformed: when the packet ends before.
    """
    begin = offset + _LENGTH.size
    if begin > len(packet):
        raise Malformed("a packet ends before a string")
    end = begin + _LENGTH.unpack_from(packet, offset)[0]
    if end > len(packet):
        raise Malformed("a packet ends in a string")
    return bytes(packet[begin:end]), end


def number(packet: Buffer, offset: int) -> int:
    """Return the unsigned number of 4 bytes at an offset of a packet.

    :raises Malformed: when the packet ends before.
    """
    if offset + _LENGTH.size > len(packet):
        raise Malformed("a packet ends before a number")
    return int(_LENGTH.unpack_from(packet, offset)[0])


def range_of(packet: Buffer, offset: int) -> Tuple[int, int]:
    """Return what a READ asks for: its offset in the file and the number of bytes.

    :param offset: where these are in the packet.
    :raises Malformed: when the packet ends before.
    """
    if offset + _OFFSET_AND_LENGTH.size > len(packet):
        raise Malformed("a packet ends before a range")
    begin, length = _OFFSET_AND_LENGTH.unpack_from(packet, offset)
    return begin, length


def data_of(packet: memoryview) -> memoryview:
    """Return the bytes of a file that a DATA has, as a part of the packet.

    :raises Malformed: when the packet ends before.
    """
    begin = HEADER.size + _LENGTH.size
    end = begin + number(packet, HEADER.size)
    if end > len(packet):
        raise Malformed("a packet ends in its data")
    return packet[begin:end]


def data_if_any(kind: int, packet: memoryview) -> memoryview:
    """Return the bytes of a file in an answer to a READ; none where it is anything but a DATA that is whole."""
    try:
        return data_of(packet) if kind == DATA else packet[:0]
    except Malformed:
        return packet[:0]


def attributes_of(packet: Buffer) -> Optional[Attributes]:
    """Return what an ATTRS tells of a file; ``None`` where size or time are missing.

    :raises Malformed: when the packet ends before what its flags say.
    """
    flags = number(packet, HEADER.size)
    needed = SIZE | ACMODTIME
    if flags & needed != needed:
        return None
    offset = HEADER.size + _LENGTH.size
    size = (number(packet, offset) << 32) + number(packet, offset + 4)
    offset += 16 if flags & UIDGID else 8
    mode = 0
    if flags & PERMISSIONS:
        mode = number(packet, offset)
        offset += 4
    return Attributes(size, number(packet, offset + 4), mode & FILE_TYPE == REGULAR)


def names_of(packet: Buffer) -> List[bytes]:
    """Return the names in a NAME; each is followed by a line for people and attributes, draft 02, 7.

    :raises Malformed: when the packet ends before.
    """
    names = []
    offset = HEADER.size + _LENGTH.size
    for _ in range(number(packet, HEADER.size)):
        name, offset = text(packet, offset)
        names.append(name)
        _, offset = text(packet, offset)
        offset = _behind_attributes(packet, offset)
    return names


def _behind_attributes(packet: Buffer, offset: int) -> int:
    """Return the offset behind the attributes at an offset of a packet."""
    flags = number(packet, offset)
    lengths = {SIZE: 8, UIDGID: 8, PERMISSIONS: 4, ACMODTIME: 8}
    offset += _LENGTH.size + sum(length for flag, length in lengths.items() if flags & flag)
    if flags & MORE:
        pairs, offset = number(packet, offset), offset + _LENGTH.size
        for _ in range(2 * pairs):
            _, offset = text(packet, offset)
    return offset


def made(kind: int, request: int, *parts: bytes) -> bytes:
    """Return a packet.

    :param request: its id.
    """
    body = b"".join(parts)
    return HEADER.pack(HEADER.size - _LENGTH.size + len(body), kind, request) + body


def string(value: bytes) -> bytes:
    """Return a string with its length before it."""
    return _LENGTH.pack(len(value)) + value


def renumbered(packet: Buffer, request: int) -> bytes:
    """Return a packet with another id."""
    return bytes(packet[: HEADER.size - _LENGTH.size]) + _LENGTH.pack(request) + bytes(packet[HEADER.size :])


def read(request: int, handle: bytes, offset: int, length: int) -> bytes:
    """Return a READ."""
    return made(READ, request, string(handle), _OFFSET_AND_LENGTH.pack(offset, length))


def opening(request: int, path: bytes) -> bytes:
    """Return an OPEN for reading, which sets no attributes."""
    return made(OPEN, request, string(path), _LENGTH.pack(FOR_READING), _LENGTH.pack(0))


def closing(request: int, handle: bytes) -> bytes:
    """Return a CLOSE."""
    return made(CLOSE, request, string(handle))


def status(request: int, code: int, message: bytes = b"") -> bytes:
    """Return a STATUS."""
    return made(STATUS, request, _LENGTH.pack(code), string(message), string(b""))


def data_header(request: int, length: int) -> bytes:
    """Return the beginning of a DATA, which so many bytes follow."""
    return _DATA_HEADER.pack(_DATA_HEADER.size - _LENGTH.size + length, DATA, request, length)


def data(request: int, content: bytes) -> bytes:
    """Return a DATA."""
    return data_header(request, len(content)) + content


def attributes(request: int, told: Attributes) -> bytes:
    """Return the ATTRS of a regular file that its owner may read.

    :param told: what it tells; ``regular`` is taken for granted.
    """
    return _attributes(request, told.size, REGULAR | 0o400, told.modified)


def directory(request: int) -> bytes:
    """Return the ATTRS of a directory of BLOBs, as ZODB makes it."""
    return _attributes(request, DIRECTORY_SIZE, DIRECTORY | 0o700, 0)


def _attributes(request: int, size: int, mode: int, modified: int) -> bytes:
    times = struct.pack(">I", modified & 0xFFFFFFFF) * 2
    return made(ATTRS, request, struct.pack(">IQI", SIZE | PERMISSIONS | ACMODTIME, size, mode), times)
