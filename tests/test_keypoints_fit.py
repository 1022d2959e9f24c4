"""Keypoints as evidence: their Jacobian, and fits that they help where depth alone cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from seen_body import CAMERA, on_the_floor, project, seen, standing, turned

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.camera import Camera
from bodyfit.fit.config import FitConfig, Stage
from bodyfit.fit.fit import fit
from bodyfit.fit.keypoints import JointTargets, joint_places, joint_targets, keypoint_residual, keypoint_terms
from bodyfit.fit.mesh import mesh_for
from bodyfit.fit.pose_prior import pose_prior
from bodyfit.fit.problem import Problem, ShapeGaussian, State
from bodyfit.fit.solver import solve
from bodyfit.fit.view import make_view
from bodyfit.frame import Frame, Keypoints
from bodyfit.recording import Sensor, write_recording
from bodyfit.recording.keypoints import COCO_17
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle

BODY_OF_COCO = tuple(name for name in COCO_17 if name.split("_")[-1] not in ("nose", "eye", "ear"))

FINER = Camera(512, 424, 364.0, 364.0, 255.5, 211.5)
"""a real sensor's: a detector's error is of a few pixels, whatever the image's size"""


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


def keypoints_of(
    model: BodyModel, pose: NDArray, transl: NDArray, names: tuple[str, ...] = BODY_OF_COCO, camera: Camera = CAMERA
) -> Keypoints:
    """What a perfect detector says of the average body."""
    joints = model.forward(model.priors["neutral"].mean, pose, transl)[1]
    where = project(joints[[model.joint_names.index(n) for n in names]], camera)
    return Keypoints(names, where, np.full(len(names), 0.9))


