"""The floor, and which way is up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera

STRIDE = 4
"""The floor is looked for on every fourth pixel."""
LEVEL_ROWS, LEVEL_SLOPE = 3, 0.35
"""A level surface rises by less than this share of the way over so many of these pixels' rows."""
MAX_TILT_DEG = 6.0
"""A floor leans less from level than this: gravity as sensors give it is a degree off."""
SLAB_M = 0.06
"""Points this near to a candidate height take part in its plane."""
MIN_AREA_M2 = 0.25
"""Less floor than this (seen from above) is not believed."""


@dataclass(frozen=True)
class Ground:
    """Which way is up, and the floor if it is in sight; all in depth-camera coordinates.

    Attributes:
        up: (3,) unit vector.
        up_known: False where gravity was not given and no floor was found: `up` is then the image's.
        plane: (4,) n·x + d = height above the floor in metres, or None where no floor is in sight.
        noise: (2,) standard deviation of a floor reading's height, noise[0] + noise[1] z² metres.
        visible_area_m2: how much floor was found, seen from above.
    """

    up: NDArray[np.float64]
    up_known: bool
    plane: NDArray[np.float64] | None
    noise: tuple[float, float]
    visible_area_m2: float

    def sigma(self, depth: float) -> float:
        """Standard deviation in metres of a floor reading's height at this depth."""
        return self.noise[0] + self.noise[1] * depth * depth


