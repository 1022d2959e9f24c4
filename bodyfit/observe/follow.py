"""Following a person from frame to frame: their pixels near where they are expected, in a few milliseconds.

`observe` looks at a frame without knowing anything, which takes fifty; once it has, the floor, the room behind the
person and the sensor's noise are known, and so is where the person was a moment ago.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.frame import Frame
from bodyfit.kernels import follow as K
from bodyfit.observe.bleed import JUMP_M, JUMP_SIGMAS, NOT_THEIRS
from bodyfit.observe.edges import ALIKE, JUMP, SLOPE_PX
from bodyfit.observe.noise import DepthNoise
from bodyfit.observe.observation import BACKGROUND, Observation
from bodyfit.observe.silhouette import FOOT_HEIGHT_M, SOLE_BAND_M, SOLE_HEIGHT_M

SEED_M = 0.10
"""a reading this near to the expected surface is the person's"""
REACH_M, DEEP_M = 0.30, 0.45
"""and what hangs together with it, no further than this beside the expected body and before or behind it"""
STEP_M, STEP_PX = 0.02, 3.0
"""neighbours hang together when they differ by less than both together (pixel widths of the grid)"""
NEARER_M = 0.10
"""what is this much nearer than the body may hide it"""
BEHIND_SHARE = 0.012
"""a reading this near (share of its depth) to the room seen without the person is the room's"""
ABOVE_FLOOR_M = 0.3
"""what stands out is counted from this height on: shadows and reflections lie on the floor"""
LEAST_READ = 0.2
"""a column of the image with less than this share of readings lies beyond the picture's border"""
MOVED_SHARE = 0.35
"""where more than this share of the room's readings changed, the sensor was moved and the old room says nothing"""
LEAST_FOOT_M, MOST_FOOT_M = 0.012, 0.03


@dataclass(frozen=True)
class Grid:
    """Every `stride`-th pixel of a box of the image: first row and column, and size (h, w)."""

    row0: int
    col0: int
    height: int
    width: int
    stride: int

    def intrinsics(self, camera: Camera) -> NDArray[np.float32]:
        """(4,) fx, fy, cx, cy of the grid."""
        s = self.stride
        return np.array(
            [camera.fx / s, camera.fy / s, (camera.cx - self.col0) / s, (camera.cy - self.row0) / s], np.float32
        )


