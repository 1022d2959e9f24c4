"""Recordings of Azure Kinect (k4arecorder) and of Orbbec Femto cameras (its K4A wrapper): Matroska files, `.mkv`.

The format, after "Azure Kinect DK: recording file format" (Microsoft Learn) and src/record/internal of the Azure
Kinect Sensor SDK (matroska_write.cpp, matroska_read.cpp); the Matroska layer is matroska.py:

- Tracks by name: COLOR, DEPTH, IR (not read), IMU; a tag K4A_<NAME>_TRACK with the track's UID goes before the name.
- DEPTH: `V_MS/VFW/FOURCC` with a BITMAPINFOHEADER that says `b16g`: millimetres along z, 16 bits, big-endian, not
  compressed, 0 = no reading. `YUY2` (first recorders) has the same counts little-endian. FFV1 (recoded) takes PyAV.
- COLOR: `MJPG` (JPEG files, handed on as they are), `NV12`, `YUY2` (BT.601, limited range, as the SDK's libyuv takes
  them), `BGRA`. Another codec opens without colour.
- K4A_DEPTH_MODE says how the images were cut from the sensor's; it must agree with their size. Without it the size
  tells (each mode has its own). PASSIVE_IR has no depth.
- Times: block times in ticks of TimestampScale (recorders: 1 µs) + K4A_START_OFFSET_NS = the device's clock. Timestamps
  here count from the first depth image; `stream_timestamps_s` has the device's clock.
- K4A_DEPTH_DELAY_NS: depth was taken so much later than colour; pairs are looked for with that taken off, the nearest
  within half an image period, as the SDK's playback does.
- Cameras, lens model, pixel centres, T_color_depth, gravity: azure_calibration.py, from the attached calibration.json.
- The world is the depth camera's frame: the format has none.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import MAX_SIDE_PX, Camera
from bodyfit.errors import CameraError, ImageError, RecordingError
from bodyfit.recording.azure_calibration import DEPTH_MODES, MAX_FILE_BYTES, Calibration, DepthMode, read_calibration
from bodyfit.recording.azure_tracks import (
    BITMAP_HEADER_BYTES,
    COLOR_BYTES,
    DEPTH_ORDER,
    Stream,
    accelerations,
    codec_in_words,
    coding_of,
    pairs,
    start_offset_s,
    track_of,
    usable_stream,
)
from bodyfit.recording.description import Sensor
from bodyfit.recording.ebml import ByteFile
from bodyfit.recording.encoded import Coding, EncodedFrame, EncodedImage
from bodyfit.recording.ffv1 import Ffv1Depth
from bodyfit.recording.images import max_file_bytes
from bodyfit.recording.matroska import Blocks, Container, Track
from bodyfit.recording.recording import Recording
from bodyfit.recording.timeline import Timeline

SENSOR_NAME = "k4a"
DEPTH_UNIT_M = 0.001


def open_azure_mkv(path: Path) -> Recording:
    """Opens the recording in file `path`: walks its headers, reads its calibration, pairs depth with colour.

    Raises:
        RecordingError: no Matroska file, no depth track, a mode or coding that no recorder writes, no calibration.
        CameraError: a calibration that makes no sense.
        MissingExtraError: depth coded with FFV1, and PyAV is not installed.
    """
    file = ByteFile(path)
    try:
        return _open(path, file)
    except BaseException:
        file.close()
        raise


def _open(path: Path, file: ByteFile) -> Recording:
    container = Container(file)
    notes = _state(container)
    offset_s = start_offset_s(container, notes)
    calibration = _calibration(container)
    depth_track = track_of(container, "DEPTH")
    if depth_track is None:
        raise _no_depth(container)
    mode = _mode(container, depth_track, notes)
    coding = coding_of(depth_track)
    if coding not in DEPTH_ORDER and coding != b"FFV1":
        raise RecordingError(f"{file.name}: DEPTH codec", "b16g, 16-bit grey", codec_in_words(depth_track, coding))
    depth = usable_stream(container, depth_track, coding, offset_s, notes)
    depth_camera = calibration.depth_camera(mode)
    color, color_camera = _color(container, calibration, offset_s, notes)
    if track_of(container, "IR") is not None:
        notes.append("The infrared track is not read.")
    gravity, note = calibration.gravity_depth(accelerations(container))
    notes.append(note)
    kept = calibration.depth.kept_share(depth_camera)
    if kept < 0.9:
        notes.append(
            f"Undistorted depth has {100 * kept:.0f} % of the recorded pixels: the lens sees farther to the sides."
        )
    sensor = Sensor(
        SENSOR_NAME,
        depth_camera,
        np.eye(4),
        color_camera,
        calibration.T_color_depth if color_camera else None,
        DEPTH_UNIT_M,
    )
    paired = pairs(container, depth, color, notes)
    times = np.full(len(depth.order), np.nan)
    streams = {f"{SENSOR_NAME}.depth_s": depth.device_s}
    if color is not None:
        times[paired >= 0] = color.device_s[paired[paired >= 0]]
        streams[f"{SENSOR_NAME}.color_s"] = times
    indices = np.arange(len(depth.order), dtype=np.int64)
    timeline = Timeline(indices, depth.device_s - depth.device_s[0], streams)
    images = AzureImages(file, depth, color, paired, color_camera)
    return Recording(path, "azure", (sensor,), timeline, gravity, images, notes)


class AzureImages:
    """The images of an opened recording, read where their blocks lie.

    Args:
        file: the file; closed with this.
        depth, color: the tracks.
        paired: (T,) for each depth image the colour image of its instant, -1 where none.
        color_camera: the colour images' camera.
    """

    def __init__(
        self,
        file: ByteFile,
        depth: Stream,
        color: Stream | None,
        paired: NDArray[np.int64],
        color_camera: Camera | None,
    ) -> None:
        self._file, self._depth, self._color, self._paired = file, depth, color, paired
        self._max_color_bytes = max_file_bytes(color_camera) if color_camera else 0
        self._ffv1: Ffv1Depth | None = None
        if depth.coding == b"FFV1":
            private = depth.track.private
            extradata = private if depth.track.codec == "V_FFV1" else private[BITMAP_HEADER_BYTES:]
            limit = 4 * depth.track.width * depth.track.height + (1 << 20)
            self._ffv1 = Ffv1Depth(
                f"{file.name}: DEPTH",
                depth.size,
                extradata,
                lambda k: self._bytes("DEPTH", depth.blocks, k, limit),
                lambda k: bool(depth.blocks.flags[k] & 0x80),
            )

    def encoded(self, i: int, sensor: Sensor) -> EncodedFrame | None:
        """Depth and colour of the `i`-th instant."""
        color = None
        if self._color is not None and self._paired[i] >= 0:
            block = int(self._color.order[self._paired[i]])
            coding = Coding.FILE if self._color.coding == b"MJPG" else Coding.UINT8
            color = EncodedImage(f"{self._file.name}: COLOR image {block}", coding, partial(self._load_color, block))
        block = int(self._depth.order[i])
        name = f"{self._file.name}: DEPTH image {block}"
        return EncodedFrame(EncodedImage(name, Coding.UINT16, partial(self._load_depth, block)), color)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _bytes(self, track: str, blocks: Blocks, k: int, limit: int) -> bytes:
        size = blocks.sizes[k]
        if size > limit:
            raise ImageError(f"{self._file.name}: {track} image {k}", f"at most {limit} bytes", f"{size}")
        return self._file.exactly(blocks.positions[k], size)

    def _load_depth(self, k: int) -> bytes:
        if self._ffv1 is not None:
            return self._ffv1.counts(k)
        data = self._bytes("DEPTH", self._depth.blocks, k, 2 * self._depth.track.width * self._depth.track.height)
        order = DEPTH_ORDER[self._depth.coding]
        return data if order == "<u2" else np.frombuffer(data, order).astype("<u2").tobytes()

    def _load_color(self, k: int) -> bytes:
        color = self._color
        if color is None:
            raise ImageError(f"{self._file.name}: COLOR image {k}", "a colour track", "none")
        data = self._bytes("COLOR", color.blocks, k, self._max_color_bytes)
        return data if color.coding == b"MJPG" else _rgb(data, color.coding, *color.size)


def _rgb(data: bytes, coding: bytes, width: int, height: int) -> bytes:
    """RGB bytes of an uncompressed image, whose number of bytes was checked when the file was opened."""
    import cv2

    values = np.frombuffer(data, np.uint8)
    if coding == b"NV12":
        image = cv2.cvtColor(values.reshape(height * 3 // 2, width), cv2.COLOR_YUV2RGB_NV12)
    elif coding == b"YUY2":
        image = cv2.cvtColor(values.reshape(height, width, 2), cv2.COLOR_YUV2RGB_YUY2)
    else:
        image = values.reshape(height, width, 4)[:, :, 2::-1]
    return image.tobytes()


def _state(container: Container) -> list[str]:
    """What is wrong with the file, in sentences."""
    notes: list[str] = []
    if container.missing_bytes:
        notes.append(f"The file is cut: its last {container.missing_bytes} bytes are missing.")
    if not container.is_finished:
        notes.append("The recorder did not finish the file: its end may be missing.")
    if container.damaged_places:
        notes.append(f"{container.damaged_places} damaged places were left out.")
    if container.dropped_blocks:
        notes.append(f"{container.dropped_blocks} images beyond the first million of a track were left out.")
    return notes


def _no_depth(container: Container) -> RecordingError:
    name = container.file.name
    mode = container.tags.get("K4A_DEPTH_MODE")
    if mode is not None and mode.value == "PASSIVE_IR":
        return RecordingError(f"{name}: K4A_DEPTH_MODE", "a mode with depth", "PASSIVE_IR: infrared images alone")
    names = ", ".join(track.name or f"track {track.number}" for track in container.tracks[:6])
    return RecordingError(f"{name}: tracks", "a track DEPTH, as Azure Kinect and Femto recorders write it", names)


def _mode(container: Container, track: Track, notes: list[str]) -> DepthMode:
    name, size = container.file.name, (track.width, track.height)
    tag = container.tags.get("K4A_DEPTH_MODE")
    if tag is None:
        for mode in DEPTH_MODES:
            if mode.size == size:
                notes.append(f"The depth mode is not told; images of {size[0]} × {size[1]} pixels are {mode.name}.")
                return mode
        known = ", ".join(f"{mode.size[0]} × {mode.size[1]}" for mode in DEPTH_MODES)
        raise RecordingError(f"{name}: DEPTH size", f"one of {known} pixels", f"{size[0]} × {size[1]} pixels")
    for mode in DEPTH_MODES:
        if mode.name == tag.value:
            if mode.size != size:
                expected = f"{mode.size[0]} × {mode.size[1]} pixels, as {mode.name} has"
                raise RecordingError(f"{name}: DEPTH size", expected, f"{size[0]} × {size[1]} pixels")
            return mode
    known = ", ".join(mode.name for mode in DEPTH_MODES)
    raise RecordingError(f"{name}: K4A_DEPTH_MODE", f"one of {known}", repr(tag.value[:40]))


def _calibration(container: Container) -> Calibration:
    tag = container.tags.get("K4A_CALIBRATION_FILE")
    uid = tag.attachment_uid if tag else 0
    found = [one for one in container.attachments if uid and one.uid == uid]
    found += [one for one in container.attachments if one.name == "calibration.json"]
    name = f"{container.file.name}: calibration.json"
    if not found:
        names = ", ".join(one.name for one in container.attachments[:6])
        raise RecordingError(name, "the cameras' calibration among the attached files", names or "no attached files")
    if found[0].size > MAX_FILE_BYTES:
        raise RecordingError(name, f"at most {MAX_FILE_BYTES} bytes", f"{found[0].size}")
    return read_calibration(name, container.file.exactly(found[0].position, found[0].size))


def _color(
    container: Container, calibration: Calibration, offset_s: float, notes: list[str]
) -> tuple[Stream | None, Camera | None]:
    """The colour images and their camera; None and a note where the recording opens without."""
    track = track_of(container, "COLOR")
    if track is None:
        notes.append("The recording has no colour.")
        return None, None
    coding, size = coding_of(track), (track.width, track.height)
    why = None
    if coding != b"MJPG" and coding not in COLOR_BYTES:
        why = f"it is coded as {codec_in_words(track, coding)}, which is not read"
    elif not all(1 <= side <= MAX_SIDE_PX for side in size) or (coding != b"MJPG" and (size[0] % 2 or size[1] % 2)):
        why = f"its images have {size[0]} × {size[1]} pixels"
    elif calibration.color is None:
        why = "calibration.json has no colour camera"
    elif not len(container.track(track.number)):
        why = "it has no images"
    if why is None:
        try:
            camera = calibration.color_camera(size)
            return usable_stream(container, track, coding, offset_s, notes), camera
        except CameraError:
            raise
        except RecordingError as problem:
            why = f"{problem}"
    notes.append(f"The colour track is left out: {why}.")
    return None, None
