"""A body drawn without noise into a depth camera, as an observation: what a fit sees of it is known exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.body.skeleton import SMPL_JOINTS
from bodyfit.camera import Camera
from bodyfit.frame import Keypoints
from bodyfit.observe.observation import Observation
from bodyfit.render.rasterize import rasterize
from bodyfit.rotation import matrix_from_axis_angle
from bodyfit.synthetic.poses import everyday_pose

CAMERA = Camera(256, 212, 182.0, 182.0, 127.5, 105.5)
WALL_M = 4.0


def camera_pose() -> NDArray[np.float64]:
    """(4, 4) T_world_depth of a sensor 1 m above the floor that looks along the world's y."""
    T = np.eye(4)
    T[:3, :3] = np.array([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]])
    T[:3, 3] = (0.0, 0.0, 1.0)
    return T


def standing(model: BodyModel, name: str, seed: int = 0, heading_deg: float = 0.0) -> NDArray[np.float64]:
    """(J, 3) an everyday pose facing the sensor of `camera_pose`, turned to the left by `heading_deg`."""
    pose = everyday_pose(name, np.random.default_rng(seed), yaw=np.radians(-90 + heading_deg), jitter_deg=3.0)
    out = np.zeros((model.num_joints, 3))
    for i, joint in enumerate(model.joint_names):
        if joint in SMPL_JOINTS:
            out[i] = pose[SMPL_JOINTS.index(joint)]
    return out


def on_the_floor(
    model: BodyModel, betas: NDArray[Any], pose: NDArray[np.float64], away_m: float = 2.4
) -> NDArray[np.float64]:
    """(3,) the translation that puts the body's lowest point on the floor z = 0, before the sensor."""
    vertices, joints = model.forward(betas, pose, np.zeros(3))
    return np.array([-joints[0, 0], away_m - joints[0, 1], -vertices[:, 2].min()])


def seen(
    model: BodyModel,
    betas: NDArray[Any],
    pose: NDArray[np.float64],
    transl: NDArray[np.float64],
    *,
    camera: Camera = CAMERA,
    keypoints: Keypoints | None = None,
    floor: bool = True,
) -> Observation:
    """The body before a wall, every pixel with a reading."""
    T = camera_pose()
    vertices, _ = model.forward(betas, pose, transl)
    raster = rasterize((vertices - T[:3, 3]) @ T[:3, :3], model.faces, camera)
    drawn = raster.face >= 0
    return Observation(
        depth=np.where(drawn, raster.depth, np.float32(WALL_M)),
        label=drawn.astype(np.uint8),
        camera=camera,
        T_world_depth=T,
        up_world=np.array([0.0, 0, 1]),
        floor_height_m=0.0 if floor else None,
        floor_plane_world=np.array([0.0, 0, 1, 0]) if floor else None,
        cut_off=frozenset(),
        mask_given=True,
        dropped_px=0,
        keypoints=keypoints,
        color=None,
        color_camera=None,
        T_color_depth=None,
        sensor="sensor",
        index=0,
        timestamp_s=0.0,
    )


def project(points_world: NDArray[Any], camera: Camera = CAMERA) -> NDArray[np.float64]:
    """(N, 2) pixels of points (N, 3)."""
    T = camera_pose()
    return np.asarray(camera.project((points_world - T[:3, 3]) @ T[:3, :3]), np.float64)


def turned(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """(J, 3, 3) rotation matrices."""
    return matrix_from_axis_angle(pose)
