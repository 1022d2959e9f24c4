"""What says where bodies may be without an image, for a batch of problems at once, as torch computes it.

The twin of `Problem._add_priors` and of the keypoints: float64 throughout. `terms` asks the device nothing and has
fixed shapes, so a CUDA graph can hold it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError
from bodyfit.fit.cuda_chain import Chain
from bodyfit.fit.cuda_keypoints import BatchKeypoints
from bodyfit.fit.cuda_pose_priors import BatchPosePriors
from bodyfit.fit.cuda_spheres import BatchSpheres
from bodyfit.fit.cuda_tensors import Tensors
from bodyfit.fit.problem import Problem
from bodyfit.render.extra import Tensor, torch


@dataclass
class PriorTerms:
    """As `bodyfit.fit.problem.Linearization`: instant_cost (N,) without the shape's prior, whose is shape_cost (G,);
    pose_gradient (N, Q), A (N, Q, Q), B (N, Q, S), None where no problem has keypoints; shape_gradient (G, S),
    C (G, S, S); Q = 3J + 3. The caller may write into them."""

    instant_cost: Tensor
    pose_gradient: Tensor
    A: Tensor
    B: Tensor | None
    shape_cost: Tensor
    shape_gradient: Tensor
    C: Tensor


class BatchPriors:
    """Priors and keypoints of M problems side by side: N instants and G groups in all, in the problems' order.

    Args:
        problems: those.
        groups: each one's own numbers (N_m,) of its instants' groups.
        tensors: where they lie; over a tape all that differs between two batches of one structure keeps its place.

    Raises:
        InputError: the problems' bodies differ in their joints or in how many numbers a shape has.
    """

    def __init__(self, problems: Sequence[Problem], groups: Sequence[NDArray[np.int64]], tensors: Tensors) -> None:
        _refuse_mixed(problems, groups)
        counts, sizes = [len(g) for g in groups], [int(g.max()) + 1 for g in groups]
        parents = problems[0].mesh.parents
        self._chain = Chain(parents, tensors)
        self._pose = BatchPosePriors(problems, counts, tensors)
        self._spheres = BatchSpheres(
            [p.spheres if p.break_ties else None for p, n in zip(problems, counts, strict=True) for _ in range(n)],
            len(parents), tensors,
        )  # fmt: skip
        self._keypoints = BatchKeypoints(problems, counts, tensors)
        offset = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        whose = np.concatenate([g + k for g, k in zip(groups, offset, strict=True)]).astype(np.int64)
        self._group = tensors.upload(whose)
        precisions = np.array([p.shape_prior.precision / p.stage.shape_prior**2 for p in problems])
        self._shape_mean = tensors.upload(np.repeat([p.shape_prior.mean for p in problems], sizes, 0))
        self._shape_precision = tensors.upload(np.repeat(precisions, sizes, 0))
        self.structure: Hashable = (self._spheres.structure, self._keypoints.structure)
        """batches with equal structures, constants and shapes start the same operations"""
        tensors.constants(("priors", self.structure), tuple)

    def terms(self, rotations: Tensor, transl: Tensor, shape: Tensor) -> PriorTerms:
        """All of them at rotations (N, J, 3, 3), transl (N, 3) metres and shape (G, S), float64 on the device."""
        cost, gradient, A = self._pose.terms(rotations, transl)
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


def _refuse_mixed(problems: Sequence[Problem], groups: Sequence[NDArray[np.int64]]) -> None:
    if not problems or len(groups) != len(problems):
        raise InputError("groups", f"those of each of {len(problems)} problems, at least one", str(len(groups)))
    first = problems[0]
    for p in problems:
        for field, wanted, found in (
            ("joint_names", first.mesh.joint_names, p.mesh.joint_names),
            ("parents", first.mesh.parents, p.mesh.parents),
            ("num_shape", first.mesh.num_shape, p.mesh.num_shape),
            ("twist_axis", first.pose_prior.twist_axis, p.pose_prior.twist_axis),
        ):
            if wanted is not found and not np.array_equal(wanted, found):
                raise InputError(field, f"{wanted} as the batch's first problem has", str(found))
