"""Protobuf's variable-length integers, one by one and whole arrays at once.

Source: Protocol Buffers documentation, "Encoding": seven bits a byte, least significant group first.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MAX_BYTES = 10

Bytes2D = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


def varint(value: int) -> bytes:
    """Encoding of one integer; a negative one takes ten bytes, as for protobuf's int32 and int64."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def read_varint(message: bytes, at: int) -> tuple[int, int]:
    """The signed integer that begins at a place of a message, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (value - (1 << 64) if value >> 63 else value), at


def encode_varints(values: Integers) -> tuple[Bytes2D, Integers]:
    """Encodings of N integers as the rows of a matrix [N, 10], and how many bytes of each row count."""
    left = values.astype(np.int64).view(np.uint64)
    rows = np.zeros((len(values), MAX_BYTES), np.uint8)
    lengths = np.ones(len(values), np.int64)
    for place in range(MAX_BYTES):
        rows[:, place] = left & np.uint64(0x7F)
        left = left >> np.uint64(7)
        more = left > 0
        if not more.any():
            break
        rows[more, place] |= 0x80
        lengths[more] += 1
    return rows, lengths


def decode_varints(joined: npt.NDArray[np.uint8], starts: Integers, lengths: Integers) -> Integers | None:
    """Integers whose encodings lie in `joined`; None when one is not exactly `lengths` bytes long."""
    values = np.zeros(len(starts), np.uint64)
    if len(starts) == 0:
        return values.view(np.int64)
    if lengths.min() < 1 or lengths.max() > MAX_BYTES:
        return None
    for place in range(int(lengths.max())):
        held = lengths > place
        byte = joined[starts[held] + place]
        if not np.array_equal(byte >= 0x80, lengths[held] > place + 1):
            return None
        values[held] |= (byte & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return values.view(np.int64)
