"""2-D keypoints of many bodies at once, as torch computes them: the twin of `bodyfit.fit.keypoints`.

The keypoints of all an instant's views stand side by side, each with its own camera, so that every instant is one
matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bodyfit.fit.cuda_chain import levers, ways
from bodyfit.fit.cuda_tensors import Upload
from bodyfit.fit.keypoints import NEAR_M, JointTargets
from bodyfit.fit.problem import Problem
from bodyfit.render.extra import Tensor, torch


def _in_views(problem: Problem, instants: int) -> list[list[JointTargets]]:
    out: list[list[JointTargets]] = [[] for _ in range(instants)]
    for n, v in problem.items:
        targets = problem.views[v].keypoints
        if targets is not None and any(name in problem.mesh.joint_names for name in targets.names):
            out[n].append(targets)
    return out


class BatchKeypoints:
    """The keypoints that N instants of some problems have; the same skeleton in all."""

    def __init__(self, problems: Sequence[Problem], instants: Sequence[int], up: Upload) -> None:
        seen = [_in_views(p, n) for p, n in zip(problems, instants, strict=True)]
        names, parents = problems[0].mesh.joint_names, problems[0].mesh.parents

        def known(targets: JointTargets) -> list[int]:
            return [i for i, name in enumerate(targets.names) if name in names]

        self._count = max((sum(len(known(t)) for t in each) for s in seen for each in s), default=0)
        if not self._count:
            return
        total, count, J = sum(instants), self._count, len(parents)
        joint = np.zeros((total, count), np.int64)
        R, t = np.zeros((total, count, 3, 3)), np.zeros((total, count, 3))
        t[..., 2] = 1.0
        focal, middle = np.ones((total, count, 2)), np.zeros((total, count, 2))
        weight, robust = np.zeros((total, count)), np.ones((total, count))
        n = 0
        for problem, own in zip(problems, seen, strict=True):
            config, scale = problem.config, problem.stage.robust_outline_m
            for each in own:
                k = 0
                for targets in each:
                    use = known(targets)
                    place = n, slice(k, k + len(use))
                    k += len(use)
                    fx, fy, cx, cy = targets.intrinsics
                    joint[place] = [names.index(targets.names[i]) for i in use]
                    R[place], t[place] = targets.R_iw, targets.t_iw
                    focal[place], middle[place] = (fx, fy), np.array((cx, cy)) - targets.xy[use]
                    weight[place] = targets.confidence[use] / config.sigma_keypoint_px**2
                    robust[place] = max(config.robust_keypoint_px, scale * targets.px_per_m) ** 2
                n += 1
        meshes = list({id(p.mesh): p.mesh for p in problems}.values())
        number = {id(mesh): i for i, mesh in enumerate(meshes)}
        which = np.repeat([number[id(p.mesh)] for p in problems], instants)
        up_to = np.maximum(parents, 0)
        root = (parents < 0)[:, None]
        bones = [m.joint_template - np.where(root, 0.0, m.joint_template[up_to]) for m in meshes]
        growth = [m.jointdirs - np.where(root[..., None], 0.0, m.jointdirs[up_to]) for m in meshes]

        way = ways(parents)
        self._above = up(np.where(parents < 0, J, parents).astype(np.int64))
        self._ways = up(np.concatenate([np.broadcast_to(way, (total, J, J)), way[joint]], 1))
        self._hangs = self._ways[:, J:, None, :, None]
        each = which if len(meshes) > 1 else np.zeros(1, np.int64)
        self._bones = up(np.array(bones)[each])
        self._growth = up(np.array(growth).reshape(len(meshes), 3 * J, -1)[each])
        self._R, self._t, self._focal, self._middle = up(R), up(t), up(focal), up(middle)
        self._weight, self._robust = up(weight), up(robust)
        self._near, self._one, self._nought = up(np.full(1, NEAR_M)), up(np.ones(1)), up(np.zeros(1))

    def __bool__(self) -> bool:
        return self._count > 0

    def terms(self, turns: Tensor, transl: Tensor, shape: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Twice the cost (N,), gradient (N, P) and Gauss-Newton matrix (N, P, P) of turns (N, J + 1, 3, 3) as from
        `Chain.turns`, transl (N, 3) and each instant's shape (N, S); P = 3J + 3 + S."""
        n, J, count = len(turns), turns.shape[1] - 1, self._count
        S = shape.shape[1]
        growth = self._growth.expand(n, -1, -1)
        bones = torch.baddbmm(self._bones.reshape(-1, 3 * J, 1).expand(n, -1, -1), growth, shape[..., None])
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
