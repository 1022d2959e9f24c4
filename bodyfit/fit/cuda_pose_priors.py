"""What the angles of many bodies' joints cost, as torch computes it: the twin of `bodyfit.fit.pose_prior`,
`bodyfit.fit.learned_prior` and of what `bodyfit.fit.follow.Expected` adds.

All angles of an instant are one vector x: the joints' own, the arms' plain ones for `alike_terms`, the turns from an
expected pose and the way from an expected place. Every prior is a cost of x, quadratic about a point with a matrix W,
and one product with the angles' derivatives takes all of them to the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.cuda_angles import JointAngles
from bodyfit.fit.cuda_tensors import Tensors
from bodyfit.fit.follow import Expected, Pose
from bodyfit.fit.learned_prior import LearnedPrior
from bodyfit.fit.pose_prior import ALIKE_GAIN, MIRROR, SIGMA_ALIKE, SIGMA_LIMIT, angles_from, arm_pairs
from bodyfit.fit.problem import Problem
from bodyfit.render.extra import Tensor, torch


@dataclass(frozen=True, eq=False)
class _Mixtures:
    """Mixtures over M parts with K components each, missing ones of weight zero: log_weights (M, K); axes (3V, M·K·D)
    along which the D deviations of a component are counted, each of sigma 1, `back`
    the same transposed, and the components' middles (M·K·D,) along them, negative; precisions (M·K, 3V · 3V). Where
    `alike` says so, arms that do the same are one more component, of no part (`alike_terms`)."""

    log_weights: Tensor
    axes: Tensor
    back: Tensor
    minus_centres: Tensor
    precisions: Tensor
    alike: bool

    @property
    def deviations(self) -> int:
        """D."""
        return self.axes.shape[1] // len(self.precisions)


def _mixture_tables(
    learned: tuple[LearnedPrior, ...], joints: int, alike: tuple[tuple[int, int], ...]
) -> tuple[NDArray[np.float64], ...]:
    """The arrays of `_Mixtures` of several priors over V = `joints`; none if there is nothing to mix."""
    if not learned and not alike:
        return ()
    parts = [p for prior in learned for p in prior.parts]
    count = max((len(p.log_weights) for p in parts), default=0)
    size = max(max((len(p.joints) for p in parts), default=0), 3 * len(alike))
    total = len(parts) * count + bool(alike)
    logs = np.full((len(parts), count), -np.inf)
    axes, centres = np.zeros((3 * joints, total, size)), np.zeros((total, size))
    for i, p in enumerate(parts):
        logs[i, : len(p.log_weights)] = p.log_weights
        which, d = 3 * p.joints + p.axes, len(p.joints)
        for k, (mean, precision) in enumerate(zip(p.means, p.precisions, strict=True)):
            L = np.linalg.cholesky(precision)
            axes[which, i * count + k, :d] = L
            centres[i * count + k, :d] = mean @ L
    for k, (left, right) in enumerate(alike):
        for a in range(3):
            axes[3 * left + a, -1, 3 * k + a] = 1.0 / SIGMA_ALIKE
            axes[3 * right + a, -1, 3 * k + a] = -MIRROR[a] / SIGMA_ALIKE
    precisions = np.einsum("ikd,jkd->kij", axes, axes).reshape(total, -1)
    flat = axes.reshape(3 * joints, -1)
    return logs, flat, flat.T, -centres.reshape(-1), precisions


def _places(joints: int, plain: tuple[int, ...], expects: bool) -> tuple[NDArray[np.float64] | NDArray[np.int64], ...]:
    """(V, 1, J + 1, 1), 1 where the row's angle is of the column's joint, or of the place, which comes last; what a
    place's own derivative is, (1, 1, 3, 3); and the joints that have a plain axis-angle too."""
    owner = [*range(joints), *plain, *(range(joints + 1) if expects else ())]
    place = np.zeros((len(owner), 1, joints + 1, 1))
    place[np.arange(len(owner)), 0, owner] = 1.0
    return place, np.eye(3)[None, None], np.array(plain, np.int64)


