"""Cutting a mesh at the near plane: what is left is a mesh again, whose new vertices follow the old ones.

Everything after the cut need not know of it: the cut's border is an edge like any other, with its gradient.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bodyfit.render.extra import Tensor, torch


class Cut(NamedTuple):
    """How the mesh behind the near plane is made: vertex V + k lies `shares[k]` of the way from ends[k, 0] to [k, 1].

    ends (K, 2); shares (K, 1) with gradient; faces (F', 3) int32; parent (F',) the face each was cut from; corners
    (F', 3) which corner of the parent each corner is, or -1 for a new vertex; new (F', 3) its k; ways (F', 3, 2) the
    parent's corners at the ends of the edge on which it lies.
    """

    ends: NDArray[np.int64]
    shares: Tensor
    faces: NDArray[np.int32]
    parent: NDArray[np.int64]
    corners: NDArray[np.int64]
    new: NDArray[np.int64]
    ways: NDArray[np.int64]

    def carry(self, values: Tensor) -> Tensor:
        """Values (V + K, C) of values (V, C) on the old vertices."""
        first, second = values[self.ends[:, 0]], values[self.ends[:, 1]]
        return torch.cat([values, first + self.shares * (second - first)])

    def weights(self) -> Tensor:
        """(F', 3, 3): each new corner's weights of its parent's corners."""
        n = len(self.faces)
        out = torch.zeros(n, 3, 3, dtype=self.shares.dtype)
        old = self.corners >= 0
        f, c = np.nonzero(old)
        out[f, c, self.corners[old]] = 1.0
        f, c = np.nonzero(~old)
        share = self.shares[self.new[f, c], 0]
        out[f, c, self.ways[f, c, 0]] = 1.0 - share
        out[f, c, self.ways[f, c, 1]] = share
        return out


def cut_near(points: Tensor, faces: NDArray[Any], near: float) -> Cut:
    """What of a mesh (V, 3), (F, 3) lies at z ≥ near."""
    z = points.detach()[:, 2].numpy()
    seen = z >= near
    inside = seen[faces]
    count = inside.sum(1)
    whole = np.flatnonzero(count == 3)
    numbers: dict[tuple[int, int], int] = {}
    rows: list[tuple[int, list[tuple[int, int, int, int]]]] = []

    def crossing(f: int, i: int, o: int) -> tuple[int, int, int, int]:
        # always from the seen end, so that two faces, or two copies of a vertex, make the same point
        key = (int(faces[f, i]), int(faces[f, o]))
        return -1, numbers.setdefault(key, len(numbers)), i, o

    for f in np.flatnonzero((count == 1) | (count == 2)).tolist():
        if count[f] == 1:
            i = int(np.argmax(inside[f]))
            j, k = (i + 1) % 3, (i + 2) % 3
            rows.append((f, [(i, 0, 0, 0), crossing(f, i, j), crossing(f, i, k)]))
        else:
            o = int(np.argmin(inside[f]))
            i, j = (o + 1) % 3, (o + 2) % 3
            from_i, from_j = crossing(f, i, o), crossing(f, j, o)
            rows.append((f, [(i, 0, 0, 0), (j, 0, 0, 0), from_j]))
            rows.append((f, [(i, 0, 0, 0), from_j, from_i]))
    ends = np.array(list(numbers), dtype=np.int64).reshape(-1, 2)
    n_old, n_new = len(whole), len(rows)
    table = np.array([corner for _, corner in rows], dtype=np.int64).reshape(n_new, 3, 4)
    parent = np.concatenate([whole, np.array([f for f, _ in rows], dtype=np.int64)])
    corners = np.concatenate([np.tile(np.arange(3), (n_old, 1)), table[:, :, 0]])
    new = np.concatenate([np.zeros((n_old, 3), np.int64), table[:, :, 1]])
    ways = np.concatenate([np.zeros((n_old, 3, 2), np.int64), table[:, :, 2:]])
    old_numbers = np.take_along_axis(faces[parent], np.maximum(corners, 0), axis=1)
    cut_faces = np.where(corners >= 0, old_numbers, len(z) + new).astype(np.int32)
    za, zb = points[ends[:, 0], 2], points[ends[:, 1], 2]
    return Cut(ends, ((near - za) / (zb - za))[:, None], cut_faces, parent, corners, new, ways)
