"""Parts of a body that go through each other: spheres fitted to its mesh, and the cost of their overlaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.errors import InputError
from bodyfit.fit.collide import SLACK_M, Spheres, spheres_of
from bodyfit.fit.config import FitConfig
from bodyfit.fit.hypotheses import ARMS, STANCES, stance_pose, with_arm
from bodyfit.fit.learned_prior import learned_prior
from bodyfit.fit.mesh import mesh_for
from bodyfit.fit.pose_prior import pose_prior
from bodyfit.fit.problem import Problem, ShapeGaussian, State
from bodyfit.kernels.body import joint_motions
from bodyfit.rotation import matrix_from_axis_angle


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(scope="module")
def spheres(model: BodyModel) -> Spheres:
    return spheres_of(model, model.priors["neutral"].mean)


def poses_of(model: BodyModel, *, through: bool) -> np.ndarray:
    """Rotations of stances; `through` puts a forearm into the trunk, the other hand and a leg where others are."""
    rng = np.random.default_rng(0)
    names = model.joint_names
    pose = np.stack([stance_pose(names, s) for s in STANCES])
    if through:
        for k in range(len(pose)):
            pose[k] = with_arm(pose[k], names, "left", ARMS["before_belly"]._replace(swing=-20.0, twist=60.0))
            pose[k, names.index("right_shoulder")] = (0.3, 0.5, -0.4)
            pose[k, names.index("right_elbow")] = (0.0, 2.4, 0.0)
            pose[k, names.index("left_hip"), 2] = -0.25
        pose += rng.normal(0, 0.05, pose.shape)
    return matrix_from_axis_angle(pose)


def places(spheres: Spheres, R: np.ndarray) -> np.ndarray:
    """(K, 3) the spheres' middles, by the joints' motions."""
    G, posed = np.empty((len(R), 3, 3)), np.empty((len(R), 3))
    joint_motions(R, spheres.joints, spheres.parents, np.eye(3), np.zeros(3), np.zeros(3), G, posed)
    return posed[spheres.owner] + np.einsum("kab,kb->ka", G[spheres.owner], spheres.offset)


def test_spheres_lie_inside_the_body_and_fill_it(model: BodyModel, spheres: Spheres) -> None:
    """No sphere stands out of the skin by more than a few centimetres; most of the skin is near a sphere's surface."""
    vertices = model.rest_vertices(model.priors["neutral"].mean)
    centre = spheres.joints[spheres.owner] + spheres.offset
    distance = np.linalg.norm(vertices[:, None] - centre, axis=2)
    assert (distance.min(0) > spheres.radius - 0.055).all()
    beyond = (distance - spheres.radius).min(1)
    assert np.median(np.abs(beyond)) < 0.02 and np.percentile(beyond, 95) < 0.07
    sides = [p.split("_")[0] for p in spheres.parts]
    assert sides.count("left") == sides.count("right") > 15


def test_usual_stances_cost_next_to_nothing(model: BodyModel, spheres: Spheres) -> None:
    """But for the hands on the hips, which a search puts into them."""
    cost = dict(zip(STANCES, spheres.terms(poses_of(model, through=False))[0], strict=True))
    assert cost.pop("hands_on_hips") < 30
    assert max(cost.values()) < 3
    assert spheres.terms(np.broadcast_to(np.eye(3), (1, model.num_joints, 3, 3)))[0][0] == 0


def test_a_forearm_in_the_trunk_costs_much(model: BodyModel, spheres: Spheres) -> None:
    R = poses_of(model, through=True)
    assert (spheres.terms(R)[0] > 5).all()
    assert (spheres.deepest_m(R) > 0.02).all()
    assert (spheres.terms(R, 0.01)[0] > 3.9 * spheres.terms(R, 0.02)[0]).all()


def test_cost_is_that_of_every_pair_that_overlaps(model: BodyModel, spheres: Spheres) -> None:
    R = poses_of(model, through=True)[0]
    c = places(spheres, R)
    a, b = spheres.pairs.T
    depth = spheres.radius[a] + spheres.radius[b] - spheres.slack - np.linalg.norm(c[a] - c[b], axis=1)
    assert (spheres.slack >= SLACK_M).all()
    expected = 0.5 * (np.maximum(depth, 0) ** 2).sum() / 0.02**2
    assert spheres.terms(R[None], 0.02)[0][0] == pytest.approx(expected, rel=1e-9)
    assert spheres.deepest_m(R[None])[0] == pytest.approx(depth.max(), rel=1e-9)


