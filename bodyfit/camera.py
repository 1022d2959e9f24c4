"""Pinhole cameras in OpenCV's convention: x right, y down, z forward; pixel (0, 0) is centred at (0, 0)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import CameraError

DISTORTION_COEFFICIENTS = {"none": 0, "brown_conrady": 5, "rational": 8}
MAX_SIDE_PX = 16384


@dataclass(frozen=True)
class Distortion:
    """Lens distortion: `none`, `brown_conrady` (OpenCV k1 k2 p1 p2 k3) or `rational` (k1 k2 p1 p2 k3 k4 k5 k6)."""

    model: str = "none"
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.model not in DISTORTION_COEFFICIENTS:
            raise CameraError("distortion.model", f"one of {sorted(DISTORTION_COEFFICIENTS)}", repr(self.model))
        n = DISTORTION_COEFFICIENTS[self.model]
        if len(self.coefficients) != n:
            raise CameraError(
                "distortion.coefficients", f"{n} numbers for {self.model}", f"{len(self.coefficients)} numbers"
            )
        if not all(math.isfinite(c) for c in self.coefficients):
            raise CameraError("distortion.coefficients", "finite numbers", str(list(self.coefficients)))

    @property
    def is_none(self) -> bool:
        """True where undistorting would change nothing."""
        return not any(self.coefficients)


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one image grid, in pixels.

    Raises:
        CameraError: a side or focal length that no camera has, or a principal point far outside of the image.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: Distortion = field(default_factory=Distortion)

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            side = getattr(self, name)
            if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= MAX_SIDE_PX:
                raise CameraError(f"camera.{name}", f"a whole number of pixels from 1 to {MAX_SIDE_PX}", repr(side))
        for name in ("fx", "fy", "cx", "cy"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
                raise CameraError(f"camera.{name}", "a finite number of pixels", repr(value))
        longest = max(self.width, self.height)
        for name in ("fx", "fy"):
            value = getattr(self, name)
            # a field of view between 0.6 and 170 degrees; anything else is a mistake in the file
            if not 0.04 * longest <= value <= 100 * longest:
                raise CameraError(f"camera.{name}", f"{0.04 * longest:.0f} to {100 * longest} pixels", f"{value:g}")
        for name, side in (("cx", self.width), ("cy", self.height)):
            value = getattr(self, name)
            if not -side <= value <= 2 * side:
                raise CameraError(f"camera.{name}", f"a pixel near the image, {-side} to {2 * side}", f"{value:g}")

    @property
    def K(self) -> NDArray[np.float64]:  # noqa: N802 - the field's name
        """(3, 3) intrinsic matrix."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def pinhole(self) -> Camera:
        """The same camera without distortion, which is what undistorted images have."""
        return replace(self, distortion=Distortion())

    def every(self, stride: int) -> Camera:
        """The camera whose pixel (i, j) is this camera's pixel (i·stride, j·stride)."""
        return Camera(
            -(-self.width // stride),
            -(-self.height // stride),
            self.fx / stride,
            self.fy / stride,
            self.cx / stride,
            self.cy / stride,
        )

    def project(self, points_cam: NDArray[Any]) -> NDArray[np.float64]:
        """Pixels (..., 2) of camera points (..., 3) in metres, distortion left out; NaN behind the camera."""
        points = np.asarray(points_cam, dtype=np.float64)
        z = np.where(points[..., 2] > 0, points[..., 2], np.nan)
        return np.stack([self.fx * points[..., 0] / z + self.cx, self.fy * points[..., 1] / z + self.cy], axis=-1)

    def backproject(self, depth: NDArray[Any]) -> NDArray[np.float32]:
        """Camera points (H, W, 3) in metres of a depth image (H, W) in metres, distortion left out."""
        v, u = np.mgrid[: depth.shape[0], : depth.shape[1]].astype(np.float32)
        z = np.asarray(depth, dtype=np.float32)
        return np.stack(
            [
                (u - np.float32(self.cx)) / np.float32(self.fx) * z,
                (v - np.float32(self.cy)) / np.float32(self.fy) * z,
                z,
            ],
            axis=-1,
        )


def check_rigid(name: str, matrix: Any) -> NDArray[np.float64]:
    """A (4, 4) rigid transform as float64, or a CameraError that says why it is none."""
    try:
        T = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise CameraError(name, "a 4×4 matrix of numbers", "something that is not numbers") from None
    if T.shape != (4, 4):
        raise CameraError(name, "a 4×4 matrix", f"shape {T.shape}")
    if not np.isfinite(T).all():
        raise CameraError(name, "finite numbers", "NaN or infinity")
    if not np.allclose(T[3], [0, 0, 0, 1], atol=1e-6):
        raise CameraError(name, "last row 0 0 0 1", str(T[3].tolist()))
    R = T[:3, :3]
    if np.abs(R).max() > 2 or not np.allclose(R @ R.T, np.eye(3), atol=1e-3):
        raise CameraError(name, "a rigid transform (rotation and translation)", "a 3×3 part that scales or shears")
    if np.linalg.det(R) < 0:
        raise CameraError(name, "a rotation (determinant +1)", "a reflection (determinant -1)")
    if np.abs(T[:3, 3]).max() > 1000:
        raise CameraError(name, "a translation in metres", f"{np.abs(T[:3, 3]).max():.0f} m")
    return T