def sparse_points(
    depth: NDArray[np.float32], camera: Camera, stride: int = STRIDE
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (N, 3) of every `stride`-th pixel with a reading, and the area (N,) in m² each stands for, face on."""
    z = depth[::stride, ::stride].astype(np.float64)
    points = camera.every(stride).backproject(z).astype(np.float64)[z > 0]
    return points, points[:, 2] ** 2 * stride * stride / (camera.fx * camera.fy)


def find_ground(depth: NDArray[np.float32], camera: Camera, gravity_cam: NDArray[np.float64] | None) -> Ground:
    """The floor plane: the lowest dominant level surface.

    With gravity, a histogram of heights and a least-squares plane through its lowest strong level; without, the planes
    that RANSAC finds (Open3D's `segment_plane`), of which the floor is the one below the camera with nothing below it.

    Args:
        depth: (H, W) metres, 0 = no reading.
        camera: pinhole depth camera.
        gravity_cam: (3,) direction of gravity in depth-camera coordinates, or None where unknown.
    """
    points, area = sparse_points(depth, camera)
    if gravity_cam is None:
        return _without_gravity(points, area)
    up = -np.asarray(gravity_cam, dtype=np.float64)
    up /= np.linalg.norm(up)
    level = _level_pixels(depth, camera, up)[depth[::STRIDE, ::STRIDE] > 0]
    return _level_floor(points[level], area[level], up)


def _level_pixels(depth: NDArray[np.float32], camera: Camera, up: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of every `STRIDE`-th pixels lie on a level surface: a few rows on, they are farther but not higher."""
    z = depth[::STRIDE, ::STRIDE]
    points = camera.every(STRIDE).backproject(z)
    height = points @ up.astype(np.float32)
    step = points[LEVEL_ROWS:] - points[:-LEVEL_ROWS]
    rise = height[LEVEL_ROWS:] - height[:-LEVEL_ROWS]
    run2 = (step * step).sum(-1)
    flat = (rise * rise < LEVEL_SLOPE**2 * run2) & (z[LEVEL_ROWS:] > 0) & (z[:-LEVEL_ROWS] > 0) & (run2 < 1.0)
    level = np.zeros(z.shape, dtype=bool)
    level[LEVEL_ROWS:] |= flat
    level[:-LEVEL_ROWS] |= flat
    return level


def _level_floor(points: NDArray[np.float64], area: NDArray[np.float64], up: NDArray[np.float64]) -> Ground:
    none = Ground(up, True, None, (0.005, 0.0), 0.0)
    if len(points) < 50:
        return none
    height = points @ up
    # a level surface z away and h below is seen at a slant: this much of it lies behind a pixel
    seen = area * points[:, 2] / np.maximum(np.abs(height), 0.3)
    low, high = height.min(), np.percentile(height, 99.5)
    edges = np.arange(low - 0.05, max(high, low + 0.2) + 0.05, 0.01)
    bins = np.histogram(height, edges, weights=seen)[0]
    level = np.convolve(bins, np.ones(7), mode="same")  # 7 cm: a degree of tilt over 4 m, or noise
    score = np.where(edges[:-1] < -0.3, level, 0)  # a floor is below the camera
    for peak in np.flatnonzero(score > max(MIN_AREA_M2, 0.1 * score.max())):
        near = slice(max(0, peak - 8), peak + 9)
        if score[peak] < score[near].max():
            continue
        start = np.array([*up, -(edges[peak] + 0.005)])
        fitted = _refine(points, area, start, up)
        if fitted is None:
            continue
        plane, noise = fitted
        inside = np.abs(points @ plane[:3] + plane[3]) < 3 * (noise[0] + noise[1] * points[:, 2] ** 2)
        floor_area = float(seen[inside].sum())
        if floor_area >= MIN_AREA_M2:
            return Ground(up, True, plane, noise, floor_area)
    return none


def _refine(
    points: NDArray[np.float64], area: NDArray[np.float64], plane: NDArray[np.float64], up: NDArray[np.float64]
) -> tuple[NDArray[np.float64], tuple[float, float]] | None:
    """Least squares with shrinking gates; None where the plane leans too far from `up`."""
    slab = np.abs(points @ plane[:3] + plane[3]) < 4 * SLAB_M  # room for the tilt
    points, area = points[slab], area[slab]
    e1 = np.cross(up, [1.0, 0.0, 0.0] if abs(up[0]) < 0.9 else [0.0, 1.0, 0.0])
    e1 /= np.linalg.norm(e1)
    e2 = np.cross(up, e1)
    plan = np.stack([points @ e1, points @ e2, np.ones(len(points))], 1)
    height = points @ up
    fit = np.array([0.0, 0.0, -plane[3]])
    # a reading's height is uncertain in proportion to z², and near readings are the denser ones
    weight = area / np.maximum(points[:, 2], 0.3) ** 4
    noise = (SLAB_M / 3, 0.0)
    for gate in (SLAB_M, 0.6 * SLAB_M, None, None):
        residual = height - plan @ fit
        reach = gate if gate is not None else np.clip(3 * (noise[0] + noise[1] * points[:, 2] ** 2), 0.008, SLAB_M)
        inside = np.abs(residual) < reach
        if inside.sum() < 50:
            return None
        A = plan[inside]
        # Tukey's biweight: the foot of a wall is within reach but should not pull
        w = weight[inside] * (1 - (residual[inside] / np.broadcast_to(reach, residual.shape)[inside]) ** 2) ** 2
        # A prior of 3° on the tilt holds a sliver of floor level. Readings share their errors (lens, stray light), so
        # that all of them say no more than fifty that are a centimetre off each.
        prior = np.diag([1 / 0.05**2, 1 / 0.05**2, 0.0])
        sigma2 = 0.01**2 * w.sum() / 50
        fit = np.linalg.solve(A.T @ (A * w[:, None]) / sigma2 + prior, A.T @ (w * height[inside]) / sigma2)
        noise = _height_noise(height[inside] - A @ fit, points[inside, 2])
    tilt = np.degrees(np.arctan(np.hypot(fit[0], fit[1])))
    if tilt > MAX_TILT_DEG:
        return None
    normal = up - fit[0] * e1 - fit[1] * e2
    scale = np.linalg.norm(normal)
    return np.array([*(normal / scale), -fit[2] / scale]), noise


def _height_noise(residual: NDArray[np.float64], z: NDArray[np.float64]) -> tuple[float, float]:
    """Robust a + b z² of the height's standard deviation, from a near and a far half of the readings."""
    cut = np.median(z)
    sd, at = [], []
    for part in (z <= cut, z > cut):
        if part.sum() < 20:
            continue
        sd.append(1.4826 * float(np.median(np.abs(residual[part]))))
        at.append(float(np.median(z[part] ** 2)))
    if len(sd) < 2 or at[1] - at[0] < 1e-3:
        return (max(0.002, max(sd, default=0.005)), 0.0)
    b = max(0.0, (sd[1] - sd[0]) / (at[1] - at[0]))
    return (max(0.002, sd[0] - b * at[0]), b)


def _without_gravity(points: NDArray[np.float64], area: NDArray[np.float64]) -> Ground:
    """The floor as the plane roughly below an upright camera, with next to nothing under it."""
    import open3d as o3d

    image_up = np.array([0.0, -1.0, 0.0])
    none = Ground(image_up, False, None, (0.005, 0.0), 0.0)
    o3d.utility.random.seed(7)  # same input, same plane
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points)).voxel_down_sample(0.02)
    best: tuple[float, NDArray[np.float64]] | None = None
    for _ in range(5):
        if len(cloud.points) < 200:
            break
        found, inliers = cloud.segment_plane(0.03, 3, 400)
        plane = np.asarray(found, dtype=np.float64)
        plane /= np.linalg.norm(plane[:3])
        if plane[3] < 0:  # the camera, at the origin, is above the floor
            plane = -plane
        leans = np.degrees(np.arccos(np.clip(plane[:3] @ image_up, -1, 1)))
        height = points @ plane[:3] + plane[3]
        under = float((height < -0.08).mean())
        seen = float((area * points[:, 2] / plane[3])[np.abs(height) < 0.03].sum())
        if leans < 50 and plane[3] > 0.3 and under < 0.03 and seen > MIN_AREA_M2 and (best is None or seen > best[0]):
            best = (seen, plane)
        cloud = cloud.select_by_index(inliers, invert=True)
    if best is None:
        return none
    up = best[1][:3]
    fitted = _refine(points, area, best[1], up)
    if fitted is None:
        return none
    # nothing else says where up is: the floor does
    return Ground(fitted[0][:3], True, fitted[0], fitted[1], best[0])
