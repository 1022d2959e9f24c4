"""One body's surface brought onto another's: same place for same place, whatever their meshes.

Both bodies stand in SMPL's zero pose. First the source takes the target's shape as well as its betas can, for they know
where a bust or a waist goes, and limbs turn a little if they are held differently. Then its vertices approach the
surface in steps whose moves are smoothed over the mesh, ever less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.decimate import vertex_normals
from bodyfit.body.files import checked_kintree
from bodyfit.body.skeleton import part_labels, parts_touch
from bodyfit.rotation import matrix_from_axis_angle

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
SHAPE_ROUNDS = 20
SHAPE_SIGMA_M = 0.01
SHAPE_EVIDENCE = 400  # independent surface points that the many correlated ones count for, against the priors
JOINT_SIGMA_M = 0.02  # joints of two models are not quite the same places
POSE_SIGMA_RAD = 0.1
SMOOTHING_ROUNDS = (60, 40, 25, 15, 8, 4)  # of one ring each: stiff first
_CANDIDATES = 12
_NO_MATCH = 1e9


def parts_of(body: Arrays) -> NDArray[np.int64]:
    """(V,) number in PART_NAMES of each vertex's part."""
    return part_labels(body["weights"], [str(n) for n in body["joint_names"]]).astype(np.int64)


def fit_surface(source: Arrays, target: Arrays) -> NDArray[np.float64]:
    """(V, 3) metres: the source's vertices bent onto the target's surface."""
    from scipy.sparse import coo_array

    surface = _Surface(target)
    bent = _fit_shape(source, target, surface)
    faces = source["faces"].astype(np.int64)
    i, j = faces[:, [0, 1, 2, 1, 2, 0]].ravel(), faces[:, [1, 2, 0, 0, 1, 2]].ravel()
    V = len(bent)
    every = np.arange(V)
    neighbours = coo_array((np.ones(len(i) + V), (np.r_[i, every], np.r_[j, every])), (V, V)).tocsr()
    degree = neighbours @ np.ones(V)

    parts, evidence = parts_of(source), _evidence(source)
    for rounds in SMOOTHING_ROUNDS:
        nearest, _, matched = surface.match(bent, vertex_normals(bent, faces), parts)
        weight = evidence * matched
        move = weight[:, None] * (nearest - bent)
        for _ in range(rounds):
            move, weight = neighbours @ move / degree[:, None], neighbours @ weight / degree
        bent = bent + move / np.maximum(weight, 1e-6)[:, None]
    return bent


