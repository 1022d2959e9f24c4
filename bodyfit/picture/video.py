"""The fitted body over a recording's images, frame by frame, as a film: MP4 with H.264, which opens everywhere.

One frame is in memory at a time. PyAV (the extra `video`) encodes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import InputError, MissingExtraError, OutputError
from bodyfit.frame import Frame
from bodyfit.observe.observation import Observation
from bodyfit.picture.draw import BODY, Image, Text, canvas, grey_depth, lay_over, outline, paint_texts, put, shade
from bodyfit.picture.overlay import in_camera

if TYPE_CHECKING:
    from bodyfit.fit.result import FitResult
    from bodyfit.recording.recording import Recording

FILE_NAME = "overlay.mp4"
LARGEST = (1920, 1080)
"""Width and height that no film exceeds; larger pictures are made smaller."""
STRIP = 28
"""Height of the line of text below the pictures, pixels."""
OPACITY = 0.5
_BACK = (16, 18, 24)
_PALE = (206, 210, 216)
_RATES = (1.0, 240.0)


@dataclass(frozen=True, eq=False)
class Shot:
    """One instant of a film.

    Attributes:
        index, timestamp_s: of the recording's frame.
        images: what each sensor saw; a sensor without an image is left out.
        vertices_world: (V, 3) metres, or None where no body was found.
    """

    index: int
    timestamp_s: float
    images: Sequence[Frame | Observation]
    vertices_world: NDArray[np.float64] | None


def check_video() -> None:
    """Says before long work that a film could not be written.

    Raises:
        MissingExtraError: PyAV is not installed.
    """
    _av()


def has_video() -> bool:
    """Whether films can be written here."""
    try:
        _av()
    except MissingExtraError:
        return False
    return True


def shots(
    result: FitResult,
    recording: Recording | None = None,
    *,
    sensors: Sequence[str] | None = None,
) -> Iterator[Shot]:
    """The instants of a result in the order of time, read one by one from the recording.

    Without a recording, or where it lacks the frame, the result's own observations are shown. Frames of the recording
    that lie in a gap of the result are shown without a body.
    """
    order = np.argsort(np.asarray(result.timestamps_s), kind="stable")
    where = {} if recording is None else {int(index): i for i, index in enumerate(recording.indices)}
    fitted = [where.get(int(result.frame_indices[t])) for t in order]
    between = _between([p for p in fitted if p is not None])
    for t, position in zip(order.tolist(), fitted, strict=True):
        images: list[Frame | Observation] = list(result.observations[t]) if t < len(result.observations) else []
        if sensors is not None:
            images = [i for i in images if i.sensor in sensors]
        if not images and recording is not None and position is not None:
            images += _read(recording, position, sensors)
        yield Shot(int(result.frame_indices[t]), float(result.timestamps_s[t]), images, result.vertices_world(t))
        for p in between.get(position, ()) if position is not None else ():
            assert recording is not None
            yield Shot(int(recording.indices[p]), float(recording.timestamps_s[p]), _read(recording, p, sensors), None)


def write_video(
    path: str | Path,
    shots: Iterable[Shot],
    faces: NDArray[np.int32],
    *,
    rate: float,
    cancelled: Callable[[], bool] | None = None,
) -> int:
    """Draws and encodes a film at `rate` frames a second; returns how many pictures it has.

    Each sensor's picture stands beside the next; the first shot says how large they are. A picture is shown at its
    timestamp, rounded to the rate, so that gaps stay gaps. The file has a temporary name until it is complete.

    Args:
        path: the file, `*.mp4`.
        shots: in the order of time.
        faces: (F, 3) of the body.
        cancelled: asked before each picture; True ends the film with what it has.

    Raises:
        MissingExtraError: PyAV is not installed.
        InputError: no shots, none with an image, or a rate that is no rate.
        OutputError: the file cannot be written.
    """
    av = _av()
    target = Path(path)
    if not np.isfinite(rate) or not 0 < rate <= _RATES[1]:
        raise InputError("rate", f"frames a second, up to {_RATES[1]:.0f}", str(rate))
    part = target.with_name(f".bodyfit-{secrets.token_hex(4)}{target.suffix}")
    try:
        count = _encode(av, part, shots, faces, Fraction(rate).limit_denominator(1001), cancelled)
        os.replace(part, target)
    except (OSError, av.error.FFmpegError) as e:
        with contextlib.suppress(OSError):
            part.unlink()
        reason = e.strerror or type(e).__name__
        raise OutputError(str(target), "a file that can be written", str(reason)) from e
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    return count


def _encode(
    av: Any, part: Path, shots: Iterable[Shot], faces: NDArray[np.int32], rate: Fraction,
    cancelled: Callable[[], bool] | None,
) -> int:  # fmt: skip
    stage: Stage | None = None
    began, last, count = 0.0, -1, 0
    with av.open(str(part), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as film:
        stream: Any = None
        for shot in shots:
            if cancelled is not None and cancelled():
                break
            if stage is None:
                if not shot.images:
                    continue  # nothing says yet how large the film is
                stage = Stage.of(shot)
                began = shot.timestamp_s
                stream = _stream(film, rate, stage)
            at = max(int(np.floor((shot.timestamp_s - began) * float(rate) + 0.5)), last + 1)
            picture = av.VideoFrame.from_ndarray(stage.draw(shot, faces), format="rgb24")
            picture.pts, picture.time_base = at, 1 / rate
            for packet in stream.encode(picture):
                film.mux(packet)
            last, count = at, count + 1
        if stream is None:
            raise InputError("shots", "at least one with an image", "none")
        for packet in stream.encode():
            film.mux(packet)
    return count


def _stream(film: Any, rate: Fraction, stage: Stage) -> Any:
    """H.264 with 4:2:0 colour, which is what browsers and phones play."""
    # two threads on every machine: their number changes the bytes
    options = {"crf": "21", "preset": "veryfast", "threads": "2", "flags": "+bitexact"}
    stream = film.add_stream("libx264", rate=rate, options=options)
    stream.width, stream.height = stage.width, stage.height
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = 1 / rate
    return stream


@dataclass(frozen=True)
class Stage:
    """Where each sensor's picture stands in the film.

    Attributes:
        width, height: of the film, even numbers of pixels.
        places: sensor to left edge, its picture's camera, and whether it is the colour camera's picture.
        near_m, far_m: the depths that are drawn lightest and darkest.
    """

    width: int
    height: int
    places: dict[str, tuple[int, Camera, bool]]
    near_m: float
    far_m: float

    @staticmethod
    def of(shot: Shot) -> Stage:
        """A stage for what this shot's sensors see."""
        cameras = {i.sensor: _camera(i) for i in shot.images}
        height = min(max(c.height for c, _ in cameras.values()), LARGEST[1] - STRIP)
        across = sum(c.width * height / c.height for c, _ in cameras.values())
        height = max(int(height * min(1.0, LARGEST[0] / across)) & ~1, 2)
        places, left = {}, 0
        for name, (camera, is_color) in cameras.items():
            scaled = _scaled(camera, height)
            places[name] = (left, scaled, is_color)
            left += scaled.width
        depths = [i.depth[i.depth > 0] for i in shot.images]
        known = np.concatenate(depths) if depths else np.zeros(0)
        near, far = np.percentile(known, [1, 99]) if known.size else (0.5, 5.0)
        return Stage(left, height + STRIP, places, max(float(near) - 0.3, 0.0), float(far) + 0.3)

    def draw(self, shot: Shot, faces: NDArray[np.int32]) -> Image:
        """The picture (height, width, 3) of a shot; a sensor that the first shot had not is left out."""
        sheet = canvas(self.width, self.height, _BACK)
        for seen in shot.images:
            if seen.sensor not in self.places:
                continue
            left, camera, is_color = self.places[seen.sensor]
            put(sheet, self._panel(seen, camera, is_color, shot.vertices_world, faces), left, 0)
        told = "" if shot.vertices_world is not None else "   no body"
        text = f"frame {shot.index}   {shot.timestamp_s:.3f} s{told}"
        strip = sheet[-STRIP:]
        strip[:] = paint_texts(strip, [Text(10, STRIP // 2, text, 15, _PALE)])
        return sheet

    def _panel(
        self, seen: Frame | Observation, camera: Camera, is_color: bool, vertices: NDArray[np.float64] | None,
        faces: NDArray[np.int32],
    ) -> Image:  # fmt: skip
        import cv2

        size = (camera.width, camera.height)
        if is_color:
            if seen.color is None:
                return canvas(*size, _BACK)
            image = np.asarray(cv2.resize(seen.color, size, interpolation=cv2.INTER_AREA), np.uint8)
        else:
            depth = cv2.resize(seen.depth, size, interpolation=cv2.INTER_NEAREST)
            image = grey_depth(np.asarray(depth, np.float32), self.near_m, self.far_m)
        if vertices is None:
            return image
        points = in_camera(vertices, seen.T_world_depth)
        if is_color and seen.T_color_depth is not None:
            points = points @ seen.T_color_depth[:3, :3].T + seen.T_color_depth[:3, 3]
        body = shade(points, faces, camera)
        return outline(lay_over(image, body, BODY, OPACITY), body.mask, BODY, 1)


def _camera(seen: Frame | Observation) -> tuple[Camera, bool]:
    """The camera of the picture that is shown, and whether it is the colour camera."""
    if seen.color is not None and seen.color_camera is not None and seen.T_color_depth is not None:
        return seen.color_camera, True
    return (seen.depth_camera if isinstance(seen, Frame) else seen.camera), False


def _scaled(camera: Camera, height: int) -> Camera:
    """The camera of the same picture at another height and an even width; pixel (0, 0) is centred at (0, 0)."""
    width = max(round(camera.width * height / camera.height / 2) * 2, 2)
    sx, sy = width / camera.width, height / camera.height
    return Camera(
        width, height, camera.fx * sx, camera.fy * sy, (camera.cx + 0.5) * sx - 0.5, (camera.cy + 0.5) * sy - 0.5
    )


def _read(recording: Recording, position: int, sensors: Sequence[str] | None) -> list[Frame | Observation]:
    names = [s.name for s in recording.sensors] if sensors is None else list(sensors)
    frames = (recording.frame(position, name) for name in names)
    return [f for f in frames if f is not None]


def _between(fitted: Sequence[int]) -> dict[int, list[int]]:
    """For each fitted position the ones after it, at the usual distance, that were passed over."""
    steps = np.diff(np.asarray(fitted))
    if not len(steps):
        return {}
    usual = max(int(np.median(steps)), 1)
    return {a: list(range(a + usual, b, usual)) for a, b in pairwise(fitted) if b - a > usual}


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        if error.name != "av":
            raise
        raise MissingExtraError("PyAV", "video", "a film (overlay.mp4)") from None
    return av
