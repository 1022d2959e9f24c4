"""A known body: shape from the model's own prior, plus shape that its basis cannot make."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel
from bodyfit.kernels.body import joint_motions, skin, vertex_normals
from bodyfit.rotation import matrix_from_axis_angle

SEXES = ("female", "male")


@dataclass(frozen=True)
class Subject:
    """One person: `rest_vertices` = model's rest body at `betas` plus `rest_offsets`, (V, 3) metres in the zero pose.

    Attributes:
        betas: (S,) shape parameters, one standard deviation each.
        rest_offsets: (V, 3) displacement that no betas make; zero for a body inside the model's span.
        rest_vertices: (V, 3) float64 unposed naked body.
        rest_joints: (J, 3) joints, those of the betas alone.
        sex: "female" or "male".
    """

    betas: NDArray[np.float64]
    rest_offsets: NDArray[np.float64]
    rest_vertices: NDArray[np.float64]
    rest_joints: NDArray[np.float64]
    sex: str

    @property
    def off_model_mm_rms(self) -> float:
        """Root mean square length of the displacement, millimetres."""
        return float(np.sqrt((self.rest_offsets**2).sum(1).mean()) * 1000)

    def posed(
        self, model: BodyModel, pose: NDArray[Any], transl: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Vertices (V, 3) and joints (J, 3) of the naked body in a pose (J, 3) axis-angle, by linear blend skinning.

        Pose-dependent corrections of imported models (`posedirs`) are left out.
        """
        pose = np.asarray(pose, dtype=np.float64)
        G, joints = np.empty((model.num_joints, 3, 3)), np.empty((model.num_joints, 3))
        rest_joints, origin = self.rest_joints, np.zeros(3)
        joint_motions(matrix_from_axis_angle(pose), rest_joints, model.parents, np.eye(3), origin, origin, G, joints)
        vertices = np.empty((model.num_vertices, 3), np.float32)
        skin(self.rest_vertices.astype(np.float32), *model.sparse_weights, G, joints, rest_joints, vertices)
        return vertices.astype(np.float64) + transl, joints + transl


def sample_subject(
    model: BodyModel, rng: np.random.Generator, sex: str | None = None, off_model_mm_rms: float = 3.0
) -> Subject:
    """Draw a person: betas from the sex's prior and smooth shape off the model's span.

    Args:
        sex: "female", "male" or None for either.
        off_model_mm_rms: root mean square length of the displacement that the basis cannot make, millimetres.
    """
    drawn = SEXES[int(rng.integers(2))]
    sex = sex or drawn
    mean, cov = prior(model, sex)
    betas = rng.multivariate_normal(mean, cov, method="cholesky")
    return make_subject(model, betas, sex, smooth_offsets(model, betas, rng, off_model_mm_rms))


def make_subject(
    model: BodyModel, betas: NDArray[Any], sex: str, rest_offsets: NDArray[np.float64] | None = None
) -> Subject:
    """The person with these betas (S,) and, where given, these rest offsets (V, 3) metres."""
    betas = np.asarray(betas, np.float64)
    offsets = np.zeros_like(model.v_template, dtype=np.float64) if rest_offsets is None else rest_offsets
    rest = np.asarray(model.rest_vertices(betas), np.float64) + offsets
    # what no betas make is flesh over the same bones: a signed regressor would magnify it at the knees
    return Subject(betas, offsets, rest, model.joints_at_rest(betas), sex)


def without_offsets(model: BodyModel, subject: Subject) -> Subject:
    """The same betas inside the model's span."""
    return make_subject(model, subject.betas, subject.sex)


