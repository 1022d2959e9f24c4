"""The camera of a rendered image: intrinsics and pose as tensors, so that gradients reach them.

Axes are OpenCV's (x right, y down, z forward) and pixel (0, 0) is centred at (0, 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from bodyfit.camera import MAX_SIDE_PX, Camera
from bodyfit.errors import CameraError
from bodyfit.render.extra import Tensor, torch


@dataclass(frozen=True)
class RenderCamera:
    """A camera without skew or distortion.

    Args:
        width: pixels.
        height: pixels.
        intrinsics: (4,) or (B, 4): fx, fy, cx, cy. Perspective, in pixels: u = fx x / z + cx. Orthographic, fx and fy
            in pixels per metre: u = fx x + cx.
        T_cam_world: (4, 4) or (B, 4, 4), p_cam = T_cam_world p_world; the identity where none is given.
        projection: "perspective" or "orthographic".
        near_m: surface nearer than this is cut off; the cut is an edge like any other.

    Raises:
        CameraError: shapes or numbers that no camera has.
    """

    width: int
    height: int
    intrinsics: Tensor
    T_cam_world: Tensor | None = None
    projection: Literal["perspective", "orthographic"] = "perspective"
    near_m: float = 0.01

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            side = getattr(self, name)
            if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= MAX_SIDE_PX:
                raise CameraError(f"camera.{name}", f"a whole number of pixels from 1 to {MAX_SIDE_PX}", repr(side))
        if self.projection not in ("perspective", "orthographic"):
            raise CameraError("camera.projection", "perspective or orthographic", repr(self.projection))
        if not (math.isfinite(self.near_m) and self.near_m > 0):
            raise CameraError("camera.near_m", "a distance over 0 m", repr(self.near_m))
        K = self.intrinsics
        if not isinstance(K, torch.Tensor) or not K.is_floating_point() or K.ndim not in (1, 2) or K.shape[-1] != 4:
            raise CameraError("camera.intrinsics", "a float tensor (4,) or (B, 4): fx fy cx cy", _kind(K))
        T = self.T_cam_world
        if T is None:
            object.__setattr__(self, "T_cam_world", torch.eye(4, dtype=K.dtype, device=K.device))
        elif not isinstance(T, torch.Tensor) or not T.is_floating_point() or T.shape[-2:] != (4, 4) or T.ndim > 3:
            raise CameraError("camera.T_cam_world", "a float tensor (4, 4) or (B, 4, 4)", _kind(T))
        with torch.no_grad():
            numbers = K.detach()
            if not bool(torch.isfinite(numbers).all()) or not bool((numbers[..., :2] > 0).all()):
                raise CameraError("camera.intrinsics", "finite numbers with fx, fy > 0", str(numbers.tolist()))
            if T is not None and not bool(torch.isfinite(T).all()):
                raise CameraError("camera.T_cam_world", "finite numbers", "NaN or infinity")

    @property
    def pose(self) -> Tensor:
        """T_cam_world, (4, 4) or (B, 4, 4)."""
        assert self.T_cam_world is not None
        return self.T_cam_world

    @property
    def position(self) -> Tensor:
        """The camera's place in the world, (3,) or (B, 3) metres."""
        T = self.pose
        return -(T[..., :3, :3].transpose(-1, -2) @ T[..., :3, 3:])[..., 0]

    @staticmethod
    def from_camera(camera: Camera, T_cam_world: Any = None, *, dtype: Any = None, device: Any = None) -> RenderCamera:
        """The same pinhole camera for the renderer.

        Raises:
            CameraError: the camera has lens distortion: undistort the images and take `camera.pinhole`.
        """
        if not camera.distortion.is_none:
            raise CameraError("camera.distortion", "none (images undistorted)", camera.distortion.model)
        kind = torch.float32 if dtype is None else dtype
        intrinsics = torch.tensor([camera.fx, camera.fy, camera.cx, camera.cy], dtype=kind, device=device)
        pose = None if T_cam_world is None else torch.as_tensor(T_cam_world, dtype=kind, device=device)
        return RenderCamera(camera.width, camera.height, intrinsics, pose)

    @staticmethod
    def look_at(
        position: Any,
        target: Any,
        up: Any,
        *,
        width: int,
        height: int,
        vfov_deg: float,
        dtype: Any = None,
        device: Any = None,
    ) -> RenderCamera:
        """A camera at `position` that looks at `target`, both (3,) metres in the world, with `up` upwards.

        `vfov_deg` is the vertical field of view; pixels are square and the principal point is the image's middle.
        """
        kind = torch.float32 if dtype is None else dtype
        place, to, above = (torch.as_tensor(p, dtype=kind, device=device) for p in (position, target, up))
        forward = torch.nn.functional.normalize(to - place, dim=0)
        right = torch.nn.functional.normalize(torch.linalg.cross(forward, above), dim=0)
        if not bool(torch.isfinite(right).all()) or float(right.detach().norm()) < 0.5:
            raise CameraError("camera.up", "a direction across the line of sight", str(above.tolist()))
        rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
        last = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=kind, device=device)
        pose = torch.cat([torch.cat([rotation, -(rotation @ place)[:, None]], dim=1), last])
        focal = 0.5 * height / math.tan(math.radians(vfov_deg) / 2)
        intrinsics = torch.tensor([focal, focal, (width - 1) / 2, (height - 1) / 2], dtype=kind, device=device)
        return RenderCamera(width, height, intrinsics, pose)


def _kind(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
