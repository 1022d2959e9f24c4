"""What says where bodies may be without an image, for a batch of problems at once, as torch computes it.

The twin of `Problem._add_priors` and of the keypoints. All angles of an instant are one vector x: the joints' own, the
arms' plain ones for `alike_terms`, the turns from an expected pose and the way from an expected place. Every prior is a
cost of x, quadratic about a point with a matrix W, and one product with the angles' derivatives takes all of them to
the parameters. Float64 throughout; `terms` asks the device nothing and has fixed shapes: a CUDA graph can hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError
from bodyfit.fit.cuda_angles import JointAngles
from bodyfit.fit.cuda_chain import Chain
from bodyfit.fit.cuda_keypoints import BatchKeypoints
from bodyfit.fit.cuda_spheres import BatchSpheres
from bodyfit.fit.cuda_tensors import Upload
from bodyfit.fit.follow import Expected
from bodyfit.fit.learned_prior import LearnedPrior
from bodyfit.fit.pose_prior import ALIKE_GAIN, MIRROR, SIGMA_ALIKE, SIGMA_LIMIT, PosePrior, angles_from, arm_pairs
from bodyfit.fit.problem import Problem
from bodyfit.render.extra import Tensor, torch


@dataclass
class PriorTerms:
    """As `bodyfit.fit.problem.Linearization`: instant_cost (N,) without the shape's prior, whose is shape_cost (G,);
    pose_gradient (N, Q), A (N, Q, Q), B (N, Q, S), None where no problem has keypoints; shape_gradient (G, S),
    C (G, S, S); Q = 3J + 3."""

    instant_cost: Tensor
    pose_gradient: Tensor
    A: Tensor
    B: Tensor | None
    shape_cost: Tensor
    shape_gradient: Tensor
    C: Tensor


@dataclass(frozen=True, eq=False)
class _Mixtures:
    """Mixtures over M parts with K components each, missing ones of weight zero: log_weights (M, K); axes (3V, M·K·D)
    along which the D deviations of a component are counted, each of sigma 1, centres (M·K·D,) of x along them; and the
    components' precisions (M·K, 3V · 3V)."""

    log_weights: NDArray[np.float64]
    axes: NDArray[np.float64]
    centres: NDArray[np.float64]
    precisions: NDArray[np.float64]
    deviations: int


@lru_cache(maxsize=32)
def _mixtures(learned: tuple[LearnedPrior, ...], joints: int, alike: tuple[tuple[int, int], ...]) -> _Mixtures:
    """Of several priors, over V = `joints`; arms that do the same are a last component of no part (`alike_terms`)."""
    parts = [p for prior in learned for p in prior.parts]
    count = max((len(p.log_weights) for p in parts), default=0)
    size = max((len(p.joints) for p in parts), default=0)
    size = max(size, 3 * len(alike))
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
    return _Mixtures(logs, axes.reshape(3 * joints, -1), centres.reshape(-1), precisions, size)


