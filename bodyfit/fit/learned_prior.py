"""How people move, learnt from motion capture: a mixture of Gaussians over each arm, over both legs and over the trunk.

`bodyfit/data/poses/prior.npz` holds what models/make_pose_prior.py learnt from clips of the CMU Graphics Lab Motion
Capture Database (models/POSES.md). Clips are few, so each mixture also has the broad Gaussian of
`bodyfit.fit.pose_prior`, and an arm's has the everyday ways to hold one that a cold start tries: no pose is forbidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import ModelFileError
from bodyfit.fit.config import FitConfig, Stage
from bodyfit.fit.hypotheses import ARMS, arm_rotations
from bodyfit.fit.pose_prior import MIRROR, PosePrior, angles_from, joint_angles, pose_prior

PRIOR_FILE = Path(__file__).resolve().parents[1] / "data" / "poses" / "prior.npz"
PARTS = ("arm", "legs", "trunk")
BROAD_SHARE = 0.4
"""how much of each mixture is the broad Gaussian: a pose like none that was seen costs log 0.4 more than without the
mixture"""
EVERYDAY_SHARE = 0.3
"""how much of an arm's mixture are the everyday ways to hold one"""
EVERYDAY_SIGMA = {"shoulder": (0.35, 0.35, 0.35), "elbow": (0.45, 0.35, 0.12), "wrist": (0.20, 0.20, 0.25)}
"""radians that an arm's joints vary by within such a way"""


@dataclass(frozen=True)
class PartMixture:
    """The mixture over D angles: joints, axes (D,); log_weights (K,) with the densities' factors in, about `log_peak`,
    the log-density in the middle of the broad Gaussian, whose cost is 0 there; means (K, D); precisions (K, D, D)."""

    name: str
    joints: NDArray[np.int64]
    axes: NDArray[np.int64]
    log_weights: NDArray[np.float64]
    means: NDArray[np.float64]
    precisions: NDArray[np.float64]
    log_peak: float


