"""Image files, of a recording or sent: PNG and JPEG, whose header is read and checked before anything is decoded.

A header decides how much memory a decoder takes, and decoders fill what a cut file lacks with grey; so the size must
be the camera's, the kind must be the format's, and the file must be whole before OpenCV sees it.
PNG: W3C, Portable Network Graphics, third edition, 5.3 and 11.2. JPEG: ITU-T T.81, annex B.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import ImageError
from bodyfit.recording.files import read_file

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOURS = {0: "greyscale", 2: "RGB", 3: "palette", 4: "greyscale with alpha", 6: "RGBA"}
_PNG_MAX_CHUNKS = 100_000
_JPEG_MAX_SCANS = 100
# the frame headers that OpenCV decodes: baseline, extended and progressive Huffman
_JPEG_FRAMES = {0xC0, 0xC1, 0xC2}
_JPEG_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
# after a scan's header: the next marker that is neither a stuffed byte nor a restart
_JPEG_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says of itself: sides in pixels, bits of one channel, and its kind in words."""

    kind: str
    width: int
    height: int
    bits: int
    colour: str

    def __str__(self) -> str:
        return f"{'an' if self.bits == 8 else 'a'} {self.bits}-bit {self.colour} {self.kind}"


@dataclass(frozen=True)
class ImageKind:
    """What an image of a frame must be: its bits, the camera whose grid it has, and its file's kind."""

    name: str
    bits: int
    camera_key: str
    grey_png: bool

    @property
    def wanted(self) -> str:
        """In words, for an error."""
        bits = "an 8-bit" if self.bits == 8 else f"a {self.bits}-bit"
        return f"{bits} {'greyscale PNG' if self.grey_png else 'PNG or JPEG'}"


DEPTH = ImageKind("depth", 16, "depth_camera", True)
MASK = ImageKind("mask", 8, "depth_camera", True)
COLOR = ImageKind("color", 8, "color_camera", False)


def max_file_bytes(camera: Camera) -> int:
    """The most bytes an image file of this camera may have: no encoder needs more than raw pixels and some text."""
    return camera.width * camera.height * 8 + (1 << 20)


def read_image_file(root: Path, relative: str, camera: Camera) -> bytes:
    """The bytes of an image file of a recording, not looked at yet.

    Raises:
        ImageError: no such file, or one that is larger than any image of this camera.
    """
    return read_file(root, relative, max_file_bytes(camera), ImageError)


def check_image(kind: ImageKind, name: str, data: bytes, camera: Camera) -> ImageHeader:
    """Refuses an image file by its header: another kind or size than a frame's; nothing is decoded.

    Args:
        kind: what it must be.
        name: what errors call it: a file, or a field of a message.
        data: the file.
        camera: whose grid it must have.

    Raises:
        ImageError: another kind or size, or a header that is cut or makes no sense.
    """
    header = read_header(name, data)
    if header.bits != kind.bits or (kind.grey_png and (header.kind, header.colour) != ("PNG", "greyscale")):
        raise ImageError(name, kind.wanted, str(header))
    if (header.width, header.height) != (camera.width, camera.height):
        expected = f"{camera.width} × {camera.height} pixels ({kind.camera_key})"
        raise ImageError(name, expected, f"{header.width} × {header.height} pixels")
    return header


def decode_depth(name: str, data: bytes, camera: Camera) -> NDArray[np.uint16]:
    """(H, W) counts of a 16-bit greyscale PNG.

    Raises:
        ImageError: another kind or size, or a file that is cut or broken.
    """
    return _decode_grey(DEPTH, name, data, camera, np.uint16)


def decode_mask(name: str, data: bytes, camera: Camera) -> NDArray[np.bool_]:
    """(H, W) of an 8-bit greyscale PNG, as `person_of` reads it.

    Raises:
        ImageError: as for depth; or values that mark the person by another number than 255.
    """
    return person_of(name, _decode_grey(MASK, name, data, camera, np.uint8))


