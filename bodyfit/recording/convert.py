"""A recording of any format written as a native one. Images go over as they are stored where the native format can
hold them (16-bit PNG, JPEG, 8-bit PNG), lens distortion and all; others are encoded without loss, or as JPEG of
quality 95 where that is asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import ImageError, InputError, RecordingError
from bodyfit.recording import description, poses, timeline
from bodyfit.recording.description import Sensor
from bodyfit.recording.encoded import Coding, EncodedFrame, EncodedImage, decoded_depth
from bodyfit.recording.images import COLOR, check_image, decode_color, decode_mask
from bodyfit.recording.native_files import (
    depth_counts,
    description_text,
    encoded_image,
    folder_in_place,
    keypoints_text,
    timeline_text,
    write_bytes,
    write_text,
)
from bodyfit.recording.recording import Recording

FLOAT_UNIT_M = 0.00025
"""what a count stands for where depth came as floats: finer than any sensor's noise, and 16 bits reach 16 m; what is
farther has no reading any more"""
MAX_COUNT = 65535


@dataclass(frozen=True)
class Converted:
    """What became of a recording.

    Attributes:
        path: the native recording.
        instants: how many it has.
        images: how many depth and colour images.
        skipped: what could not be read, by instant and sensor: why.
    """

    path: Path
    instants: int
    images: int
    skipped: dict[str, str]


def convert_recording(
    source: Recording,
    path: str | os.PathLike[str],
    *,
    frames: Sequence[int] | None = None,
    sensors: Sequence[str] | None = None,
    color_format: Literal["jpg", "png"] = "jpg",
    overwrite: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> Converted:
    """Write a recording as `bodyfit.recording/1`, which appears under its name only once it is complete.

    Images that are broken are left out and told of; the rest is written.

    Args:
        source: opened, of any format; read one instant at a time.
        path: the folder to make; its parent must exist.
        frames: positions in the recording, all where None.
        sensors: names, all where None.
        color_format: for colour that is neither JPEG nor PNG in the recording.
        overwrite: replace a recording that is there.
        progress: called with what is done and the fraction of the whole.

    Raises:
        OutputError: something is in the way, or the disk does not take it.
        InputError: a frame or sensor that does not exist, another colour format.
        RecordingError: no depth of a sensor can be read, or a sensor's depth does not fit 16 bits.
    """
    if color_format not in ("jpg", "png"):
        raise InputError("color_format", "jpg or png", repr(color_format))
    chosen = [source.sensor(name) for name in dict.fromkeys(sensors or [s.name for s in source.sensors])]
    positions = list(range(source.num_frames)) if frames is None else sorted(set(frames))
    for i in positions:
        if not 0 <= i < source.num_frames:
            raise InputError("frames", f"positions from 0 to {source.num_frames - 1}", str(i))
    target = Path(path)
    with folder_in_place(target, overwrite=overwrite) as root:
        writers = {sensor.name: _SensorWriter(root, sensor, color_format) for sensor in chosen}
        skipped: dict[str, str] = {}
        kept: list[int] = []
        for n, i in enumerate(positions):
            found = False
            for sensor in chosen:
                try:
                    encoded = source.encoded(i, sensor.name)
                    found |= encoded is not None and writers[sensor.name].take(int(source.indices[i]), encoded)
                except InputError as problem:
                    skipped[f"{source.indices[i]} of {sensor.name}"] = str(problem)
            if found:
                kept.append(i)
            if progress is not None:
                progress("converting", (n + 1) / len(positions))
        for writer in writers.values():
            writer.finish(skipped)
        rows = [(int(source.indices[i]), float(source.timestamps_s[i])) for i in kept]
        names = {sensor.name for sensor in chosen}
        streams = {
            name: times[kept] for name, times in source.stream_timestamps_s.items() if name.rsplit(".", 1)[0] in names
        }
        written = [writer.sensor for writer in writers.values()]
        write_text(root / timeline.FILE, timeline_text(rows, written, streams))
        write_text(root / description.FILE, description_text(written, source.gravity_world))
    return Converted(target, len(kept), sum(writer.images for writer in writers.values()), skipped)


class _SensorWriter:
    """Writes the images of one sensor; `sensor` is as recording.json shall describe it."""

    def __init__(self, root: Path, sensor: Sensor, color_format: str) -> None:
        self.sensor, self.images = sensor, 0
        self._folder, self._color_format = root / sensor.name, color_format
        self._places: dict[int, NDArray[np.float64]] = {}
        self._depths = 0

    def take(self, index: int, frame: EncodedFrame) -> bool:
        """Writes one frame; True where it has depth. Nothing is written of a frame with a broken image.

        Raises:
            RecordingError: a broken image.
        """
        name = f"{index:06d}"
        files = [(f"depth/{name}.png", self._depth(frame.depth))]
        if frame.color is not None and self.sensor.color_camera is not None:
            suffix, data = self._color(frame.color)
            files.append((f"color/{name}.{suffix}", data))
        if frame.mask is not None:
            files.append((f"mask/{name}.png", self._mask(frame.mask)))
        if frame.keypoints is not None:
            files.append((f"keypoints/{name}.json", keypoints_text(frame.keypoints).encode()))
        for relative, data in files:
            write_bytes(self._folder / relative, data)
        if frame.T_world_depth is not None:
            self._places[index] = frame.T_world_depth
        self._depths += 1
        self.images += sum(relative.startswith(("depth", "color")) for relative, _ in files)
        return True

    def finish(self, skipped: dict[str, str]) -> None:
        """Writes where the sensor stood.

        Raises:
            RecordingError: it has no depth image.
        """
        if self._depths == 0:
            why = next((text for key, text in skipped.items() if key.endswith(f" of {self.sensor.name}")), "no image")
            raise RecordingError(f"sensor {self.sensor.name}", "at least one depth image that can be read", why)
        if self._places:
            write_text(self._folder / poses.FILE, poses.poses_text(self._places))

    def _depth(self, image: EncodedImage) -> bytes:
        depth = decoded_depth(image, self.sensor.depth_camera)
        if image.coding is Coding.FILE:
            return image.load()
        if image.coding is Coding.FLOAT32:
            if self._depths == 0:
                self.sensor = replace(self.sensor, depth_unit_m=min(self.sensor.depth_unit_m, FLOAT_UNIT_M))
            # a wall beyond what 16 bits can say is no reason to lose the frame
            depth = np.where(depth > MAX_COUNT * self.sensor.depth_unit_m, np.float32(0), depth)
            depth = depth_counts(image.name, depth, self.sensor.depth_unit_m)
        return encoded_image(".png", depth)

    def _color(self, image: EncodedImage) -> tuple[str, bytes]:
        camera = self.sensor.color_camera
        assert camera is not None
        data = image.load()
        if image.coding is Coding.FILE:
            decode_color(image.name, data, camera)
            return ("png" if check_image(COLOR, image.name, data, camera).kind == "PNG" else "jpg"), data
        if len(data) != camera.width * camera.height * 3:
            raise ImageError(image.name, f"{camera.width} × {camera.height} × 3 bytes", f"{len(data)}")
        pixels = np.frombuffer(data, np.uint8).reshape(camera.height, camera.width, 3)
        return self._color_format, encoded_image(f".{self._color_format}", pixels[..., ::-1])

    def _mask(self, image: EncodedImage) -> bytes:
        camera, data = self.sensor.depth_camera, image.load()
        if image.coding is Coding.FILE:
            decode_mask(image.name, data, camera)
            return data
        return encoded_image(".png", np.frombuffer(data, np.uint8).reshape(camera.height, camera.width))