def test_jacobian_and_gradient_equal_central_differences(model: BodyModel) -> None:
    rng = np.random.default_rng(2)
    S = 6
    mesh = mesh_for(model, 2, S, model.priors["neutral"].mean)
    pose = standing(model, "hands_before_chest", 1)
    transl = on_the_floor(model, model.priors["neutral"].mean, pose)
    observation = seen(model, model.priors["neutral"].mean, pose, transl, keypoints=keypoints_of(model, pose, transl))
    targets = joint_targets(observation, 2.4)
    assert targets is not None and targets.names == BODY_OF_COCO
    J = model.num_joints
    P = 3 * J + 3 + S
    R, shape = turned(pose) @ matrix_from_axis_angle(rng.normal(0, 0.15, (J, 3))), rng.normal(0, 1, S)

    def at(d: NDArray[np.float64]) -> tuple[NDArray, NDArray, NDArray]:
        return (
            R @ matrix_from_axis_angle(d[: 3 * J].reshape(J, 3)), transl + 0.05 + d[3 * J : 3 * J + 3],
            shape + d[3 * J + 3 :],
        )  # fmt: skip

    def places(d: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
        return joint_places(mesh, *at(d), targets.R_iw, targets.t_iw)

    zero = np.zeros(P)
    posed, D = places(zero)
    assert D.shape == (J, 3, P)
    index = [model.joint_names.index(n) for n in targets.names]
    residual, by_parameter = keypoint_residual(targets, posed[index], D[index])
    assert np.linalg.norm(residual, axis=1).max() > 4
    _, gradient, products = keypoint_terms(targets, mesh, *at(zero), 6.0, 30.0)
    for i in range(P):
        d = zero.copy()
        d[i] = 1e-6
        plus, minus = places(d)[0], places(-d)[0]
        np.testing.assert_allclose(D[:, :, i], (plus - minus) / 2e-6, atol=1e-7)
        r_plus, r_minus = (keypoint_residual(targets, p[index], D[index])[0] for p in (plus, minus))
        np.testing.assert_allclose(by_parameter[:, :, i], (r_plus - r_minus) / 2e-6, atol=1e-4)
        c_plus, c_minus = (keypoint_terms(targets, mesh, *at(s * d), 6.0, 30.0)[0] for s in (1, -1))
        assert gradient[i] == pytest.approx((c_plus - c_minus) / 2e-6, rel=1e-4, abs=1e-4)
    np.testing.assert_allclose(products, products.T)
    assert np.linalg.eigvalsh(products).min() > -1e-6 * np.abs(products).max()


def test_a_problem_counts_keypoints_in_cost_and_equations(model: BodyModel) -> None:
    """What keypoints add is what `keypoint_terms` says, and without them nothing changes."""
    mean = model.priors["neutral"].mean
    pose = standing(model, "a_pose", 3)
    transl = on_the_floor(model, mean, pose)
    plain = seen(model, mean, pose, transl)
    told = replace(plain, keypoints=keypoints_of(model, pose, transl))
    state = State(turned(pose)[None], transl[None] + 0.04, np.zeros((1, 4)), np.zeros(1, np.int64))
    stage = Stage("test", 2, 500, 5, 4, 0.1, 0.15)
    prior = pose_prior(model.joint_names)
    mesh = mesh_for(model, 2, 4, mean)
    found = []
    for observation in (plain, told):
        problem = Problem(
            mesh, [make_view(observation, 500)], np.array([[0, 0]]), stage, FitConfig(), prior, prior.mean[None],
            ShapeGaussian(np.zeros(4), np.eye(4)), 0.01,
        )  # fmt: skip
        found.append(problem.linearize(state))
        assert problem.linearize(state, want_rows=False).cost[0] == found[-1].cost[0]
    targets = make_view(told, 500).keypoints
    assert targets is not None
    wide = max(30.0, 0.15 * targets.px_per_m)
    cost, gradient, products = keypoint_terms(
        targets, mesh, state.rotations[0], state.transl[0], np.zeros(4), 6.0, wide
    )
    Q = 3 * model.num_joints + 3
    assert cost > 1
    assert found[1].cost[0] - found[0].cost[0] == pytest.approx(cost)
    np.testing.assert_allclose(found[1].pose_gradient[0] - found[0].pose_gradient[0], gradient[:Q], atol=1e-6)
    np.testing.assert_allclose(found[1].A[0] - found[0].A[0], products[:Q, :Q], atol=1e-6)
    np.testing.assert_allclose(found[1].B[0] - found[0].B[0], products[:Q, Q:], atol=1e-6)
    np.testing.assert_allclose(found[1].C[0] - found[0].C[0], products[Q:, Q:], atol=1e-6)


def test_pixels_of_the_colour_camera_are_meant_where_there_is_one(model: BodyModel) -> None:
    mean = model.priors["neutral"].mean
    pose = standing(model, "a_pose", 3)
    transl = on_the_floor(model, mean, pose)
    color_camera = Camera(640, 480, 500.0, 505.0, 320.0, 241.0)
    T_color_depth = np.eye(4)
    T_color_depth[:3, :3] = matrix_from_axis_angle(np.array([0.02, -0.05, 0.01]))
    T_color_depth[:3, 3] = (0.05, 0.01, -0.02)
    plain = seen(model, mean, pose, transl)
    joints = model.forward(mean, pose, transl)[1]
    in_depth = (joints - plain.T_world_depth[:3, 3]) @ plain.T_world_depth[:3, :3]
    in_color = in_depth @ T_color_depth[:3, :3].T + T_color_depth[:3, 3]
    names = ("nose", "left_wrist", "pelvis", "right_knee")
    index = [model.joint_names.index(n) for n in names[1:]]
    xy = np.concatenate([[[1.0, 2.0]], color_camera.project(in_color[index])])
    told = replace(
        plain, color_camera=color_camera, T_color_depth=T_color_depth, keypoints=Keypoints(names, xy, np.ones(4))
    )
    targets = joint_targets(told, 2.4)
    assert targets is not None and targets.names == names[1:], "the skeleton has no nose"
    mesh = mesh_for(model, 2, 4, mean)
    cost = keypoint_terms(targets, mesh, turned(pose), transl, np.zeros(4), 6.0, 30.0)[0]
    assert cost < 1e-6


def test_keypoints_that_say_nothing(model: BodyModel) -> None:
    pose = standing(model, "a_pose", 3)
    mean = model.priors["neutral"].mean
    transl = on_the_floor(model, mean, pose)
    for names, confidence in (((), ()), (("nose", "left_eye"), (1, 1)), (("left_hip",), (0,))):
        points = Keypoints(names, np.zeros((len(names), 2)), np.array(confidence, np.float64))
        assert joint_targets(seen(model, mean, pose, transl, keypoints=points), 2.4) is None
    behind = JointTargets(("pelvis",), np.zeros((1, 2)), np.ones(1), (100, 100, 50, 50), np.eye(3), -transl, 40.0)
    far_back = behind.t_iw - (0, 0, 9)
    mesh = mesh_for(model, 2, 4, mean)
    cost, gradient, _ = keypoint_terms(
        replace(behind, t_iw=far_back), mesh, turned(pose), transl, np.zeros(4), 6.0, 30.0
    )
    assert cost == 0 and not gradient.any()


def test_keypoints_tell_where_a_hidden_arm_is(model: BodyModel) -> None:
    """In profile the far arm is hidden: depth leaves it to the prior, its keypoints bring it home."""
    mean = model.priors["neutral"].mean
    pose = standing(model, "a_pose", 5, heading_deg=90)
    name = "left_" if not sees(model, pose, "left_elbow") else "right_"
    transl = on_the_floor(model, mean, pose)
    arm = tuple(name + joint for joint in ("shoulder", "elbow", "wrist"))
    error = {}
    for told in (False, True):
        observation = seen(
            model, mean, pose, transl, keypoints=keypoints_of(model, pose, transl, arm) if told else None
        )
        start = pose.copy()
        for joint in ("shoulder", "elbow"):
            j = model.joint_names.index(name + joint)
            start[j] = pose_prior(model.joint_names).mean[j]
        stage = Stage("test", 2, 1200, 25, 4, 0.10, 0.15, max_turn_rad=0.3)
        prior = pose_prior(model.joint_names)
        problem = Problem(
            mesh_for(model, 2, 4, mean), [make_view(observation, 1200)], np.array([[0, 0]]), stage, FitConfig(), prior,
            prior.mean[None], ShapeGaussian(np.zeros(4), np.eye(4)), 0.01,
        )  # fmt: skip
        found = solve(problem, State(turned(start)[None], transl[None], np.zeros((1, 4)), np.zeros(1, np.int64))).state
        betas = mean.copy()
        betas[:4] += found.shape[0]
        joints = model.forward(betas, axis_angle_from_matrix(found.rotations[0]), found.transl[0])[1]
        truth = model.forward(mean, pose, transl)[1]
        j = model.joint_names.index(name + "wrist")
        error[told] = float(np.linalg.norm(joints[j] - truth[j]))
    assert error[True] < 0.06 < 0.09 < error[False], error


def test_a_recordings_keypoints_put_an_arm_where_no_pixel_shows_it(model: BodyModel, tmp_path: Path) -> None:
    """The whole fit, from files: in profile the far forearm points away behind the trunk, and the near arm hangs."""
    mean = model.priors["neutral"].mean
    pose = standing(model, "arms_down", 4, heading_deg=90)
    far = "left_" if not sees(model, pose, "left_shoulder") else "right_"
    mirror = 1.0 if far == "left_" else -1.0
    shoulder, elbow = (model.joint_names.index(far + joint) for joint in ("shoulder", "elbow"))
    outward = euler_rotations(np.array([[-80.0, 0.0, -75.0 * mirror], [0.0, -90.0 * mirror, 0.0]]))
    pose[[shoulder, elbow]] = axis_angle_from_matrix(outward)
    transl = on_the_floor(model, mean, pose)
    drawn = seen(model, mean, pose, transl, camera=FINER)
    wrist = model.joint_names.index(far + "wrist")
    truth = model.forward(mean, pose, transl)[1]
    in_camera = (truth - drawn.T_world_depth[:3, 3]) @ drawn.T_world_depth[:3, :3]
    column, row = project(truth[wrist : wrist + 1], FINER)[0].round().astype(int)
    assert drawn.depth[row, column] < in_camera[wrist, 2] - 0.15, "the trunk is before it"
    points = keypoints_of(model, pose, transl, camera=FINER)
    detected = replace(points, xy=points.xy + np.random.default_rng(0).normal(0, 2.0, points.xy.shape))
    error = {}
    for told in (False, True):
        frame = Frame(
            drawn.depth, FINER, drawn.T_world_depth, mask=drawn.label == 1, sensor="drawn",
            keypoints=detected if told else None,
        )  # fmt: skip
        sensor = Sensor("drawn", FINER, drawn.T_world_depth)
        folder = write_recording(tmp_path / str(told), (sensor,), [frame], (0.0, 0.0, -1.0))
        found = fit(folder, clothing="tight")
        joints = model.forward(found.betas, found.poses[0], found.transl[0])[1]
        # across the line of sight, which is the world's y: pixels say nothing of what lies along it
        error[told] = float(np.linalg.norm((joints[wrist] - truth[wrist])[[0, 2]]))
        assert np.linalg.norm(joints[0] - truth[0]) < 0.03
    assert error[True] < 0.05 < 0.12 < error[False], error


def euler_rotations(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3, 3) twist about x, then swing about y, then lift about z, of degrees (N, 3)."""
    x, y, z = (matrix_from_axis_angle(np.radians(degrees) * axis) for axis in np.eye(3))
    return z @ y @ x


def sees(model: BodyModel, pose: NDArray[np.float64], joint: str) -> bool:
    """Whether a joint is on the camera's side of the pelvis."""
    joints = model.forward(model.priors["neutral"].mean, pose, np.zeros(3))[1]
    return bool(joints[model.joint_names.index(joint), 1] < joints[0, 1])


def test_the_camera_of_these_tests_holds_the_whole_body(model: BodyModel) -> None:
    pose = standing(model, "a_pose", 5)
    transl = on_the_floor(model, model.priors["neutral"].mean, pose)
    where = project(model.forward(model.priors["neutral"].mean, pose, transl)[0])
    assert (where > 0).all() and (where < (CAMERA.width, CAMERA.height)).all()