@dataclass(frozen=True, eq=False)
class LearnedPrior:
    """Mixtures over parts of the body; `covered` (J, 3) says which angles they speak of."""

    parts: tuple[PartMixture, ...]
    covered: NDArray[np.bool_]
    twist_axis: NDArray[np.int32]

    def terms(
        self, rotations: NDArray[np.float64], widen: float = 1.0
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Cost (N,), gradient (N, 3J) and positive semidefinite Hessian (N, 3J, 3J) by right perturbations of
        rotations (N, J, 3, 3); `widen` is the factor on standard deviations as in `pose_prior_terms`."""
        from bodyfit.kernels.mixture import mixture_terms

        theta, D = joint_angles(rotations, self.twist_axis)
        n, size = len(theta), 3 * theta.shape[1]
        cost, gradient, hessian = np.zeros(n), np.zeros((n, size)), np.zeros((n, size, size))
        for p in self.parts:
            mixture_terms(
                theta, D, p.joints, p.axes, p.log_weights, p.means, p.precisions, 1.0 / widen**2,
                cost, gradient, hessian,
            )  # fmt: skip
        return cost, gradient, hessian

    def log_density(self, axis_angle: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Log-density (N,) of poses (N, J, 3) axis-angle by part, per radian of each angle."""
        theta = angles_from(axis_angle, self.twist_axis)
        out = {}
        for p in self.parts:
            r = theta[:, None, p.joints, p.axes] - p.means
            logs = p.log_weights - 0.5 * np.einsum("nki,kij,nkj->nk", r, p.precisions, r)
            top = logs.max(1)
            out[p.name] = p.log_peak + top + np.log(np.exp(logs - top[:, None]).sum(1))
        return out


@lru_cache(maxsize=8)
def learned_prior(joint_names: tuple[str, ...]) -> LearnedPrior:
    """The learned prior for a body's joints, by their SMPL names; parts that the body does not have are left out.

    Raises:
        ModelFileError: the shipped file is not there, or is damaged.
    """
    return read_learned_prior(PRIOR_FILE, joint_names)


def learned_for(config: FitConfig, stage: Stage, joint_names: tuple[str, ...]) -> LearnedPrior | None:
    """The learned prior where a stage of a fit is to have it."""
    return learned_prior(joint_names) if config.learned_prior and stage.learned else None


def read_learned_prior(path: Path, joint_names: tuple[str, ...]) -> LearnedPrior:
    """As `learned_prior`, from another file.

    Raises:
        ModelFileError: the file is none of ours.
    """
    from bodyfit.body.npz import read_npz

    arrays = read_npz(path)
    base = pose_prior(joint_names)
    parts = []
    for part in PARTS:
        wanted = [f"{part}_{key}" for key in ("joints", "axes", "weights", "means", "covs")]
        if missing := [w for w in wanted if w not in arrays]:
            raise ModelFileError(str(path), f"an array {missing[0]}", ", ".join(sorted(arrays)) or "no array")
        names, axes, weights, means, covs = (arrays[w] for w in wanted)
        d, k = len(names), len(weights)
        if axes.shape != (d,) or means.shape != (k, d) or covs.shape != (k, d, d):
            raise ModelFileError(
                f"{path}: {part}", f"axes ({d},), means ({k}, {d}), covs ({k}, {d}, {d})",
                f"{axes.shape}, {means.shape}, {covs.shape}",
            )  # fmt: skip
        for side in ("left", "right") if part == "arm" else ("",):
            joints = [str(n).replace("left_", f"{side}_") if side else str(n) for n in names]
            if all(j in joint_names for j in joints):
                sign = MIRROR[axes] if side == "right" else np.ones(d)
                mixture = _mixture(
                    part, [joint_names.index(j) for j in joints], axes.astype(np.int64), sign,
                    weights.astype(np.float64), means.astype(np.float64), covs.astype(np.float64), base, joints,
                )  # fmt: skip
                parts.append(mixture)
    covered = np.zeros((len(joint_names), 3), bool)
    for p in parts:
        covered[p.joints, p.axes] = True
    return LearnedPrior(tuple(parts), covered, base.twist_axis)


def _mixture(
    part: str, joints: list[int], axes: NDArray[np.int64], sign: NDArray[np.float64], weights: NDArray[np.float64],
    means: NDArray[np.float64], covs: NDArray[np.float64], base: PosePrior, names: list[str],
) -> PartMixture:  # fmt: skip
    """A part's mixture: what was learnt, the broad Gaussian, and an arm's everyday ways; sign (D,) mirrors."""
    mean = angles_from(base.mean[None], base.twist_axis)[0]
    everyday = EVERYDAY_SHARE if part == "arm" else 0.0
    shares = [np.full(1, BROAD_SHARE), (1 - BROAD_SHARE - everyday) * weights / weights.sum()]
    centres = [mean[joints, axes][None], means * sign]
    spreads = [np.diag(base.sigma[joints, axes] ** 2)[None], covs * sign[:, None] * sign]
    if part == "arm":
        kinds = [n.partition("_")[2] for n in names]
        sigma = np.array([EVERYDAY_SIGMA[kind][a] for kind, a in zip(kinds, axes, strict=True)])
        ways = []
        for arm in ARMS.values():
            turns = dict(zip(("shoulder", "elbow"), arm_rotations(arm), strict=True))
            ways.append([turns[k][a] if k in turns else 0.0 for k, a in zip(kinds, axes, strict=True)])
        shares.append(np.full(len(ways), everyday / len(ways)))
        centres.append(np.array(ways) * sign)
        spreads.append(np.repeat(np.diag(sigma**2)[None], len(ways), 0))
    w, m, C = np.concatenate(shares), np.concatenate(centres), np.concatenate(spreads)
    _, size = np.linalg.slogdet(C)
    logs = np.log(w) - 0.5 * (size - size[0])
    peak = float(-0.5 * size[0] - 0.5 * len(joints) * np.log(2 * np.pi))
    side = names[0].partition("_")[0] + " " if part == "arm" else ""
    P = np.linalg.inv(C)
    P = np.ascontiguousarray(0.5 * (P + P.swapaxes(1, 2)))
    return PartMixture(side + part, np.array(joints), axes, logs, m, P, peak)