class BatchPosePriors:
    """What N instants' angles cost, of problems in a row with `counts` instants each."""

    def __init__(self, problems: Sequence[Problem], counts: Sequence[int], tensors: Tensors) -> None:
        mesh, prior = problems[0].mesh, problems[0].pose_prior
        J, total = len(mesh.parents), sum(counts)
        first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(int)
        learned = [p.learned_prior if p.break_ties else None for p in problems]
        pairs = arm_pairs(mesh.joint_names) if any(p.break_ties for p in problems) else []
        expected = {
            int(n): (p, p.expected)
            for n, p in zip(first, problems, strict=True)
            if isinstance(p, Expected) and p.expected is not None
        }
        # the joints whose plain axis-angle is needed beside their bend and twist
        plain = tuple(sorted({j for pair in pairs for j in pair if prior.twist_axis[j] >= 0}))
        own = J + len(plain)
        owner = (*range(J), *plain, *(range(J) if expected else ()))
        twists = (*prior.twist_axis.tolist(), *(-1 for _ in owner[J:]))
        self._own, self._expects = 3 * own, bool(expected)
        self._angles = JointAngles(twists, tensors)
        self._place, self._still, self._plain = tensors.constants(
            ("places", J, plain, self._expects), lambda: _places(J, plain, self._expects)
        )
        self._upload_box(problems, learned, counts, expected, own, tensors)
        at = {j: J + k for k, j in enumerate(plain)}
        alike = tuple((at.get(a, a), at.get(b, b)) for a, b in pairs)
        self._upload_mixtures(problems, learned, counts, alike, own, tensors)
        if expected:
            back = np.broadcast_to(np.eye(3), (total, J, 3, 3)).copy()
            back[list(expected)] = np.swapaxes(np.stack([pose.rotations for _, pose in expected.values()]), -1, -2)
            self._from_expected = tensors.upload(back)

    def _upload_box(
        self,
        problems: Sequence[Problem],
        learned: Sequence[LearnedPrior | None],
        counts: Sequence[int],
        expected: Mapping[int, tuple[Expected, Pose]],
        own: int,
        tensors: Tensors,
    ) -> None:
        """Each angle's Gaussian and range, (N, 3V) all: mean, precision w, lowest, highest, the precision v beyond
        them, and w + v."""
        J, total = problems[0].pose_mean.shape[1], sum(counts)
        box = np.zeros((6, total, own + (J + 1 if expected else 0), 3))
        box[2], box[3] = -np.inf, np.inf
        means = [p.pose_mean if len(p.pose_mean) == m else np.broadcast_to(p.pose_mean, (m, J, 3))
                 for p, m in zip(problems, counts, strict=True)]  # fmt: skip
        box[0, :, :J] = angles_from(np.concatenate(means), problems[0].pose_prior.twist_axis)
        box[1:5, :, :J] = np.repeat(_ranges(problems, learned), counts, 1)
        for n, (p, pose) in expected.items():
            box[1, n, own:-1] = 1.0 / p.sigma_turn_rad**2
            box[1, n, -1] = 1.0 / p.sigma_move_m**2
            box[0, n, -1] = pose.transl
        box[5] = box[1] + box[4]
        whole = tensors.upload(box.reshape(6, total, -1))
        self._mean, self._w, self._low, self._high, self._v, self._beyond = whole.unbind(0)

    def _upload_mixtures(
        self,
        problems: Sequence[Problem],
        learned: Sequence[LearnedPrior | None],
        counts: Sequence[int],
        alike: tuple[tuple[int, int], ...],
        own: int,
        tensors: Tensors,
    ) -> None:
        kinds = tuple({id(x): x for x in learned if x is not None and x.parts}.values())
        tables = tensors.constants(("mixtures", kinds, own, alike), lambda: _mixture_tables(kinds, own, alike))
        self._mixtures = _Mixtures(*tables, alike=bool(alike)) if tables else None
        if self._mixtures is None:
            return
        kind = [x for x in kinds for _ in x.parts]
        switches = [
            [*((x is k) / p.stage.pose_prior**2 for k in kind), 2.0 * ALIKE_GAIN * p.break_ties]
            for p, x in zip(problems, learned, strict=True)
        ]
        whole = tensors.upload(np.repeat(np.array(switches), counts, 0))
        self._tempering, self._ties = whole[:, :-1, None], whole[:, -1:]

    def terms(self, rotations: Tensor, transl: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cost (N,), gradient (N, Q) and products (N, Q, Q) of what is a matter of angles, and of places expected."""
        n = len(rotations)
        sets = [rotations]
        if len(self._plain):
            sets.append(rotations.index_select(1, self._plain))
        if self._expects:
            sets.append(self._from_expected @ rotations)
        theta, D = self._angles(torch.cat(sets, 1) if len(sets) > 1 else rotations)
        if self._expects:
            theta = torch.cat([theta, transl[:, None]], 1)
            D = torch.cat([D, self._still.expand(n, 1, 3, 3)], 1)
        x = theta.flatten(1)
        # by the parameters: (N, 3V, Q)
        by = (D.unsqueeze(3) * self._place).view(n, x.shape[1], -1)
        r, over = x - self._mean, x - x.clamp(self._low, self._high)
        wr, vo = self._w * r, self._v * over
        twice = torch.addcmul(wr * r, vo, over).sum(1)
        pull = wr + vo
        weighted = by * torch.where(over != 0, self._beyond, self._w)[..., None]
        if self._mixtures is not None:
            cost, W = self._mixture_terms(self._mixtures, x[:, : self._own], pull, twice)
            weighted[:, : self._own].baddbmm_(W, by[:, : self._own])
        else:
            cost = twice * 0.5
        columns = by.transpose(1, 2)
        return cost, torch.bmm(columns, pull[..., None])[..., 0], torch.bmm(columns, weighted)

    def _mixture_terms(self, mixtures: _Mixtures, x: Tensor, pull: Tensor, twice: Tensor) -> tuple[Tensor, Tensor]:
        """The whole cost (N,), where all else costs half of `twice`, and the products W (N, 3V, 3V) of angles x
        (N, 3V); adds to their pull (N, 3V'), V' ≥ V."""
        n, size = x.shape
        along = torch.addmm(mixtures.minus_centres, x, mixtures.axes).view(n, -1, mixtures.deviations)
        square = along.square().sum(-1)
        shares: list[Tensor] = []
        learned: Tensor | None = None
        if len(mixtures.log_weights):
            count = mixtures.log_weights.numel()
            logs = torch.add(mixtures.log_weights, square[:, :count].view(n, len(mixtures.log_weights), -1), alpha=-0.5)
            relative = logs.log_softmax(-1)
            learned = (self._tempering[..., 0] * (relative[..., 0] - logs[..., 0])).sum(1)
            shares.append((relative.exp() * self._tempering).view(n, -1))
        if mixtures.alike:
            apart = square[:, -1:]
            low = self._ties / (apart + 2.0 * ALIKE_GAIN)
            twice = torch.addcmul(twice, apart[:, 0], low[:, 0])
            shares.append(low.square())
        share = torch.cat(shares, 1) if len(shares) > 1 else shares[0]
        pull[:, :size].addmm_((along * share[..., None]).view(n, -1), mixtures.back)
        cost = twice * 0.5 if learned is None else torch.add(learned, twice, alpha=0.5)
        return cost, (share @ mixtures.precisions).view(n, size, size)


def _ranges(problems: Sequence[Problem], learned: Sequence[LearnedPrior | None]) -> NDArray[np.float64]:
    """(4, M, J, 3) of M problems: precision, lowest, highest, and the precision beyond, as `pose_prior_terms` has
    them."""
    sigma, low, high = (np.array([getattr(p.pose_prior, name) for p in problems]) for name in ("sigma", "low", "high"))
    none = np.zeros(sigma.shape[1:], bool)
    covered = np.array([none if prior is None else prior.covered for prior in learned])
    widen = np.array([p.stage.pose_prior for p in problems])[:, None, None]
    held = np.isfinite(sigma)
    w = np.where(held & ~covered, 1.0 / (sigma * widen) ** 2, 0.0)
    return np.stack([w, low, high, np.where(held, 1.0 / SIGMA_LIMIT**2, 0.0)])
