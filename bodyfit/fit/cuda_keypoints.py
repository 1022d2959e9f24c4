"""2-D keypoints of many bodies at once, as torch computes them: the twin of `bodyfit.fit.keypoints`.

The keypoints of all an instant's views stand side by side, each with its own camera, so that every instant is one
matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.cuda_chain import levers, ways
from bodyfit.fit.cuda_tensors import Tensors
from bodyfit.fit.keypoints import NEAR_M, JointTargets
from bodyfit.fit.problem import Problem
from bodyfit.render.extra import Tensor, torch


@dataclass(frozen=True)
class _Known:
    """The keypoints of a view that name a joint: joint (T,), weight (T,) 1/px², robust (T,) px², focal (2,), middle
    (T, 2) px, with which residual = focal · across + middle, and the camera."""

    joint: NDArray[np.int64]
    weight: NDArray[np.float64]
    robust: float
    focal: tuple[float, float]
    middle: NDArray[np.float64]
    R: NDArray[np.float64]
    t: NDArray[np.float64]


def _known(targets: JointTargets, problem: Problem) -> _Known:
    names, config = problem.mesh.joint_names, problem.config
    use = [i for i, name in enumerate(targets.names) if name in names]
    fx, fy, cx, cy = targets.intrinsics
    robust = max(config.robust_keypoint_px, problem.stage.robust_outline_m * targets.px_per_m)
    return _Known(
        np.array([names.index(targets.names[i]) for i in use], np.int64),
        targets.confidence[use] / config.sigma_keypoint_px**2, robust**2, (fx, fy),
        np.array((cx, cy)) - targets.xy[use], targets.R_iw, targets.t_iw,
    )  # fmt: skip


def _in_instants(problem: Problem, instants: int) -> list[list[_Known]]:
    out: list[list[_Known]] = [[] for _ in range(instants)]
    known = {v: _known(w.keypoints, problem) for v, w in enumerate(problem.views) if w.keypoints is not None}
    if known:
        for n, v in problem.items:
            if v in known and len(known[v].joint):
                out[n].append(known[v])
    return out


class BatchKeypoints:
    """The keypoints that N instants of some problems have; the same skeleton in all."""

    def __init__(self, problems: Sequence[Problem], instants: Sequence[int], tensors: Tensors) -> None:
        seen = [each for p, n in zip(problems, instants, strict=True) for each in _in_instants(p, n)]
        self._count = max((sum(len(k.joint) for k in each) for each in seen), default=0)
        if not self._count:
            return
        parents = problems[0].mesh.parents
        total, count, J = len(seen), self._count, len(parents)
        joint = np.zeros((total, count), np.int64)
        R, t = np.zeros((total, count, 3, 3)), np.zeros((total, count, 3))
        focal, middle = np.ones((total, count, 2)), np.zeros((total, count, 2))
        weight, robust = np.zeros((total, count)), np.ones((total, count))
        t[..., 2] = 1.0
        for n, each in enumerate(seen):
            first = 0
            for k in each:
                at = n, slice(first, first + len(k.joint))
                joint[at], weight[at], robust[at], focal[at], middle[at] = (
                    k.joint,
                    k.weight,
                    k.robust,
                    k.focal,
                    k.middle,
                )
                R[at], t[at] = k.R, k.t
                first += len(k.joint)
        up = tensors.upload
        meshes = list({id(p.mesh): p.mesh for p in problems}.values())
        number = {id(mesh): i for i, mesh in enumerate(meshes)}
        which = np.repeat([number[id(p.mesh)] for p in problems], instants)
        above = np.maximum(parents, 0)
        root = (parents < 0)[:, None]
        bones = [m.joint_template - np.where(root, 0.0, m.joint_template[above]) for m in meshes]
        growth = [m.jointdirs - np.where(root[..., None], 0.0, m.jointdirs[above]) for m in meshes]
        mesh = which if len(meshes) > 1 else which[:1]
        self._bones = up(np.array(bones).reshape(len(meshes), 3 * J, 1)[mesh])
        self._growth = up(np.array(growth).reshape(len(meshes), 3 * J, -1)[mesh])
        way = ways(parents)
        self._ways = up(np.concatenate([np.broadcast_to(way, (total, J, J)), way[joint]], 1))
        self._hangs = self._ways[:, J:, None, :, None]
        self._R, self._t, self._focal, self._middle = up(R), up(t), up(focal), up(middle)
        self._weight, self._robust = up(weight), up(robust)
        up_to = np.where(parents < 0, J, parents).astype(np.int64)
        self._above, self._near, self._one, self._nought = tensors.constants(
            ("keypoints", tuple(up_to.tolist())), lambda: (up_to, np.full(1, NEAR_M), np.ones(1), np.zeros(1))
        )

    @property
    def structure(self) -> tuple[int, ...]:
        """What decides on the operations, beside the tensors' shapes."""
        return (self._count, len(self._bones)) if self._count else (0,)

    def __bool__(self) -> bool:
        return self._count > 0

    def terms(self, turns: Tensor, transl: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Twice the cost (N,), gradient (N, P) and Gauss-Newton matrix (N, P, P) of turns (N, J + 1, 3, 3) as from
        `Chain.turns`, transl (N, 3) and each instant's shape (N, S); P = 3J + 3 + S."""
        n, J, count = len(turns), turns.shape[1] - 1, self._count
        S = shape.shape[1]
        growth = self._growth.expand(n, -1, -1)
        bones = torch.baddbmm(self._bones.expand(n, -1, -1), growth, shape[..., None])
        # turns are transposed: bones are rows before them
        above = turns.index_select(1, self._above)
        steps = (bones.view(n, J, 1, 3) @ above)[:, :, 0]
        by_shape = above.transpose(2, 3) @ growth.view(n, J, 3, S)
        places = torch.bmm(self._ways, steps) + transl[:, None]
        seen = places[:, J:]
        by_shape = torch.bmm(self._ways[:, J:], by_shape.view(n, J, 3 * S)).view(n, count, 3, S)
        camera = (self._R @ seen[..., None])[..., 0] + self._t
        ahead = camera[..., 2] > self._near
        z = torch.where(ahead, camera[..., 2], self._one)[..., None]
        across = camera[..., :2] / z
        residual = torch.addcmul(self._middle, across, self._focal)
        square = residual.square().sum(-1)
        weight = torch.where(ahead, self._weight, self._nought)
        keep = self._robust / (self._robust + square)
        cost = (weight * square * keep).sum(1)
        scale = (weight.sqrt() * keep)[..., None]
        force = torch.addcmul(self._R[:, :, :2], across[..., None], self._R[:, :, 2:], value=-1.0)
        force = force * (self._focal * scale / z)[..., None]
        moment = torch.linalg.cross(seen[:, :, None].expand_as(force), force)
        lines = torch.cat([force, moment], -1).view(n, 2 * count, 6)
        by_turn = torch.bmm(lines, levers(turns[:, :J], places[:, :J])).view(n, count, 2, J, 3) * self._hangs
        rows = torch.cat([by_turn.view(n, 2 * count, 3 * J), lines[..., :3], (force @ by_shape).flatten(1, 2)], -1)
        columns = rows.transpose(1, 2)
        gradient = torch.bmm(columns, (residual * scale).view(n, 2 * count, 1))[..., 0]
        return cost, gradient, torch.bmm(columns, rows)
