"""Tracks of an Azure Kinect or Femto recording: usable images, when they were taken, what belongs together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import RecordingError
from bodyfit.recording.matroska import VIDEO, Blocks, Container, Track

BITMAP_HEADER_BYTES = 40
_LACED = 0x06
_IMU_BYTES, _IMU_BLOCKS = 40, 500
_DEFAULT_PERIOD_S = 1 / 30
# what uncompressed images are called in BITMAPINFOHEADER.biCompression, or in UncompressedFourCC
DEPTH_ORDER = {b"b16g": ">u2", b"Y1\0\x10": "<u2", b"\x10\x001Y": ">u2", b"YUY2": "<u2"}
COLOR_BYTES = {b"NV12": (3, 2), b"YUY2": (2, 1), b"BGRA": (4, 1)}


@dataclass(frozen=True)
class Stream:
    """Images of one track, those that can be used, by time.

    Attributes:
        track: the track.
        coding: `MJPG`, `FFV1`, or the four letters of uncompressed images.
        blocks: all that the file has.
        order: (N,) which of them, in time.
        device_s: (N,) their times on the device's clock, rising.
        period_s: of one image.
    """

    track: Track
    coding: bytes
    blocks: Blocks
    order: NDArray[np.int64]
    device_s: NDArray[np.float64]
    period_s: float

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.track.width, self.track.height


def track_of(container: Container, name: str) -> Track | None:
    """The track that a tag points to, by its UID; else the one of that name."""
    tag = container.tags.get(f"K4A_{name}_TRACK")
    uids = set() if tag is None else {tag.track_uid, int(tag.value) if tag.value.isdecimal() else 0} - {0}
    for track in container.tracks:
        if track.uid in uids:
            return track
    return next((track for track in container.tracks if track.name == name), None)


def coding_of(track: Track) -> bytes:
    """What the images are; empty where nothing says it."""
    if track.is_compressed:
        return b""
    if track.codec == "V_MS/VFW/FOURCC" and len(track.private) >= BITMAP_HEADER_BYTES:
        return track.private[16:20]
    return {"V_MJPEG": b"MJPG", "V_FFV1": b"FFV1", "V_UNCOMPRESSED": track.fourcc}.get(track.codec, b"")


def codec_in_words(track: Track, coding: bytes) -> str:
    """A track's coding, for errors and notes."""
    more = ", compressed once more" if track.is_compressed else ""
    return f"{track.codec[:40] or 'none'} {coding.decode('ascii', 'replace')!r}{more}"


def start_offset_s(container: Container, notes: list[str]) -> float:
    """The device's clock at the file's time 0.

    Raises:
        RecordingError: a tag that is no number.
    """
    tag = container.tags.get("K4A_START_OFFSET_NS")
    offset = _whole_ns(container, "K4A_START_OFFSET_NS")
    if tag is None:
        notes.append("K4A_START_OFFSET_NS is missing: times on the device's clock count from the file's beginning.")
    return offset * 1e-9


def _whole_ns(container: Container, name: str) -> int:
    """A tag's nanoseconds; 0 where there is none."""
    tag = container.tags.get(name)
    if tag is None:
        return 0
    digits = tag.value.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 20):
        raise RecordingError(f"{container.file.name}: {name}", "a whole number of nanoseconds", repr(tag.value[:40]))
    return int(tag.value)


