"""What a recording holds: its sensors, its rate and gaps, and what its depth images are like."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import InputError
from bodyfit.frame import Frame
from bodyfit.recording.description import Sensor
from bodyfit.recording.recording import Recording

GAP = 1.5
"""a pause of more than this many usual intervals is a gap"""
MAX_GAPS_TOLD = 100


@dataclass(frozen=True)
class Gap:
    """A pause between two instants: after which number, at what time, and how long, seconds."""

    after_index: int
    at_s: float
    seconds: float


@dataclass(frozen=True)
class SensorReport:
    """One sensor of a recording, by the frames that were looked at.

    Attributes:
        sensor: as recorded.
        field_of_view_deg: of the depth camera, (across, down), its lens taken as a pinhole's.
        baseline_m: from the depth camera to the colour camera, NaN without one.
        looked_at: positions of the frames that were read.
        without_depth, without_color: how many of them have none.
        broken: why frames could not be read, by their number.
        readings: share of pixels with a reading, in the median of frames.
        nearest_m, typical_m, farthest_m: 1st, 50th and 99th percentile of readings.
        step_m: the smallest step between two readings near the typical one: what depth is rounded to.
        moves_m: how far the sensor moved over these frames; 0 for one that stands.
    """

    sensor: Sensor
    field_of_view_deg: tuple[float, float]
    baseline_m: float
    looked_at: tuple[int, ...]
    without_depth: int
    without_color: int
    broken: dict[int, str]
    readings: float
    nearest_m: float
    typical_m: float
    farthest_m: float
    step_m: float
    moves_m: float


@dataclass(frozen=True)
class RecordingReport:
    """A recording as a whole.

    Attributes:
        format: name of its format.
        num_frames: instants.
        duration_s: from the first to the last.
        rate_hz: one over the usual interval; NaN of a single instant.
        gaps: the pauses, the longest first, MAX_GAPS_TOLD at most; `num_gaps` counts all.
        lost: how many instants would fit into the gaps.
        gravity_known: whether the recording says which way is down.
        notes: what reading it assumed or dropped.
        sensors: one report each.
    """

    format: str
    num_frames: int
    duration_s: float
    rate_hz: float
    gaps: tuple[Gap, ...]
    num_gaps: int
    lost: int
    gravity_known: bool
    notes: tuple[str, ...]
    sensors: tuple[SensorReport, ...]


def inspect_recording(recording: Recording, *, samples: int = 12) -> tuple[RecordingReport, dict[str, list[Frame]]]:
    """Looks through a recording.

    Args:
        recording: opened.
        samples: how many frames of each sensor to read, spread evenly.

    Returns:
        The report, and by sensor the frames that were read.
    """
    positions = sorted({round(i) for i in np.linspace(0, recording.num_frames - 1, max(1, samples))})
    reports, frames = [], {}
    for sensor in recording.sensors:
        report, frames[sensor.name] = _look(recording, sensor, positions)
        reports.append(report)
    times = recording.timestamps_s
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else math.nan
    wide = np.flatnonzero(steps > GAP * usual) if len(steps) else np.zeros(0, np.int64)
    gaps = [Gap(int(recording.indices[t]), float(times[t]), float(steps[t])) for t in wide]
    gaps.sort(key=lambda gap: -gap.seconds)
    return RecordingReport(
        format=recording.format,
        num_frames=recording.num_frames,
        duration_s=float(times[-1] - times[0]),
        rate_hz=1 / usual if usual > 0 else math.nan,
        gaps=tuple(gaps[:MAX_GAPS_TOLD]),
        num_gaps=len(gaps),
        lost=int(sum(round(gap.seconds / usual) - 1 for gap in gaps)),
        gravity_known=recording.gravity_world is not None,
        notes=recording.notes,
        sensors=tuple(reports),
    ), frames


def _look(recording: Recording, sensor: Sensor, positions: list[int]) -> tuple[SensorReport, list[Frame]]:
    frames: list[Frame] = []
    broken: dict[int, str] = {}
    missing = 0
    for i in positions:
        try:
            frame = recording.frame(i, sensor.name)
        except InputError as problem:
            broken[int(recording.indices[i])] = str(problem)
            continue
        if frame is None:
            missing += 1
        else:
            frames.append(frame)
    readings = [frame.depth[frame.depth > 0] for frame in frames]
    every = np.concatenate(readings) if readings else np.zeros(0, np.float32)
    near, typical, far = np.percentile(every, [1, 50, 99]).tolist() if len(every) else (math.nan,) * 3
    camera, T = sensor.depth_camera, sensor.T_color_depth
    return SensorReport(
        sensor=sensor,
        field_of_view_deg=field_of_view(camera),
        baseline_m=math.nan if T is None else float(np.linalg.norm(T[:3, 3])),
        looked_at=tuple(positions),
        without_depth=missing,
        without_color=sum(frame.color is None for frame in frames),
        broken=broken,
        readings=float(np.median([np.mean(frame.depth > 0) for frame in frames])) if frames else 0.0,
        nearest_m=near,
        typical_m=typical,
        farthest_m=far,
        step_m=_step(every, typical),
        moves_m=max((_away(frame, frames[0]) for frame in frames), default=0.0),
    ), frames


def field_of_view(camera: Camera) -> tuple[float, float]:
    """Degrees across and down between the outer borders of a pinhole camera's outermost pixels."""
    across = math.atan((camera.cx + 0.5) / camera.fx) + math.atan((camera.width - 0.5 - camera.cx) / camera.fx)
    down = math.atan((camera.cy + 0.5) / camera.fy) + math.atan((camera.height - 0.5 - camera.cy) / camera.fy)
    return math.degrees(across), math.degrees(down)


def _away(frame: Frame, other: Frame) -> float:
    return float(np.linalg.norm(frame.T_world_depth[:3, 3] - other.T_world_depth[:3, 3]))


def _step(readings: NDArray[np.float32], typical: float) -> float:
    """The smallest difference of two readings that occurs within 10 % of the typical one."""
    near = np.unique(readings[np.abs(readings - typical) < 0.1 * typical]) if len(readings) else readings
    steps = np.diff(near.astype(np.float64))
    # floats of one count may differ in the last bit
    steps = steps[steps > 1e-6]
    return float(steps.min()) if len(steps) else math.nan
