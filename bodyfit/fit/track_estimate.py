"""What a tracker says after each frame, and what is usual for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

MEMORY_FRAMES = 45
"""what is usual is a running mean over about so many frames"""


class TrackState(Enum):
    """How it stands with the person after a frame; the value is the message."""

    FOUND = "found in the whole picture"
    TRACKED = "followed from the frame before"
    COASTING = "not seen well enough: held where it was expected"
    LOST = "nobody is followed"


@dataclass(frozen=True)
class TrackEstimate:
    """One instant's body.

    Attributes:
        index, timestamp_s: which instant.
        state: how it was come by; with LOST the body is the last one that was known, if any.
        betas (S,), betas_sd (S,): the shape as known by now.
        pose (J, 3) axis-angle, the root first; pose_sd (J, 3); transl (3,); joints_world (J, 3) metres.
        garments_m: estimated thickness by garment.
        depth_residual_m: mean distance of the sensor's readings from the body.
        overlap: share of the pixels of person and body that both have.
        steps: how often the normal equations were set up.
        shape_frozen: whether later frames no longer move the shape.
        told: what happened, one short sentence each.
        times_s: wall seconds by part.
    """

    index: int
    timestamp_s: float
    state: TrackState
    betas: NDArray[np.float64]
    betas_sd: NDArray[np.float64]
    pose: NDArray[np.float64]
    pose_sd: NDArray[np.float64]
    transl: NDArray[np.float64]
    joints_world: NDArray[np.float64]
    garments_m: Mapping[str, float]
    depth_residual_m: float
    overlap: float
    steps: int
    shape_frozen: bool
    told: tuple[str, ...]
    times_s: Mapping[str, float]


@dataclass
class Usual:
    """Running means over good frames, each with its mean deviation: gap (metres), overlap, person pixels."""

    mean: NDArray[np.float64] | None = None
    deviation: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    count: int = 0

    def take(self, values: Sequence[float]) -> None:
        """A good frame's numbers."""
        now = np.asarray(values, np.float64)
        self.count += 1
        if self.mean is None:
            self.mean, self.deviation = now, np.array([0.15, 0.08, 0.15]) * np.maximum(now, 1e-9)
            return
        share = max(1 / MEMORY_FRAMES, 1 / (self.count + 3))
        self.deviation = (1 - share) * self.deviation + share * np.abs(now - self.mean)
        self.mean = (1 - share) * self.mean + share * now
