"""What a cold start tries: limbs that reach for what is unexplained, arms that do the same, changes by chance."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.fit.config import FitConfig
from bodyfit.fit.hypotheses import limb_variants, mirrored, mutate, stance_pose
from bodyfit.fit.joint import FitSetup, Instant, fit_instants
from bodyfit.fit.limbs import RIVAL_COST, _rivals
from bodyfit.fit.pose_prior import ALIKE_GAIN, alike_terms, arm_pairs, pose_prior
from bodyfit.fit.problem import State
from bodyfit.fit.reach import LIMBS, reaching, unexplained_spots
from bodyfit.fit.view import View
from bodyfit.kernels.body import joint_motions
from bodyfit.observe.observation import observe
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle
from bodyfit.synthetic.take import sample_take


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


def motions(
    model: BodyModel, R: NDArray[np.float64], rest: NDArray[np.float64], transl: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """World rotations (J, 3, 3) and places (J, 3) of the joints."""
    G, posed = np.empty((len(rest), 3, 3)), np.empty((len(rest), 3))
    joint_motions(R, rest, model.parents, np.eye(3), np.zeros(3), transl, G, posed)
    return G, posed


@pytest.mark.parametrize(("limb", "side"), [("arm", "left"), ("arm", "right"), ("leg", "left"), ("leg", "right")])
def test_a_limb_reaches_its_spot_with_every_swivel(model: BodyModel, limb: str, side: str) -> None:
    rest = model.joints_at_rest(model.priors["neutral"].mean)
    pose = stance_pose(model.joint_names, "arms_down")
    pose[0] = (1.2, 0.3, -0.2)
    R, transl = matrix_from_axis_angle(pose), np.array([0.3, 2.0, 0.9])
    G, posed = motions(model, R, rest, transl)
    form = LIMBS[limb]
    a, b = (model.joint_names.index(f"{side}_{n}") for n in (form.root, form.hinge))
    length = np.linalg.norm(rest[b] - rest[a])
    spot = posed[a] + G[0] @ np.array([0.1, -1.2, 0.5]) * length
    turned = reaching(model.joint_names, rest, G, posed, model.parents, [spot[None]], limb, side)
    ends = [e for e in form.ends if f"{side}_{e}" in model.joint_names]
    assert len(turned[a]) == len(ends) * 2 * len(form.swivels_deg)  # the spot's middle and its farthest point
    hinges = []
    for k in range(len(turned[a])):
        other = R.copy()
        other[a], other[b] = turned[a][k], turned[b][k]
        np.testing.assert_allclose(np.linalg.det(other), 1.0)
        _, there = motions(model, other, rest, transl)
        end = model.joint_names.index(f"{side}_{ends[k // (2 * len(form.swivels_deg))]}")
        assert np.linalg.norm(there[end] - spot) < 0.012, (
            "bones that are not quite straight at rest miss by millimetres"
        )
        hinges.append(there[b])
    one = np.array(hinges[: len(form.swivels_deg)])
    assert np.linalg.norm(one[0] - one[len(one) // 2]) > 0.05, "the swivel moves the hinge"


def test_the_elbow_bends_the_way_elbows_do(model: BodyModel) -> None:
    rest = model.joints_at_rest(model.priors["neutral"].mean)
    R = matrix_from_axis_angle(stance_pose(model.joint_names, "arms_down"))
    G, posed = motions(model, R, rest, np.zeros(3))
    for side, sign in (("left", -1.0), ("right", 1.0)):
        a, b = (model.joint_names.index(f"{side}_{n}") for n in ("shoulder", "elbow"))
        spot = posed[a] + np.array([0.0, -0.2, 0.3])
        turned = reaching(model.joint_names, rest, G, posed, model.parents, [spot[None]], "arm", side)
        bend = axis_angle_from_matrix(turned[b])
        assert (sign * bend[:, 1] > 0.3).all() and np.abs(bend[:, [0, 2]]).max() < 0.5 * np.abs(bend[:, 1]).min()


def test_nothing_is_reached_that_is_too_far(model: BodyModel) -> None:
    rest = model.joints_at_rest(model.priors["neutral"].mean)
    G, posed = motions(model, np.tile(np.eye(3), (model.num_joints, 1, 1)), rest, np.zeros(3))
    turned = reaching(model.joint_names, rest, G, posed, model.parents, [np.array([[0, 0, 5.0]])], "arm", "left")
    assert all(len(r) == 0 for r in turned.values())
    assert reaching(model.joint_names, rest, G, posed, model.parents, [], "arm", "left") == {}
    assert reaching(("pelvis",), rest[:1], G[:1], posed[:1], model.parents[:1], [], "arm", "left") == {}


def test_spots_are_what_the_body_does_not_explain(model: BodyModel) -> None:
    depth, label = np.zeros((60, 60), np.float32), np.zeros((60, 60), np.uint8)
    depth[10:50, 20:40], label[10:50, 20:40] = 2.0, 1
    depth[20:24, 44:50], label[20:24, 44:50] = 1.9, 1  # beside the body
    depth[30:34, 25:31] = 1.8  # before it
    depth[5, 5], label[5, 5] = 2.0, 1  # a speck
    drawn, face = np.where(label == 1, np.float32(2.0), np.float32(0)), np.where(label == 1, 7, -1).astype(np.int32)
    drawn[20:24, 44:50], face[20:24, 44:50] = 0, -1
    drawn[5, 5], face[5, 5] = 0, -1
    f = 150.0
    view = View(
        depth, label, np.zeros((60, 60), np.int32), np.array([f, f, 30, 30], np.float32), np.eye(3), np.zeros(3),
        np.zeros(4), int((label == 1).sum()), 0.0, 2000.0, 1, (0, 0),
    )  # fmt: skip
    spots = unexplained_spots(view, drawn, face)
    assert len(spots) == 2 and len(spots[0]) == len(spots[1]) == 24
    np.testing.assert_allclose(spots[0].mean(0), [(46.5 - 30) / f * 1.9, (21.5 - 30) / f * 1.9, 1.9], rtol=1e-5)
    np.testing.assert_allclose(spots[1].mean(0), [(27.5 - 30) / f * 1.8, (31.5 - 30) / f * 1.8, 1.8], rtol=1e-5)


def test_what_speaks_for_equal_arms_has_the_gradient_of_its_cost(model: BodyModel) -> None:
    rng = np.random.default_rng(3)
    pairs = arm_pairs(model.joint_names)
    assert len(pairs) == 2
    R = matrix_from_axis_angle(rng.normal(0, 0.4, (2, model.num_joints, 3)))
    cost, gradient, hessian = alike_terms(R, pairs)
    assert (cost > 0).all() and (cost < ALIKE_GAIN).all()
    for k, pair in enumerate(pairs):
        for side, joint in enumerate(pair):
            for axis in range(3):
                d = np.zeros((model.num_joints, 3))
                d[joint, axis] = 1e-6
                plus = alike_terms(R @ matrix_from_axis_angle(d), pairs)[0]
                minus = alike_terms(R @ matrix_from_axis_angle(-d), pairs)[0]
                np.testing.assert_allclose(gradient[:, k, side, axis], (plus - minus) / 2e-6, rtol=1e-4, atol=1e-6)
    for k in range(len(pairs)):
        flat = hessian[:, k].reshape(2, 6, 6)
        np.testing.assert_allclose(flat, np.swapaxes(flat, 1, 2))
        assert (np.linalg.eigvalsh(flat) > -1e-9).all()


def test_arms_that_mirror_each_other_cost_nothing(model: BodyModel) -> None:
    pose = stance_pose(model.joint_names, "hands_on_hips")
    cost, gradient, _ = alike_terms(matrix_from_axis_angle(pose)[None], arm_pairs(model.joint_names))
    assert cost[0] == pytest.approx(0, abs=1e-9) and np.abs(gradient).max() < 1e-6
    apart = alike_terms(
        matrix_from_axis_angle(stance_pose(model.joint_names, "left_arm_up"))[None], arm_pairs(model.joint_names)
    )[0]
    assert apart[0] > 0.8 * ALIKE_GAIN


def test_an_arm_is_tried_like_the_other_one(model: BodyModel) -> None:
    names = model.joint_names
    pose = stance_pose(names, "right_at_ear")
    left = limb_variants(pose, names)[0]
    shoulders = [mirrored(v[names.index("right_shoulder")]) - v[names.index("left_shoulder")] for v in left]
    assert min(float(np.abs(s).max()) for s in shoulders) < 1e-9
    assert all((v[names.index("right_shoulder")] == pose[names.index("right_shoulder")]).all() for v in left)


def test_chance_gives_rotations_and_is_the_same_in_every_run(model: BodyModel) -> None:
    start = matrix_from_axis_angle(np.tile(stance_pose(model.joint_names, "walk_left"), (12, 1, 1)))
    ways = []
    for _ in range(2):
        R, t = start.copy(), np.zeros((12, 3))
        mutate(R, t, model.joint_names, np.array([0.0, 0.0, 1.0]), start[:3], np.random.default_rng(5))
        ways.append((R.tobytes(), t.tobytes()))
        np.testing.assert_allclose(R @ np.swapaxes(R, 2, 3), np.broadcast_to(np.eye(3), R.shape), atol=1e-9)
        assert sum(np.abs(R[i] - start[i]).max() > 1e-6 or np.abs(t[i]).max() > 0 for i in range(12)) >= 10
    assert ways[0] == ways[1]


def test_likely_turns_cost_less(model: BodyModel) -> None:
    prior = pose_prior(model.joint_names)
    joints = [model.joint_names.index("left_elbow")]
    usual = prior.mean[joints][None]
    beyond = (prior.high[joints] + 0.3)[None]
    assert prior.unlikely(usual, joints)[0] == 0 and prior.unlikely(beyond, joints)[0] > 10


def test_a_hand_at_the_ear_is_found(model: BodyModel) -> None:
    """The arm's right configuration looks worse than most before it has settled: costs 464 where another starts at 409,
    and ends at 208 where that one ends at 229."""
    take = sample_take(
        model, 1957, pose_names=("phone_at_ear",), headings_deg=(5.1,), sensor="d435", sex="male",
        off_model_mm_rms=3.0, clothing="tight", mask="none",
    )  # fmt: skip
    seen = observe(take.frames[0], gravity_world=take.gravity_world)
    found = fit_instants(FitSetup(model, "neutral", "auto", FitConfig()), [Instant(0, 0.0, (seen,))])
    wrist = model.joint_names.index("left_wrist")
    assert np.linalg.norm(found.joints_world(0)[wrist] - take.instants[0].joints_world[wrist]) < 0.06


def test_what_explains_nearly_as_well_is_kept_beside_the_best() -> None:
    poses = np.zeros((5, 3, 3))
    poses[1, 1, 0], poses[2, 1, 0], poses[3, 2, 1], poses[4, 2, 2] = 1.0, 1.1, 0.8, 0.9
    state = State(matrix_from_axis_angle(poses), np.arange(15.0).reshape(5, 3), np.zeros((5, 1)), np.arange(5))
    rivals = _rivals(state, np.array([50.0, 45.0, 46.0, 55.0, 45.0 + RIVAL_COST + 0.1]), 1)
    # the second is the best one with an elbow turned by a tenth of a radian, the last too dear
    assert [r.transl[0, 0] for r in rivals] == [0, 9]
