"""The pose that carries one unposed body onto another mesh of the same vertices: what remains is the error of shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.errors import InputError
from bodyfit.rotation import matrix_from_axis_angle, nearest_rotation

MAX_STEPS = 200
RELATIVE_GAIN = 1e-7


def posed_onto(model: BodyModel, rest: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    """Vertices (V, 3) of `rest` (V, 3), skinned by the rotations of all joints and one translation nearest to `target`.

    Least squares over vertices by Levenberg-Marquardt on the analytic Jacobian; SMPL's skinning (Loper et al. 2015)
    without pose-dependent corrections. Starts at the best rigid motion. Metres.

    Raises:
        InputError: rest and target are not both (V, 3).
    """
    v, y = np.asarray(rest, np.float64), np.asarray(target, np.float64)
    if v.shape != (model.num_vertices, 3) or y.shape != v.shape:
        raise InputError("vertices", f"two meshes of shape ({model.num_vertices}, 3)", f"{v.shape} and {y.shape}")
    joints = model.J_regressor.astype(np.float64) @ v
    weights = model.lbs_weights.astype(np.float64).T
    R = np.broadcast_to(np.eye(3), (model.num_joints, 3, 3)).copy()
    a, b = v - v.mean(0), y - y.mean(0)
    R[0] = nearest_rotation(b.T @ a)
    t = y.mean(0) - joints[0] - R[0] @ (v.mean(0) - joints[0])
    posed, parts = _skin(v, joints, weights, model.parents, R, t)
    cost, damping = float(((posed - y) ** 2).sum()), 1e-4
    for _ in range(MAX_STEPS):
        jacobian = _jacobian(parts, weights, model.parents)
        normal = (jacobian @ jacobian.T).astype(np.float64)
        gradient = (jacobian @ (posed - y).astype(np.float32).reshape(-1)).astype(np.float64)
        gained = 0.0
        while damping < 1e8:
            # the added constant keeps joints that move nothing where they are
            step = -np.linalg.solve(normal + np.diag(damping * np.diag(normal) + 1e-9), gradient)
            turn = matrix_from_axis_angle(step[:-3].reshape(-1, 3))
            tried = _skin(v, joints, weights, model.parents, R @ turn, t + step[-3:])
            cost_tried = float(((tried[0] - y) ** 2).sum())
            if cost_tried < cost:
                gained, cost = cost - cost_tried, cost_tried
                R, t, (posed, parts) = nearest_rotation(R @ turn), t + step[-3:], tried
                damping *= 0.2
                break
            damping *= 5.0
        if gained <= RELATIVE_GAIN * cost:
            break
    return posed


_Parts = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _skin(
    v: NDArray[np.float64],
    joints: NDArray[np.float64],
    weights: NDArray[np.float64],
    parents: NDArray[np.int32],
    R: NDArray[np.float64],
    t: NDArray[np.float64],
) -> tuple[NDArray[np.float64], _Parts]:
    """Vertices (V, 3), and per joint its rotation, its place, and the vertices as it carries them (J, V, 3)."""
    G, place = np.empty_like(R), np.empty_like(joints)
    for k, p in enumerate(parents):
        G[k] = R[k] if p < 0 else G[p] @ R[k]
        place[k] = joints[k] + t if p < 0 else place[p] + G[p] @ (joints[k] - joints[p])
    carried = (v - joints[:, None]) @ G.transpose(0, 2, 1) + place[:, None]
    return np.einsum("kv,kvc->vc", weights, carried), (G, place, carried)


def _jacobian(parts: _Parts, weights: NDArray[np.float64], parents: NDArray[np.int32]) -> NDArray[np.float32]:
    """(3J + 3, 3V): the vertices by right-hand turns of the joints, R · exp(δ), and by the translation."""
    G, place, carried = parts
    moved, share = weights[..., None] * carried, weights.copy()
    for k in range(len(parents) - 1, 0, -1):  # a joint carries all that hangs on it; parents come before children
        moved[parents[k]] += moved[k]
        share[parents[k]] += share[k]
    arms = moved - share[..., None] * place[:, None]
    J, V = share.shape
    # float32 is a third of the time and only decides where a step goes, not whether it is taken
    arms, out = arms.astype(np.float32), np.zeros((3 * J + 3, V, 3), np.float32)
    for k in range(J):
        for c in range(3):
            x, y, z = G[k][:, c]
            # the cross product with one vector, as a matrix
            np.matmul(arms[k], np.array([[0, z, -y], [-z, 0, x], [y, -x, 0]], np.float32), out=out[3 * k + c])
    out[-3:] = np.eye(3)[:, None]
    return out.reshape(3 * J + 3, -1)
