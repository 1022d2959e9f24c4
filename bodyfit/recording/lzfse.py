"""Data packed by Apple's LZFSE, unpacked only after its blocks have said how large it gets.

Blocks: lzfse_internal.h and lzfse_encode_base.h of Apple's reference implementation (github.com/lzfse/lzfse): a magic
number, the unpacked length, and, by kind, where the next block begins. The unpacking itself is the reference
implementation's, in the package lzfse (extra `iphone`).
"""

from __future__ import annotations

import struct

from bodyfit.errors import ImageError, MissingExtraError

MOST_BLOCKS = 100_000
_LOW20, _LOW32 = (1 << 20) - 1, (1 << 32) - 1


def unpacked(name: str, data: bytes, wanted: int) -> bytes:
    """What was packed, which must be so many bytes.

    Raises:
        ImageError: broken data, or another length.
        MissingExtraError: lzfse is not installed.
    """
    length = unpacked_length(name, data)
    if length != wanted:
        raise ImageError(name, f"{wanted} bytes once unpacked", str(length))
    try:
        import lzfse  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError("lzfse", "iphone", "reading a Record3D recording") from None
    try:
        out = bytes(lzfse.decompress(data))
    except (lzfse.error, ValueError, MemoryError) as problem:
        raise ImageError(name, "data packed by LZFSE", f"broken data {problem}".strip()) from None
    if len(out) != wanted:
        raise ImageError(name, f"{wanted} bytes once unpacked", str(len(out)))
    return out


def unpacked_length(name: str, data: bytes) -> int:
    """How many bytes the blocks say that they hold.

    Raises:
        ImageError: no LZFSE stream, or one that is cut.
    """
    at = length = 0
    for _ in range(MOST_BLOCKS):
        magic = data[at : at + 4]
        if magic == b"bvx$":
            return length
        try:
            (raw,) = struct.unpack_from("<I", data, at + 4)
            if magic == b"bvx-":
                size = 8 + raw
            elif magic == b"bvxn":
                size = 12 + struct.unpack_from("<I", data, at + 8)[0]
            elif magic == b"bvx2":
                literals, commands, header = struct.unpack_from("<QQQ", data, at + 8)
                size = (header & _LOW32) + ((literals >> 20) & _LOW20) + ((commands >> 40) & _LOW20)
            else:
                raise ImageError(name, "data packed by LZFSE", f"a block that begins {magic!r} at byte {at}")
        except struct.error:
            raise ImageError(name, "data packed by LZFSE, to its end", f"{len(data)} bytes") from None
        length += raw
        at += max(size, 8)
    raise ImageError(name, f"at most {MOST_BLOCKS} blocks", "more")
