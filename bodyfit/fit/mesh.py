"""The body at one level of detail, as the arrays that the kernels take; garments are further shape directions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel

GARMENTS = ("shirt", "trousers", "shoes", "hair")
GARMENT_PARTS: dict[str, tuple[str, ...]] = {
    "shirt": ("abdomen", "chest", "upper_arm"),
    "trousers": ("pelvis", "thigh", "calf"),
    "shoes": ("foot",),
    "hair": ("head",),
}


@dataclass(frozen=True)
class Mesh:
    """One level of a body around a mean shape; `shape` (S,) = betas beyond the mean, then garment thickness in metres.

    template (V, 3), shapedirs (V, 3, S) float32; joint_template (J, 3), jointdirs (J, 3, S) float64.
    """

    template: NDArray[np.float32]
    shapedirs: NDArray[np.float32]
    weight_joints: NDArray[np.int32]
    weights: NDArray[np.float32]
    faces: NDArray[np.int32]
    joint_template: NDArray[np.float64]
    jointdirs: NDArray[np.float64]
    parents: NDArray[np.int32]
    floor_vertices: NDArray[np.int32]
    vertex_ids: NDArray[np.int32]
    num_betas: int
    joint_names: tuple[str, ...]

    @property
    def num_shape(self) -> int:
        """S: betas and garments together."""
        return self.shapedirs.shape[2]


@lru_cache(maxsize=4)
def garment_fields(model: BodyModel) -> NDArray[np.float32]:
    """(V, 4) how much of each garment's thickness a vertex carries, 0 to 1, smooth across the borders of parts; kept
    for the models used last, and not to be written to."""
    fields = np.zeros((model.num_vertices, len(GARMENTS)), np.float32)
    if model.part_labels is None:
        fields.flags.writeable = False
        return fields
    names = list(model.part_names)
    for g, garment in enumerate(GARMENTS):
        parts = [i for i, n in enumerate(names) if any(n.endswith(p) for p in GARMENT_PARTS[garment])]
        fields[:, g] = np.isin(model.part_labels, parts)
    if "chin" in model.landmarks and "head_top" in model.landmarks:
        # hair covers the upper half of the head, behind the face
        v = model.v_template
        chin, top = v[model.landmarks["chin"]].mean(0), v[model.landmarks["head_top"]].mean(0)
        up = (v[:, 1] - chin[1]) / max(float(top[1] - chin[1]), 1e-3)
        back = (chin[2] - v[:, 2]) / max(float(top[1] - chin[1]), 1e-3)
        fields[:, 3] *= np.clip((up + 0.9 * back - 0.62) / 0.15, 0, 1)
    # three rounds of averaging over the neighbours soften the borders
    from scipy.sparse import coo_matrix

    edges = np.concatenate([model.faces[:, [0, 1]], model.faces[:, [1, 2]], model.faces[:, [2, 0]]])
    n = model.num_vertices
    A = coo_matrix((np.ones(len(edges), np.float32), (edges[:, 0], edges[:, 1])), shape=(n, n)).tocsr()
    A = A + A.T
    degree = np.maximum(np.asarray(A.sum(1)).ravel(), 1)[:, None]
    for _ in range(3):
        fields = (0.5 * fields + 0.5 * (A @ fields) / degree).astype(np.float32)
    fields.flags.writeable = False
    return fields


def sole_vertices(template: NDArray[Any], per_foot: int = 8) -> NDArray[np.int32]:
    """Vertices (2 · per_foot,) spread over both soles: each the farthest from those before it.

    Only what lies within 4 mm of its own foot's lowest point: the soles' rims are a centimetre above the floor.
    """
    low = np.flatnonzero(template[:, 1] < template[:, 1].min() + 0.03)
    out: list[int] = []
    for side in (1.0, -1.0):
        foot = low[template[low, 0] * side > 0]
        if not len(foot):
            continue
        height = template[foot, 1]
        foot = foot[height < height.min() + 0.004]
        flat = template[foot][:, [0, 2]].astype(np.float64)
        chosen = [int(template[foot, 1].argmin())]
        apart = np.full(len(foot), np.inf)
        while len(chosen) < min(per_foot, len(foot)):
            apart = np.minimum(apart, np.linalg.norm(flat - flat[chosen[-1]], axis=1))
            chosen.append(int(apart.argmax()))
        out += [int(foot[i]) for i in chosen]
    return np.array(sorted(set(out)), np.int32)


def mesh_for(
    model: BodyModel,
    level: int,
    num_betas: int,
    mean: NDArray[Any],
    garments: NDArray[Any] | None = None,
) -> Mesh:
    """The body at a level of detail (0 = full) about the betas `mean` (S,), with the first `num_betas` free.

    garments: (V, 3, G) displacement per metre of garment thickness, or None.
    """
    num_betas = min(num_betas, model.num_betas)
    levels = min(level, len(model.levels))
    ids = np.arange(model.num_vertices, dtype=np.int32) if levels == 0 else model.levels[levels - 1].vertex_ids
    faces = model.faces if levels == 0 else model.levels[levels - 1].faces
    own = slice(None) if levels == 0 else ids  # the full body's arrays are not copied, and never written to
    template = model.rest_vertices(np.asarray(mean)).astype(np.float32)[own]
    dirs = model.shapedirs[own][:, :, :num_betas]
    jointdirs = model.joint_shapedirs[:, :, :num_betas]
    if garments is not None:
        dirs = np.concatenate([dirs, garments[own].astype(np.float32, copy=False)], 2)
        jointdirs = np.concatenate([jointdirs, np.zeros((model.num_joints, 3, garments.shape[2]))], 2)
    weight_joints, weights = model.sparse_weights
    if levels == 0 and model.sample_mask is not None:
        # mouth and eye cavities are surface but no evidence: their faces are not drawn
        faces = faces[model.sample_mask[faces].all(1)]
    return Mesh(
        template=np.ascontiguousarray(template),
        shapedirs=np.ascontiguousarray(dirs),
        weight_joints=np.ascontiguousarray(weight_joints[own]),
        weights=np.ascontiguousarray(weights[own]),
        faces=np.ascontiguousarray(faces),
        joint_template=model.joints_at_rest(np.asarray(mean)),
        jointdirs=np.ascontiguousarray(jointdirs),
        parents=model.parents,
        floor_vertices=sole_vertices(template),
        vertex_ids=np.asarray(ids),
        num_betas=num_betas,
        joint_names=model.joint_names,
    )


def held_mesh(mesh: Mesh, shape: NDArray[np.float64]) -> Mesh:
    """The mesh of one shape, with one direction left for a prior to hold still (`bodyfit.fit.problem.HELD`)."""
    return replace(
        mesh,
        template=(mesh.template + mesh.shapedirs @ shape.astype(np.float32)).astype(np.float32),
        shapedirs=np.ascontiguousarray(mesh.shapedirs[:, :, :1]),
        joint_template=mesh.joint_template + mesh.jointdirs @ shape,
        jointdirs=np.ascontiguousarray(mesh.jointdirs[:, :, :1]),
        num_betas=1,
    )
