"""Joint angles of many bodies at once, as torch computes them: the twin of `bodyfit.kernels.joint_angles`.

Everything is float64 and of fixed shape, and nothing is asked of the device: so the calls can be part of a CUDA graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.cuda_tensors import Tensors
from bodyfit.render.extra import Tensor, torch

SMALL_RAD = 1e-4
"""below this angle the Jacobian's last factor is its limit, as in `bodyfit.kernels.rotations`"""


def skew(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 3, 3) with skew(v) w = v × w, of v (..., 3)."""
    x, y, z = np.moveaxis(v, -1, 0)
    o = np.zeros_like(x)
    return np.stack([np.stack([o, -z, y], -1), np.stack([z, o, -x], -1), np.stack([-y, x, o], -1)], -2)


def _products_of_quaternion() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(9, 16) and (16,): the linear map from a rotation matrix, row by row, to 4·q qᵀ of its quaternion q."""
    M, c = np.zeros((9, 4, 4)), np.zeros((4, 4))
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    for i in range(4):
        c[i, i] = 1.0
        M[[0, 4, 8], i, i] = signs[i]
    for k, plus, minus in ((1, 7, 5), (2, 2, 6), (3, 3, 1)):
        M[plus, [0, k], [k, 0]], M[minus, [0, k], [k, 0]] = 1.0, -1.0
    for i, j, one, two in ((1, 2, 3, 1), (1, 3, 2, 6), (2, 3, 7, 5)):
        M[[one, two], i, j] = M[[one, two], j, i] = 1.0
    return M.reshape(9, 16), c.reshape(16)


def _tables(twist_axis: tuple[int, ...]) -> tuple[NDArray[np.float64], ...]:
    """What `JointAngles` needs on the device."""
    axis = np.zeros((len(twist_axis), 3))
    for j, a in enumerate(twist_axis):
        if a >= 0:
            axis[j, a] = 1.0
    K = skew(axis)
    # q ⊗ (0, -axis), and q's part along the axis, as matrices behind a row q
    untwist = np.zeros((len(axis), 4, 5))
    untwist[:, 1:, 0], untwist[:, 0, 1:4], untwist[:, 1:, 1:4] = axis, -axis, np.swapaxes(K, 1, 2)
    untwist[:, 1:, 4] = axis
    return (
        *_products_of_quaternion(), axis, 0.5 * axis[None], 2.0 * axis, axis.sum(1, keepdims=True), untwist, 2.0 * K,
        2.0 * K @ K, skew(np.eye(3)).reshape(3, 9), np.eye(3), np.array([1.0, 0.0]), np.ones(1), np.full(1, 0.5e-12),
        np.full(1, 1.0 / 12.0),
    )  # fmt: skip


class JointAngles:
    """The angles of V joints: axis-angle, or the swing and twist of those with a twist axis (V,); none: -1."""

    def __init__(self, twist_axis: tuple[int, ...], tensors: Tensors) -> None:
        self._twists = max(twist_axis) >= 0
        (
            self._products, self._offset, self._axis, self._half_axis, self._twice_axis, self._twisted, self._untwist,
            self._sine, self._versine, self._skew, self._eye, self._identity, self._one, self._tiny, self._limit,
        ) = tensors.constants(("angles", twist_axis), lambda: _tables(twist_axis))  # fmt: skip

    def quaternions(self, R: Tensor) -> Tensor:
        """(N, V, 4) unit quaternions w, x, y, z with w ≥ 0 of rotations (N, V, 3, 3), by way of the largest part."""
        n, count = R.shape[:2]
        rows = torch.addmm(self._offset, R.reshape(-1, 9), self._products).view(-1, 4, 4)
        largest = rows.diagonal(dim1=1, dim2=2).argmax(1)
        q = rows.gather(1, largest.view(-1, 1, 1).expand(-1, 1, 4)).view(n, count, 4)
        size = torch.linalg.vector_norm(q, dim=-1, keepdim=True)
        return q / torch.copysign(size, q[..., :1])

    def __call__(self, R: Tensor) -> tuple[Tensor, Tensor]:
        """Angles θ (N, V, 3), radians, and dθ/dδ (N, V, 3, 3) for R·exp δ of rotations R (N, V, 3, 3).

        R = swing · twist. What a twist does to the derivatives is solved as `bodyfit.kernels.joint_angles` says it; the
        inverse right Jacobian is that of Solà et al. 2018, eq. 144.
        """
        q = self.quaternions(R)
        twist: Tensor | None = None
        if self._twists:
            # bmm over the joints, with the instants as rows: so the joints' matrices need no copies
            off = torch.bmm(q.transpose(0, 1), self._untwist).transpose(0, 1)
            twist = torch.cat([q[..., :1], off[..., 4:]], -1)
            size = torch.linalg.vector_norm(twist, dim=-1, keepdim=True)
            twist = torch.where(size > 1e-12, twist / size.clamp_min(1e-12), self._identity)
            q = torch.addcmul(q * twist[..., :1], off[..., :4], twist[..., 1:])
        cos_half, v = q[..., :1], q[..., 1:]
        sin_half = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        angle = torch.atan2(sin_half, cos_half) * 2.0
        swing = v * (angle / sin_half.clamp_min(1e-300))
        # 1/a² - (1 + cos a) / (2 a sin a + 1e-12), by the half angle's sine and cosine
        away = angle.clamp_min(SMALL_RAD)
        below = torch.addcmul(self._tiny, away, sin_half * cos_half, value=2.0)
        factor = torch.addcdiv(away.pow(-2), cos_half.square(), below, value=-1.0)
        factor = torch.where(angle < SMALL_RAD, self._limit, factor)
        K = (swing.reshape(-1, 3) @ self._skew).view(R.shape)
        D = torch.addcmul(torch.add(self._eye, K, alpha=0.5), factor[..., None], K @ K)
        if twist is None:
            return swing, D
        cos, sin = twist[..., :1], twist[..., 1:]
        # D e - e of the axis e, and eᵀ D e, where the swing has no part along e
        flat = factor * angle.square()
        across = torch.addcmul(torch.linalg.cross(swing, self._half_axis), flat, self._axis, value=-1.0)
        along = torch.addcmul(self._one, flat, self._twisted, value=-1.0)
        T = torch.addcmul(self._eye, (sin * cos)[..., None], self._sine)
        M = D @ torch.addcmul(T, sin.square()[..., None], self._versine)
        row = (M * self._axis[..., None]).sum(-2) / along
        D = torch.addcmul(M, across[..., None], row[..., None, :], value=-1.0)
        return torch.addcmul(swing, torch.atan2(sin, cos), self._twice_axis), D
