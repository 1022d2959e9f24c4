"""Images in ROS messages: encodings, row steps, byte orders and compression, to what a frame's decoder takes.

Sources: sensor_msgs/Image (encodings: sensor_msgs/image_encodings.h); REP 118 (depth: 32-bit floats in metres, or
16-bit counts of a millimetre; 0 and NaN are no reading) and REP 117 (infinities: too near, too far); for compressed
depth, image_transport_plugins' compressed_depth_image_transport (codec.cpp): twelve bytes of configuration - a format
and two floats A and B - and a PNG of 16 bits, which holds the counts themselves, or for floats the inverse depth c, of
which the depth is A / (c - B) and c = 0 is no reading.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import ImageError, RecordingError
from bodyfit.recording.bag import Bag, Topic
from bodyfit.recording.encoded import MIN_DEPTH_M, Coding, EncodedImage
from bodyfit.recording.images import decode_depth
from bodyfit.recording.ros_messages import (
    HEAD_BYTES,
    Cursor,
    ImageHead,
    payload,
    read_compressed,
    read_header,
    read_image,
)

IMAGE, COMPRESSED = "sensor_msgs/Image", "sensor_msgs/CompressedImage"
COUNTS = {"16UC1", "mono16", "z16", "Z16"}
METRES = {"32FC1"}
# which of a pixel's bytes are red, green and blue, and how many there are
COLORS: dict[str, tuple[tuple[int, ...], int]] = {
    "rgb8": ((0, 1, 2), 3),
    "bgr8": ((2, 1, 0), 3),
    "rgba8": ((0, 1, 2), 4),
    "bgra8": ((2, 1, 0), 4),
    "mono8": ((0, 0, 0), 1),
    "8UC1": ((0, 0, 0), 1),
    # what OpenCV's images are where nobody said it
    "8UC3": ((2, 1, 0), 3),
}
# two pixels in four bytes; ROS calls the order U Y V Y `yuv422`
YUV_ORDERS = {"yuv422": "UYVY", "uyvy": "UYVY", "UYVY": "UYVY", "yuv422_yuy2": "YUY2", "yuyv": "YUY2", "YUYV": "YUY2"}
GREY = {"mono8", "8UC1"}
UNREADABLE = np.iinfo(np.int64).min
"""the time of a message that cannot be read"""
_CONFIGURATION = struct.Struct("<iff")


@dataclass(frozen=True)
class ImageTopic:
    """One topic of images, as its first message shows it.

    Attributes:
        topic: where its messages lie.
        encoding: of the pixels, as `16UC1`; of compressed depth that of the image before.
        compression: `` for raw pixels, `file` for a JPEG or PNG, `depth` for compressed depth.
        frame: the coordinate frame that the messages name.
        size: width and height, None where only the file in the message tells.
        stamps_ns: (N,) int64 times in the messages' headers; UNREADABLE where a message is broken.
    """

    topic: Topic
    encoding: str
    compression: str
    frame: str
    size: tuple[int, int] | None
    stamps_ns: NDArray[np.int64]

    @property
    def is_depth(self) -> bool:
        """True where pixels are distances."""
        return self.compression == "depth" or self.encoding in COUNTS | METRES

    @property
    def is_color(self) -> bool:
        """True where pixels are colours or grey, of a kind that is read."""
        return not self.is_depth and (
            self.compression == "file" or self.encoding in COLORS or self.encoding in YUV_ORDERS
        )

    @property
    def name(self) -> str:
        """The topic's name without what a transport put behind it, as `/camera/depth/image_raw`."""
        parts = self.topic.name.rsplit("/", 1)
        return parts[0] if self.compression and parts[-1] in ("compressed", "compressedDepth") else self.topic.name

    @property
    def namespace(self) -> str:
        """What the topic shares with its camera_info, as `/camera/depth`."""
        return self.name.rsplit("/", 1)[0]


def image_topic(bag: Bag, topic: Topic) -> ImageTopic:
    """Looks into a topic of images: its first message, and the times of all.

    Raises:
        RecordingError: messages that are no images, all of them broken, or compressed as RVL.
    """
    where = f"{bag.name}: {topic.name}"
    stamps = np.full(len(topic), UNREADABLE, np.int64)
    problem: RecordingError | None = None
    for k in range(len(topic)):
        try:
            stamps[k] = read_header(Cursor(where, bag.head(topic, k, 256), topic.is_cdr)).stamp_ns
        except RecordingError as found:
            problem = found
    if problem is not None and (stamps == UNREADABLE).all():
        raise problem
    head = bag.head(topic, int((stamps != UNREADABLE).argmax()), HEAD_BYTES)
    if topic.type == IMAGE:
        image = read_image(where, head, topic.is_cdr)
        return ImageTopic(topic, image.encoding, "", image.header.frame, (image.width, image.height), stamps)
    compressed = read_compressed(where, head, topic.is_cdr)
    encoding = compressed.format.split(";")[0].strip()
    if "compressedDepth" in compressed.format:
        if "rvl" in compressed.format.lower():
            raise RecordingError(where, "compressed depth as PNG", "RVL, which is not read")
        return ImageTopic(topic, encoding, "depth", compressed.header.frame, None, stamps)
    return ImageTopic(topic, encoding, "file", compressed.header.frame, None, stamps)


