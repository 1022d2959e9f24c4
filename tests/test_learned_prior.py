"""The learned pose prior, the joints' angles that it is written in, and the motion capture that ships with it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bodyfit.body.npz import read_npz, write_npz
from bodyfit.body.skeleton import SMPL_JOINTS, SMPLX_JOINTS
from bodyfit.errors import ModelFileError
from bodyfit.fit.config import FitConfig
from bodyfit.fit.hypotheses import STANCES, mirrored, stance_pose
from bodyfit.fit.learned_prior import PRIOR_FILE, learned_for, learned_prior, read_learned_prior
from bodyfit.fit.pose_prior import angles_from, joint_angles, pose_prior, pose_prior_terms
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle

NAMES = SMPL_JOINTS
SWAP = [
    NAMES.index({"left_": "right_", "right_": "left_"}.get(n.partition("_")[0] + "_", "") + n.partition("_")[2])
    if "_" in n
    else NAMES.index(n)
    for n in NAMES
]
MOTIONS = PRIOR_FILE.with_name("motions.npz")
MODELS = Path(__file__).resolve().parents[1] / "models"


def a_pose(seed: int, spread: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    pose = stance_pose(NAMES, list(STANCES)[seed % len(STANCES)])
    return pose + rng.normal(0, spread, pose.shape)


# --- the angles of hinges ---------------------------------------------------------------------------------------------


def test_a_hinge_is_taken_apart_into_bend_and_twist() -> None:
    """R = exp(bend) exp(twist), whatever the twist: the bend stays what it is."""
    for axis, bend in ((0, (0.0, -1.4, 0.1)), (1, (1.1, 0.0, -0.2)), (2, (0.5, 0.7, 0.0))):
        for twist in (-2.5, -0.4, 0.0, 1.3):
            turn = np.zeros(3)
            turn[axis] = twist
            R = matrix_from_axis_angle(np.array(bend)) @ matrix_from_axis_angle(turn)
            theta, _ = joint_angles(R[None, None], np.array([axis], np.int32))
            np.testing.assert_allclose(theta[0, 0], np.array(bend) + turn, atol=1e-9)
            same = angles_from(axis_angle_from_matrix(R)[None, None], np.array([axis], np.int32))
            np.testing.assert_allclose(same, theta, atol=1e-9)


def test_joint_angles_derivatives_equal_central_differences() -> None:
    rng = np.random.default_rng(0)
    R = matrix_from_axis_angle(rng.normal(0, 0.8, (4, 4, 3)))
    axes = np.array([0, 1, -1, 2], np.int32)
    _, D = joint_angles(R, axes)
    for k in range(3):
        d = np.zeros(3)
        d[k] = 1e-6
        plus, _ = joint_angles(R @ matrix_from_axis_angle(d), axes)
        minus, _ = joint_angles(R @ matrix_from_axis_angle(-d), axes)
        np.testing.assert_allclose(D[..., k], (plus - minus) / 2e-6, atol=1e-7)


def test_a_turned_forearm_is_no_elbow_bent_sideways() -> None:
    """What an axis-angle takes for 0.5 rad to the side is a forearm turned by a radian at a bent elbow."""
    prior = pose_prior(NAMES)
    elbow = NAMES.index("left_elbow")
    R = matrix_from_axis_angle(np.array([0.0, -1.2, 0.0])) @ matrix_from_axis_angle(np.array([1.0, 0.0, 0.0]))
    turned = axis_angle_from_matrix(R)
    assert abs(turned[2]) > 0.4
    plain = 0.5 * (((turned - prior.mean[elbow]) / prior.sigma[elbow]) ** 2).sum()
    assert prior.unlikely(turned[None, None], [elbow])[0] < plain - 5


def test_few_frames_of_motion_capture_are_beyond_a_joints_range() -> None:
    arrays = read_npz(MOTIONS)
    prior = pose_prior(NAMES)
    theta = angles_from(arrays["poses"] * 1e-4, prior.twist_axis)[:, 1:]
    beyond = (theta < prior.low[1:]) | (theta > prior.high[1:])
    assert beyond.mean(0).max() < 0.05


# --- the mixtures -----------------------------------------------------------------------------------------------------


def test_learned_priors_gradient_equals_central_differences() -> None:
    learned = learned_prior(NAMES)
    R = matrix_from_axis_angle(np.stack([a_pose(s) for s in range(4)]))
    _, gradient, hessian = learned.terms(R, 0.8)
    for j in range(len(NAMES)):
        for axis in range(3):
            d = np.zeros((len(NAMES), 3))
            d[j, axis] = 1e-5
            plus = learned.terms(R @ matrix_from_axis_angle(d), 0.8)[0]
            minus = learned.terms(R @ matrix_from_axis_angle(-d), 0.8)[0]
            np.testing.assert_allclose(gradient[:, 3 * j + axis], (plus - minus) / 2e-5, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(hessian, hessian.swapaxes(1, 2), atol=1e-9)
    assert np.linalg.eigvalsh(hessian).min() > -1e-8 * np.abs(hessian).max()
    assert (gradient[:, :3] == 0).all() and (hessian[:, :3] == 0).all(), "the root has no prior"


def test_learned_prior_says_the_same_twice_and_of_each_pose_alone() -> None:
    learned = learned_prior(NAMES)
    R = matrix_from_axis_angle(np.stack([a_pose(s) for s in range(3)]))
    first, again, single = learned.terms(R), learned.terms(R), learned.terms(R[1:2])
    for a, b, c in zip(first, again, single, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a[1:2], c)


def test_a_pose_and_its_mirror_image_are_equally_likely() -> None:
    """As far as the clips' weights let them be: legs and trunk were learnt from both."""
    learned = learned_prior(NAMES)
    poses = np.stack([a_pose(s) for s in range(6)])
    cost = learned.terms(matrix_from_axis_angle(poses))[0]
    other = learned.terms(matrix_from_axis_angle(mirrored(poses[:, SWAP])))[0]
    np.testing.assert_allclose(other, cost, atol=1.5)
    arms = learned.log_density(poses)["left arm"]
    np.testing.assert_allclose(learned.log_density(mirrored(poses[:, SWAP]))["right arm"], arms, atol=1e-9)


