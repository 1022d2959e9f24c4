"""Surface normals of a depth image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera

HALF_WINDOW_M = 0.015
"""Half the width over which a slope is measured: wide enough to stand above a millimetre or two of noise, narrower
than a forearm."""
JUMP_M, JUMP_SHARE = 0.02, 0.01
"""A window's pixels are on the centre's own surface within 2 cm plus 1 % of the depth."""


def normals_from_depth(
    depth: NDArray[np.float32], camera: Camera, valid: NDArray[np.bool_] | None = None
) -> NDArray[np.float32]:
    """Unit normals in camera coordinates, facing the camera.

    A plane n·x = d is linear in the pixel when written for 1/z, so a least-squares fit of 1/z over a window gives the
    normal without a bias from perspective (Nakagawa et al., "Estimating surface normals with depth image gradients for
    fast and accurate registration", 3DV 2015).

    Args:
        depth: (H, W) metres, 0 = no reading.
        camera: pinhole depth camera.
        valid: (H, W) bool, the pixels to use and to answer for, for instance one person's; default: all readings.

    Returns:
        (H, W, 3) float32, 0 where a normal is not known.
    """
    from bodyfit.kernels.depthgrid import window_normals

    mask = depth > 0
    if valid is not None:
        mask &= valid
    return window_normals(
        np.ascontiguousarray(depth, dtype=np.float32), mask, camera.fx, camera.fy, camera.cx, camera.cy,
        HALF_WINDOW_M, JUMP_M, JUMP_SHARE,
    )  # fmt: skip
