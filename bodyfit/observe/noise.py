"""A depth sensor's noise, measured in the frame itself: how large it is, and over how many pixels it is smooth.

Over a plane 1/z is linear in the pixel, so what is left of 1/z in second differences is noise alone. Its growth with
the reach of the difference shows its correlation: white noise is the same at every reach, a stereo matcher's is smooth
within its window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REACHES = (1, 2, 3, 4, 6, 8, 12)
"""Pixels between the neighbours of a second difference."""
EVERY_ROW = 3
LEAST_DIFFERENCES = 2000
OUTLIER = 5.0
"""Differences beyond so many times their mean are steps, not noise."""
HALF_WAY = 0.707
"""A second difference of noise that was blurred by a Gaussian of s pixels has this share of its full height at a reach
of 2 s pixels."""
STEREO_LENGTH_PX, STEREO_INVERSE_SIGMA = 1.5, 0.0008
"""A stereo matcher's noise is smooth over more pixels than this and larger than this (1/m: 5 mm at 2.5 m); time of
flight that a filter has smoothed reaches one of the two."""


@dataclass(frozen=True)
class DepthNoise:
    """inverse_sigma: standard deviation of 1/z, 1/m, so that of z is inverse_sigma·z²; length_px: as if white noise had
    been blurred by a Gaussian of that standard deviation, pixels (0: white)."""

    inverse_sigma: float
    length_px: float

    @property
    def area_px(self) -> float:
        """How many pixels err together: the sum of the noise's correlations with one of them."""
        return max(1.0, 4 * np.pi * self.length_px**2)

    @property
    def stereo(self) -> bool:
        """Whether this is a stereo matcher's noise: large, and smooth over several pixels."""
        return self.length_px > STEREO_LENGTH_PX and self.inverse_sigma > STEREO_INVERSE_SIGMA

    def sigma(self, z: float) -> float:
        """Standard deviation of a depth of z metres, metres."""
        return self.inverse_sigma * z * z


def plane_noise(depth: NDArray[np.float32], planes: NDArray[np.bool_]) -> DepthNoise | None:
    """The noise on flat surfaces, or None where too few of them are seen.

    Args:
        depth: (H, W) metres, 0 = no reading.
        planes: (H, W) bool, pixels of floor and walls.
    """
    z, use = depth[::EVERY_ROW], planes[::EVERY_ROW] & (depth[::EVERY_ROW] > 0)
    inverse = np.where(use, 1 / np.maximum(z, np.float32(0.1)), np.float32(0))
    heights: list[float] = []
    for r in REACHES:
        bend = inverse[:, : -2 * r] - 2 * inverse[:, r:-r] + inverse[:, 2 * r :]
        size = np.abs(bend[use[:, : -2 * r] & use[:, r:-r] & use[:, 2 * r :]])
        if len(size) < LEAST_DIFFERENCES:
            break
        # not the median: a stereo matcher rounds disparity to steps as large as its noise
        for _ in range(2):
            size = size[size < OUTLIER * size.mean()] if size.any() else size
        heights.append(float(size.mean()) * np.sqrt(np.pi / 2) / np.sqrt(6.0))
    if len(heights) < len(REACHES):
        return None
    full = max(heights)
    if full <= 0:
        return DepthNoise(0.0, 0.0)
    share = np.maximum.accumulate(np.array([0.0, *heights]) / full)
    reach = float(np.interp(HALF_WAY, share, (0.0, *REACHES)))
    return DepthNoise(full, 0.5 * reach if reach > 1 else 0.0)
