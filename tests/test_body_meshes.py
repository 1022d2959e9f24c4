"""Decimated meshes stay on the body; landmarks carried to another mesh of another person come out where they belong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bodyfit.body.decimate import decimate, vertex_normals
from bodyfit.body.files import find_model, read_body_file
from bodyfit.body.landmarks import transfer_landmarks
from bodyfit.body.model import load_body_model


@pytest.fixture(scope="module")
def shipped() -> dict[str, NDArray[Any]]:
    return read_body_file(find_model("anny_adult"))


def volume(v: NDArray[Any], faces: NDArray[Any]) -> float:
    a, b, c = (v[faces[:, i]].astype(float) for i in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


@pytest.mark.parametrize("target, mean_mm, volume_share", [(7700, 1.0, 0.005), (2600, 2.5, 0.02)])
def test_decimated_mesh_stays_on_the_body(
    shipped: dict[str, NDArray[Any]], target: int, mean_mm: float, volume_share: float
) -> None:
    from scipy.spatial import KDTree

    v, full = shipped["v_template"].astype(float), shipped["faces"]
    ids, faces = decimate(v, full, target)
    assert len(faces) == pytest.approx(target, abs=4) and len(np.unique(ids)) == len(ids)
    assert set(np.unique(faces)) == set(range(len(ids)))
    small = v[ids]
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()  # still closed
    assert volume(small, faces) == pytest.approx(volume(v, full), rel=volume_share)
    a, b, c = (small[faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    along = np.einsum("ij,ij->i", normal, vertex_normals(v, full)[ids][faces].mean(1))
    area = np.linalg.norm(normal, axis=1)
    assert area[along < 0].sum() < 0.002 * area.sum()  # what is turned over is small: ears, the mouth's inside
    rng = np.random.default_rng(0)
    mix = rng.dirichlet(np.ones(3), (len(faces), 6))
    samples = np.einsum("fmk,fkc->fmc", mix, small[faces]).reshape(-1, 3)
    near = KDTree(v).query(samples)[1]
    gap = np.einsum("ij,ij->i", samples - v[near], vertex_normals(v, full)[near])
    assert abs(gap).mean() * 1000 < mean_mm


def test_small_meshes_are_kept() -> None:
    v = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [9, 9, 9]], float)
    f = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    ids, faces = decimate(v, f, 100)
    assert ids.tolist() == [0, 1, 2, 3] and np.array_equal(faces, f)


@pytest.mark.parametrize("sex, seed", [("female", 1), ("male", 2)])
def test_landmarks_reach_another_person_on_another_mesh(shipped: dict[str, NDArray[Any]], sex: str, seed: int) -> None:
    """As many vertices as SMPL, joints a centimetre elsewhere, limbs a few degrees elsewhere."""
    rng = np.random.default_rng(seed)
    model = load_body_model("anny_adult")
    betas = rng.multivariate_normal(model.priors[sex].mean, model.priors[sex].cov)
    pose = np.zeros((24, 3))
    pose[1:] = rng.normal(0, 0.04, (23, 3))
    v, joints = model.forward(betas, pose)
    joints = joints + rng.normal(0, 0.01, joints.shape)
    ids, faces = decimate(v, shipped["faces"], 13776)
    small = v[ids]
    near = np.exp(-((np.linalg.norm(small[None] - joints[:, None], axis=2) / 0.15) ** 2))
    rows = np.c_[small, np.ones(len(small))]
    regressor = np.stack([
        n * (rows @ np.linalg.solve((rows * n[:, None]).T @ rows, np.r_[j, 1.0]))
        for n, j in zip(near, joints, strict=True)
    ])  # fmt: skip
    target = {"v_template": small, "faces": faces, "weights": shipped["weights"][ids], "J_regressor": regressor,
              "joint_names": shipped["joint_names"]}  # fmt: skip
    names, found = transfer_landmarks(shipped, target)
    assert names.tolist() == shipped["landmark_names"].tolist() and found.max() < len(ids)
    errors = [
        np.linalg.norm(small[row[row >= 0]].mean(0) - v[own[own >= 0]].mean(0))
        for row, own in zip(found, shipped["landmark_vertices"], strict=True)
    ]
    assert np.mean(errors) < 0.005 and max(errors) < 0.02
