"""The sources that `bodyfit capture` knows, by name."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from bodyfit.errors import InputError

if TYPE_CHECKING:
    from bodyfit.capture.source import Source

SYNTHETIC_FPS = 30.0
SYNTHETIC_S = 1.0
SYNTHETIC_SEED = 2026


class Kind(StrEnum):
    """What can be captured from."""

    realsense = "realsense"
    orbbec = "orbbec"
    azure = "azure"
    synthetic = "synthetic"
    replay = "replay"


def open_source(
    kind: Kind, recording: Path | None, *, serial: str | None, sensor: str | None, speed: float,
    tell: Callable[[str], None],
) -> Source:  # fmt: skip
    """The source of that name; a device is opened when it is started.

    Raises:
        InputError: options that do not go together. MissingExtraError: the maker's package is not installed.
        RecordingError: a recording that cannot be replayed.
    """
    if (recording is not None) != (kind is Kind.replay):
        found = "none" if recording is None else str(recording)
        raise InputError("RECORDING", "a recording with replay, and with nothing else", found)
    if serial is not None and kind in (Kind.synthetic, Kind.replay):
        raise InputError("--serial", "a device", kind.value)
    if kind is not Kind.replay and (sensor is not None or speed != 1.0):
        raise InputError("--sensor, --speed", "replay", kind.value)
    if kind is Kind.realsense:
        from bodyfit.capture.realsense import RealSenseSource

        return RealSenseSource(serial=serial)
    if kind is Kind.orbbec:
        from bodyfit.capture.orbbec import OrbbecSource

        return OrbbecSource(serial=serial)
    if kind is Kind.azure:
        from bodyfit.capture.azure import AzureSource

        return AzureSource(serial=serial)
    if kind is Kind.replay:
        from bodyfit.capture.replay import replay_source
        from bodyfit.recording.formats import open_recording

        assert recording is not None
        return replay_source(open_recording(recording), sensor_name=sensor, speed=speed)
    return synthetic_source(tell)


def synthetic_source(tell: Callable[[str], None]) -> Source:
    """A body that sways and turns a little before a simulated Azure Kinect: a second, forwards and backwards."""
    import numpy as np

    from bodyfit.body.model import load_body_model
    from bodyfit.capture.replay import back_and_forth, captured_of
    from bodyfit.capture.source import PlayedSource
    from bodyfit.recording.description import Sensor
    from bodyfit.synthetic.motion import plan_film

    tell(f"rendering {SYNTHETIC_S:g} s of a synthetic sensor, which are then played forwards and backwards …")
    film = plan_film(
        load_body_model(), SYNTHETIC_SEED, motion="arms", seconds=SYNTHETIC_S, fps=SYNTHETIC_FPS, color=True,
        heading_deg=0.0,
    )  # fmt: skip
    frames = [frame for instant in film for frame in instant.frames.values()]
    first = frames[0]
    sensor = Sensor(
        first.sensor, first.depth_camera, first.T_world_depth, first.color_camera, first.T_color_depth, 0.001
    )
    captured = [captured_of(frame, sensor) for frame in frames]
    notes = (f"synthetic: {SYNTHETIC_S:g} s were rendered; they are played forwards and backwards",)
    return PlayedSource(
        "synthetic", sensor, back_and_forth(captured, SYNTHETIC_FPS), gravity_world=np.array([0.0, 0.0, -1.0]),
        settings={"fps": SYNTHETIC_FPS, "seed": SYNTHETIC_SEED}, notes=notes,
    )  # fmt: skip
