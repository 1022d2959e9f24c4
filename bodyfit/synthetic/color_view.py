"""What a colour camera makes of a textured person in a room: lamps, sky, a shadow at the feet, exposure, noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.kernels.body import vertex_normals
from bodyfit.kernels.paint import paint
from bodyfit.render.rasterize import rasterize
from bodyfit.synthetic.scene import Scene
from bodyfit.synthetic.sensor import SensorModel
from bodyfit.synthetic.texture import Texture

NOISE = 0.004
"""Standard deviation of a colour pixel's noise, linear light 0 to 1 (about 2 of 255 in the mid greys)."""


@dataclass(frozen=True)
class Light:
    """Lamps (L, 4): direction to each (unit, world) and its strength; ambient and sky light, linear."""

    lamps: NDArray[np.float32]
    ambient: float
    sky: float

    @staticmethod
    def drawn(rng: np.random.Generator, azimuth: float) -> Light:
        """One lamp above on the camera's side (its `azimuth`, radians), a weaker one elsewhere, and light all round."""
        lamps = []
        for strength, spread in ((rng.uniform(0.35, 0.55), 0.9), (rng.uniform(0.05, 0.2), 2.5)):
            a, up = azimuth + rng.uniform(-spread, spread), rng.uniform(0.5, 1.1)
            lamps.append((np.cos(a) * np.cos(up), np.sin(a) * np.cos(up), np.sin(up), strength))
        return Light(np.array(lamps, np.float32), float(rng.uniform(0.2, 0.3)), float(rng.uniform(0.25, 0.4)))

    def on(self, normals: NDArray[np.floating]) -> NDArray[np.float32]:
        """Light (...,) on surfaces of the given unit normals (..., 3)."""
        out = self.ambient + self.sky * 0.5 * (1 + normals[..., 2])
        for lamp in self.lamps:
            out = out + lamp[3] * np.maximum(normals @ lamp[:3], 0)
        return out.astype(np.float32)


@dataclass(frozen=True)
class Exposure:
    """How a camera's automatic exposure and white balance wander: a gain per channel at each time.

    Attributes:
        gain, balance: standard deviations of the logarithm of brightness and of each channel.
        phases: (4, 3) radians of three waves of 1.3 to 7 s for brightness and the three channels.
    """

    gain: float
    balance: float
    phases: NDArray[np.float64]

    @staticmethod
    def drawn(rng: np.random.Generator, gain: float = 0.12, balance: float = 0.02) -> Exposure:
        """Waves with phases by chance."""
        return Exposure(gain, balance, rng.uniform(0, 2 * np.pi, (4, 3)))

    def at(self, time_s: float) -> NDArray[np.float32]:
        """(3,) gains."""
        waves = np.sin(2 * np.pi * time_s / np.array([1.3, 2.9, 7.1]) + self.phases).sum(1) / np.sqrt(1.5)
        return np.exp(self.gain * waves[0] + self.balance * waves[1:]).astype(np.float32)


