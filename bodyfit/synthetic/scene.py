"""A room to stand in: floor, walls, boxes, a desk; and where a camera stands in it. World z is up, metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.render.rasterize import rasterize

_BOX = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_BOX_FACES = np.array(
    [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4],
     [1, 5, 7], [1, 7, 3]], np.int32,
)  # fmt: skip


@dataclass(frozen=True)
class Plane:
    """n · x + d = 0 with a unit normal n (3,) towards the room; rgb 0 to 255."""

    normal: tuple[float, float, float]
    d: float
    rgb: tuple[int, int, int]


@dataclass(frozen=True)
class Box:
    """A cuboid: centre and size (3,) metres, turned by yaw radians about the vertical."""

    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float
    rgb: tuple[int, int, int]

    def vertices(self) -> NDArray[np.float64]:
        """(8, 3) world corners."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return (_BOX * self.size) @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]]) + self.centre


@dataclass(frozen=True)
class Scene:
    """What stands about besides the person."""

    planes: tuple[Plane, ...] = ()
    boxes: tuple[Box, ...] = ()

    def mesh(self) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """The boxes as one mesh: (8B, 3) and (12B, 3)."""
        if not self.boxes:
            return np.zeros((0, 3)), np.zeros((0, 3), np.int32)
        vertices = np.concatenate([b.vertices() for b in self.boxes])
        return vertices, np.concatenate([_BOX_FACES + 8 * i for i in range(len(self.boxes))]).astype(np.int32)

    def view(self, camera: Camera, T_world_cam: NDArray[np.float64]) -> SceneView:
        """What an empty room shows a camera."""
        x = ((np.arange(camera.width) - camera.cx) / camera.fx).astype(np.float32)[None, :]
        y = ((np.arange(camera.height) - camera.cy) / camera.fy).astype(np.float32)[:, None]
        R, t = T_world_cam[:3, :3], T_world_cam[:3, 3]
        inverse = np.zeros((camera.height, camera.width), np.float32)  # 1/z is linear in the image on a plane
        slope = np.ones_like(inverse)
        surface = np.full(inverse.shape, -1, np.int16)
        for i, plane in enumerate(self.planes):
            n = R.T @ np.asarray(plane.normal)
            ahead = float(np.dot(plane.normal, t) + plane.d)
            if ahead <= 0:
                continue  # the camera stands behind it
            down = np.float32(-n[0]) * x + np.float32(-n[1]) * y + np.float32(-n[2])
            nearer = down > inverse * np.float32(ahead)
            inverse[nearer] = down[nearer] / np.float32(ahead)
            slope[nearer] = down[nearer]
            surface[nearer] = i
        length = np.sqrt(x * x + y * y + np.float32(1))
        depth = np.where(inverse > 1e-3, 1 / np.maximum(inverse, np.float32(1e-3)), np.float32(0))
        facing = slope / length
        vertices, faces = self.mesh()
        if len(faces):
            cam = (vertices - t) @ R
            raster = rasterize(cam, faces, camera)
            hit = (raster.face >= 0) & ((depth == 0) | (raster.depth < depth))
            at = raster.face[hit]
            a, b, c = (cam[faces[:, k]] for k in range(3))
            normal = np.cross(b - a, c - a)
            normal /= np.linalg.norm(normal, axis=1, keepdims=True)
            rows, cols = np.nonzero(hit)
            ray = np.stack([x[0, cols], y[rows, 0], np.ones(len(rows), np.float32)], 1)
            depth[hit] = raster.depth[hit]
            facing[hit] = np.abs((normal[at] * ray).sum(1)) / length[hit]
            surface[hit] = len(self.planes) + at // 12
        return SceneView(depth, np.minimum(facing, np.float32(1)), surface)

    def paint(self, view: SceneView) -> NDArray[np.float32]:
        """(H, W, 3) linear colours 0 to 1 of what a view shows; open space is dark."""
        palette = [*(p.rgb for p in self.planes), *(b.rgb for b in self.boxes), (20, 20, 24)]
        return ((np.array(palette) / 255) ** 2.2).astype(np.float32)[view.surface]


@dataclass(frozen=True)
class SceneView:
    """An empty room in a camera.

    Attributes:
        depth: (H, W) metres, 0 = open.
        facing: (H, W) cosine between the surface's normal and the ray.
        surface: (H, W) number of the plane, then of the box; -1 = open.
    """

    depth: NDArray[np.float32]
    facing: NDArray[np.float32]
    surface: NDArray[np.int16]


