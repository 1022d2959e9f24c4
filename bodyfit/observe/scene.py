"""What is measured of every pixel before anybody is looked for: heights, floor, walls, connected surfaces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.errors import FrameError
from bodyfit.observe.ground import Ground, sparse_points
from bodyfit.observe.walls import find_walls

JUMP_M, JUMP_SHARE = 0.03, 0.01
"""Neighbours are of one surface when their depths differ by less than 3 cm plus 1 % of the depth."""
FLOOR_M, FLOOR_SIGMAS = 0.03, 3.5
"""A reading is the floor's when it is lower than either; feet are followed down to the sole afterwards."""
CEILING_M = 2.6
"""Nothing of a standing person is higher than this."""


@dataclass(frozen=True)
class Scene:
    """Per-pixel quantities that finding and labelling share.

    Attributes:
        depth: (H, W) float32 metres, cleaned.
        height: (H, W) float32 metres above the floor (or above the lowest thing in sight); 0 where no reading.
        plan: (H, W, 2) float32 position seen from above, metres.
        floor: (H, W) bool, readings on or below the floor.
        wall: (H, W) bool, readings on a wall.
        surface: (H, W) int32, connected surfaces off floor and walls, from 1; 0 for none.
        pixels, area_m2, boxes: (N,), (N,), (N, 4) of each surface (entry 0 stands for none): pixels, area as the camera
            sees it, face on, and v0 v1 u0 u1.
    """

    camera: Camera
    ground: Ground
    depth: NDArray[np.float32]
    height: NDArray[np.float32]
    plan: NDArray[np.float32]
    floor: NDArray[np.bool_]
    wall: NDArray[np.bool_]
    surface: NDArray[np.int32]
    pixels: NDArray[np.int64]
    area_m2: NDArray[np.float64]
    boxes: NDArray[np.int32]

    @property
    def pitch(self) -> float:
        """Width of a pixel one metre away, in metres."""
        return 2.0 / (self.camera.fx + self.camera.fy)

    def area_of(self, depth: NDArray[np.float32]) -> NDArray[np.float64]:
        """The m² that pixels with these depths cover, face on."""
        return depth.astype(np.float64) ** 2 / (self.camera.fx * self.camera.fy)


def build_scene(depth: NDArray[np.float32], camera: Camera, ground: Ground) -> Scene:
    """Heights, plan positions, floor, walls and connected surfaces of every pixel.

    Raises:
        FrameError: so few readings that none lies on the sparse grid which floor and walls are sought on.
    """
    from bodyfit.kernels.depthgrid import room_maps, surface_labels, surface_stats

    plane = ground.plane if ground.plane is not None else np.array([*ground.up, 0.0])
    up = plane[:3]
    e1 = np.cross(up, [0.0, 0.0, 1.0] if abs(up[2]) < 0.9 else [0.0, 1.0, 0.0])
    e1 /= np.linalg.norm(e1)
    e2 = np.cross(up, e1)
    points, area = sparse_points(depth, camera)
    if not len(points):
        raise FrameError("depth", "readings that form surfaces", "specks only")
    height = points @ up + plane[3]
    least = FLOOR_M
    if ground.plane is None:
        shift = float(np.percentile(height, 0.5))
        plane, height, least = plane - np.array([0, 0, 0, shift]), height - shift, -1e3
    some = height > 0.1
    sigma = ground.noise[0] + ground.noise[1] * points[some, 2] ** 2
    walls = find_walls(points[some] @ np.stack([e1, e2], 1), area[some], np.maximum(0.004, 1.5 * sigma))

    rays = np.array([
        [n[0] / camera.fx, n[1] / camera.fy, n[2] - n[0] * camera.cx / camera.fx - n[1] * camera.cy / camera.fy]
        for n in (up, e1, e2)
    ])  # fmt: skip
    above, plan, kind = room_maps(
        depth, rays, np.array([plane[3], 0.0, 0.0]), np.array([*ground.noise, least, FLOOR_SIGMAS]),
        np.array(walls, dtype=np.float64).reshape(-1, 5),
    )  # fmt: skip
    surface, count = surface_labels(depth, (kind == 1) & (above < CEILING_M), JUMP_M, JUMP_SHARE)
    pixels, squares, boxes = surface_stats(surface, depth, count)
    return Scene(
        camera, ground, depth, above, plan, kind == 2, kind == 3, surface, pixels,
        squares / (camera.fx * camera.fy), boxes,
    )  # fmt: skip


def pixels_where(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of a mask's pixels in reading order; several times as quick as np.nonzero on an image."""
    return np.divmod(np.flatnonzero(mask), mask.shape[1])
