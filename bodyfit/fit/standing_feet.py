"""Feet that stand do not slide: points of the soles that are low and slow keep their place.

Which points stand is judged once, from the poses at hand, each point for itself: a heel that lifts lets the toes
stand. Between two instants a standing point's velocity is the residual, robust, so that a foot judged wrongly may go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.banded import Band
from bodyfit.fit.mesh import Mesh
from bodyfit.kernels.body import joint_motions

SIGMA_M_S = 0.04
"""standard deviation of a standing sole's velocity, per axis: skin, shoe and skeleton give a little"""
ROBUST_M_S = 0.20
"""Geman-McClure scale of that velocity"""
LOW_M = 0.030
"""a point that is higher than this above the floor does not stand: the floor's error and a sole's rim are less"""
SLOW_M_S = 0.25
"""nor does one that is faster than this"""
POINTS_PER_FOOT = 2.0
"""how many independent points a sole counts as: those of one foot move together"""


@dataclass(frozen=True)
class Soles:
    """Points of the soles: rest (P, 3) metres, their joints' weights (P, J) and which foot (P,) each is of."""

    rest: NDArray[np.float64]
    weights: NDArray[np.float64]
    foot: NDArray[np.int64]
    joints: NDArray[np.float64]
    """(J, 3) places of the joints at rest"""
    parents: NDArray[np.int32]
    below: NDArray[np.bool_]
    """(J, J) whether the second joint moves with the first"""


def joints_below(parents: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(J, J) whether the second joint moves with the first, itself included."""
    below = np.eye(len(parents), dtype=bool)
    for j in range(1, len(parents)):
        below[:, j] |= below[:, parents[j]]
    return below


def soles_of(mesh: Mesh) -> Soles:
    """The soles of a mesh whose shape is held: that of its template."""
    ids = mesh.floor_vertices
    rest = mesh.template[ids].astype(np.float64)
    J = len(mesh.parents)
    weights = np.zeros((len(ids), J))
    for k in range(mesh.weights.shape[1]):
        np.add.at(weights, (np.arange(len(ids)), mesh.weight_joints[ids, k]), mesh.weights[ids, k].astype(np.float64))
    below = joints_below(mesh.parents)
    foot = (mesh.template[ids, 0] < 0).astype(np.int64)
    return Soles(rest, weights, foot, mesh.joint_template, mesh.parents, below)


def sole_places(
    soles: Soles, rotations: NDArray[np.float64], transl: NDArray[np.float64], *, want_rows: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """World places (T, P, 3) metres, and their derivatives (T, P, 3, 3J + 3) by right perturbations and transl."""
    T, J = rotations.shape[:2]
    P = len(soles.rest)
    G, posed = np.empty((T, J, 3, 3)), np.empty((T, J, 3))
    for t in range(T):
        joint_motions(rotations[t], soles.joints, soles.parents, np.eye(3), np.zeros(3), transl[t], G[t], posed[t])
    local = soles.rest[:, None] - soles.joints[None]
    each = np.einsum("tjab,pjb->tpja", G, local) + posed[:, None]
    weighted = soles.weights[None, :, :, None] * each
    places = weighted.sum(2)
    if not want_rows:
        return places, np.zeros((0, P, 3, 3 * J + 3))
    # turning joint j by w about its place moves a point by w × (what hangs below j, about j's place)
    below = soles.below.astype(np.float64)
    arm = np.einsum("tpka,jk->tpja", weighted, below)
    arm -= (soles.weights @ below.T)[None, :, :, None] * posed[:, None]
    rows = np.zeros((T, P, 3, 3 * J + 3))
    turned = np.cross(np.swapaxes(G, -1, -2)[:, None], arm[:, :, :, None])
    rows[..., : 3 * J] = np.moveaxis(turned, -1, 2).reshape(T, P, 3, 3 * J)
    rows[..., 3 * J :] = np.eye(3)
    return places, rows


def standing(
    places: NDArray[np.float64],
    times_s: NDArray[np.float64],
    linked: NDArray[np.bool_],
    floor_planes: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How surely each point stood still between an instant and the one before, (T, P) from 0 to 1.

    Args:
        places: (T, P, 3) world metres.
        times_s: (T,); linked (T,) whether an instant follows the one before it.
        floor_planes: (T, 4) n·x + d = 0, zeros where the floor is unknown: nothing is known to stand there.
    """
    T, P = places.shape[:2]
    out = np.zeros((T, P))
    height = np.einsum("tpa,ta->tp", places, floor_planes[:, :3]) + floor_planes[:, 3:]
    known = np.any(floor_planes[:, :3] != 0, axis=1)
    low = np.clip(2.0 - height / LOW_M, 0.0, 1.0) * known[:, None]
    for t in np.flatnonzero(linked):
        # over three steps where there are three: a single one is mostly noise
        first = t - 2 if t >= 2 and linked[t - 1] else t - 1
        last = t + 1 if t + 1 < T and linked[t + 1] else t
        speed = np.linalg.norm(places[last] - places[first], axis=1) / (times_s[last] - times_s[first])
        out[t] = np.minimum(low[t - 1], low[t]) * np.clip(2.0 - speed / SLOW_M_S, 0.0, 1.0)
    return out


def standing_terms(
    soles: Soles,
    rotations: NDArray[np.float64],
    transl: NDArray[np.float64],
    times_s: NDArray[np.float64],
    stands: NDArray[np.float64],
    band: Band | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What sliding costs: of points that stand, by `stands` (T, P) from `standing`, between t - 1 and t.

    Returns:
        Cost (T,), each step's at its later instant, and gradient (T, 3J + 3); `band` gets the Hessian added.
    """
    T, J = rotations.shape[:2]
    cost, gradient = np.zeros(T), np.zeros((T, 3 * J + 3))
    if not stands.any():
        return cost, gradient
    places, rows = sole_places(soles, rotations, transl, want_rows=band is not None)
    per_foot = np.bincount(soles.foot, minlength=2)[soles.foot]
    share = stands * (POINTS_PER_FOOT / np.maximum(per_foot, POINTS_PER_FOOT))
    for t in np.flatnonzero(stands.any(1)).tolist():
        h = times_s[t] - times_s[t - 1]
        v = (places[t] - places[t - 1]) / h
        square = (v * v).sum(1)
        keep = ROBUST_M_S**2 / (ROBUST_M_S**2 + square)
        cost[t] = (0.5 * share[t] * square * keep).sum() / SIGMA_M_S**2
        if band is None:
            continue
        weight = share[t] * keep**2 / SIGMA_M_S**2
        use = np.flatnonzero(weight)
        root = np.sqrt(weight[use])[:, None, None] / h
        late, early = ((root * rows[k][use]).reshape(-1, 3 * J + 3) for k in (t, t - 1))
        r = (np.sqrt(weight[use])[:, None] * v[use]).ravel()
        gradient[t] += late.T @ r
        gradient[t - 1] -= early.T @ r
        band.diagonal[t] += late.T @ late
        band.diagonal[t - 1] += early.T @ early
        band.block(t, t - 1)[:] -= late.T @ early
    return cost, gradient