def test_gradient_equals_central_differences(model: BodyModel, spheres: Spheres) -> None:
    R = poses_of(model, through=True)[:3]
    _, gradient, hessian = spheres.terms(R)
    for j in range(model.num_joints):
        for axis in range(3):
            d = np.zeros((model.num_joints, 3))
            d[j, axis] = 1e-6
            plus = spheres.terms(R @ matrix_from_axis_angle(d))[0]
            minus = spheres.terms(R @ matrix_from_axis_angle(-d))[0]
            np.testing.assert_allclose(gradient[:, 3 * j + axis], (plus - minus) / 2e-6, rtol=1e-4, atol=1e-3)
    assert np.abs(gradient[:, :3]).max() < 1e-9, "turning the whole body changes nothing"
    np.testing.assert_allclose(hessian, hessian.swapaxes(1, 2), atol=1e-9)
    assert np.linalg.eigvalsh(hessian).min() > -1e-9 * np.abs(hessian).max()


def test_a_step_takes_the_parts_out_of_each_other(model: BodyModel, spheres: Spheres) -> None:
    R = poses_of(model, through=True)[:4]
    before = spheres.deepest_m(R)
    for _ in range(6):
        _, gradient, hessian = spheres.terms(R)
        step = -np.linalg.solve(hessian + 30.0 * np.eye(hessian.shape[1]), gradient[..., None])[..., 0]
        R = R @ matrix_from_axis_angle(np.clip(step, -0.3, 0.3).reshape(len(R), -1, 3))
    assert (spheres.deepest_m(R) < 0.4 * before).all()


def test_says_the_same_twice_and_of_each_pose_alone(model: BodyModel, spheres: Spheres) -> None:
    R = poses_of(model, through=True)[:3]
    for a, b, c in zip(spheres.terms(R), spheres.terms(R), spheres.terms(R[1:2]), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[1:2], c)


def test_a_problem_has_both_priors_and_a_covariance_neither(model: BodyModel, spheres: Spheres) -> None:
    """Cost and gradient of all terms together, by central differences; what is asked for a covariance is as before."""
    mean, names = model.priors["neutral"].mean, model.joint_names
    base = pose_prior(names)
    R = poses_of(model, through=True)[:2]
    stage = FitConfig().settle[0]
    bare = Problem(
        mesh_for(model, 2, 2, mean), [], np.zeros((0, 2), np.int64), stage, FitConfig(), base,
        np.broadcast_to(base.mean, (2, *base.mean.shape)), ShapeGaussian(np.zeros(2), np.eye(2)), 0.01,
    )  # fmt: skip
    both = replace(bare, learned_prior=learned_prior(names), spheres=spheres)

    def state(rotations: np.ndarray) -> State:
        return State(rotations, np.zeros((2, 3)), np.zeros((2, 2)), np.arange(2))

    eq = both.prior_equations(state(R))
    assert (eq.cost > bare.prior_equations(state(R)).cost + 5).all(), "parts go through each other"
    for j in (3, names.index("left_shoulder"), names.index("right_elbow"), names.index("left_hip")):
        for axis in range(3):
            d = np.zeros((model.num_joints, 3))
            d[j, axis] = 1e-5
            plus = both.prior_equations(state(R @ matrix_from_axis_angle(d))).cost
            minus = both.prior_equations(state(R @ matrix_from_axis_angle(-d))).cost
            np.testing.assert_allclose(eq.pose_gradient[:, 3 * j + axis], (plus - minus) / 2e-5, rtol=2e-3, atol=2e-2)
    assert np.linalg.eigvalsh(eq.A).min() > -1e-6 * np.abs(eq.A).max()
    told = replace(both, break_ties=False).prior_equations(state(R))
    same = replace(bare, break_ties=False).prior_equations(state(R))
    np.testing.assert_array_equal(told.A, same.A)
    np.testing.assert_array_equal(told.cost, same.cost)


def test_a_sigma_that_is_none_is_refused(model: BodyModel, spheres: Spheres) -> None:
    with pytest.raises(InputError, match="sigma_m"):
        spheres.terms(poses_of(model, through=False), 0.0)
