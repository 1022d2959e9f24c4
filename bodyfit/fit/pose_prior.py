"""How people stand: a Gaussian over each joint's angles, and the range each joint has.

Angles are radians about SMPL's axes at the zero pose (x to the person's left, y up, z to the front); the table gives
the left side, the right is its mirror image (x, -y, -z). Most joints are axis-angles. Elbow and knee are a bend and a
twist of what is beyond them about its own length (`TWIST_AXES`): an axis-angle mixes the two, so that a bent elbow
whose forearm is turned seems to be bent sideways, which none can be.

Ranges follow the usual clinical ranges of motion (American Academy of Orthopaedic Surgeons, "Joint Motion", 1965),
widened since a joint here is a rough copy of a real one; an ankle's y and a neck's are what seven CMU motion-capture
clips need beyond that (models/POSES.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRIPLE = tuple[float, float, float]

# name: mean, standard deviation, lowest, highest
TABLE: dict[str, tuple[TRIPLE, TRIPLE, TRIPLE, TRIPLE]] = {
    "left_hip": ((-0.10, 0.0, 0.06), (0.45, 0.25, 0.20), (-2.2, -0.9, -0.6), (0.7, 0.9, 1.0)),
    "spine1": ((0.0, 0.0, 0.0), (0.14, 0.10, 0.08), (-0.5, -0.4, -0.4), (0.8, 0.4, 0.4)),
    "left_knee": ((0.15, 0.0, 0.0), (0.40, 0.08, 0.08), (-0.15, -0.3, -0.25), (2.6, 0.3, 0.25)),
    "spine2": ((0.0, 0.0, 0.0), (0.12, 0.10, 0.08), (-0.4, -0.4, -0.4), (0.6, 0.4, 0.4)),
    "left_ankle": ((0.0, 0.10, 0.0), (0.25, 0.15, 0.12), (-0.8, -0.9, -0.6), (0.8, 0.9, 0.6)),
    "spine3": ((0.0, 0.0, 0.0), (0.10, 0.10, 0.08), (-0.4, -0.4, -0.4), (0.5, 0.4, 0.4)),
    "left_foot": ((0.0, 0.0, 0.0), (0.10, 0.05, 0.05), (-0.6, -0.2, -0.2), (0.5, 0.2, 0.2)),
    "neck": ((0.05, 0.0, 0.0), (0.20, 0.18, 0.12), (-0.7, -0.9, -0.5), (0.8, 0.9, 0.5)),
    "left_collar": ((0.0, 0.0, -0.05), (0.06, 0.14, 0.14), (-0.3, -0.5, -0.4), (0.3, 0.4, 0.7)),
    "head": ((0.0, 0.0, 0.0), (0.20, 0.20, 0.12), (-0.7, -0.9, -0.5), (0.7, 0.9, 0.5)),
    "left_shoulder": ((0.10, -0.10, -0.95), (0.55, 0.50, 0.45), (-1.6, -2.4, -2.0), (2.2, 1.5, 1.6)),
    "left_elbow": ((0.05, -0.55, 0.0), (0.45, 0.65, 0.17), (-1.6, -2.7, -0.4), (1.6, 0.1, 0.4)),
    "left_wrist": ((0.0, 0.0, 0.0), (0.20, 0.20, 0.25), (-0.6, -0.6, -1.2), (0.6, 0.6, 1.2)),
    "left_hand": ((0.0, 0.0, -0.15), (0.08, 0.08, 0.25), (-0.3, -0.3, -1.6), (0.3, 0.3, 0.4)),
}
TWIST_AXES = {"elbow": 0, "knee": 1}
"""the axis about which a forearm and a calf turn about themselves; the other two are the bend and what little gives to
the side. An elbow's 0.17 rad to the side are what its axis-angle, with 0.45 and 0.12 about the other axes, left it at
its mean bend: real ones are hinges, but the wrist of a body with two joints an arm has to get where a real one does"""
OTHER = ((0.0, 0.0, 0.0), (0.08, 0.08, 0.08), (-0.6, -0.6, -0.6), (0.6, 0.6, 0.6))
"""fingers, jaw and eyes of bodies that have them: depth says little about them"""

SIGMA_LIMIT = 0.06
"""how soft the end of a joint's range is"""
MIRROR = np.array([1.0, -1.0, -1.0])
ALIKE = ("shoulder", "elbow")
SIGMA_ALIKE = 0.30
"""radians between an arm and the other one's mirror image where both do the same"""
ALIKE_GAIN = 2.5
"""how much lower the cost of two arms that do the same is than that of two that have nothing in common. In six CMU
motion-capture clips (walking, jumping, dancing, ball play) hands lie within 10 cm of the other one's mirror image 2.8
times as often as by chance, and people who stand still move their arms apart less"""


@dataclass(frozen=True)
class PosePrior:
    """mean, sigma, low, high (J, 3) radians, the mean as axis-angle; the root has none (sigma infinite). twist_axis
    (J,) says which joints' sigma and range are of a bend and a twist; -1 for the others."""

    mean: NDArray[np.float64]
    sigma: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    twist_axis: NDArray[np.int32]

    def with_mean(self, pose: NDArray[np.float64]) -> PosePrior:
        """The same spread about another pose (J, 3)."""
        return PosePrior(pose, self.sigma, self.low, self.high, self.twist_axis)

    def unlikely(self, axis_angle: NDArray[np.float64], joints: list[int]) -> NDArray[np.float64]:
        """Cost (N,) of some joints' turns (N, K, 3) axis-angle."""
        angles = angles_from(axis_angle, self.twist_axis[joints])
        r = (angles - angles_from(self.mean[None, joints], self.twist_axis[joints])) / self.sigma[joints]
        over = np.maximum(angles - self.high[joints], 0) + np.maximum(self.low[joints] - angles, 0)
        return 0.5 * (r * r).sum((1, 2)) + 0.5 * ((over / SIGMA_LIMIT) ** 2).sum((1, 2))


