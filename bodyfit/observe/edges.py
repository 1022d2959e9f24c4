"""Readings that belong to no surface: what a sensor reports where a pixel straddles a depth edge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera

JUMP = 0.03
"""A depth edge: this share of the depth to the surface farther off (6.6 cm at 2.2 m)."""
SLOPE_PX = 5.0
"""How far, in pixel widths, a pixel beside an edge may lean away from its own surface: 5 is a surface seen at 79°."""
ALIKE = 0.02
"""Neighbours within this share of the depth keep a pixel company; one alone is a speck."""


def drop_flying_pixels(depth: NDArray[np.float32], camera: Camera) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Depth without flying pixels and specks.

    Args:
        depth: (H, W) metres, 0 = no reading.
        camera: the depth camera, for the width of a pixel at a depth.

    Returns:
        The depth with those readings set to 0, and (H, W) bool where that happened.
    """
    from bodyfit.kernels.depthgrid import flying_pixels

    pitch = 2.0 / (camera.fx + camera.fy)
    flying = flying_pixels(np.ascontiguousarray(depth, dtype=np.float32), pitch, JUMP, SLOPE_PX, ALIKE)
    cleaned = depth.copy()
    cleaned[flying] = 0
    return cleaned, flying