class ColorView:
    """A colour camera in its place; what it sees of the empty room is worked out once."""

    def __init__(
        self, sensor: SensorModel, T_world_depth: NDArray[np.float64], scene: Scene, light: Light, stride: int
    ) -> None:
        import cv2

        self.camera = sensor.color_camera.every(stride)
        self.T_world_color = T_world_depth @ np.linalg.inv(sensor.T_color_depth)
        # drawn at twice the resolution where there is any, so that edges are smooth
        self.fine = 2 if stride % 2 == 0 else 1
        self.fine_camera: Camera = sensor.color_camera.every(stride // self.fine)
        self.light = light
        view = scene.view(self.fine_camera, self.T_world_color)
        self.room_depth = view.depth
        self.room = (scene.paint(view) * (0.35 + 0.5 * view.facing[..., None])).astype(np.float32)
        points = self.fine_camera.backproject(view.depth) @ self.T_world_color[:3, :3].T + self.T_world_color[:3, 3]
        self.room_xy = points[..., :2].astype(np.float32)
        self.near_floor = np.exp(-((points[..., 2] / 0.05) ** 2)).astype(np.float32)
        self.near_floor[view.depth == 0] = 0
        blurred = cv2.GaussianBlur(self.room, (3, 3), 0) if self.fine == 2 else self.room
        self.small = np.ascontiguousarray(blurred[:: self.fine, :: self.fine])

    def shoot(
        self,
        surface_world: NDArray[np.float64],
        faces: NDArray[np.int32],
        texture: Texture,
        gain: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> NDArray[np.uint8]:
        """(Hc, Wc, 3) sRGB of a surface (V, 3) in the room."""
        import cv2

        camera, T, fine = self.fine_camera, self.T_world_color, self.fine
        cam = np.ascontiguousarray((surface_world - T[:3, 3]) @ T[:3, :3], np.float32)
        raster = rasterize(cam, faces, camera)
        shown = (raster.face >= 0) & ((self.room_depth == 0) | (raster.depth < self.room_depth))
        r0, r1, c0, c1 = self._window(cam, surface_world)
        image = self.small.copy()
        if r0 < r1 and c0 < c1:
            part = self.room[r0:r1, c0:c1].copy()
            low = surface_world[:, 2]
            feet = surface_world[low < low.min() + 0.1].mean(0)[:2].astype(np.float32)
            apart = ((self.room_xy[r0:r1, c0:c1] - feet) ** 2).sum(-1)
            height = np.float32(np.exp(-max(float(low.min()), 0.0) / 0.15))  # in the air the shadow pales
            shadow = np.exp(apart * np.float32(-1 / (2 * 0.22**2))) * self.near_floor[r0:r1, c0:c1] * height
            part *= (1 - np.float32(0.55) * shadow)[..., None]
            normals = np.empty_like(cam)
            vertex_normals(np.ascontiguousarray(surface_world - surface_world.mean(0), np.float32), faces, normals)
            fx, fy, cx, cy = (np.float32(x) for x in (camera.fx, camera.fy, camera.cx, camera.cy))
            ambient, sky = np.float32(self.light.ambient), np.float32(self.light.sky)
            paint(
                cam, normals, faces, raster.face, shown, texture.albedo, texture.side, self.light.lamps, ambient, sky,
                fx, fy, cx, cy, r0, c0, part,
            )  # fmt: skip
            if fine == 2:
                part = cv2.GaussianBlur(part, (3, 3), 0)
                inner = part[::2, ::2]
            else:
                inner = part
            image[r0 // fine : r0 // fine + inner.shape[0], c0 // fine : c0 // fine + inner.shape[1]] = inner
        image *= gain
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image += noise * np.float32(NOISE)
        np.clip(image, 0, 1, out=image)
        return _SRGB[np.rint(image * np.float32(len(_SRGB) - 1)).astype(np.int32)]

    def _window(self, cam: NDArray[np.float32], world: NDArray[np.float64]) -> tuple[int, int, int, int]:
        """Rows and columns of the fine image that the person and their shadow may be in, even numbers."""
        low = world[:, 2]
        feet = world[low < low.min() + 0.1].mean(0)
        ring = np.array([[x, y, -feet[2]] for x in (-0.6, 0.6) for y in (-0.6, 0.6)]) + feet
        T = self.T_world_color
        points = np.concatenate([cam[::3], (ring - T[:3, 3]) @ T[:3, :3]])
        uv = self.fine_camera.project(points)
        uv = uv[np.isfinite(uv).all(1)]
        if not len(uv):
            return 0, 0, 0, 0
        width, height = self.fine_camera.width, self.fine_camera.height
        (c0, r0), (c1, r1) = np.floor(uv.min(0)) - 8, np.ceil(uv.max(0)) + 8
        edges = np.clip([r0, r1, c0, c1], 0, [height, height, width, width]).astype(int)
        return int(edges[0] // 2 * 2), int(edges[1]), int(edges[2] // 2 * 2), int(edges[3])


_SRGB = np.round(np.linspace(0, 1, 8192) ** (1 / 2.2) * 255).astype(np.uint8)