def _fit_shape(source: Arrays, target: Arrays, surface: _Surface) -> NDArray[np.float64]:
    """(V, 3) metres: the source's body of the betas and the pose that bring it closest to the target's surface.

    Gauss-Newton on point-to-plane gaps and joints; the pose stays near zero, so that its Jacobian may leave out how
    rotations of one joint turn the axes of the next.
    """
    mean, basis = source["v_template"].astype(np.float64), source["shapedirs"].astype(np.float64)
    regressor, weights = source["J_regressor"].astype(np.float64), source["weights"].astype(np.float64)
    faces, parts = source["faces"].astype(np.int64), parts_of(source)
    parents = checked_kintree(source["kintree_table"], "kintree_table")[0]
    S, J = basis.shape[2], len(parents)
    below = np.eye(J)  # [j, k]: joint k turns joint j, being the same or above it
    for joint in range(1, J):
        below[joint] += below[parents[joint]]
    turned, moved = weights @ below, below - np.eye(J)
    own, theirs = _joint_rows(source, target)
    joint_basis = np.einsum("jv,vks->jks", regressor[own], basis)
    goal = target["J_regressor"][theirs].astype(np.float64) @ target["v_template"].astype(np.float64)
    chosen = np.flatnonzero(_evidence(source))[:: max(1, len(mean) // 4000)]

    # unknowns: betas, a rotation of each joint, the body's place
    prior = np.r_[np.ones(S), np.full(3 * J, 1 / POSE_SIGMA_RAD**2), np.zeros(3)]
    unknown = np.zeros(S + 3 * J + 3)
    places = np.tile(np.eye(3), (len(own), 1, 1))
    for _ in range(SHAPE_ROUNDS):
        rest = mean + basis @ unknown[:S]
        pose, place = unknown[S : S + 3 * J].reshape(J, 3), unknown[S + 3 * J :]
        body, joints = _posed(rest, regressor @ rest, parents, weights, pose)
        body, joints = body + place, joints + place
        nearest, normals, matched = surface.match(body[chosen], vertex_normals(body, faces)[chosen], parts[chosen])
        gap = np.einsum("ij,ij->i", normals, nearest - body[chosen])
        scale = np.sqrt(SHAPE_EVIDENCE / len(chosen)) / SHAPE_SIGMA_M * matched / np.hypot(1.0, gap / 0.03)
        arms = np.cross(body[chosen][:, None] - joints, normals[:, None]) * turned[chosen][..., None]
        rows = np.concatenate([np.einsum("ik,iks->is", normals, basis[chosen]), arms.reshape(-1, 3 * J), normals], 1)
        rows *= scale[:, None]
        arms = np.einsum("jk,jkab->jakb", moved[own], -_cross_matrix(joints[own][:, None] - joints))
        joint_rows = np.concatenate([joint_basis, arms.reshape(-1, 3, 3 * J), places], 2).reshape(-1, len(unknown))
        joint_gap = (goal - joints[own]).reshape(-1)
        weight = 1 / JOINT_SIGMA_M**2
        hessian = rows.T @ rows + weight * joint_rows.T @ joint_rows + np.diag(prior)
        gradient = rows.T @ (gap * scale) + weight * joint_rows.T @ joint_gap - prior * unknown
        unknown = unknown + np.linalg.solve(hessian, gradient)
    rest = mean + basis @ unknown[:S]
    pose = unknown[S : S + 3 * J].reshape(J, 3)
    return _posed(rest, regressor @ rest, parents, weights, pose)[0] + unknown[S + 3 * J :]


def _posed(
    rest: NDArray[np.float64],
    joints: NDArray[np.float64],
    parents: NDArray[np.int64],
    weights: NDArray[np.float64],
    pose: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vertices (V, 3) and joints (J, 3) by linear blend skinning of a pose (J, 3), axis-angle."""
    turn, moved = matrix_from_axis_angle(pose), joints.copy()
    for k in range(1, len(parents)):
        moved[k] = moved[parents[k]] + turn[parents[k]] @ (joints[k] - joints[parents[k]])
        turn[k] = turn[parents[k]] @ turn[k]
    motion = np.concatenate([turn, (moved - np.einsum("kij,kj->ki", turn, joints))[..., None]], 2)
    blended = (weights @ motion.reshape(len(parents), 12)).reshape(-1, 3, 4)
    return np.einsum("vij,vj->vi", blended[..., :3], rest) + blended[..., 3], moved


def _cross_matrix(a: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 3, 3) with which a cross product with a (..., 3) is a product."""
    out = np.zeros((*a.shape, 3))
    out[..., 2, 1], out[..., 0, 2], out[..., 1, 0] = a[..., 0], a[..., 1], a[..., 2]
    return out - np.swapaxes(out, -1, -2)


def _joint_rows(source: Arrays, target: Arrays) -> tuple[list[int], list[int]]:
    """Rows of the joints that both bodies have by the same name."""
    own, theirs = ([str(n) for n in body["joint_names"]] for body in (source, target))
    common = [n for n in own if n in theirs]
    return [own.index(n) for n in common], [theirs.index(n) for n in common]


def _evidence(body: Arrays) -> NDArray[np.float64]:
    """(V,) 1 where a vertex lies on the outside of the body, 0 in its cavities."""
    return body["sample_mask"].astype(np.float64) if "sample_mask" in body else np.ones(len(body["v_template"]))


class _Surface:
    """A body's surface, densely sampled with normals and parts, to find nearest places on."""

    def __init__(self, body: Arrays) -> None:
        from scipy.spatial import KDTree

        v, faces, part = body["v_template"].astype(np.float64), body["faces"].astype(np.int64), parts_of(body)
        normals = vertex_normals(v, faces)
        # centres, points towards the corners, middles of edges
        mixes = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4], [1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=float)
        mixes /= mixes.sum(1, keepdims=True)
        way = np.concatenate([normals, np.einsum("mk,fkc->fmc", mixes, normals[faces]).reshape(-1, 3)])
        self.points = np.concatenate([v, np.einsum("mk,fkc->fmc", mixes, v[faces]).reshape(-1, 3)])
        self.normals = way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-12)
        self.parts = np.concatenate([part, part[faces][:, mixes.argmax(1)].reshape(-1)])
        self.tree, self.touch = KDTree(self.points), parts_touch()

    def match(
        self, points: NDArray[np.float64], normals: NDArray[np.float64], parts: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
        """Nearest places (N, 3) that face the same way, on the same part or next to it; normals (N, 3); found (N,)."""
        distance, near = (np.asarray(a) for a in self.tree.query(points, k=_CANDIDATES))
        same_way = np.einsum("ij,ikj->ik", normals, self.normals[near])
        cost = distance * (1.5 - same_way)
        cost[~self.touch[parts[:, None], self.parts[near]] | (same_way < 0.2)] = _NO_MATCH
        best = cost.argmin(1)
        every = np.arange(len(points))
        chosen = near[every, best]
        return self.points[chosen], self.normals[chosen], cost[every, best] < _NO_MATCH