def room(
    rng: np.random.Generator,
    camera_place: NDArray[np.float64],
    *,
    boxes: int | None = None,
    occluder: bool = False,
    clear_m: float = 0.0,
    side_wall: bool = True,
) -> Scene:
    """Floor and wall behind a person at the origin as seen from a camera at (3,); boxes and a desk to the sides.

    Args:
        boxes: how many (a desk counts as one); None draws 0 to 2.
        occluder: put a counter between camera and person, which hides the legs.
        clear_m: walls and furniture are so much further away, for a person who walks about.
        side_wall: in half of the rooms there is a wall to the side; False: in none.
    """
    away = -camera_place[:2] / np.linalg.norm(camera_place[:2])
    side = np.array([-away[1], away[0]])
    grey = rng.uniform(0.8, 1.0)
    floor_rgb = _tint(rng, 150 * grey)
    planes = [Plane((0.0, 0.0, 1.0), 0.0, floor_rgb), _wall(away, clear_m + rng.uniform(0.7, 1.8), rng, 190 * grey)]
    if rng.random() < 0.5 and side_wall:
        planes.append(_wall(side * rng.choice([-1.0, 1.0]), clear_m + rng.uniform(1.5, 2.4), rng, 180 * grey))
    count = int(rng.integers(0, 3)) if boxes is None else boxes
    things: list[Box] = []
    sign = rng.choice([-1.0, 1.0])
    for _ in range(count):
        place = side * sign * (clear_m + rng.uniform(1.0, 1.5)) + away * rng.uniform(-0.3, 0.6)
        sign = -sign
        yaw = float(rng.uniform(0, np.pi))
        if rng.random() < 0.3:
            things += _table(place, 0.72, (0.5, 0.7), float(np.arctan2(away[1], away[0])), _tint(rng, 140))
        else:
            size = rng.uniform(0.25, 0.55, 3)
            things.append(Box((*place, size[2] / 2), tuple(size), yaw, _tint(rng, 150)))
    if occluder:
        # a counter: under a table the legs would show again
        x, y = -away * rng.uniform(0.55, 0.8)
        height = float(rng.uniform(0.68, 0.78))
        size = (0.5, 1.4, height)
        things.append(Box((x, y, height / 2), size, float(np.arctan2(away[1], away[0])), _tint(rng, 140)))
    return Scene(tuple(planes), tuple(things))


def place_camera(
    rng: np.random.Generator,
    *,
    azimuth: float | None = None,
    distance: tuple[float, float] = (2.1, 2.9),
    height: tuple[float, float] = (0.9, 1.6),
) -> NDArray[np.float64]:
    """(4, 4) T_world_cam of a camera that looks at a person at the origin, a little off and a little tilted."""
    a = rng.uniform(-np.pi, np.pi) if azimuth is None else azimuth
    r, h = rng.uniform(*distance), rng.uniform(*height)
    place = np.array([r * np.cos(a), r * np.sin(a), h])
    target = np.array([0.0, 0.0, 0.93]) + rng.normal(0, 0.04, 3)
    forward = (target - place) / np.linalg.norm(target - place)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    roll = rng.normal(0, np.radians(1.5))
    R = np.stack([np.cos(roll) * right + np.sin(roll) * down, np.cos(roll) * down - np.sin(roll) * right, forward], 1)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, place
    return T


def _wall(towards: NDArray[np.float64], distance: float, rng: np.random.Generator, grey: float) -> Plane:
    """A wall at a distance from the origin in a horizontal direction, some degrees askew."""
    angle = np.arctan2(towards[1], towards[0]) + rng.normal(0, np.radians(4))
    return Plane((-float(np.cos(angle)), -float(np.sin(angle)), 0.0), distance, _tint(rng, grey))


def _table(
    place: NDArray[np.float64], height: float, size: tuple[float, float], yaw: float, rgb: tuple[int, int, int]
) -> list[Box]:
    """A table top and four legs."""
    c, s = np.cos(yaw), np.sin(yaw)
    top = Box((place[0], place[1], height - 0.015), (size[0], size[1], 0.03), yaw, rgb)
    legs = []
    for dx in (-1, 1):
        for dy in (-1, 1):
            x, y = dx * (size[0] / 2 - 0.04), dy * (size[1] / 2 - 0.04)
            at = (place[0] + c * x - s * y, place[1] + s * x + c * y, (height - 0.03) / 2)
            legs.append(Box(at, (0.05, 0.05, height - 0.03), yaw, rgb))
    return [top, *legs]


def _tint(rng: np.random.Generator, grey: float) -> tuple[int, int, int]:
    r, g, b = np.clip(grey + rng.normal(0, 12, 3), 20, 250)
    return int(r), int(g), int(b)