def grid_around(points_cam: NDArray[np.float32], camera: Camera, stride: int, margin_m: float) -> Grid | None:
    """The grid over the image of some points (V, 3) with a margin; None where they are not in the picture."""
    z = points_cam[:, 2]
    ahead = z > 0.1
    if not ahead.any():
        return None
    w = 1.0 / z[ahead]
    u, v = camera.fx * points_cam[ahead, 0] * w + camera.cx, camera.fy * points_cam[ahead, 1] * w + camera.cy
    margin = margin_m * camera.fx * float(np.median(w))
    c0, c1 = max(0.0, float(u.min()) - margin), min(camera.width - 1.0, float(u.max()) + margin)
    r0, r1 = max(0.0, float(v.min()) - margin), min(camera.height - 1.0, float(v.max()) + margin)
    if c1 - c0 < 8 * stride or r1 - r0 < 8 * stride:
        return None
    # a whole number of strides, so that the same pixels are looked at in every frame
    row0, col0 = int(r0) // stride * stride, int(c0) // stride * stride
    return Grid(row0, col0, (int(r1) - row0) // stride + 1, (int(c1) - col0) // stride + 1, stride)


@dataclass
class FollowedView:
    """What a grid shows: depth (h, w) metres and label (h, w); the person's pixels, and others' before the body."""

    grid: Grid
    depth: NDArray[np.float32]
    label: NDArray[np.uint8]
    person: int
    before: int


@dataclass
class Follower:
    """What one sensor is known to look at, from an `Observation` of it."""

    camera: Camera
    noise: DepthNoise | None
    floor_plane_world: NDArray[np.float64] | None
    background: NDArray[np.float32]
    """(H, W) metres, the room without the person, 0 = unknown"""
    T_world_depth: NDArray[np.float64]
    rules: NDArray[np.float32] = field(repr=False)
    _queue: NDArray[np.int32] = field(default_factory=lambda: np.empty(1, np.int32), repr=False)

    def sees_its_room(self, frame: Frame) -> bool:
        """Whether a frame shows this sensor's usual room: False once the sensor was moved."""
        known = self.background[::16, ::16]
        now = frame.depth[::16, ::16]
        both = (known > 0) & (now > 0)
        if both.sum() < 50:
            return True
        changed = np.abs(now - known)[both] > 3 * BEHIND_SHARE * known[both]
        return bool(changed.mean() < MOVED_SHARE)

    def standing_out(self, frame: Frame) -> tuple[float, float, NDArray[np.float64]]:
        """What stands before the room and above the floor.

        Returns:
            Square metres, face on (0 where nobody can be); over how many metres the picture's left or right border cuts
            it; and points (N, 3) of it in the world.
        """
        k = 8
        z, room = frame.depth[::k, ::k], self.background[::k, ::k]
        nearer = 3 * BEHIND_SHARE * room
        if self.noise is not None:
            nearer = nearer + 3 * self.noise.inverse_sigma * room**2
        rows, cols = np.nonzero((z > 0) & (room > 0) & (z < room - nearer))
        d = z[rows, cols].astype(np.float64)
        c = self.camera
        points = np.stack([(cols * k - c.cx) / c.fx * d, (rows * k - c.cy) / c.fy * d, d], 1)
        T = frame.T_world_depth
        points = points @ T[:3, :3].T + T[:3, 3]
        if self.floor_plane_world is not None:
            above = points @ self.floor_plane_world[:3] + self.floor_plane_world[3] > ABOVE_FLOOR_M
            points, d, cols = points[above], d[above], cols[above]
        # some sensors have no readings along a border
        read = np.flatnonzero((z > 0).mean(0) > LEAST_READ)
        cut = np.isin(cols, read[[0, -1]]) if len(read) else np.zeros(len(cols), bool)
        return float(((d / (c.fx / k)) ** 2).sum()), float((d[cut] / (c.fy / k)).sum()), points

    def label(
        self,
        frame: Frame,
        grid: Grid,
        drawn: NDArray[np.float32],
        near_model: NDArray[np.int32],
        reach_m: float = REACH_M,
    ) -> FollowedView:
        """The person's pixels on a grid.

        Args:
            drawn: (h, w) metres, the expected body on the grid, 0 = none.
            near_model: (h, w) flat number of the nearest pixel that the body covers, -1 for none.
            reach_m: how far the person may have got from there.
        """
        from bodyfit.kernels.depthgrid import flying_pixels

        s = grid.stride
        r1, c1 = grid.row0 + (grid.height - 1) * s + 1, grid.col0 + (grid.width - 1) * s + 1
        # one more pixel all round where there is one, for the neighbours of the first and last
        box = frame.depth[grid.row0 : min(r1 + 1, self.camera.height), grid.col0 : min(c1 + 1, self.camera.width)]
        pitch = 2.0 / (self.camera.fx + self.camera.fy)
        flying = flying_pixels(np.ascontiguousarray(box), pitch, JUMP, SLOPE_PX, ALIKE)
        plane = np.zeros(4, np.float32)
        if self.floor_plane_world is not None:
            T = frame.T_world_depth
            n = self.floor_plane_world[:3]
            plane = np.array([*(T[:3, :3].T @ n), n @ T[:3, 3] + self.floor_plane_world[3]], np.float32)
        if len(self._queue) < grid.height * grid.width:
            self._queue = np.empty(grid.height * grid.width, np.int32)
        rules = self.rules.copy()
        rules[K.REACH], rules[K.SEED] = reach_m, max(SEED_M, 0.6 * reach_m) if reach_m > REACH_M else SEED_M
        depth, label = (
            np.empty((grid.height, grid.width), np.float32), np.empty((grid.height, grid.width), np.uint8),
        )  # fmt: skip
        mask = np.ones((1, 1), bool) if frame.mask is None else frame.mask
        still = np.array_equal(frame.T_world_depth, self.T_world_depth)
        room = self.background if still else np.zeros((1, 1), np.float32)
        fx, fy, cx, cy = grid.intrinsics(self.camera)
        person, before = K.follow_labels(
            np.ascontiguousarray(frame.depth), flying, grid.row0, grid.col0, s, drawn, near_model, fx, fy, cx, cy,
            plane, room, mask, rules, self._queue, depth, label,
        )  # fmt: skip
        return FollowedView(grid, depth, label, int(person), int(before))


def follower_of(observation: Observation) -> Follower:
    """What is known of a sensor once somebody was found in one of its frames."""
    noise = observation.noise
    room = np.where(observation.label == BACKGROUND, observation.depth, np.float32(0)).astype(np.float32)
    seen = observation.depth[observation.person]
    z = float(np.median(seen)) if len(seen) else 2.0
    sigma = noise.sigma(z) if noise is not None else 0.004
    rules = np.zeros(K.NUM_RULES, np.float32)
    rules[K.SEED], rules[K.REACH], rules[K.DEEP] = SEED_M, REACH_M, DEEP_M
    rules[K.STEP], rules[K.STEP_PX] = STEP_M + 2 * sigma, STEP_PX
    rules[K.FLOOR] = np.clip(2.5 * sigma, LEAST_FOOT_M, MOST_FOOT_M)
    rules[K.BEHIND] = BEHIND_SHARE + 3 * sigma / z
    rules[K.NEARER] = NEARER_M
    rules[K.SOLE], rules[K.SOLE_HEIGHT], rules[K.FOOT_HEIGHT] = SOLE_BAND_M, SOLE_HEIGHT_M, FOOT_HEIGHT_M
    if noise is not None and noise.stereo:
        rules[K.BLEED_PX], rules[K.SURE_PX] = noise.length_px, NOT_THEIRS * noise.length_px
        rules[K.JUMP], rules[K.JUMP_PER_Z2] = JUMP_M, JUMP_SIGMAS * noise.inverse_sigma
    return Follower(
        observation.camera, noise, observation.floor_plane_world, np.ascontiguousarray(room),
        observation.T_world_depth.copy(), rules,
    )  # fmt: skip