def test_no_pose_costs_much_more_than_without_what_was_learnt() -> None:
    """The broad Gaussian has its share in every mixture."""
    learned, prior = learned_prior(NAMES), pose_prior(NAMES)
    R = matrix_from_axis_angle(np.stack([a_pose(s, 1.0) for s in range(20)]))
    mean = np.broadcast_to(prior.mean, (20, *prior.mean.shape))
    before = pose_prior_terms(R, mean, prior, 1.0)[0]
    after = pose_prior_terms(R, mean, prior, 1.0, learned.covered)[0] + learned.terms(R)[0]
    assert (after - before).max() < len(learned.parts) * -np.log(0.4) + 1e-9


def test_motion_capture_is_likelier_than_under_the_gaussian() -> None:
    learned, prior = learned_prior(NAMES), pose_prior(NAMES)
    R = matrix_from_axis_angle(read_npz(MOTIONS)["poses"][::10] * 1e-4)
    mean = np.broadcast_to(prior.mean, (len(R), *prior.mean.shape))
    before = pose_prior_terms(R, mean, prior, 1.0)[0]
    after = pose_prior_terms(R, mean, prior, 1.0, learned.covered)[0] + learned.terms(R)[0]
    assert np.mean(after - before) < -5


def test_the_prior_is_for_every_body_with_these_joints() -> None:
    poses = np.stack([a_pose(s) for s in range(3)])
    wide = np.zeros((3, len(SMPLX_JOINTS), 3))
    for i, name in enumerate(NAMES):
        if name in SMPLX_JOINTS:
            wide[:, SMPLX_JOINTS.index(name)] = poses[:, i]
    a = learned_prior(NAMES).terms(matrix_from_axis_angle(poses))[0]
    b = learned_prior(SMPLX_JOINTS).terms(matrix_from_axis_angle(wide))[0]
    np.testing.assert_allclose(a, b, atol=1e-9)
    assert len(learned_prior(("pelvis", "left_hip")).parts) == 0