class BatchPriors:
    """Priors and keypoints of M problems side by side: N instants and G groups in all, in the problems' order.

    groups: each problem's own numbers (N_m,) of its instants' groups; upload: what copies an array to the device, by
    which goes all that differs between two batches of one shape.

    Raises:
        InputError: the problems' bodies differ in their joints or in how many numbers a shape has.
    """

    def __init__(self, problems: Sequence[Problem], groups: Sequence[NDArray[np.int64]], upload: Upload) -> None:
        _refuse_mixed(problems, groups)
        self._up = upload
        mesh, prior = problems[0].mesh, problems[0].pose_prior
        self._joints = J = len(mesh.parents)
        counts = [len(g) for g in groups]
        self._chain = Chain(mesh.parents, upload)
        ties = [p.break_ties for p in problems]
        learned = [p.learned_prior if tie else None for p, tie in zip(problems, ties, strict=True)]
        pairs = arm_pairs(mesh.joint_names) if any(ties) else []
        expected = [p for p in problems if isinstance(p, Expected) and p.expected is not None]
        # the joints whose plain axis-angle is needed beside their bend and twist
        plain = sorted({j for pair in pairs for j in pair if prior.twist_axis[j] >= 0})
        own = J + len(plain)
        self._own, self._plain = 3 * own, self._up(np.array(plain, np.int64)) if plain else None
        axes = np.concatenate([prior.twist_axis, np.full(len(plain) + (J if expected else 0), -1, np.int32)])
        self._angles = JointAngles(axes, upload)
        owner = [*range(J), *plain, *(range(J) if expected else ()), *((J,) if expected else ())]
        place = np.zeros((len(owner), 1, J + 1, 1))
        place[np.arange(len(owner)), 0, owner] = 1.0
        self._place = self._up(place)
        self._upload_box(problems, learned, counts, len(owner), own)
        alike = tuple((_number(a, J, plain), _number(b, J, plain)) for a, b in pairs)
        self._upload_mixtures(problems, learned, counts, alike, own)
        if expected:
            self._upload_expected(problems, counts)
        self._expects = bool(expected)
        self._spheres = BatchSpheres(
            [p.spheres if p.break_ties else None for p, n in zip(problems, counts, strict=True) for _ in range(n)],
            J, upload,
        )  # fmt: skip
        self._keypoints = BatchKeypoints(problems, counts, upload)
        sizes = [int(g.max()) + 1 for g in groups]
        first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self._group = self._up(np.concatenate([g + k for g, k in zip(groups, first, strict=True)]).astype(np.int64))
        each = np.repeat(np.arange(len(problems)), sizes)
        precisions = np.array([p.shape_prior.precision / p.stage.shape_prior**2 for p in problems])
        self._shape_mean = self._up(np.array([p.shape_prior.mean for p in problems])[each])
        self._shape_precision = self._up(precisions[each])

    def _upload_box(
        self,
        problems: Sequence[Problem],
        learned: Sequence[LearnedPrior | None],
        counts: Sequence[int],
        count: int,
        own: int,
    ) -> None:
        J, total = self._joints, sum(counts)
        box = np.zeros((5, total, count, 3))
        box[2], box[3] = -np.inf, np.inf
        n = 0
        for p, prior, m in zip(problems, learned, counts, strict=True):
            mine = slice(n, n + m)
            table = _ranges(p.pose_prior, p.stage.pose_prior, prior)
            box[1:, mine, :J] = table[:, None]
            mean = np.broadcast_to(p.pose_mean, (m, J, 3))
            box[0, mine, :J] = angles_from(mean, p.pose_prior.twist_axis)
            if isinstance(p, Expected) and p.expected is not None:
                box[1, n, own:-1] = 1.0 / p.sigma_turn_rad**2
                box[1, n, -1] = 1.0 / p.sigma_move_m**2
                box[0, n, -1] = p.expected.transl
            n += m
        self._mean, self._w, self._low, self._high, self._v = self._up(box.reshape(5, total, -1)).unbind(0)
        self._beyond = self._w + self._v

    def _upload_mixtures(
        self,
        problems: Sequence[Problem],
        learned: Sequence[LearnedPrior | None],
        counts: Sequence[int],
        alike: tuple[tuple[int, int], ...],
        own: int,
    ) -> None:
        kinds = tuple({id(x): x for x in learned if x is not None and x.parts}.values())
        self._learned, self._alike = bool(kinds), bool(alike)
        if not self._learned and not self._alike:
            return
        table = _mixtures(kinds, own, alike)
        self._log_weights, self._parts = self._up(table.log_weights), len(table.log_weights)
        self._deviations, self._deviation_axes = table.deviations, self._up(table.axes)
        self._axes_of_deviations, self._centres = self._up(table.axes.T), self._up(-table.centres)
        self._precisions = self._up(table.precisions)
        kind = [x for x in kinds for _ in x.parts]
        temper = [[(x is k) / p.stage.pose_prior**2 for k in kind] for p, x in zip(problems, learned, strict=True)]
        tempering = self._up(np.repeat(np.array(temper, np.float64).reshape(len(problems), -1), counts, 0))
        self._tempering, self._minus_tempering = tempering[..., None], -tempering
        ties = np.array([p.break_ties for p in problems], np.float64)
        self._ties, self._one = self._up(np.repeat(ties, counts)[:, None]), self._up(np.ones(1))

    def _upload_expected(self, problems: Sequence[Problem], counts: Sequence[int]) -> None:
        back = np.broadcast_to(np.eye(3), (sum(counts), self._joints, 3, 3)).copy()
        n = 0
        for p, m in zip(problems, counts, strict=True):
            if isinstance(p, Expected) and p.expected is not None:
                back[n] = np.swapaxes(p.expected.rotations, -1, -2)
            n += m
        self._from_expected = self._up(back)
        self._still = self._up(np.broadcast_to(np.eye(3), (1, 1, 3, 3)))

    def terms(self, rotations: Tensor, transl: Tensor, shape: Tensor) -> PriorTerms:
        """All of them at rotations (N, J, 3, 3), transl (N, 3) metres and shape (G, S), float64 on the device."""
        cost, gradient, A = self._angle_terms(rotations, transl)
        Q = gradient.shape[1]
        B: Tensor | None = None
        offset = shape - self._shape_mean
        shape_gradient = torch.bmm(offset[:, None], self._shape_precision)[:, 0]
        shape_cost = (offset * shape_gradient).sum(1) * 0.5
        C = self._shape_precision.clone()
        turns = self._chain.turns(rotations) if self._spheres or self._keypoints else rotations
        if self._spheres:
            cost = torch.add(cost, self._spheres.add(turns, gradient, A), alpha=0.5)
        if self._keypoints:
            twice, pull, products = self._keypoints.terms(turns, transl, shape.index_select(0, self._group))
            cost = torch.add(cost, twice, alpha=0.5)
            gradient = gradient + pull[:, :Q]
            A = A + products[:, :Q, :Q]
            B = products[:, :Q, Q:].contiguous()
            shape_gradient = shape_gradient.index_add(0, self._group, pull[:, Q:])
            C.index_add_(0, self._group, products[:, Q:, Q:])
        return PriorTerms(cost, gradient, A, B, shape_cost, shape_gradient, C)

    def _angle_terms(self, rotations: Tensor, transl: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cost (N,), gradient (N, Q) and products (N, Q, Q) of what is a matter of angles, and of places expected."""
        n = len(rotations)
        sets = [rotations]
        if self._plain is not None:
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
        if self._learned or self._alike:
            cost, W = self._mixture_terms(x[:, : self._own], pull, twice)
            weighted[:, : self._own].baddbmm_(W, by[:, : self._own])
        else:
            cost = twice * 0.5
        columns = by.transpose(1, 2)
        return cost, torch.bmm(columns, pull[..., None])[..., 0], torch.bmm(columns, weighted)

    def _mixture_terms(self, x: Tensor, pull: Tensor, twice: Tensor) -> tuple[Tensor, Tensor]:
        """The whole cost (N,), where all else costs half of `twice`, and the products W (N, 3V, 3V) of angles x
        (N, 3V); adds to their pull (N, 3V'), V' ≥ V."""
        n, size = x.shape
        along = torch.addmm(self._centres, x, self._deviation_axes).view(n, -1, self._deviations)
        square = along.square().sum(-1)
        shares: list[Tensor] = []
        learned: Tensor | None = None
        if self._learned:
            count = self._log_weights.numel()
            logs = torch.add(self._log_weights, square[:, :count].view(n, self._parts, -1), alpha=-0.5)
            relative = logs.log_softmax(-1)
            learned = (self._minus_tempering * (logs[..., 0] - relative[..., 0])).sum(1)
            shares.append((relative.exp() * self._tempering).view(n, -1))
        if self._alike:
            apart = square[:, -1:]
            low = self._ties / torch.add(self._one, apart, alpha=0.5 / ALIKE_GAIN)
            twice = torch.addcmul(twice, apart[:, 0], low[:, 0])
            shares.append(low.square())
        share = torch.cat(shares, 1) if len(shares) > 1 else shares[0]
        pull[:, :size].addmm_((along * share[..., None]).view(n, -1), self._axes_of_deviations)
        cost = twice * 0.5 if learned is None else torch.add(learned, twice, alpha=0.5)
        return cost, (share @ self._precisions).view(n, size, size)


def _number(joint: int, joints: int, plain: Sequence[int]) -> int:
    """Where a joint's plain axis-angle stands among the angles."""
    return joints + plain.index(joint) if joint in plain else joint


def _ranges(prior: PosePrior, widen: float, learned: LearnedPrior | None) -> NDArray[np.float64]:
    """(4, J, 3): precision, lowest, highest, and the precision beyond, as `pose_prior_terms` has them."""
    held = np.isfinite(prior.sigma)
    precise = held if learned is None else held & ~learned.covered
    w = np.where(precise, 1.0 / (prior.sigma * widen) ** 2, 0.0)
    return np.stack([w, prior.low, prior.high, np.where(held, 1.0 / SIGMA_LIMIT**2, 0.0)])


def _refuse_mixed(problems: Sequence[Problem], groups: Sequence[NDArray[np.int64]]) -> None:
    if not problems or len(groups) != len(problems):
        raise InputError("groups", f"those of each of {len(problems)} problems, at least one", str(len(groups)))
    first = problems[0]
    for p in problems:
        for field, wanted, found in (
            ("joint_names", first.mesh.joint_names, p.mesh.joint_names),
            ("parents", first.mesh.parents.tolist(), p.mesh.parents.tolist()),
            ("num_shape", first.mesh.num_shape, p.mesh.num_shape),
            ("twist_axis", first.pose_prior.twist_axis.tolist(), p.pose_prior.twist_axis.tolist()),
        ):
            if wanted != found:
                raise InputError(field, f"{wanted} as the batch's first problem has", str(found))
