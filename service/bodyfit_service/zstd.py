"""Depth compressed with zstd (RFC 8878): one frame, whose header declares how much is in it."""

from __future__ import annotations

from types import ModuleType

from bodyfit.errors import ImageError, MissingExtraError

LEVEL = 1
"""floats of a sensor's counts shrink to a third with it; higher levels take many times as long for some percent"""
LONGEST_HEADER_BYTES = 18


def compressed(data: bytes) -> bytes:
    """As one frame.

    Raises:
        MissingExtraError: the package zstandard is not installed.
    """
    return _zstandard().ZstdCompressor(level=LEVEL, write_content_size=True).compress(data)


def check_frame(field: str, data: bytes, wanted: int) -> None:
    """Refuses, by its header alone, what is no frame or declares another size than `wanted` bytes.

    Raises:
        ImageError: that, with the field's name.
        MissingExtraError: the package zstandard is not installed.
    """
    zstandard = _zstandard()
    try:
        frame = zstandard.get_frame_parameters(data[:LONGEST_HEADER_BYTES])
    except zstandard.ZstdError:
        raise ImageError(field, "a zstd frame", "another kind of data" if data else "an empty field") from None
    if frame.content_size != wanted:
        unknown = frame.content_size in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR)
        found = "no declared size" if unknown else f"{frame.content_size} bytes"
        raise ImageError(field, f"a zstd frame that declares {wanted} bytes", found)
    if frame.dict_id:
        raise ImageError(field, "a zstd frame without a dictionary", f"dictionary {frame.dict_id}")


def unpacked(field: str, data: bytes, wanted: int) -> bytes:
    """What is in a frame of `wanted` bytes.

    Raises:
        ImageError: as of check_frame; or a frame that is cut, broken or followed by something.
        MissingExtraError: the package zstandard is not installed.
    """
    check_frame(field, data, wanted)
    zstandard = _zstandard()
    try:
        return zstandard.ZstdDecompressor().decompress(
            data, max_output_size=wanted, read_across_frames=False, allow_extra_data=False
        )
    except zstandard.ZstdError as problem:
        raise ImageError(field, "one whole zstd frame", str(problem)[:120]) from None


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ImportError:
        raise MissingExtraError("zstandard", "service", "depth compressed with zstd") from None
    return zstandard