def smooth_offsets(
    model: BodyModel, betas: NDArray[Any], rng: np.random.Generator, rms_mm: float, centres: int = 90
) -> NDArray[np.float64]:
    """(V, 3) metres of smooth displacement, mostly along normals and partly symmetric, orthogonal to the shape basis.

    A sum of Gaussian windows of 8 to 20 cm around random points of the rest body, each moving the surface in and out
    and a little sideways; what the basis can make of it (and shifts and turns of the whole) is projected away.
    """
    if rms_mm <= 0:
        return np.zeros((model.num_vertices, 3))
    rest = np.asarray(model.rest_vertices(betas), np.float64)
    points = rest.astype(np.float32)
    normals = _soft_normals(model)
    at = rest[rng.integers(0, len(rest), centres)]
    length = rng.uniform(0.08, 0.20, centres)
    amplitude = rng.normal(0.0, 1.0, centres)
    sideways = rng.normal(0.0, 0.35, (centres, 3))
    twin = rng.random(centres) < 0.7  # most of a body's peculiarities stand on both sides
    mirror = np.array([-1.0, 1.0, 1.0])
    at = np.concatenate([at, at[twin] * mirror])
    length = np.concatenate([length, length[twin]])
    amplitude = np.concatenate([amplitude, amplitude[twin]])
    sideways = np.concatenate([sideways, sideways[twin] * mirror])
    d2 = (points**2).sum(1)[:, None] - 2 * points @ at.T.astype(np.float32) + (at**2).sum(1).astype(np.float32)
    d2 *= (-0.5 / length**2).astype(np.float32)
    window = np.exp(np.minimum(d2, 0, out=d2), out=d2)
    moved = window @ np.concatenate([amplitude[:, None], sideways], 1).astype(np.float32)
    offsets = (normals * moved[:, :1] + moved[:, 1:]).astype(np.float64)
    offsets = _off_basis(model, offsets)
    return offsets * (rms_mm / 1000 / np.sqrt((offsets**2).sum(1).mean()))


def _off_basis(model: BodyModel, offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """`offsets` (V, 3) less their least-squares projection onto the shape basis and the rigid motions."""
    basis, inverse = _basis(model)
    flat = offsets.reshape(-1).astype(np.float32)
    for _ in range(3):  # each pass removes what rounding left of the one before
        flat = flat - (inverse @ (basis @ flat)).astype(np.float32) @ basis
    return flat.reshape(-1, 3).astype(np.float64)


@lru_cache(maxsize=2)
def _soft_normals(model: BodyModel, rounds: int = 40) -> NDArray[np.float32]:
    """(V, 3) normals of the template averaged over their surroundings: short where the surface folds (ears, mouth)."""
    normals = np.empty_like(model.v_template)
    vertex_normals(model.v_template, model.faces, normals)
    at, other = model.faces[:, [0, 1, 2, 1, 2, 0]].ravel(), model.faces[:, [1, 2, 0, 0, 1, 2]].ravel()
    count = np.maximum(np.bincount(at, minlength=model.num_vertices), 1)
    for _ in range(rounds):
        mean = [np.bincount(at, normals[other, k], minlength=model.num_vertices) / count for k in range(3)]
        normals = 0.5 * normals + 0.5 * np.stack(mean, 1)
    return normals.astype(np.float32)


@lru_cache(maxsize=2)
def _basis(model: BodyModel) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Unit rows (S + 6, 3V) of what betas and small rigid motions do, and their inverse Gram matrix."""
    x, y, z = (model.v_template - model.v_template.mean(0)).T
    rigid = np.zeros((6, model.num_vertices, 3), np.float32)
    rigid[:3] = np.eye(3)[:, None, :]
    rigid[3, :, 1], rigid[3, :, 2] = -z, y
    rigid[4, :, 0], rigid[4, :, 2] = z, -x
    rigid[5, :, 0], rigid[5, :, 1] = -y, x
    basis = np.concatenate([model.shapedirs.transpose(2, 0, 1), rigid]).reshape(model.num_betas + 6, -1)
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    gram = (basis @ basis.T).astype(np.float64)
    return basis, np.linalg.inv(gram + 1e-6 * np.eye(len(gram)))


def prior(model: BodyModel, sex: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (S,) and covariance (S, S) of the model's betas for a sex; standard normal for a model without priors."""
    if sex in model.priors:
        return model.priors[sex].mean, model.priors[sex].cov
    return np.zeros(model.num_betas), np.eye(model.num_betas)
