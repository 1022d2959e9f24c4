"""What one sensor saw at one instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import FrameError


@dataclass(frozen=True)
class Keypoints:
    """Named 2-D points: `xy` (N, 2) pixels of the colour image (of the depth image where there is no colour)."""

    names: tuple[str, ...]
    xy: NDArray[np.float64]
    confidence: NDArray[np.float64]

    def __post_init__(self) -> None:
        n = len(self.names)
        if self.xy.shape != (n, 2) or self.confidence.shape != (n,):
            found = f"{self.xy.shape} and {self.confidence.shape}"
            raise FrameError("keypoints", f"{n} points with a confidence each", found)
        if not (np.isfinite(self.xy).all() and np.isfinite(self.confidence).all()):
            raise FrameError("keypoints", "finite numbers", "NaN or infinity")


@dataclass(frozen=True)
class Frame:
    """One sensor's depth and colour at one instant, each in its own camera.

    Attributes:
        depth: (H, W) float32 metres, camera z, 0 = no reading; undistorted (pinhole).
        depth_camera, color_camera: the cameras of the two grids; images are undistorted at the door.
        color: (Hc, Wc, 3) uint8 RGB or None.
        mask: (H, W) bool on the depth grid, True = person, or None.
        T_color_depth, T_world_depth: (4, 4) depth-camera coordinates to colour-camera / world coordinates.
    """

    depth: NDArray[np.float32]
    depth_camera: Camera
    T_world_depth: NDArray[np.float64]
    timestamp_s: float = 0.0
    color: NDArray[np.uint8] | None = None
    color_camera: Camera | None = None
    T_color_depth: NDArray[np.float64] | None = None
    mask: NDArray[np.bool_] | None = None
    keypoints: Keypoints | None = None
    sensor: str = "sensor"
    index: int = 0

    def __post_init__(self) -> None:
        size = (self.depth_camera.height, self.depth_camera.width)
        if self.depth.shape != size:
            raise FrameError("depth", f"the camera's size {size}", str(self.depth.shape))
        if self.mask is not None and self.mask.shape != size:
            raise FrameError("mask", f"the depth camera's size {size}", str(self.mask.shape))
        if self.color is not None:
            if self.color_camera is None or self.T_color_depth is None:
                raise FrameError("color", "a color_camera and T_color_depth beside it", "none")
            size_c: tuple[Any, ...] = (self.color_camera.height, self.color_camera.width, 3)
            if self.color.shape != size_c:
                raise FrameError("color", f"the camera's size {size_c}", str(self.color.shape))