def test_a_stage_says_whether_it_has_the_prior() -> None:
    config = FitConfig()
    assert learned_for(FitConfig(learned_prior=True), config.settle[0], NAMES) is learned_prior(NAMES)
    assert learned_for(FitConfig(learned_prior=True), config.search, NAMES) is None
    assert learned_for(FitConfig(learned_prior=False), config.settle[0], NAMES) is None


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    arrays = dict(read_npz(PRIOR_FILE))
    write_npz(tmp_path / "short.npz", {k: v for k, v in arrays.items() if k != "legs_means"})
    with pytest.raises(ModelFileError, match="legs_means"):
        read_learned_prior(tmp_path / "short.npz", NAMES)
    write_npz(tmp_path / "odd.npz", arrays | {"arm_means": arrays["arm_means"][:, :-1]})
    with pytest.raises(ModelFileError, match="arm"):
        read_learned_prior(tmp_path / "odd.npz", NAMES)


# --- the clips --------------------------------------------------------------------------------------------------------


def test_shipped_motions_are_whole_and_say_where_they_come_from() -> None:
    arrays = read_npz(MOTIONS)
    starts, poses, transl = arrays["starts"], arrays["poses"], arrays["transl"]
    assert MOTIONS.stat().st_size < 600_000
    assert len(starts) == len(arrays["names"]) + 1 == len(arrays["fps"]) + 1
    assert starts[0] == 0 and starts[-1] == len(poses) == len(transl) and (np.diff(starts) > 30).all()
    assert poses.dtype == np.int16 and poses.shape[1:] == (24, 3) and transl.shape[1:] == (3,)
    assert "mocap.cs.cmu.edu" in str(arrays["source"]) and "NSF EIA-0196217" in str(arrays["source"])
    for a, b in pairwise(starts):
        R = matrix_from_axis_angle(poses[a:b] * 1e-4)
        turn = np.linalg.norm(axis_angle_from_matrix(np.swapaxes(R[:-1], 2, 3) @ R[1:]), axis=-1)
        assert turn.max() < 1.0, "no joint leaps between two frames"
        up = R[:, 0, 2, 1]
        assert np.median(up) > 0.9, "people are upright in a world with z up"
        assert np.linalg.norm(np.diff(transl[a:b], axis=0), axis=1).max() < 0.2
    knees = poses[:, [NAMES.index("left_knee"), NAMES.index("right_knee")], 0] * 1e-4
    assert np.percentile(knees, 1) > -0.1, "knees bend one way only"


BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT Arm
  {
    OFFSET 0 2 0
    CHANNELS 3 Zrotation Yrotation Xrotation
    End Site
    {
      OFFSET 3 0 0
    }
  }
}
MOTION
Frames: 4
Frame Time: 0.0166667
0 5 0 0 0 0 90 0 0
0 5 0 0 0 0 90 0 0
1 5 0 0 90 0 0 90 0
1 5 0 0 90 0 0 90 0
"""


def test_a_bvh_is_read_joint_by_joint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second frame of 60 a second; rotations are applied in the order of the channels, the root's first."""
    monkeypatch.syspath_prepend(str(MODELS))
    from mocap_bvh import read_bvh  # pyright: ignore[reportMissingImports]

    path = tmp_path / "arm.bvh"
    path.write_text(BVH)
    clip = read_bvh(path)
    assert clip.names == ("Hips", "Arm", "Arm_end") and clip.fps == pytest.approx(30.0, rel=1e-4)
    assert clip.parents.tolist() == [-1, 0, 1]
    np.testing.assert_allclose(clip.places[0], [(0, 5, 0), (0, 7, 0), (0, 10, 0)], atol=1e-12)
    np.testing.assert_allclose(clip.places[1], [(1, 5, 0), (1, 7, 0), (-2, 7, 0)], atol=1e-12)
    path.write_text(BVH.replace("Frames: 4", "Frames: 5"))
    with pytest.raises(ValueError, match="expected 5 frames of 9 numbers"):
        read_bvh(path)
    path.write_text("a text")
    with pytest.raises(ValueError, match="HIERARCHY"):
        read_bvh(path)
