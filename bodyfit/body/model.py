"""A body as SMPL describes one: a template, a shape basis, joints and skinning weights (Loper et al. 2015)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError

DEFAULT_MODEL = "anny_adult"
SEXES = ("female", "male", "neutral")


@dataclass(frozen=True)
class ShapePrior:
    """Gaussian over betas: mean (S,), cov (S, S), in the model's own units of one standard deviation."""

    mean: NDArray[np.float64]
    cov: NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """A mesh of fewer faces whose vertices are a subset of the full mesh's: vertex_ids (V1,), faces (F1, 3)."""

    vertex_ids: NDArray[np.int32]
    faces: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class BodyModel:
    """A SMPL-format body as plain arrays.

    Attributes:
        v_template: (V, 3) float32 metres, zero pose; x = the person's left, y up, z to the front.
        shapedirs: (V, 3, S) float32 metres per unit of betas.
        J_regressor: (J, V) float32; joints = J_regressor @ rest vertices.
        lbs_weights: (V, J) float32, rows sum to one.
        parents: (J,) int32, -1 for the root, parents before children.
        faces: (F, 3) int32, wound outwards.
        posedirs: (V, 3, 9(J-1)) float32 or None: SMPL's pose-dependent corrections.
        levels: decimated meshes, finest first.
    """

    name: str
    v_template: NDArray[np.float32]
    shapedirs: NDArray[np.float32]
    J_regressor: NDArray[np.float32]
    lbs_weights: NDArray[np.float32]
    parents: NDArray[np.int32]
    faces: NDArray[np.int32]
    joint_names: tuple[str, ...]
    priors: dict[str, ShapePrior]
    levels: tuple[Level, ...] = ()
    landmarks: dict[str, NDArray[np.int32]] = field(default_factory=dict)
    part_labels: NDArray[np.uint8] | None = None
    part_names: tuple[str, ...] = ()
    sample_mask: NDArray[np.bool_] | None = None
    anny_vertex_ids: NDArray[np.int32] | None = None
    posedirs: NDArray[np.float32] | None = None
    extras: dict[str, NDArray[Any]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @property
    def num_vertices(self) -> int:
        """V."""
        return len(self.v_template)

    @property
    def num_joints(self) -> int:
        """J."""
        return len(self.parents)

    @property
    def num_betas(self) -> int:
        """S."""
        return self.shapedirs.shape[2]

    @cached_property
    def joint_template(self) -> NDArray[np.float64]:
        """(J, 3) joints of the template, metres."""
        return self.J_regressor.astype(np.float64) @ self.v_template.astype(np.float64)

    @cached_property
    def joint_shapedirs(self) -> NDArray[np.float64]:
        """(J, 3, S) metres per unit of betas."""
        flat = self.shapedirs.reshape(self.num_vertices, -1)
        return np.asarray(self.J_regressor @ flat, dtype=np.float64).reshape(self.num_joints, 3, -1)

    @cached_property
    def sparse_weights(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Skinning weights as joint numbers (V, K) and weights (V, K), largest first, padded with weight 0."""
        k = max(1, int((self.lbs_weights > 0).sum(1).max()))
        order = np.argsort(-self.lbs_weights, axis=1, kind="stable")[:, :k]
        weights = np.take_along_axis(self.lbs_weights, order, 1)
        return np.ascontiguousarray(order, dtype=np.int32), np.ascontiguousarray(weights)

    def rest_vertices(self, betas: NDArray[Any]) -> NDArray[np.float64]:
        """(V, 3) unposed vertices, metres."""
        b = self._betas(betas)
        return self.v_template.astype(np.float64) + np.tensordot(self.shapedirs, b.astype(np.float32), 1)

    def joints_at_rest(self, betas: NDArray[Any]) -> NDArray[np.float64]:
        """(J, 3) unposed joints, metres."""
        return self.joint_template + self.joint_shapedirs @ self._betas(betas)

    def forward(
        self,
        betas: NDArray[Any],
        pose: NDArray[Any],
        transl: NDArray[Any] | None = None,
        *,
        offsets: NDArray[Any] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Poses the body: betas (S,), pose (J, 3) axis-angle radians, transl (3,) metres.

        `offsets` (V, 3) metres are added to the unposed vertices (SMPL-X's expression, clothes); joints stay.
        Returns vertices (V, 3) and joints (J, 3) in metres. The root joint lies at its rest place plus transl.
        """
        from bodyfit.kernels import body as kernel
        from bodyfit.rotation import matrix_from_axis_angle

        pose = np.asarray(pose, dtype=np.float64)
        if pose.shape != (self.num_joints, 3):
            raise InputError("pose", f"shape ({self.num_joints}, 3)", str(pose.shape))
        R = matrix_from_axis_angle(pose)
        b = self._betas(betas)
        joints = self.joints_at_rest(b)
        rest = np.empty_like(self.v_template)
        kernel.rest_shape(self.v_template, self.shapedirs, b.astype(np.float32), rest)
        if self.posedirs is not None:
            feature = (R[1:] - np.eye(3)).reshape(-1)
            rest += np.tensordot(self.posedirs, feature.astype(np.float32), 1)
        if offsets is not None:
            rest += np.asarray(offsets, dtype=np.float32)
        G, posed = np.empty((self.num_joints, 3, 3)), np.empty((self.num_joints, 3))
        t = np.zeros(3) if transl is None else np.asarray(transl, dtype=np.float64)
        # far from the origin float32 would lose tenths of a millimetre: the place is added afterwards
        kernel.joint_motions(R, joints, self.parents, np.eye(3), np.zeros(3), np.zeros(3), G, posed)
        vertices = np.empty_like(rest)
        kernel.skin(rest, *self.sparse_weights, G, posed, joints, vertices)
        return vertices.astype(np.float64) + t, posed + t

    def _betas(self, betas: NDArray[Any]) -> NDArray[np.float64]:
        b = np.asarray(betas, dtype=np.float64)
        if b.shape != (self.num_betas,):
            raise InputError("betas", f"shape ({self.num_betas},)", str(b.shape))
        return b


def load_body_model(path_or_name: str | Path | None = None) -> BodyModel:
    """Reads a body: a file, the name of an installed one, or the shipped default.

    Raises:
        ModelFileError: the file is not a SMPL-format body in our npz; the message names the array.
    """
    from bodyfit.body.files import find_model, read_body_file

    path = find_model(str(path_or_name) if path_or_name is not None else DEFAULT_MODEL)
    arrays = read_body_file(path)
    meta = json.loads(str(arrays["meta"])) if "meta" in arrays else {}
    parents = np.asarray(arrays["kintree_table"])[0].astype(np.int64)
    parents = np.where((parents < 0) | (parents >= len(parents)), -1, parents).astype(np.int32)
    S = arrays["shapedirs"].shape[2]
    priors = {
        sex: ShapePrior(arrays[f"prior_mean_{sex}"].astype(np.float64), arrays[f"prior_cov_{sex}"].astype(np.float64))
        for sex in SEXES
        if f"prior_mean_{sex}" in arrays
    } or {"neutral": ShapePrior(np.zeros(S), np.eye(S))}
    levels = tuple(
        Level(arrays[f"lod{i}_vertex_ids"].astype(np.int32), np.ascontiguousarray(arrays[f"lod{i}_faces"], np.int32))
        for i in (1, 2)
        if f"lod{i}_faces" in arrays
    )
    landmarks = {
        str(n): ids[ids >= 0].astype(np.int32)
        for n, ids in zip(arrays.get("landmark_names", ()), arrays.get("landmark_vertices", ()), strict=True)
    }
    known = {"v_template", "shapedirs", "J_regressor", "weights", "kintree_table", "faces", "f", "joint_names", "meta"}
    skip = ("prior_", "lod", "landmark_", "part_", "sample_mask", "anny_vertex_ids", "posedirs")
    return BodyModel(
        name=str(meta.get("name", Path(path).stem)),
        v_template=np.ascontiguousarray(arrays["v_template"], np.float32),
        shapedirs=np.ascontiguousarray(arrays["shapedirs"], np.float32),
        J_regressor=np.ascontiguousarray(arrays["J_regressor"], np.float32),
        lbs_weights=np.ascontiguousarray(arrays["weights"], np.float32),
        parents=parents,
        faces=np.ascontiguousarray(arrays["faces"] if "faces" in arrays else arrays["f"], np.int32),
        joint_names=tuple(str(n) for n in arrays.get("joint_names", ())),
        priors=priors,
        levels=levels,
        landmarks=landmarks,
        part_labels=arrays.get("part_labels"),
        part_names=tuple(str(n) for n in arrays.get("part_names", ())),
        sample_mask=arrays.get("sample_mask"),
        anny_vertex_ids=arrays.get("anny_vertex_ids"),
        posedirs=np.ascontiguousarray(arrays["posedirs"], np.float32) if "posedirs" in arrays else None,
        extras={k: v for k, v in arrays.items() if k not in known and not k.startswith(skip)},
        meta=meta,
        sha256=hashlib.sha256(Path(path).read_bytes()).hexdigest(),
    )