def encoded_image(bag: Bag, images: ImageTopic, k: int, camera: Camera) -> EncodedImage:
    """The `k`-th image of a topic, to be read when it is needed."""
    topic = images.topic
    name = f"{bag.name}: {topic.name}, message {k}"
    if images.compression == "depth":
        if images.encoding in METRES:
            return EncodedImage(name, Coding.FLOAT32, lambda: _inverse_depth(name, bag, topic, k, camera))
        return EncodedImage(name, Coding.FILE, lambda: _file(name, bag, topic, k)[_CONFIGURATION.size :])
    if images.compression == "file":
        return EncodedImage(name, Coding.FILE, lambda: _file(name, bag, topic, k))
    if images.encoding in COUNTS:
        return EncodedImage(name, Coding.UINT16, lambda: _raw(name, bag, images, k, camera))
    if images.encoding in METRES:
        return EncodedImage(name, Coding.FLOAT32, lambda: _raw(name, bag, images, k, camera))
    return EncodedImage(name, Coding.UINT8, lambda: _raw(name, bag, images, k, camera))


def _file(name: str, bag: Bag, topic: Topic, k: int) -> bytes:
    data = bag.message(topic, k)
    head = read_compressed(name, data, topic.is_cdr)
    return payload(name, data, head.position, head.size)


def _inverse_depth(name: str, bag: Bag, topic: Topic, k: int, camera: Camera) -> bytes:
    data = _file(name, bag, topic, k)
    if len(data) <= _CONFIGURATION.size:
        raise ImageError(name, "compressed depth", f"{len(data)} bytes")
    _, a, b = _CONFIGURATION.unpack_from(data)
    if not (np.isfinite(a) and np.isfinite(b)):
        raise ImageError(name, "finite numbers of the depth's quantisation", f"{a}, {b}")
    counts = decode_depth(name, data[_CONFIGURATION.size :], camera).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        metres = np.float32(a) / (counts - np.float32(b))
    return _readings(np.where(counts == 0, np.float32(0), metres))


def _readings(metres: NDArray[np.float32]) -> bytes:
    """Metres as a frame has them: 0 where there is no reading."""
    return np.where(np.isfinite(metres) & (metres >= MIN_DEPTH_M), metres, np.float32(0)).astype("<f4").tobytes()


def _raw(name: str, bag: Bag, images: ImageTopic, k: int, camera: Camera) -> bytes:
    data = bag.message(images.topic, k)
    head = read_image(name, data, images.topic.is_cdr)
    if head.encoding != images.encoding:
        raise ImageError(f"{name}: encoding", f"{images.encoding}, as in the messages before", repr(head.encoding[:40]))
    if (head.width, head.height) != (camera.width, camera.height):
        raise ImageError(name, f"{camera.width} × {camera.height} pixels", f"{head.width} × {head.height}")
    return pixels(name, data, head)


def pixels(name: str, data: bytes, head: ImageHead) -> bytes:
    """The pixels of a message without gaps: counts `<u2`, metres `<f4` with 0 for no reading, or RGB.

    Raises:
        ImageError: an encoding that is not read, or rows that do not fit the message.
    """
    order = ">" if head.is_bigendian else "<"
    if head.encoding in COUNTS:
        return _rows(name, data, head, 1, f"{order}u2").astype("<u2", copy=False).tobytes()
    if head.encoding in METRES:
        return _readings(_rows(name, data, head, 1, f"{order}f4").astype(np.float32))
    if head.encoding in COLORS:
        channels, count = COLORS[head.encoding]
        rows = _rows(name, data, head, count, "u1").reshape(head.height, head.width, count)
        return (rows if channels == (0, 1, 2) and count == 3 else rows[..., list(channels)]).tobytes()
    if head.encoding in YUV_ORDERS and head.width % 2 == 0:
        import cv2

        code = cv2.COLOR_YUV2RGB_UYVY if YUV_ORDERS[head.encoding] == "UYVY" else cv2.COLOR_YUV2RGB_YUY2
        rows = _rows(name, data, head, 2, "u1").reshape(head.height, head.width, 2)
        return cv2.cvtColor(np.ascontiguousarray(rows), code).tobytes()
    known = sorted(COUNTS | METRES | set(COLORS) | set(YUV_ORDERS))
    raise ImageError(f"{name}: encoding", f"one of {', '.join(known)}", repr(head.encoding[:40]))


def _rows(name: str, data: bytes, head: ImageHead, channels: int, dtype: str) -> NDArray:
    """(H, W · channels) view of a message's pixels; rows start `step` bytes apart."""
    kind = np.dtype(dtype)
    row = head.width * channels * kind.itemsize
    if head.step < row:
        raise ImageError(f"{name}: step", f"at least {row} bytes", f"{head.step}")
    wanted = head.step * (head.height - 1) + row
    there = min(head.size, len(data) - head.position)
    if head.height < 1 or wanted > there:
        raise ImageError(name, f"{wanted} bytes of pixels", f"{there}")
    shape, strides = (head.height, head.width * channels), (head.step, kind.itemsize)
    return np.ndarray(shape, kind, data, head.position, strides)
