"""2-D keypoints as evidence: where the body's joints appear in the image, by a detector that looked at it.

Names are SMPL's joints or COCO's, whose shoulders to ankles mean the same joints; COCO's nose, eyes and ears are left
out, since the skeleton has no joint there. A detector is a few centimetres off and sometimes takes left for right, so
the residual is in pixels with a sigma to match and a Geman-McClure robustifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.skeleton import SMPL_JOINTS
from bodyfit.kernels.body import joint_motions

if TYPE_CHECKING:
    from bodyfit.fit.mesh import Mesh
    from bodyfit.observe.observation import Observation

NEAR_M = 0.05
"""a joint nearer to the image plane than this has no pixel"""


@dataclass(frozen=True)
class JointTargets:
    """One view's keypoints: names (N,), xy (N, 2) pixels, confidence (N,) in the image of a pinhole camera.

    Attributes:
        intrinsics: fx, fy, cx, cy of that image, pixels.
        R_iw, t_iw: world to image camera.
        px_per_m: pixels that a metre across covers at the person's distance.
    """

    names: tuple[str, ...]
    xy: NDArray[np.float64]
    confidence: NDArray[np.float64]
    intrinsics: tuple[float, float, float, float]
    R_iw: NDArray[np.float64]
    t_iw: NDArray[np.float64]
    px_per_m: float


def joint_targets(observation: Observation, distance_m: float) -> JointTargets | None:
    """The observation's keypoints that name a joint, in the colour camera where there is one; None without any."""
    points = observation.keypoints
    if points is None:
        return None
    use = [i for i, name in enumerate(points.names) if name in SMPL_JOINTS and points.confidence[i] > 0]
    if not use:
        return None
    T_world_depth = observation.T_world_depth
    T_image_depth, camera = np.eye(4), observation.camera
    if observation.color_camera is not None and observation.T_color_depth is not None:
        T_image_depth, camera = np.asarray(observation.T_color_depth, np.float64), observation.color_camera
    R_dw = T_world_depth[:3, :3].T
    R_iw = np.ascontiguousarray(T_image_depth[:3, :3] @ R_dw)
    return JointTargets(
        tuple(points.names[i] for i in use),
        np.asarray(points.xy[use], np.float64),
        np.asarray(points.confidence[use], np.float64),
        (camera.fx, camera.fy, camera.cx, camera.cy),
        R_iw,
        T_image_depth[:3, 3] - R_iw @ T_world_depth[:3, 3],
        0.5 * (camera.fx + camera.fy) / max(distance_m, NEAR_M),
    )


@lru_cache(maxsize=4)
def _ways(parents: tuple[int, ...]) -> NDArray[np.bool_]:
    """(J, J): whether the way from the root to the row's joint, itself included, leads over the column's."""
    way = np.eye(len(parents), dtype=bool)
    for j, p in enumerate(parents):
        if p >= 0:
            way[j] |= way[p]
    return way


def joint_places(
    mesh: Mesh,
    rotations: NDArray[np.float64],
    transl: NDArray[np.float64],
    shape: NDArray[np.float64],
    R_iw: NDArray[np.float64],
    t_iw: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Posed joints (J, 3) in a camera, metres, and their Jacobian (J, 3, 3J + 3 + S), parameters as in `kernels`:
    a rotation δ of each joint (R ← R·exp δ), the translation, the shape."""
    J, S = len(mesh.parents), len(shape)
    rest = mesh.joint_template + mesh.jointdirs @ shape
    G, posed = np.empty((J, 3, 3)), np.empty((J, 3))
    joint_motions(rotations, rest, mesh.parents, R_iw, t_iw, transl, G, posed)
    D = np.empty((J, 3, 3 * J + 3 + S))
    way = _ways(tuple(mesh.parents.tolist()))
    # turning joint k about its own axis a moves joint j, if it hangs on k, by a × (the way from k to j)
    turns = np.cross(np.swapaxes(G, 1, 2)[None], (posed[:, None] - posed[None])[:, :, None])
    turns *= (way & ~np.eye(J, dtype=bool))[:, :, None, None]
    D[:, :, : 3 * J] = turns.transpose(0, 3, 1, 2).reshape(J, 3, 3 * J)
    D[:, :, 3 * J : 3 * J + 3] = R_iw
    root = mesh.parents < 0
    steps = np.where(root[:, None, None], R_iw, G[mesh.parents]) @ (
        mesh.jointdirs - np.where(root[:, None, None], 0.0, mesh.jointdirs[mesh.parents])
    )
    D[:, :, 3 * J + 3 :] = (way.astype(np.float64) @ steps.reshape(J, -1)).reshape(J, 3, S)
    return posed, D


def keypoint_residual(
    targets: JointTargets, places: NDArray[np.float64], jacobian: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels (N, 2) from the keypoints to their joints' places (N, 3) in the image camera, and d/dparameters
    (N, 2, P) from d places (N, 3, P)."""
    fx, fy, cx, cy = targets.intrinsics
    z = places[:, 2:]
    across = places[:, :2] / z
    residual = across * (fx, fy) + (cx, cy) - targets.xy
    by_place = (jacobian[:, :2] - across[:, :, None] * jacobian[:, 2:3]) / z[:, :, None]
    return residual, by_place * np.array([fx, fy])[:, None]


def keypoint_terms(
    targets: JointTargets,
    mesh: Mesh,
    rotations: NDArray[np.float64],
    transl: NDArray[np.float64],
    shape: NDArray[np.float64],
    sigma_px: float,
    robust_px: float,
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Cost, gradient (P,) and Gauss-Newton matrix (P, P) of one view's keypoints, each weighted by its confidence.

    Cost of one: ½ c·r²/σ² · s²/(s² + r²) with the distance r and s = robust_px (Geman and McClure 1987).
    """
    places, D = joint_places(mesh, rotations, transl, shape, targets.R_iw, targets.t_iw)
    index = [mesh.joint_names.index(name) if name in mesh.joint_names else -1 for name in targets.names]
    use = np.array([i for i, j in enumerate(index) if j >= 0 and places[j, 2] > NEAR_M], dtype=np.int64)
    n_params = D.shape[2]
    if not len(use):
        return 0.0, np.zeros(n_params), np.zeros((n_params, n_params))
    joints = np.array(index)[use]
    few = JointTargets(
        tuple(targets.names[i] for i in use), targets.xy[use], targets.confidence[use], targets.intrinsics,
        targets.R_iw, targets.t_iw, targets.px_per_m,
    )  # fmt: skip
    residual, by_parameter = keypoint_residual(few, places[joints], D[joints])
    square = (residual**2).sum(1)
    keep = robust_px**2 / (robust_px**2 + square)
    cost = 0.5 * float((few.confidence * square * keep).sum()) / sigma_px**2
    scale = np.sqrt(few.confidence) * keep / sigma_px
    rows = (by_parameter * scale[:, None, None]).reshape(-1, n_params)
    r = (residual * scale[:, None]).ravel()
    return cost, rows.T @ r, rows.T @ rows