def pose_prior(joint_names: tuple[str, ...]) -> PosePrior:
    """The prior for a body's joints, by their SMPL names."""
    rows = []
    for name in joint_names:
        if name.startswith("right_") and "left_" + name[6:] in TABLE:
            mean, sigma, low, high = (np.array(x) for x in TABLE["left_" + name[6:]])
            ends = np.stack([low * MIRROR, high * MIRROR])
            rows.append((mean * MIRROR, sigma, ends.min(0), ends.max(0)))
        else:
            rows.append(tuple(np.array(x) for x in TABLE.get(name, OTHER)))
    mean, sigma, low, high = (np.array([r[i] for r in rows], dtype=np.float64) for i in range(4))
    # the camera flip puts the root near π, where axis-angle has no derivative: it stays free
    sigma[0], low[0], high[0] = np.inf, -np.inf, np.inf
    axes = [TWIST_AXES.get(name.partition("_")[2], -1) for name in joint_names]
    return PosePrior(mean, sigma, low, high, np.array(axes, np.int32))


def angles_from(axis_angle: NDArray[np.float64], twist_axis: NDArray[np.int32]) -> NDArray[np.float64]:
    """The angles (N, J, 3) in which a prior is written, of axis-angles (N, J, 3); see `TWIST_AXES`."""
    from bodyfit.kernels.joint_angles import angles_of

    theta = np.ascontiguousarray(axis_angle, np.float64)
    out = np.empty_like(theta)
    angles_of(theta, twist_axis, out)
    return out


def joint_angles(
    R: NDArray[np.float64], twist_axis: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The angles θ (N, J, 3) in which a prior is written, of R (N, J, 3, 3), and dθ/dδ (N, J, 3, 3) for R·exp δ."""
    from bodyfit.kernels import joint_angles as kernel

    R = np.ascontiguousarray(R, np.float64)
    theta, D = np.empty(R.shape[:-1]), np.empty(R.shape)
    kernel.joint_angles(R, twist_axis, theta, D)
    return theta, D


def log_rotation(R: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Axis-angle θ (..., 3) of R (..., 3, 3) and dθ/dδ (..., 3, 3) for R·exp δ (inverse right Jacobian of SO(3);
    Solà et al. 2018, "A micro Lie theory", eq. 144)."""
    from bodyfit.kernels.rotations import log_rotations

    flat = np.ascontiguousarray(R, np.float64).reshape(-1, 3, 3)
    theta, D = np.empty((len(flat), 3)), np.empty((len(flat), 3, 3))
    log_rotations(flat, theta, D)
    return theta.reshape(R.shape[:-1]), D.reshape(R.shape)


def pose_prior_terms(
    R: NDArray[np.float64],
    mean: NDArray[np.float64],
    prior: PosePrior,
    widen: float,
    free: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Cost (N,), gradient (N, J, 3) and Hessian blocks (N, J, 3, 3) of the pose prior about `mean` (N, J, 3), which is
    axis-angle. Angles that are `free` (J, 3) have their range alone."""
    from bodyfit.kernels.rotations import about

    theta, D = joint_angles(R, prior.twist_axis)
    held = np.isfinite(prior.sigma)
    precision = np.where(held if free is None else held & ~free, 1.0 / (prior.sigma * widen) ** 2, 0.0)
    limit = np.where(held, 1.0 / SIGMA_LIMIT**2, 0.0)
    cost, gradient, hessian = np.zeros(len(R)), np.zeros(theta.shape), np.zeros(D.shape)
    means = angles_from(np.broadcast_to(mean, theta.shape), prior.twist_axis)
    about(theta, D, means, precision, prior.low, prior.high, limit, cost, gradient, hessian)
    return cost, gradient, hessian


def alike_terms(
    R: NDArray[np.float64], pairs: list[tuple[int, int]]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """What speaks for arms that do the same: a robust term, so that arms that plainly differ may.

    Args:
        R: (N, J, 3, 3).
        pairs: K pairs of a left joint and its right one.

    Returns:
        Cost (N,); gradient (N, K, 2, 3); Hessian (N, K, 2, 3, 2, 3) over the two joints of each pair.
    """
    left, right = [p[0] for p in pairs], [p[1] for p in pairs]
    theta, D = log_rotation(R[:, left + right])
    k = len(pairs)
    r = (theta[:, :k] - theta[:, k:] * MIRROR) / SIGMA_ALIKE
    q = 0.5 * (r * r).sum((1, 2))
    cost = ALIKE_GAIN * q / (ALIKE_GAIN + q)
    weight = (ALIKE_GAIN / (ALIKE_GAIN + q)) ** 2
    jacobian = np.stack([D[:, :k], -MIRROR[:, None] * D[:, k:]], 2) / SIGMA_ALIKE
    gradient = np.einsum("n,nkpab,nka->nkpb", weight, jacobian, r)
    hessian = np.einsum("n,nkpab,nkqac->nkpbqc", weight, jacobian, jacobian)
    return cost, gradient, hessian


def arm_pairs(joint_names: tuple[str, ...]) -> list[tuple[int, int]]:
    """The left and right joints that `alike_terms` compares, for a body that has them."""
    return [
        (joint_names.index(f"left_{n}"), joint_names.index(f"right_{n}"))
        for n in ALIKE
        if f"left_{n}" in joint_names and f"right_{n}" in joint_names
    ]
