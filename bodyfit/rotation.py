"""Rotations as arrays: axis-angle (..., 3) in radians and matrices (..., 3, 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def matrix_from_axis_angle(axis_angle: NDArray[Any]) -> NDArray[np.float64]:
    """Rodrigues' formula: (..., 3) radians to (..., 3, 3)."""
    a = np.asarray(axis_angle, dtype=np.float64)
    angle2 = (a * a).sum(-1)
    angle = np.sqrt(angle2)
    small = angle2 < 1e-16
    safe = np.where(small, 1.0, angle)
    s = np.where(small, 1.0, np.sin(safe) / safe)
    c = np.where(small, 0.5, (1.0 - np.cos(safe)) / (safe * safe))
    K = np.zeros((*a.shape, 3))
    K[..., 0, 1], K[..., 0, 2], K[..., 1, 2] = -a[..., 2], a[..., 1], -a[..., 0]
    K[..., 1, 0], K[..., 2, 0], K[..., 2, 1] = a[..., 2], -a[..., 1], a[..., 0]
    return np.eye(3) + s[..., None, None] * K + c[..., None, None] * (K @ K)


def axis_angle_from_matrix(matrix: NDArray[Any]) -> NDArray[np.float64]:
    """(..., 3, 3) to (..., 3) radians, angle in [0, π]; by way of the quaternion's largest component."""
    R = np.asarray(matrix, dtype=np.float64)
    t = np.stack([
        1 + R[..., 0, 0] + R[..., 1, 1] + R[..., 2, 2],
        1 + R[..., 0, 0] - R[..., 1, 1] - R[..., 2, 2],
        1 - R[..., 0, 0] + R[..., 1, 1] - R[..., 2, 2],
        1 - R[..., 0, 0] - R[..., 1, 1] + R[..., 2, 2],
    ], -1)  # fmt: skip
    wx, wy, wz = R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]
    xy, xz, yz = R[..., 1, 0] + R[..., 0, 1], R[..., 0, 2] + R[..., 2, 0], R[..., 2, 1] + R[..., 1, 2]
    rows = np.stack([
        np.stack([t[..., 0], wx, wy, wz], -1),
        np.stack([wx, t[..., 1], xy, xz], -1),
        np.stack([wy, xy, t[..., 2], yz], -1),
        np.stack([wz, xz, yz, t[..., 3]], -1),
    ], -2)  # fmt: skip
    q = np.take_along_axis(rows, t.argmax(-1)[..., None, None], -2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    q = np.where(q[..., :1] < 0, -q, q)
    sin_half = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sin_half, q[..., :1])
    scale = np.where(sin_half > 1e-12, angle / np.where(sin_half > 1e-12, sin_half, 1.0), 2.0)
    return q[..., 1:] * scale


def nearest_rotation(matrix: NDArray[Any]) -> NDArray[np.float64]:
    """The rotation nearest to (..., 3, 3), by singular values; keeps products from drifting off SO(3)."""
    U, _, Vt = np.linalg.svd(np.asarray(matrix, dtype=np.float64))
    det = np.linalg.det(U @ Vt)
    U = U.copy()
    U[..., :, 2] *= det[..., None]
    return U @ Vt