def usable_stream(container: Container, track: Track, coding: bytes, offset_s: float, notes: list[str]) -> Stream:
    """The images of a track that can be read: of the right size, one in a block, each at a time of its own.

    Raises:
        RecordingError: none.
    """
    blocks = container.track(track.number)
    name = track.name or str(track.number)
    sizes, ticks = (np.array(values, np.int64) for values in (blocks.sizes, blocks.ticks))
    usable = (np.frombuffer(bytes(blocks.flags), np.uint8) & _LACED) == 0
    wanted = _image_bytes(track, coding)
    usable &= sizes > 0 if wanted is None else sizes == wanted
    if not usable.any():
        expected = "at least one image" if wanted is None else f"images of {wanted} bytes"
        found = f"{len(blocks)} of other sizes, the first of {sizes[0]} bytes" if len(blocks) else "no images"
        raise RecordingError(f"{container.file.name}: {name}", expected, found)
    if not usable.all():
        notes.append(f"{int((~usable).sum())} images of {name} are of the wrong size and were left out.")
    which = np.flatnonzero(usable)
    which = which[np.argsort(ticks[which], kind="stable")]
    fresh = np.append(True, np.diff(ticks[which]) > 0)
    if not fresh.all():
        notes.append(f"{int((~fresh).sum())} images of {name} repeat the time of another and were left out.")
    which = which[fresh]
    device_s = (offset_s + ticks[which] * (container.scale_ns * 1e-9)).astype(np.float64)
    if (np.diff(device_s) <= 0).any():
        raise RecordingError(f"{container.file.name}: {name} times", "times a microsecond apart", "closer ones")
    period_s = track.period_ns * 1e-9
    if not 1e-3 <= period_s <= 10:
        period_s = float(np.median(np.diff(device_s))) if len(device_s) > 1 else _DEFAULT_PERIOD_S
    return Stream(track, coding, blocks, which, device_s, period_s)


def _image_bytes(track: Track, coding: bytes) -> int | None:
    """How many bytes an image has; None where it is compressed."""
    pixels = track.width * track.height
    if coding in DEPTH_ORDER:
        return 2 * pixels
    if coding in COLOR_BYTES:
        times, by = COLOR_BYTES[coding]
        return pixels * times // by
    return None


def pairs(container: Container, depth: Stream, color: Stream | None, notes: list[str]) -> NDArray[np.int64]:
    """(T,) for each depth image the colour image nearest in time, -1 where none is within half a period."""
    if color is None:
        return np.full(len(depth.order), -1, np.int64)
    delay_s = _whole_ns(container, "K4A_DEPTH_DELAY_NS") * 1e-9
    wanted = depth.device_s - delay_s
    after = np.clip(np.searchsorted(color.device_s, wanted), 0, len(color.device_s) - 1)
    before = np.maximum(after - 1, 0)
    nearest: NDArray[np.int64] = np.where(
        np.abs(color.device_s[before] - wanted) <= np.abs(color.device_s[after] - wanted), before, after
    )
    reach_s = depth.period_s / 2
    found = np.abs(color.device_s[nearest] - wanted) < reach_s
    notes.append(f"Each depth image has the colour image nearest in time, within {1e3 * reach_s:.1f} ms.")
    alone = int((~found).sum())
    if alone:
        notes.append(f"{alone} depth images have no colour image within that.")
    unused = len(color.order) - len(np.unique(nearest[found]))
    if unused:
        notes.append(f"{unused} colour images belong to no depth image.")
    return np.where(found, nearest, -1)


def accelerations(container: Container) -> NDArray[np.float64]:
    """(N, 3) readings of the accelerometer, from blocks that are spread over the recording.

    A sample is 40 bytes, little-endian: u64 time, 3 × f32 acceleration, u64 time, 3 × f32 angular rate
    (matroska_imu_sample_t in include/k4ainternal/matroska_common.h). Several in one block are all of that size, so
    they are its last bytes, whatever the lacing before them.
    """
    track = track_of(container, "IMU")
    found: list[NDArray[np.float64]] = []
    if track is not None and track.kind != VIDEO and not track.is_compressed:
        blocks = container.track(track.number)
        for k in np.unique(np.linspace(0, max(len(blocks) - 1, 0), _IMU_BLOCKS).astype(int))[: len(blocks)]:
            size = min(blocks.sizes[k], 256 * (_IMU_BYTES + 2))
            data = container.file.read(blocks.positions[k], size)
            count = data[0] + 1 if blocks.flags[k] & _LACED and data else 1
            if len(data) == blocks.sizes[k] >= count * _IMU_BYTES:
                samples = np.frombuffer(data[len(data) - count * _IMU_BYTES :], np.uint8).reshape(count, _IMU_BYTES)
                found.append(samples[:, 8:20].copy().view("<f4").astype(np.float64))
    readings = np.concatenate(found) if found else np.zeros((0, 3))
    return readings[np.isfinite(readings).all(axis=1) & (np.abs(readings) < 1e3).all(axis=1)]
