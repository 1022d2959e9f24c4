"""recording.json: the sensors of a recording, their cameras and where they stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera, Distortion, check_rigid
from bodyfit.errors import CameraError, RecordingError
from bodyfit.recording.document import Field, parse_json
from bodyfit.recording.files import read_file

FORMAT = "bodyfit.recording/1"
FILE = "recording.json"
MAX_FILE_BYTES = 4 << 20
MAX_SENSORS = 256
DEPTH_UNIT_RANGE_M = (1e-6, 1.0)
# the name is also a folder: one plain part of a path, and not the one that holds the truth
SENSOR_NAME = re.compile(r"(?!(?i:truth)\Z)[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z", re.ASCII)

T = TypeVar("T")


@dataclass(frozen=True)
class Sensor:
    """One depth sensor, with or without colour, as recorded: the cameras still have their distortion.

    Attributes:
        name: also its folder's name.
        depth_camera, color_camera: the grids of the files.
        T_color_depth: (4, 4) depth-camera to colour-camera coordinates, metres; there with color_camera.
        T_world_depth: (4, 4) depth-camera to world coordinates, metres.
        depth_unit_m: metres per count of the depth files.
    """

    name: str
    depth_camera: Camera
    T_world_depth: NDArray[np.float64]
    color_camera: Camera | None = None
    T_color_depth: NDArray[np.float64] | None = None
    depth_unit_m: float = 0.001

    @property
    def undistorted(self) -> Sensor:
        """This sensor with the pinhole cameras that its frames have once they are read."""
        color = self.color_camera.pinhole if self.color_camera else None
        return replace(self, depth_camera=self.depth_camera.pinhole, color_camera=color)

    def check(self, where: str) -> None:
        """Refuse a name that is no plain folder name, transforms that are not rigid and a unit that no sensor has."""
        if not SENSOR_NAME.match(self.name):
            expected = "1 to 64 of the letters a-z, A-Z, 0-9, _, . and -, not starting with . or -, not 'truth'"
            raise RecordingError(f"{where}.name", expected, repr(self.name)[:80])
        check_rigid(f"{where}.T_world_depth", self.T_world_depth)
        if self.color_camera is not None:
            if self.T_color_depth is None:
                raise CameraError(f"{where}.T_color_depth", "a 4×4 matrix beside color_camera", "none")
            check_rigid(f"{where}.T_color_depth", self.T_color_depth)
        low, high = DEPTH_UNIT_RANGE_M
        if not low <= self.depth_unit_m <= high:
            raise RecordingError(f"{where}.depth_unit_m", f"{low:g} to {high:g} metres", f"{self.depth_unit_m:g}")


def read_description(root: Path) -> tuple[tuple[Sensor, ...], NDArray[np.float64] | None]:
    """The sensors of the recording in folder `root`, and the unit vector of gravity in world coordinates or None.

    Raises:
        RecordingError: a file that is missing or no JSON, another version, a key that is missing or of the wrong type.
        CameraError: intrinsics, distortion or transforms that make no sense.
    """
    top = Field(FILE, "", parse_json(FILE, read_file(root, FILE, MAX_FILE_BYTES)))
    version = top.key("format")
    if version.value != FORMAT:
        version.refuse(f'"{FORMAT}"')
    unit = top.key("depth_unit_m", None)
    sensors = [_sensor(entry, unit) for entry in top.key("sensors").items(MAX_SENSORS)]
    check_names(f"{FILE}: sensors", [sensor.name for sensor in sensors])
    return tuple(sensors), check_gravity(f"{FILE}: gravity_world", _gravity(top.key("gravity_world")))


def check_names(where: str, names: Sequence[str]) -> None:
    """Refuse an empty list, and a name that comes twice; folders of names that differ only in case can be one."""
    if not names:
        raise RecordingError(where, "at least one sensor", "none")
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        first = seen.setdefault(name.casefold(), i)
        if first != i:
            raise RecordingError(f"{where}[{i}].name", "a name of its own", f"that of sensors[{first}]")


def check_gravity(name: str, gravity_world: Any) -> NDArray[np.float64] | None:
    """Gravity as a (3,) unit vector, or None."""
    if gravity_world is None:
        return None
    gravity = np.asarray(gravity_world, dtype=np.float64)
    if gravity.shape != (3,) or not np.isfinite(gravity).all():
        raise RecordingError(name, "3 finite numbers or null", f"shape {gravity.shape} or NaN")
    length = float(np.sqrt(np.square(np.clip(gravity, -1e6, 1e6)).sum()))
    if abs(length - 1.0) > 0.01:
        raise RecordingError(name, "a unit vector or null", f"length {length:g}")
    return gravity / length


def _gravity(entry: Field) -> tuple[float, ...] | None:
    return None if entry.value is None else entry.numbers(at_most=3)


def _sensor(entry: Field, common_unit: Field) -> Sensor:
    name = entry.key("name").text()
    depth_camera = _camera(entry.key("depth_camera"))
    color_entry = entry.key("color_camera")
    color_camera = T_color_depth = None
    if color_entry.value is not None:
        color_camera = _camera(color_entry)
        T_color_depth = _rigid(entry.key("T_color_depth"))
    T_world_depth = _rigid(entry.key("T_world_depth"))
    unit = entry.key("depth_unit_m", None)
    if unit.value is None:
        unit = common_unit
    if unit.value is None:
        raise RecordingError(unit.name, "the metres per count of the depth files", "no such key")
    sensor = Sensor(name, depth_camera, T_world_depth, color_camera, T_color_depth, unit.number())
    sensor.check(entry.name)
    return sensor


def _rigid(entry: Field) -> NDArray[np.float64]:
    return _named(entry, lambda: check_rigid(entry.name, entry.array(4, 4)))


def _camera(entry: Field) -> Camera:
    lens = entry.key("distortion")
    model = lens.key("model").text()
    coefficients = lens.key("coefficients").numbers(at_most=64)
    distortion = _named(entry, lambda: Distortion(model, coefficients))
    width, height = (entry.key(key).integer() for key in ("width", "height"))
    fx, fy, cx, cy = (entry.key(key).number() for key in ("fx", "fy", "cx", "cy"))
    return _named(entry, lambda: Camera(width, height, fx, fy, cx, cy, distortion))


def _named(entry: Field, make: Callable[[], T]) -> T:
    """What `make` makes; a camera's own error is told again with the place in the file."""
    try:
        return make()
    except CameraError as problem:
        if problem.field.startswith(entry.name):
            raise
        field = problem.field.removeprefix("camera.")
        raise CameraError(f"{entry.name}.{field}", problem.expected, problem.found, problem.hint) from None