def person_of(name: str, values: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(H, W) True = person, which a mask says with 255; soft edges are cut at one half.

    Raises:
        ImageError: values that mark the person by another number.
    """
    top = int(values.max())
    if 0 < top <= 127:
        raise ImageError(name, "a mask of 0 and 255 (person)", f"no value above {top}")
    return values > 127


def decode_color(name: str, data: bytes, camera: Camera) -> NDArray[np.uint8]:
    """(Hc, Wc, 3) RGB of an 8-bit PNG or JPEG; one channel is spread over three, alpha is dropped.

    Raises:
        ImageError: as for depth.
    """
    _check_whole(COLOR, name, data, camera)
    import cv2  # late: importing it takes 0.2 s that commands without images need not wait for

    # a camera's intrinsics are those of the stored grid, so EXIF must not turn the image
    image = _decode(name, data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    _check_decoded(name, image, (camera.height, camera.width, 3), np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def _decode_grey(kind: ImageKind, name: str, data: bytes, camera: Camera, dtype: type) -> NDArray:
    _check_whole(kind, name, data, camera)
    import cv2

    image = _decode(name, data, cv2.IMREAD_UNCHANGED)
    _check_decoded(name, image, (camera.height, camera.width), dtype)
    return image


def _decode(relative: str, data: bytes, flags: int) -> NDArray:
    import cv2

    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as problem:
        raise ImageError(relative, "an image that decodes", f"OpenCV: {problem.err}") from None
    if image is None:
        raise ImageError(relative, "an image that decodes", "broken image data")
    return image


def _check_decoded(relative: str, image: NDArray, shape: tuple[int, ...], dtype: type) -> None:
    if image.shape != shape or image.dtype != dtype:
        raise ImageError(relative, f"{shape} of {np.dtype(dtype)}", f"{image.shape} of {image.dtype} once decoded")


def _check_whole(kind: ImageKind, name: str, data: bytes, camera: Camera) -> None:
    """Refuses a file that is not of this kind and size, or not there to its end."""
    if check_image(kind, name, data, camera).kind == "PNG":
        _check_png_whole(name, data)
    else:
        _walk_jpeg(name, data, whole=True)


def read_header(relative: str, data: bytes) -> ImageHeader:
    """What the header of a PNG or JPEG file declares; nothing is decoded.

    Raises:
        ImageError: neither of the two, or a header that is cut or makes no sense.
    """
    if data.startswith(PNG_SIGNATURE):
        if len(data) < 33 or data[8:16] != b"\x00\x00\x00\rIHDR":
            raise ImageError(relative, "a PNG that starts with IHDR", "a cut or broken header")
        width, height, bits, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", data[16:29])
        if zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
            raise ImageError(relative, "an undamaged PNG header", "a wrong checksum")
        if colour not in _PNG_COLOURS or (compression, filtering) != (0, 0) or interlace > 1:
            raise ImageError(relative, "a PNG header of the standard", "values that it does not define")
        return ImageHeader("PNG", width, height, bits, _PNG_COLOURS[colour])
    if data.startswith(b"\xff\xd8"):
        return _walk_jpeg(relative, data, whole=False)
    raise ImageError(relative, "a PNG or JPEG image", "an empty file" if not data else "another kind of file")


def _check_png_whole(relative: str, data: bytes) -> None:
    """Follow the chunks to IEND, each with its checksum."""
    view, position = memoryview(data), len(PNG_SIGNATURE)
    has_data = False
    for _ in range(_PNG_MAX_CHUNKS):
        end = position + 12 + int.from_bytes(view[position : position + 4], "big")
        if position + 12 > len(data) or end > len(data):
            raise ImageError(relative, "a whole PNG", f"a file cut off at byte {len(data)}")
        name = bytes(view[position + 4 : position + 8])
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise ImageError(relative, "an undamaged PNG", f"a wrong checksum in chunk {name!r}")
        if name == b"acTL":
            raise ImageError(relative, "a still image", "an animated PNG")
        if name == b"IHDR" and position != len(PNG_SIGNATURE):
            raise ImageError(relative, "one PNG header", "two")
        if name == b"IEND":
            if not has_data:
                raise ImageError(relative, "a PNG with image data", "none")
            return
        has_data = has_data or name == b"IDAT"
        position = end
    raise ImageError(relative, f"a PNG of at most {_PNG_MAX_CHUNKS} chunks", "more")


def _walk_jpeg(relative: str, data: bytes, *, whole: bool) -> ImageHeader:
    """The JPEG's frame header; with `whole`, every segment is followed to the end-of-image marker."""
    header: ImageHeader | None = None
    position, scans = 2, 0
    cut = ImageError(relative, "a whole JPEG", f"a file cut off at byte {len(data)}")
    while True:
        while data[position : position + 2] == b"\xff\xff":  # fill bytes before a marker
            position += 1
        if position + 2 > len(data):
            raise cut
        if data[position] != 0xFF:
            raise ImageError(relative, "an undamaged JPEG", f"no marker at byte {position}")
        marker = data[position + 1]
        if marker == 0xD9:
            if header is None or not scans:
                raise ImageError(relative, "a JPEG with an image", "none before its end")
            return header
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers that stand alone
            position += 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position + 4 : position + 2 + length]
        if length < 2 or position + 2 + length > len(data):
            raise cut
        if marker in _JPEG_OTHER_FRAMES:
            raise ImageError(relative, "a baseline or progressive JPEG", f"another process (SOF{marker - 0xC0})")
        if marker in _JPEG_FRAMES:
            if header is not None:
                raise ImageError(relative, "one JPEG frame header", "two")
            header = _jpeg_frame(relative, segment)
            if not whole:
                return header
        position += 2 + length
        if marker == 0xDA:
            scans += 1
            if scans > _JPEG_MAX_SCANS:
                raise ImageError(relative, f"a JPEG of at most {_JPEG_MAX_SCANS} scans", "more")
            after = _JPEG_AFTER_SCAN.search(data, position)
            if after is None:
                raise cut
            position = after.start()


def _jpeg_frame(relative: str, segment: bytes) -> ImageHeader:
    if len(segment) < 6:
        raise ImageError(relative, "a JPEG frame header", f"one of {len(segment)} bytes")
    bits, height, width, components = struct.unpack(">BHHB", segment[:6])
    if components not in (1, 3):
        raise ImageError(relative, "a JPEG of 1 or 3 components", f"{components} components")
    return ImageHeader("JPEG", width, height, bits, "greyscale" if components == 1 else "colour")
