"""Protobuf's own encoding, as far as a message is put around bytes that are one already (encoding guide of Protocol
Buffers: tag, length, bytes): answers of megabytes are not unpacked and packed again on their way."""

from __future__ import annotations

LENGTH_DELIMITED = 2


def varint(value: int) -> bytes:
    """A whole number from 0 in as few bytes as it takes, seven bits each, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def as_field(number: int, message: bytes) -> bytes:
    """A serialized message as field `number` of the message around it."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(len(message)) + message
