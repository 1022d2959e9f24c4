"""Adult bodies drawn from Anny, brought into the T-pose, and the shape basis fitted to them."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from anny_rig import joint_bones, joint_weights, unpose
from anny_source import AnnySource

FACE_CHANGES = ("cheek", "chin", "ear", "eyebrows", "eye", "forehead", "head", "mouth", "nose")
EXCLUDED_CHANGES = ("stomach-pregnant",)  # not a shape of the population the prior describes


@dataclass(frozen=True)
class Bodies:
    """N adults in the T-pose, pelvis at the origin, metres."""

    vertices: np.ndarray  # (N, V, 3) float32
    joints: np.ndarray  # (N, 24, 3)
    rotations: np.ndarray  # (N, 24, 3, 3) global, from Anny's rest pose to the T-pose
    gender: np.ndarray  # (N,) Anny's phenotype: 0 male, 1 female
    varied: np.ndarray  # (N,) bool: local changes on

    def __getitem__(self, index: np.ndarray | slice) -> Bodies:
        return Bodies(*(getattr(self, k)[index] for k in self.__dataclass_fields__))


def draw_phenotypes(source: AnnySource, n: int, rng: np.random.Generator) -> np.ndarray:
    """Adult phenotypes (n, 11): Anny's WHO-calibrated distribution, half of it widened in build and age."""
    import torch
    from anny.shape_distribution import SimpleShapeDistribution

    torch.manual_seed(int(rng.integers(1 << 31)))
    like = SimpleNamespace(dtype=torch.float64, device="cpu", phenotype_labels=source.phenotype_labels)
    years = torch.distributions.Uniform(torch.tensor(18.0).double(), torch.tensor(80.0).double())
    sex = torch.distributions.Bernoulli(torch.tensor(0.5).double())
    _, drawn = SimpleShapeDistribution(like, years, sex).sample(n)
    p = {k: np.asarray(v) for k, v in drawn.items()}
    wide, young, plain, between = (rng.random(n) < q for q in (0.5, 0.4, 0.4, 0.1))
    for k in ("muscle", "weight", "proportions"):
        p[k] = np.where(wide, rng.random(n), p[k])
    p["height"] = np.clip(np.where(wide, p["height"] + rng.normal(0, 0.06, n), p["height"]), 0, 1)
    p["age"] = np.where(young, 0.66, p["age"])
    p["gender"] = np.where(between, rng.random(n), p["gender"])
    for k in ("cupsize", "firmness", "african", "asian", "caucasian"):
        p[k] = np.where(plain, 0.5, p[k])
    return np.stack([p[k] for k in source.phenotype_labels], 1)


def draw_local_changes(source: AnnySource, n: int, rng: np.random.Generator, sigma: float = 0.2) -> np.ndarray:
    """Local changes (n, L) in [-1, 1]: left and right alike but for a small part; a quarter of the bodies have none."""
    labels = source.local_labels
    x = rng.normal(0, sigma, (n, len(labels)))
    for i, label in enumerate(labels):
        if label.startswith("r-"):
            left = labels.index("l-" + label[2:])
            x[:, i] = x[:, left] + 0.25 * x[:, i]
        name = label.removeprefix("l-").removeprefix("r-")
        if name.startswith(FACE_CHANGES):
            x[:, i] *= 0.6
        if name.endswith("trans-out") and not label.startswith(("l-", "r-")):
            x[:, i] *= 0.25  # shifts to one side
        if name.startswith(EXCLUDED_CHANGES):
            x[:, i] = 0
    x *= (rng.random((n, 1)) < 0.75) * rng.uniform(0.4, 1.3, (n, 1))
    return np.clip(x, -1, 1)


def draw_bodies(source: AnnySource, n: int, seed: int, sigma: float = 0.2) -> Bodies:
    """n adults, stature 1.40-2.10 m and volume per stature squared 15-50 l/m2, in the T-pose."""
    rng = np.random.default_rng(seed)
    head, owner = joint_bones(source.bone_labels)
    weights = joint_weights(source.vertex_bone_weights, owner)
    knuckle = [[source.bone_labels.index(f"finger{f}-1.{side}") for f in (2, 5)] for side in "LR"]
    out = Bodies(
        np.empty((n, len(source.template), 3), np.float32),
        np.empty((n, 24, 3)),
        np.empty((n, 24, 3, 3)),
        np.empty(n),
        np.empty(n, bool),
    )
    done = 0
    while done < n:
        phenotypes = draw_phenotypes(source, 200, rng)
        local = draw_local_changes(source, 200, rng, sigma)
        v, bones = source.bodies(source.coefficients(phenotypes, local))
        stature = np.ptp(v[:, :, 1], axis=1)
        bmi = np.array([volume(b, source.faces) for b in v]) * 985 / stature**2
        for i in np.where((stature > 1.4) & (stature < 2.1) & (bmi > 15) & (bmi < 50))[0][: n - done]:
            across = np.stack([bones[i, a] - bones[i, b] for a, b in knuckle])
            vertices, joints, h = unpose(v[i].astype(float), bones[i, head], across, weights)
            out.vertices[done], out.joints[done], out.rotations[done] = vertices, joints, h
            out.gender[done] = phenotypes[i, source.phenotype_labels.index("gender")]
            out.varied[done] = local[i].any()
            done += 1
    return out


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Volume in cubic metres of a closed mesh."""
    t = vertices[faces].astype(float)
    return float(np.einsum("fi,fi->", np.cross(t[:, 0], t[:, 1]), t[:, 2]) / 6)


def vertex_weights(vertices: np.ndarray, faces: np.ndarray, cavity: np.ndarray, mix: float) -> np.ndarray:
    """Weight (V,) of each vertex in the basis fit: its share of the surface, mixed with 1/V; cavities count little."""
    t = vertices[faces].astype(float)
    area = np.linalg.norm(np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]), axis=1) / 6
    share = np.zeros(len(vertices))
    np.add.at(share, faces.reshape(-1), np.repeat(area, 3))
    w = mix * share / share.sum() + (1 - mix) / len(vertices)
    w[cavity] *= 0.2
    return w / w.sum()


def fit_basis(bodies: Bodies, weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weighted PCA by the Gram matrix: mean (V, 3), basis (V, 3, k) per standard deviation, scores (N, k)."""
    n = len(bodies.vertices)
    mean = bodies.vertices.mean(0, dtype=np.float64)
    x = (bodies.vertices - mean.astype(np.float32)) * np.sqrt(weights).astype(np.float32)[:, None]
    x = x.reshape(n, -1)
    gram = (x @ x.T).astype(np.float64)
    value, vector = np.linalg.eigh(gram)
    value, vector = value[::-1][:k], vector[:, ::-1][:, :k]
    basis = (bodies.vertices - mean.astype(np.float32)).reshape(n, -1).T @ (vector / np.sqrt(value)).astype(np.float32)
    sd = np.sqrt(value / n)
    return mean, (basis * sd.astype(np.float32)).reshape(-1, 3, k), vector * np.sqrt(n)


def project(vertices: np.ndarray, mean: np.ndarray, basis: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least-squares betas (N, k) of vertices (N, V, 3)."""
    b = (basis * np.sqrt(weights)[:, None, None]).reshape(-1, basis.shape[2]).astype(np.float64)
    y = ((vertices - mean) * np.sqrt(weights)[:, None]).reshape(len(vertices), -1)
    return np.linalg.solve(b.T @ b, b.T @ y.T).T
