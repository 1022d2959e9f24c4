"""How deep the parts of many bodies lie in each other, as torch computes it: the twin of `bodyfit.kernels.collide`.

Where two spheres overlap, what moves them apart is a force along a line (`cuda_chain`). A pair on joints a and b turns
the joints on the way to one of the two and not to the other, which is the same for all pairs on a and b: so the lines
of such a bucket are first summed to 6 × 6 products, and only those become rows of the joints' angles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.collide import SIGMA_M, Spheres
from bodyfit.fit.cuda_chain import levers, ways
from bodyfit.fit.cuda_tensors import Upload
from bodyfit.render.extra import Tensor, torch

BUCKET = 24
"""pairs of a bucket; more pairs on the same two joints fill several"""
MOST_NUMBERS = 2**25
"""of a Jacobian at a time: 256 MB"""


@dataclass(frozen=True, eq=False)
class _Table:
    """Spheres sorted for the device, lengths in sigmas: the points' places (K + J + 1, 3J + 3) as a linear map from the
    joints' turns, pairs (2, B · 24) of points, how near each pair may come (B · 24,), and the joints (B, J + 1) that
    each bucket turns."""

    points: NDArray[np.float64]
    pairs: NDArray[np.int64]
    reach: NDArray[np.float64]
    turned: NDArray[np.float64]


@lru_cache(maxsize=256)
def _table(spheres: Spheres) -> _Table:
    owner, joints, parents = spheres.owner, spheres.joints, spheres.parents
    count = len(joints)
    way = ways(parents)
    bones = np.zeros((count, count + 1, 3))
    for j, p in enumerate(parents):
        if p >= 0:
            bones[j] = bones[p]
            bones[j, p] += joints[j] - joints[p]
    points = np.zeros((len(owner) + count + 1, count + 1, 3))
    points[: len(owner)] = bones[owner]
    points[np.arange(len(owner)), owner] += spheres.offset
    points[len(owner) : -1] = bones
    pairs = spheres.pairs.copy()
    back = owner[pairs[:, 0]] > owner[pairs[:, 1]]
    pairs[back] = pairs[back][:, ::-1]
    ends = owner[pairs]
    chosen, reach, turned = [], [], []
    each = spheres.radius[pairs].sum(1) - spheres.slack
    for a, b in np.unique(ends, axis=0):
        mine = np.flatnonzero((ends == (a, b)).all(1))
        for k in range(0, len(mine), BUCKET):
            few = mine[k : k + BUCKET]
            spare = BUCKET - len(few)
            chosen.append(np.concatenate([pairs[few], np.zeros((spare, 2), np.int64)]))
            reach.append(np.concatenate([each[few], np.full(spare, -1.0)]))
            # the depth falls as sphere a moves along the line, and as b moves against it
            turned.append(np.append(way[b] - way[a], 0.0))
    return _Table(
        points.reshape(len(points), -1) / SIGMA_M,
        np.array(chosen, np.int64).reshape(-1, 2).T,
        np.array(reach).reshape(-1) / SIGMA_M,
        np.array(turned).reshape(-1, count + 1),
    )


class BatchSpheres:
    """The spheres of N bodies side by side; None has none, and costs nothing."""

    def __init__(self, spheres: Sequence[Spheres | None], joints: int, up: Upload) -> None:
        kinds: list[Spheres] = list({id(s): s for s in spheres if s is not None}.values())
        tables = [_table(s) for s in kinds]
        self._buckets = max((len(t.turned) for t in tables), default=0)
        if not self._buckets:
            return
        number = {id(s): i for i, s in enumerate(kinds)}
        which = np.array([number.get(id(s), -1) for s in spheres], np.int64)
        rows = [np.arange(len(t.points)) for t in tables]
        self._spheres = max(map(len, rows)) - joints - 1
        points = np.zeros((len(tables), self._spheres + joints + 1, 3 * joints + 3))
        pairs = np.zeros((len(tables), 2, self._buckets * BUCKET), np.int64)
        reach = np.full((len(tables) + 1, self._buckets * BUCKET), -1.0)
        turned = np.zeros((len(tables), self._buckets, joints + 1))
        for i, t in enumerate(tables):
            own = len(t.points) - joints - 1
            points[i, :own], points[i, self._spheres :] = t.points[:own], t.points[own:]
            pairs[i, :, : t.pairs.shape[1]], reach[i, : len(t.reach)] = t.pairs, t.reach
            turned[i, : len(t.turned)] = t.turned
        self._shared = len(tables) == 1

        self._reach = up(reach[which]) if not self._shared or (which < 0).any() else up(reach[:1])
        each = np.zeros(1, np.int64) if self._shared else np.maximum(which, 0)
        self._points, self._turned = up(points[each]), up(turned[each])
        self._pairs = up(pairs.reshape(len(tables), -1)[each])
        if not self._shared:
            self._pairs = self._pairs[:, :, None].expand(-1, -1, 3)
        self._tiny = up(np.full(1, 1e-9 / SIGMA_M))
        self._never = up(np.full(1, np.inf))
        per_bucket = len(spheres) * 6 * (3 * joints + 3)
        step = max(1, MOST_NUMBERS // max(per_bucket, 1))
        self._pieces = [(k, min(k + step, self._buckets)) for k in range(0, self._buckets, step)]

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
            ends = points.gather(1, self._pairs)
        count = self._buckets * BUCKET
        first = ends[:, :count]
        apart = first - ends[:, count:]
        distance = torch.linalg.vector_norm(apart, dim=-1)
        # one in the other's middle: no direction leads out
        distance = torch.where(distance < self._tiny, self._never, distance)
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
