"""Packets of SFTP, and a stream of them that is cut anywhere."""

from __future__ import annotations

from typing import List, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowstorage.production.wire import packets
from cowstorage.production.wire.framing import LONGEST, RUBBISH, Framing
from cowstorage.production.wire.names import BlobNames, directory_in_requests, layout_of
from production.wire.server import attributes, packet, text

LOOKED_AT = range(100, 200)
a_packet = st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=60))


def received(framing: Framing, stream: bytes, cuts: List[int]) -> List[Tuple[int, bytes]]:
    """The pieces of a stream that comes in parts of these lengths, again and again."""
    pieces, turn = [], 0
    while stream:
        space = framing.space
        count = min(len(stream), len(space), cuts[turn % len(cuts)])
        space[:count] = stream[:count]
        pieces += [(piece.kind, bytes(piece.content)) for piece in framing.received(count)]
        stream, turn = stream[count:], turn + 1
    return pieces


@given(st.lists(a_packet, max_size=30), st.lists(st.integers(1, 50), min_size=1, max_size=9))
def test_packets_that_are_looked_at_come_whole_and_all_bytes_in_order(
    sent: List[Tuple[int, int, bytes]], cuts: List[int]
) -> None:
    framing = Framing(lambda kind, number: kind in LOOKED_AT)
    stream = b"".join(packet(*one) for one in sent)
    pieces = received(framing, stream, cuts)
    assert b"".join(content for _, content in pieces) == stream
    assert [one for one in pieces if one[0]] == [(one[0], packet(*one)) for one in sent if one[0] in LOOKED_AT]
    assert not framing.lost


@given(st.binary(max_size=300), st.lists(st.integers(1, 50), min_size=1, max_size=9))
def test_whatever_comes_goes_through(stream: bytes, cuts: List[int]) -> None:
    framing = Framing(lambda kind, number: False)
    passed = b"".join(content for _, content in received(framing, stream, cuts))
    # The beginning of a packet may wait for the rest of its header.
    assert stream.startswith(passed)
    assert len(stream) - len(passed) < packets.HEADER.size


def test_a_packet_that_nobody_looks_at_does_not_wait_for_its_end() -> None:
    framing = Framing(lambda kind, number: False)
    beginning = packet(103, 1, bytes(30_000))[:1000]
    assert received(framing, beginning, [1000]) == [(0, beginning)]


@pytest.mark.parametrize("length", [0, 4])
def test_behind_what_is_no_packet_all_goes_through(length: int) -> None:
    framing = Framing(lambda kind, number: True)
    stream = packet(103, 1, b"x") + length.to_bytes(4, "big") + packet(103, 2, b"y") * 3
    pieces = received(framing, stream, [len(stream)])
    assert pieces[0] == (103, packet(103, 1, b"x"))
    assert {kind for kind, _ in pieces[1:]} == {0}
    assert b"".join(content for _, content in pieces) == stream
    assert framing.lost


def test_a_packet_of_any_length_takes_no_memory() -> None:
    framing = Framing(lambda kind, number: True)
    header = (1 << 31).to_bytes(4, "big") + b"\x67" + bytes(4)
    assert received(framing, header + bytes(10 * LONGEST), [LONGEST])[0][0] == 0
    assert not framing.lost


@given(
    st.binary(max_size=40).filter(lambda rubbish: b"\x02" not in rubbish),
    st.lists(st.integers(1, 20), min_size=1, max_size=9),
)
def test_what_a_profile_prints_before_the_first_packet_goes_through(rubbish: bytes, cuts: List[int]) -> None:
    framing = Framing(lambda kind, number: True, after_rubbish=True)
    stream = rubbish + packet(2, 3, text(b"extension")) + packet(103, 1, b"x")
    pieces = received(framing, stream, cuts)
    assert b"".join(content for _, content in pieces) == stream
    assert [one for one in pieces if one[0]] == [(2, packet(2, 3, text(b"extension"))), (103, packet(103, 1, b"x"))]


def test_a_stream_without_a_first_packet_goes_through() -> None:
    framing = Framing(lambda kind, number: True, after_rubbish=True)
    stream = b"Welcome! " * RUBBISH
    pieces = received(framing, stream, [1000])
    assert b"".join(content for _, content in pieces) == stream
    assert framing.lost


# Packets


@pytest.mark.parametrize("cut", range(1, 33))
def test_a_packet_that_ends_too_early_is_malformed(cut: int) -> None:
    answer = packet(packets.ATTRS, 1, attributes(1))
    with pytest.raises(packets.Malformed):
        packets.attributes_of(answer[: len(answer) - cut])


def test_a_string_that_ends_behind_its_packet_is_malformed() -> None:
    with pytest.raises(packets.Malformed):
        packets.text(packet(packets.OPEN, 1, (9).to_bytes(4, "big") + b"12345678"))
    with pytest.raises(packets.Malformed):
        packets.data_of(memoryview(packet(packets.DATA, 1, (9).to_bytes(4, "big") + b"12345678")))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_attributes_that_are_made_are_read(size: int, modified: int) -> None:
    told = packets.Attributes(size, modified, regular=True)
    assert packets.attributes_of(packets.attributes(1, told)) == told
    assert packets.attributes_of(packet(packets.ATTRS, 1, attributes(size, modified))) == told


def test_a_directory_is_no_regular_file() -> None:
    told = packets.attributes_of(packet(packets.ATTRS, 1, attributes(1, mode=0o40755)))
    assert told is not None
    assert not told.regular


# Names


@pytest.mark.parametrize(
    "below, is_blob",
    [
        ("0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x05/0x03f1b2c4d5e6f708.blob", True),
        ("0x05/0x03f1b2c4d5e6f708.blob", True),
        ("0x00/0x00/0x00/0x00/0x00/0x00/0x05/0x03f1b2c4d5e6f708.blob", False),
        ("0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x05/0x03f1b2c4d5e6f708.blob.removed", False),
        ("0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x05/.lock", False),
        ("0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x05", False),
        ("tmp/BUSHY1.blob", False),
        (".layout", False),
        ("0x05/../0x05/0x03f1b2c4d5e6f708.blob", False),
        ("0x05/0x03F1B2C4D5E6F708.blob", False),
        ("0x05/0x03f1b2c4d5e6f708.blob\n", False),
        ("0x5/0x03f1b2c4d5e6f708.blob", False),
    ],
)
def test_the_names_of_committed_blobs(below: str, is_blob: bool) -> None:
    names = BlobNames("/srv/blobstorage/")
    assert names.relative(b"/srv/blobstorage/" + below.encode()) == (below if is_blob else None)
    assert names.relative(b"/elsewhere/" + below.encode()) is None
    assert names.relative(b"/srv/blobstorageX" + below.encode()) is None


@pytest.mark.parametrize(
    "remote_path, blob_storage, directory",
    [
        ("/srv/plone", "var/blobstorage", "/srv/plone/var/blobstorage/"),
        ("/", "var/blobstorage", "/var/blobstorage/"),
        ("", "var/blobstorage", "var/blobstorage/"),
        ("plone", "blobs", "plone/blobs/"),
        ("/srv/blobs", ".", "/srv/blobs/"),
    ],
)
def test_the_directory_as_sshfs_names_it(remote_path: str, blob_storage: str, directory: str) -> None:
    assert directory_in_requests(remote_path, blob_storage) == directory


def test_the_layout_is_told_by_the_path() -> None:
    assert layout_of("0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x05/0x03.blob") == "bushy"
    assert layout_of("0x05/0x03.blob") == "lawn"
