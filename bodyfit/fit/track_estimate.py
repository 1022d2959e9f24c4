"""What a tracker says after each frame, and what is usual for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.solver import StopReason
from bodyfit.fit.track_config import TrackConfig

MEMORY_FRAMES = 45
"""what is usual is a running mean over about so many frames"""
FIRST_DEVIATIONS = np.array([0.15, 0.08, 0.15])
"""share of a first frame's numbers by which later ones are taken to differ"""
FEW = 5
"""of so few frames nothing is usual"""
NOISE_SHARE = 0.3
"""of its standard deviation this much is seen in the gap: a stereo matcher's noise is smooth, and bends the body"""
ALWAYS_GOOD_M = 0.02
"""a gap below this is no loss, however small it usually is"""
ALWAYS_BAD = 0.75
"""an overlap above this is none either"""


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
        pose (J, 3) axis-angle, the root first; transl (3,); joints_world (J, 3) metres.
        pose_sd (J, 3): one standard deviation of the joints' turns, radians; of a limb that is not seen it grows from
            frame to frame.
        garments_m: estimated thickness by garment.
        depth_residual_m: mean distance of the sensor's readings from the body.
        overlap: share of the pixels of person and body that both have; covered: share of the person's alone.
        stop_reason: why the steps of this frame ended.
        steps: how often the normal equations were set up.
        shape_frozen: whether later frames no longer move the shape.
        told: what happened, one short sentence each.
        times_s: wall seconds by part.
        color_points: how many points of the body's surface pulled by their colours; 0 where colour was not used.
        hidden: parts of the body (names of `bodyfit.body.skeleton.PART_NAMES`) of which this frame shows too little:
            where they are is a guess; all of them where nobody is followed.
        behind_body: those of them that the body's own other parts hide.
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
    covered: float
    stop_reason: StopReason
    steps: int
    shape_frozen: bool
    told: tuple[str, ...]
    times_s: Mapping[str, float]
    color_points: int = 0
    hidden: tuple[str, ...] = ()
    behind_body: tuple[str, ...] = ()


@dataclass
class Usual:
    """Running means over good frames, each with its mean deviation: gap (metres), overlap, person pixels; and what a
    frame is by them."""

    config: TrackConfig
    mean: NDArray[np.float64] | None = None
    deviation: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    count: int = 0
    noise_m: float = 0.0
    """the sensors' noise where the person is in this frame; a stereo matcher's grows with the distance squared"""
    usual_noise_m: float = 0.0

    def take(self, gap_m: float, overlap: float, person: float) -> None:
        """A good frame's numbers."""
        now = np.array([gap_m, overlap, person])
        self.count += 1
        if self.mean is None:
            self.usual_noise_m = self.noise_m
            self.mean, self.deviation = now, FIRST_DEVIATIONS * np.maximum(now, 1e-9)
            return
        share = max(1 / MEMORY_FRAMES, 1 / (self.count + 3))
        self.deviation = (1 - share) * self.deviation + share * np.abs(now - self.mean)
        self.mean = (1 - share) * self.mean + share * now
        self.usual_noise_m += share * (self.noise_m - self.usual_noise_m)

    def without_noise(self, gap_m: float) -> float:
        """A gap without what more noise than usual adds to it."""
        return gap_m - NOISE_SHARE * max(0.0, self.noise_m - self.usual_noise_m)

    def is_anybody(self, gap_m: float, overlap: float) -> bool:
        """Whether a body explains so much that it can be the person at all."""
        return gap_m <= self.config.worst_gap_m and overlap >= self.config.least_overlap

    def is_good(self, gap_m: float, overlap: float) -> bool:
        """Whether a body is followed: as well as usual, or nearly."""
        if not self.is_anybody(gap_m, overlap):
            return False
        if self.mean is None or self.count < FEW:
            return True
        c, mean, spread = self.config, self.mean, self.deviation
        gap_m = self.without_noise(gap_m)
        return bool(
            gap_m < max(ALWAYS_GOOD_M, mean[0] + c.unusual * spread[0])
            and overlap > min(ALWAYS_BAD, mean[1] - c.unusual * spread[1])
        )

    def is_odd(self, gap_m: float, overlap: float) -> bool:
        """Whether a limb may have been left behind: less is explained than usual, but more than where nobody is."""
        if self.mean is None or self.count < FEW:
            return False
        c, mean, spread = self.config, self.mean, self.deviation
        gap_m = self.without_noise(gap_m)
        return bool(overlap < mean[1] - c.odd * spread[1] - 0.01 or gap_m > mean[0] + c.odd * spread[0] + 0.001)

    def is_poor(self, overlap: float, times: float = 1.0) -> bool:
        """Whether so much less is explained than usual, or that many times more, that the body may stand quite
        otherwise."""
        return self.mean is not None and overlap < float(self.mean[1]) - times * self.config.poor

    def is_ordinary(self, gap_m: float, overlap: float) -> bool:
        """Whether a frame is good enough to learn the shape from."""
        return self.mean is not None and gap_m < 1.5 * float(self.mean[0]) and overlap > 0.9 * float(self.mean[1])

    def merit(self, gap_m: float, overlap: float) -> float:
        """How well a body explains a frame: an arm that is followed again shows in the outline first."""
        return overlap - gap_m / self.config.worst_gap_m
