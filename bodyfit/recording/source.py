"""What a fit takes frames from: recordings on disk and in memory have this in common."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bodyfit.frame import Frame
from bodyfit.recording.description import Sensor


class FrameSource(Protocol):
    """Instants, each seen by some of the sensors."""

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """As recorded, distortion included; frames come with pinhole cameras."""
        ...

    @property
    def gravity_world(self) -> NDArray[np.float64] | None:
        """(3,) unit vector in world coordinates, or None where unknown."""
        ...

    @property
    def num_frames(self) -> int:
        """T, how many instants there are."""
        ...

    @property
    def indices(self) -> NDArray[np.int64]:
        """(T,) the instants' numbers, rising."""
        ...

    @property
    def timestamps_s(self) -> NDArray[np.float64]:
        """(T,) seconds, rising."""
        ...

    @property
    def stream_timestamps_s(self) -> dict[str, NDArray[np.float64]]:
        """`<sensor>.depth_s` and `<sensor>.color_s` to (T,) seconds on the stream's own clock, NaN where none."""
        ...

    def frame(self, i: int, sensor_name: str, *, color: bool = True) -> Frame | None:
        """What a sensor saw at the `i`-th instant (a position in `indices`); None where it saw nothing. Without color
        its image may be left out, which costs more to decode than depth."""
        ...
