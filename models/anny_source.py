"""What the build takes from the `anny` package (build time only): mesh, blend shapes, rig and cavities, in SMPL's axes.

Everything past this file is numpy. Anny's axes (z up, facing -y, left +x) become SMPL's (y up, facing +z, left +x)
by (x, y, z) -> (x, z, -y).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

TOPOLOGY = "anny-noeyes-notongue"  # the body without eyeballs and tongue: one closed manifold


@dataclass(frozen=True)
class AnnySource:
    """Anny's full-body model as arrays, metres, SMPL's axes; V vertices, B blend shapes, K bones."""

    package_version: str
    template: np.ndarray  # (V, 3)
    blendshapes: np.ndarray  # (B, V, 3) float32
    bone_heads: np.ndarray  # (K, 3)
    bone_heads_blendshapes: np.ndarray  # (B, K, 3)
    bone_labels: list[str]
    bone_parents: list[int]
    vertex_bone_weights: np.ndarray  # (V, K), rows sum to 1
    faces: np.ndarray  # (F, 3) int32, outward by the right-hand rule
    cavity_faces: np.ndarray  # (F,) bool: inside the mouth or behind the eyelids
    anny_vertex_ids: np.ndarray  # (V,) int32 into Anny's default 13,718-vertex mesh
    waist_vertices: np.ndarray  # (46,) Anny's own waist loop
    phenotype_labels: list[str]
    phenotype_mask: np.ndarray  # (P, variations)
    blendshape_labels: list[str]
    local_labels: list[str]

    def phenotype_weights(self, phenotypes: np.ndarray) -> np.ndarray:
        """Blend weights (N, P) of phenotype values (N, len(phenotype_labels)), by Anny's own interpolation."""
        import torch
        from anny.models.phenotype import make_phenotype_anchors, phenotype_blendshape_weights

        w = phenotype_blendshape_weights(
            torch.as_tensor(phenotypes, dtype=torch.float64),
            self.phenotype_labels,
            make_phenotype_anchors(torch.float64),
            torch.as_tensor(self.phenotype_mask, dtype=torch.float64),
            extrapolate=False,
        )
        return w.numpy()

    def coefficients(self, phenotypes: np.ndarray, local: np.ndarray) -> np.ndarray:
        """Blend-shape coefficients (N, B) float32 of phenotypes (N, .) and local changes (N, L) in [-1, 1]."""
        pairs = np.stack([np.maximum(local, 0), np.maximum(-local, 0)], -1).reshape(len(local), -1)
        return np.concatenate([self.phenotype_weights(phenotypes), pairs], 1).astype(np.float32)

    def bodies(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Unposed vertices (N, V, 3) float32 and bone heads (N, K, 3) of blend-shape coefficients (N, B)."""
        n = len(coefficients)
        v = coefficients @ self.blendshapes.reshape(len(self.blendshapes), -1)
        v += self.template.reshape(1, -1).astype(np.float32)
        j = coefficients.astype(float) @ self.bone_heads_blendshapes.reshape(len(self.blendshapes), -1)
        return v.reshape(n, -1, 3), (j + self.bone_heads.reshape(1, -1)).reshape(n, -1, 3)


def to_smpl_axes(x: np.ndarray) -> np.ndarray:
    """(x, y, z) in Anny's axes -> (x, z, -y), over the last dimension."""
    return np.stack([x[..., 0], x[..., 2], -x[..., 1]], -1)


def load_source() -> AnnySource:
    """Construct Anny (slow the first time: it parses MakeHuman's targets) and take it apart."""
    import anny
    import torch
    from anny.anthropometry import BASE_MESH_WAIST_VERTICES
    from anny.face_segmentation import get_face_segmentation_mask

    torch.set_num_threads(1)
    kind = {"rig": "anny", "phenotypes": "all", "phenotype_blendshapes": "original"}
    model = anny.Anny(topology=TOPOLOGY, local_changes="default", **kind)
    default = anny.Anny(topology="anny", local_changes="none", **kind)
    array = lambda t: t.detach().cpu().numpy()  # noqa: E731

    base = array(model.base_mesh_vertex_indices).astype(int)
    position = {b: i for i, b in enumerate(array(default.base_mesh_vertex_indices).astype(int))}
    ids = np.array([position[b] for b in base], dtype=np.int32)
    if np.abs(array(default.template_vertices)[ids] - array(model.template_vertices)).max() > 1e-9:
        raise RuntimeError("anny_vertex_ids do not map the body onto Anny's default mesh")

    v = array(model.template_vertices)
    dense = np.zeros((len(v), len(model.bone_labels)))
    index, weight = array(model.vertex_bone_indices).astype(int), array(model.vertex_bone_weights)
    np.add.at(dense, (np.arange(len(v))[:, None], index), weight)
    faces = array(model.faces).astype(np.int32)
    t = v[faces]
    if np.einsum("ij,ij->", np.cross(t[:, 0], t[:, 1]), t[:, 2]) < 0:
        faces = faces[:, ::-1].copy()
    cavities = get_face_segmentation_mask(model, ["mouth_cavity", "eye_cavity.L", "eye_cavity.R"])
    base_position = {b: i for i, b in enumerate(base)}
    labels = list(model.blendshape_labels)
    phenotype_mask = array(model.stacked_phenotype_blend_shapes_mask)
    if any(not s.startswith("local_change:") for s in labels[len(phenotype_mask) :]):
        raise RuntimeError("Anny's blend shapes are not phenotypes first, then local changes")
    return AnnySource(
        package_version=version("anny"),
        template=to_smpl_axes(v),
        blendshapes=to_smpl_axes(array(model.blendshapes)).astype(np.float32),
        bone_heads=to_smpl_axes(array(model.template_bone_heads)),
        bone_heads_blendshapes=to_smpl_axes(array(model.bone_heads_blendshapes)),
        bone_labels=list(model.bone_labels),
        bone_parents=[int(p) for p in model.bone_parents],
        vertex_bone_weights=dense / dense.sum(1, keepdims=True),
        faces=faces,
        cavity_faces=array(cavities).astype(bool),
        anny_vertex_ids=ids,
        waist_vertices=np.array([base_position[b] for b in BASE_MESH_WAIST_VERTICES]),
        phenotype_labels=list(model.phenotype_labels),
        phenotype_mask=phenotype_mask,
        blendshape_labels=labels,
        local_labels=list(model.local_change_labels),
    )
