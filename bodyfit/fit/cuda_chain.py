"""The joints of many skeletons at once: how they are turned, and how turning one moves what hangs on it.

What pulls along a line at a place P with a force h turns joint j, which sits at p_j and is turned by G_j, by
G_jᵀ ((P - p_j) × h): linear in the line's Plücker coordinates (h, P × h). So the rows of a Jacobian are lines times one
matrix of the skeleton, for keypoints and for spheres that touch alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.cuda_tensors import Tensors
from bodyfit.render.extra import Tensor, torch


def ways(parents: NDArray[np.int32]) -> NDArray[np.float64]:
    """(J, J): 1 where the way from the root to the row's joint, itself included, leads over the column's."""
    way = np.eye(len(parents))
    for j, p in enumerate(parents):
        if p >= 0:
            way[j] += way[p]
    return way


def _tables(parents: tuple[int, ...]) -> list[NDArray[np.float64] | NDArray[np.int64]]:
    """The identity, and the joint 1, 2, 4 … above each."""
    count = len(parents)
    above = np.array([*(p if p >= 0 else count for p in parents), count], np.int64)
    found: list[NDArray[np.float64] | NDArray[np.int64]] = [np.eye(3)]
    while (above < count).any():
        found.append(above)
        above = above[above]
    return found


class Chain:
    """A skeleton of J joints; beside them stands one that is never turned, at number J: the root's parent."""

    def __init__(self, parents: NDArray[np.int32], tensors: Tensors) -> None:
        above = tuple(int(p) for p in parents)
        self._still, *self._rounds = tensors.constants(("chain", above), lambda: _tables(above))

    def turns(self, rotations: Tensor) -> Tensor:
        """(N, J + 1, 3, 3) the joints' rotations in the world, each transposed, of rotations (N, J, 3, 3) against the
        parents: products over 1, 2, 4 … joints on the way to the root."""
        still = self._still.expand(len(rotations), 1, 3, 3)
        turns = torch.cat([rotations.transpose(2, 3), still], 1)
        for above in self._rounds:
            turns = turns @ turns.index_select(1, above)
        return turns


def levers(turns: Tensor, places: Tensor) -> Tensor:
    """(N, 6, 3K) what lines are multiplied by: turns (N, K, 3, 3) as from `Chain.turns`, places (N, K, 3) metres."""
    n, count = places.shape[:2]
    arms = torch.linalg.cross(places[:, :, None], turns)
    flat = (n, 3 * count, 3)
    return torch.cat([arms.reshape(flat).transpose(1, 2), turns.reshape(flat).transpose(1, 2)], 1)
