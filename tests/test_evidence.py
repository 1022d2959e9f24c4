"""The fit's Jacobian and normal equations, against central differences in the full forward pass."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.fit.mesh import mesh_for
from bodyfit.kernels import body as body_kernels
from bodyfit.kernels import evidence as E
from bodyfit.rotation import matrix_from_axis_angle
from tests.tiny_body import write_tiny_body


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BodyModel:
    path = tmp_path_factory.mktemp("body") / "tiny.npz"
    write_tiny_body(path)
    return load_body_model(path)


def test_surface_row_equals_central_differences(model: BodyModel) -> None:
    """A surface point's coordinate along a direction, by every rotation, translation and shape parameter."""
    rng = np.random.default_rng(3)
    J, S = model.num_joints, model.num_betas
    mesh = mesh_for(model, 0, S, np.zeros(S))
    R = matrix_from_axis_angle(rng.normal(0, 0.4, (J, 3)))
    transl, shape = rng.normal(0, 0.3, 3), rng.normal(0, 0.5, S)
    R_cw, t_cw = matrix_from_axis_angle(np.array([0.3, 2.0, -0.4])), np.array([0.1, 0.2, 2.5])
    template, dirs = mesh.template.astype(np.float64), mesh.shapedirs.astype(np.float64)
    dense = model.lbs_weights.astype(np.float64)

    def pose(d: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        turned = R @ matrix_from_axis_angle(d[: 3 * J].reshape(J, 3))
        s = shape + d[3 * J + 3 :]
        joints = mesh.joint_template + mesh.jointdirs @ s
        G, posed = np.empty((J, 3, 3)), np.empty((J, 3))
        body_kernels.joint_motions(turned, joints, mesh.parents, R_cw, t_cw, transl + d[3 * J : 3 * J + 3], G, posed)
        rest = template + dirs @ s
        by_joint = np.einsum("jab,vjb->vja", G, rest[:, None] - joints) + posed
        return np.einsum("vj,vja->va", dense, by_joint), rest, joints, G, posed

    _, rest, joints, G, posed = pose(np.zeros(3 * J + 3 + S))
    motion = np.empty((J, 3, S))
    body_kernels.joint_shape_motion(mesh.jointdirs, mesh.parents, R_cw, G, motion)
    W, X = np.empty(J, np.float32), np.empty((J, 3), np.float32)
    f4 = np.float32
    for face in rng.choice(len(mesh.faces), 12, replace=False):
        corners = mesh.faces[face].astype(np.int32)
        bary = rng.dirichlet([1, 1, 1]).astype(f4)
        grad = rng.normal(size=3).astype(f4)
        row = np.empty(3 * J + 3 + S + 1, f4)
        E.surface_row(
            corners, bary, grad, f4(2.0), f4(0.5), rest.astype(f4), mesh.shapedirs, mesh.weight_joints, mesh.weights,
            joints.astype(f4), mesh.parents, G.astype(f4), G.astype(f4), posed.astype(f4), motion.astype(f4), R_cw,
            W, X, row,
        )  # fmt: skip
        numeric = np.empty(3 * J + 3 + S)
        for i in range(len(numeric)):
            d = np.zeros(len(numeric))
            d[i] = 1e-5
            plus, minus = pose(d)[0][corners], pose(-d)[0][corners]
            numeric[i] = 2.0 * (bary @ ((plus - minus) / 2e-5)) @ grad
        np.testing.assert_allclose(row[:-1], numeric, atol=5e-4)
        assert row[-1] == pytest.approx(1.0)


def test_products_equal_numpy() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(E.BLOCK, 14)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.4] = 0
    H, g = np.zeros((13, 13), np.float32), np.zeros(13, np.float32)
    E.add_products(rows, 40, H, g, 13)
    J, r = rows[:40, :13].astype(np.float64), rows[:40, 13].astype(np.float64)
    np.testing.assert_allclose(np.triu(H), np.triu(J.T @ J), atol=1e-4)
    np.testing.assert_allclose(g, J.T @ r, atol=1e-4)
