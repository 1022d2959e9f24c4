"""A room of planes, boxes and people of capsules, cast into a depth camera: a slow, obvious sensor for tests."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.frame import Frame

CAMERA = Camera(320, 288, 252.0, 252.0, 159.5, 143.5)
GRAVITY = np.array([0.0, 0.0, -1.0])

LIMBS = (  # ends (left, forward, up) and radius of a standing adult of 1.75 m, arms a little out; metres
    ((0, 0, 1.64), (0, 0, 1.64), 0.11),
    ((0, 0, 1.45), (0, 0, 1.6), 0.06),
    ((-0.12, 0, 1.38), (0.12, 0, 1.38), 0.09),
    ((0, 0, 1.0), (0, 0, 1.32), 0.15),
    ((-0.07, 0, 0.95), (0.07, 0, 0.95), 0.13),
    ((0.2, 0, 1.4), (0.32, 0, 1.13), 0.05),
    ((0.32, 0, 1.13), (0.38, 0.06, 0.85), 0.04),
    ((-0.2, 0, 1.4), (-0.32, 0, 1.13), 0.05),
    ((-0.32, 0, 1.13), (-0.38, 0.06, 0.85), 0.04),
    ((0.1, 0, 0.9), (0.12, 0, 0.1), 0.075),
    ((-0.1, 0, 0.9), (-0.12, 0, 0.1), 0.075),
    ((0.12, 0, 0.045), (0.14, 0.15, 0.04), 0.04),
    ((-0.12, 0, 0.045), (-0.14, 0.15, 0.04), 0.04),
)


@dataclass
class Room:
    """A floor at z = 0 and what stands on it; world z is up, the camera looks along +y from 1.2 m."""

    wall_y: float | None = 4.5
    tilt_deg: float = 8.0
    eye_m: float = 1.2
    boxes: list[tuple[tuple[float, float, float], tuple[float, float, float]]] = field(default_factory=list)
    people: list[tuple[float, float, float]] = field(default_factory=list)
    """x, y and heading in degrees (0: facing the camera)."""
    gestures: list[tuple[tuple[float, float, float], tuple[float, float, float], float]] = field(default_factory=list)
    """Capsules that the first of the people has besides their own, in the same axes."""

    def camera_pose(self) -> NDArray[np.float64]:
        """T_world_depth."""
        tilt = np.radians(self.tilt_deg)
        T = np.eye(4)
        T[:3, 0] = [1, 0, 0]
        T[:3, 1] = [0, -np.sin(tilt), -np.cos(tilt)]
        T[:3, 2] = [0, np.cos(tilt), -np.sin(tilt)]
        T[:3, 3] = [0, 0, self.eye_m]
        return T

    def cast(self, noise_m: float = 0.002, seed: int = 0, **frame: object) -> tuple[Frame, NDArray[np.int64]]:
        """The frame, and (H, W) who is where: 0 nobody, k the k-th of `people`."""
        T = self.camera_pose()
        v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
        rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)], -1) @ T[:3, :3].T
        eye = T[:3, 3]
        depth = np.full(u.shape, np.inf)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = _nearer(depth, -eye[2] / rays[..., 2])
            if self.wall_y is not None:
                depth = _nearer(depth, self.wall_y / rays[..., 1])
            for low, high in self.boxes:
                depth = np.minimum(depth, _box(eye, rays, np.array(low), np.array(high)))
            who = np.zeros(u.shape, np.int64)
            for k, (x, y, heading) in enumerate(self.people, 1):
                c, s = np.cos(np.radians(heading)), np.sin(np.radians(heading))
                R = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([1.0, -1.0, 1.0])
                for a, b, radius in (*LIMBS, *(self.gestures if k == 1 else [])):
                    place = np.array([x, y, 0])
                    d = _capsule(eye, rays, R @ np.array(a) + place, R @ np.array(b) + place, radius)
                    who[d < depth] = k
                    depth = np.minimum(depth, d)
        rng = np.random.default_rng(seed)
        depth = depth + rng.normal(0, noise_m, depth.shape) * np.where(np.isfinite(depth), depth / 2, 0) ** 2
        depth = np.where(np.isfinite(depth) & (depth < 8), np.round(depth, 3), 0).astype(np.float32)
        return Frame(depth, CAMERA, T, **frame), who  # pyright: ignore[reportArgumentType]


def _nearer(depth: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((other > 0) & (other < depth), other, depth)


def _box(
    eye: NDArray[np.float64], rays: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.float64]:
    a, b = (low - eye) / rays, (high - eye) / rays
    near, far = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
    return np.where((near < far) & (near > 0), near, np.inf)


def _sphere(
    eye: NDArray[np.float64], rays: NDArray[np.float64], centre: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    o = eye - centre
    a, b, c = (rays * rays).sum(-1), rays @ o, o @ o - radius * radius
    root = b * b - a * c
    return np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)


def _capsule(
    eye: NDArray[np.float64], rays: NDArray[np.float64], p: NDArray[np.float64], q: NDArray[np.float64], radius: float
) -> NDArray[np.float64]:
    depth = np.minimum(_sphere(eye, rays, p, radius), _sphere(eye, rays, q, radius))
    axis = q - p
    length = float(np.linalg.norm(axis))
    if length == 0:
        return depth
    axis = axis / length
    o = eye - p
    d_along, o_along = rays @ axis, float(o @ axis)
    d, o = rays - d_along[..., None] * axis, o - o_along * axis
    a, b, c = (d * d).sum(-1), d @ o, o @ o - radius * radius
    root = b * b - a * c
    t = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    along = o_along + t * d_along
    return np.minimum(depth, np.where((along > 0) & (along < length), t, np.inf))
