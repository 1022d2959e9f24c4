"""How deep the parts of many bodies lie in each other, as torch computes it: the twin of `bodyfit.kernels.collide`.

Where two spheres overlap, what moves them apart is a force along a line (`cuda_chain`). A pair on joints a and b turns
the joints on the way to one of the two and not to the other, which is the same for all pairs on a and b: so the lines
of such a bucket are first summed to 6 × 6 products, and only those become rows of the joints' angles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.collide import SIGMA_M, Spheres
from bodyfit.fit.cuda_chain import levers, ways
from bodyfit.fit.cuda_tensors import Tensors
from bodyfit.render.extra import Tensor, torch

BUCKET = 24
"""pairs of a bucket; more pairs on the same two joints fill several"""
STEP = 16
"""points and buckets are rounded up to multiples of it: so batches of other bodies have the same shapes, mostly"""
MOST_NUMBERS = 2**25
"""of a Jacobian at a time: 256 MB"""


@dataclass(frozen=True, eq=False)
class _Table:
    """Spheres sorted for the device, lengths in sigmas: the points' places (K + J + 1, 3J + 3) as a linear map from the
    joints' turns, pairs (2, B, 24) of points, how near each pair may come (B, 24), and the joints (B, J + 1) that each
    bucket turns. The joints' places are the last J + 1 points."""

    points: NDArray[np.float64]
    pairs: NDArray[np.int64]
    reach: NDArray[np.float64]
    turned: NDArray[np.float64]

    @property
    def size(self) -> tuple[int, int]:
        """Points and buckets, as they are rounded up."""
        return len(self.points) + -len(self.points) % STEP, len(self.turned) + -len(self.turned) % STEP

    def padded(self, points: int, buckets: int) -> tuple[NDArray[np.float64] | NDArray[np.int64], ...]:
        """The arrays with so many points, the new ones first, and buckets, of pairs that are never near."""
        more, empty = points - len(self.points), (0, buckets - len(self.turned))
        return (
            np.pad(self.points, ((more, 0), (0, 0))), np.pad(self.pairs + more, ((0, 0), empty, (0, 0))),
            np.pad(self.reach, (empty, (0, 0)), constant_values=-1.0), np.pad(self.turned, (empty, (0, 0))),
        )  # fmt: skip


@lru_cache(maxsize=256)
def _table(spheres: Spheres) -> _Table:
    owner, joints, parents = spheres.owner, spheres.joints, spheres.parents
    count, own = len(joints), len(owner)
    way = ways(parents)
    bones = np.zeros((count, count + 1, 3))
    for j, p in enumerate(parents):
        if p >= 0:
            bones[j] = bones[p]
            bones[j, p] += joints[j] - joints[p]
    points = np.zeros((own + count + 1, count + 1, 3))
    points[:own] = bones[owner]
    points[np.arange(own), owner] += spheres.offset
    points[own:-1] = bones
    pairs = spheres.pairs.copy()
    back = owner[pairs[:, 0]] > owner[pairs[:, 1]]
    pairs[back] = pairs[back][:, ::-1]
    ends = owner[pairs]
    each = spheres.radius[pairs].sum(1) - spheres.slack
    few: list[NDArray[np.intp]] = []
    for both in np.unique(ends, axis=0):
        mine = np.flatnonzero((ends == both).all(1))
        few += [mine[k : k + BUCKET] for k in range(0, len(mine), BUCKET)]
    chosen = np.zeros((2, len(few), BUCKET), np.int64)
    reach = np.full((len(few), BUCKET), -1.0)
    turned = np.zeros((len(few), count + 1))
    for i, k in enumerate(few):
        chosen[:, i, : len(k)], reach[i, : len(k)] = pairs[k].T, each[k]
        a, b = ends[k[0]]
        # the depth falls as sphere a moves along the line, and as b moves against it
        turned[i, :-1] = way[b] - way[a]
    return _Table(points.reshape(len(points), -1) / SIGMA_M, chosen, reach / SIGMA_M, turned)


class BatchSpheres:
    """The spheres of N bodies side by side; None has none, and costs nothing."""

    def __init__(self, spheres: Sequence[Spheres | None], joints: int, tensors: Tensors) -> None:
        kinds: list[Spheres] = list({id(s): s for s in spheres if s is not None and len(s.pairs)}.values())
        self._buckets, self._shared = 0, len(kinds) == 1
        if not kinds:
            return
        sizes = [_table(s).size for s in kinds]
        most, self._buckets = max(k[0] for k in sizes), max(k[1] for k in sizes)
        self._spheres = most - joints - 1
        tables = [
            tensors.cached(("spheres", s, most, self._buckets), partial(_table(s).padded, most, self._buckets))
            for s in kinds
        ]
        number = {id(s): t for s, t in zip(kinds, tables, strict=True)}
        (never,) = tensors.cached(
            ("no spheres", self._buckets), lambda: (np.full((self._buckets, BUCKET), -1.0),)
        )  # fmt: skip
        each = tables if self._shared else [number.get(id(s), tables[0]) for s in spheres]
        if self._shared and all(id(s) in number for s in spheres):
            reach = [tables[0][2]]
        else:
            reach = [number[id(s)][2] if id(s) in number else never for s in spheres]

        def side_by_side(parts: Sequence[Tensor]) -> Tensor:
            room = tensors.room(len(parts), *parts[0].shape, kind=parts[0].dtype)
            return torch.stack(list(parts), out=room)

        self._points, self._pairs, self._turned = (side_by_side([t[k] for t in each]) for k in (0, 1, 3))
        self._reach = side_by_side(reach)
        self._pairs, self._reach = self._pairs.flatten(1), self._reach.flatten(1)
        self._tiny, self._far = tensors.constants(
            "spheres", lambda: (np.full(1, 1e-9 / SIGMA_M), np.full(1, np.inf))
        )  # fmt: skip
        step = max(1, MOST_NUMBERS // (len(spheres) * 6 * (3 * joints + 3)))
        self._pieces = [(k, min(k + step, self._buckets)) for k in range(0, self._buckets, step)]

    @property
    def structure(self) -> tuple[int, ...]:
        """What decides on the operations, beside the tensors' shapes."""
        return self._buckets, int(self._shared), len(self._reach) if self._buckets else 0

    def __bool__(self) -> bool:
        return self._buckets > 0

    def add(self, turns: Tensor, gradient: Tensor, products: Tensor) -> Tensor:
        """Twice the cost (N,); adds to gradient (N, 3J + 3) and products (N, 3J + 3, 3J + 3), the translation's part
        zero. turns (N, J + 1, 3, 3) as from `Chain.turns`."""
        n, Q = gradient.shape
        flat = turns.reshape(n, Q, 3)
        points = torch.bmm(self._points.expand(n, -1, -1), flat)
        if self._shared:
            ends = points.index_select(1, self._pairs[0])
        else:
            ends = points.gather(1, self._pairs[:, :, None].expand(-1, -1, 3))
        count = self._buckets * BUCKET
        first = ends[:, :count]
        apart = first - ends[:, count:]
        distance = torch.linalg.vector_norm(apart, dim=-1)
        # one in the other's middle: no direction leads out
        distance = torch.where(distance < self._tiny, self._far, distance)
        depth = (self._reach - distance).clamp_min(0.0)
        force = apart * (depth.sign() / distance)[..., None]
        lines = torch.cat([force, torch.linalg.cross(first, force), depth[..., None]], -1).view(-1, BUCKET, 7)
        sums = torch.bmm(lines[..., :6].transpose(1, 2), lines).view(n, self._buckets, 6, 7)
        lever = levers(turns, points[:, self._spheres :])[:, None]
        pulls = gradient[:, None]
        for start, stop in self._pieces:
            own = sums[:, start:stop]
            rows = lever.view(n, 1, 6, -1, 3) * self._turned[:, start:stop, None, :, None]
            six = rows.view(-1, 6, Q)
            weighted = torch.bmm(own[..., :6].reshape(-1, 6, 6), six).view(n, -1, Q)
            six = six.view(n, -1, Q)
            products.baddbmm_(six.transpose(1, 2), weighted)
            pulls.baddbmm_(own[..., 6].reshape(n, 1, -1), six)
        return depth.square().sum(1)
