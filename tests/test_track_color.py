"""Colour in a track: it moves poses within what depth leaves open, and what was learnt wrongly does not stay."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.cli.main import app
from bodyfit.fit.follow import Pose
from bodyfit.fit.photometric import ColorPull
from bodyfit.fit.track import Tracker
from bodyfit.fit.track_color import LIMBS, TrackColors, limb_of_joints
from bodyfit.fit.track_config import ColorTracking, TrackConfig
from bodyfit.fit.track_estimate import TrackState
from bodyfit.frame import Frame
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle
from bodyfit.synthetic.motion import plan_film
from bodyfit.synthetic.write import write_take

FRAMES = 40
QUICK = ColorTracking(settle_frames=2, learn_every=1)


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(scope="module")
def film(model: BodyModel) -> Any:
    return plan_film(
        model, 92, motion="squat", seconds=FRAMES / 30, heading_deg=10.0, color=True, color_stride=2,
        exposure_wanders=True,
    ).take()  # fmt: skip


@pytest.fixture(scope="module")
def frames(film: Any) -> list[list[Frame]]:
    return [list(instant.frames.values()) for instant in film.instants]


@pytest.fixture(scope="module")
def learnt(model: BodyModel, film: Any, frames: list[list[Frame]]) -> Tracker:
    """A tracker that has seen the first half with colours; tests go on with copies of it."""
    tracker = Tracker(model, gravity_world=film.gravity_world, config=TrackConfig(color=QUICK))
    for f in frames[: FRAMES // 2]:
        tracker.update(f)
    tracker._blas = None
    return tracker


def errors_m(tracker: Tracker, film: Any, frames: list[list[Frame]], first: int) -> NDArray[np.float64]:
    """(T, J) joints' errors of the film's rest."""
    found = [tracker.update(f) for f in frames[first:]]
    assert all(e.state is TrackState.TRACKED for e in found)
    truth = np.stack([i.joints_world for i in film.instants[first:]])
    return np.linalg.norm(np.stack([e.joints_world for e in found]) - truth, axis=2)


def test_colours_move_the_pose_and_do_no_harm(
    model: BodyModel, learnt: Tracker, film: Any, frames: list[list[Frame]]
) -> None:
    """Once learnt they pull in nearly every frame, and the joints are as near to the truth as by depth alone."""
    colors = learnt.colors
    assert colors is not None and colors.appearance is not None and colors.frames > 0
    seen = (colors.appearance.weight > colors.config.color.learnt).mean()
    assert 0.1 < seen < 0.7  # the side that the sensor saw
    with_colour = copy.deepcopy(learnt)
    half = FRAMES // 2
    error = errors_m(with_colour, film, frames, half)
    assert with_colour.colors is not None
    used = with_colour.colors.frames - colors.frames
    assert used > 0.7 * half
    assert with_colour.colors.pull is not None and with_colour.colors.pulled > 100
    plain = Tracker(model, gravity_world=film.gravity_world)
    for f in frames[:half]:
        plain.update(f)
    alone = errors_m(plain, film, frames, half)
    assert error.mean() < alone.mean() + 0.0015
    assert error.max() < alone.max() + 0.010


def test_frames_without_colour_are_followed_by_depth_alone(
    model: BodyModel, film: Any, frames: list[list[Frame]]
) -> None:
    """To the last bit as a tracker that was never asked for colours."""
    bare = [[replace(f, color=None, color_camera=None, T_color_depth=None) for f in some] for some in frames[:8]]
    asked = Tracker(model, gravity_world=film.gravity_world, config=TrackConfig(color=QUICK))
    never = Tracker(model, gravity_world=film.gravity_world)
    for some in bare:
        a, b = asked.update(some), never.update(some)
        np.testing.assert_array_equal(a.pose, b.pose)
        assert a.color_points == b.color_points == 0
    assert asked.colors is not None and asked.colors.frames == 0


def test_colours_learnt_in_another_pose_do_not_hold_a_limb(
    model: BodyModel, learnt: Tracker, film: Any, frames: list[list[Frame]]
) -> None:
    """A head and a thigh whose colours were learnt 25 degrees off: they pull no further than depth leaves open."""
    tracker = copy.deepcopy(learnt)
    colors = tracker.colors
    assert colors is not None and colors.appearance is not None and tracker.shape is not None
    assert tracker._pose is not None
    half = FRAMES // 2
    appearance = colors.appearance
    wrong = tracker._pose.rotations.copy()
    turn = matrix_from_axis_angle(np.array([0, np.radians(25), 0]))
    for name in ("head", "right_hip"):
        k = model.joint_names.index(name)
        wrong[k] = wrong[k] @ turn
    limbs = limb_of_joints(model.joint_names)[appearance.cloud.weight_joints[:, 0]]
    those = np.isin(limbs, [LIMBS.index("head"), LIMBS.index("right_leg")])
    appearance.weight[those] = 0
    for _ in range(12):
        sight = appearance.look(frames[half - 1][0], wrong, tracker._pose.transl)
        assert sight is not None
        keep = those[sight.seen]
        sight.seen, sight.colors = sight.seen[keep], sight.colors[keep]
        appearance.update(sight)
    assert (appearance.weight[those] > colors.config.color.learnt).sum() > 200
    plain, free = copy.deepcopy(learnt), copy.deepcopy(tracker)
    plain.colors = None
    assert free.colors is not None
    free.colors.config = replace(free.colors.config, most_rise=1e9, most_real_rise=1e9)
    poses = []
    for each in (plain, tracker, free):
        found = [each.update(f) for f in frames[half:]]
        assert all(e.state is TrackState.TRACKED for e in found)
        poses.append(matrix_from_axis_angle(np.stack([e.pose for e in found])))
    hip = model.joint_names.index("right_hip")
    alone, bounded, unbounded = (p[:, hip] for p in poses)
    bounded_deg, unbounded_deg = turned_deg(alone, bounded), turned_deg(alone, unbounded)
    assert bounded_deg.max() < 3.5
    assert bounded_deg.mean() < 0.6 * unbounded_deg.mean()  # it is the bound that holds them back


def turned_deg(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T,) angle between rotations (T, 3, 3), degrees."""
    return np.degrees(np.linalg.norm(axis_angle_from_matrix(np.swapaxes(a, 1, 2) @ b), axis=-1))


def test_a_limb_is_bounded_by_what_depth_leaves_open(model: BodyModel) -> None:
    rng = np.random.default_rng(5)
    colors = TrackColors(model, ColorTracking())
    Q = 3 * model.num_joints + 3
    root = rng.normal(size=(Q, Q))
    A = root @ root.T + 10 * np.eye(Q)
    shift = rng.normal(size=Q)
    out = colors._bounded(A, shift)
    for limb in range(len(LIMBS)):
        i = np.flatnonzero(colors._of_parameter == limb)
        assert 0.5 * out[i] @ A[np.ix_(i, i)] @ out[i] <= 0.5 + 1e-9
        assert np.linalg.norm(out[i]) > 0
    assert 0.5 * out @ A @ out <= 0.5 * len(LIMBS) + 1e-9
    small = 1e-4 * shift
    np.testing.assert_array_equal(colors._bounded(A, small), small)


def test_what_pulls_one_way_for_long_is_forgotten(model: BodyModel) -> None:
    """A head that is pulled by two standard deviations of depth in every frame, and one pulled to and fro."""
    config = ColorTracking()
    Q = 3 * model.num_joints + 3
    A, expected = np.eye(Q) * 1000.0, np.full(Q, 300.0)
    head = 3 * model.joint_names.index("head")
    for swings, forgotten in ((False, 1), (True, 0)):
        colors = TrackColors(model, config)
        for n in range(2 * config.memory_frames - 1):
            shift = np.zeros(Q)
            shift[head] = 0.06 * (-1 if swings and n % 2 else 1)
            colors._watch(A, shift, expected)
        assert colors.forgotten == forgotten


def test_every_joint_is_on_a_limb(model: BodyModel) -> None:
    limbs = dict(zip(model.joint_names, [LIMBS[k] for k in limb_of_joints(model.joint_names)], strict=True))
    assert limbs["left_wrist"] == limbs["left_collar"] == "left_arm"
    assert limbs["right_ankle"] == limbs["right_hip"] == "right_leg"
    assert limbs["neck"] == "head" and limbs["pelvis"] == limbs["spine2"] == "trunk"


def test_a_pull_has_the_gradient_of_its_cost() -> None:
    rng = np.random.default_rng(8)
    J = 5
    Q = 3 * J + 3
    root = rng.normal(size=(Q, Q))
    R = matrix_from_axis_angle(rng.normal(size=(J, 3)))
    pull = ColorPull(R, rng.normal(size=3), (root @ root.T).astype(np.float32), rng.normal(size=Q).astype(np.float32))
    at = Pose(R @ matrix_from_axis_angle(0.01 * rng.normal(size=(J, 3))), pull.transl + 0.01 * rng.normal(size=3))
    _, gradient, products = pull.equations(at.rotations, at.transl)
    h, found = 1e-5, np.empty(Q)
    for i in range(Q):
        two = []
        for sign in (h, -h):
            turn, move = np.zeros((J, 3)), at.transl.copy()
            if i < 3 * J:
                turn[i // 3, i % 3] = sign
            else:
                move[i - 3 * J] += sign
            two.append(pull.equations(at.rotations @ matrix_from_axis_angle(turn), move)[0])
        found[i] = (two[0] - two[1]) / (2 * h)
    # the turn's own derivative is taken as 1, right to the size of the turn
    np.testing.assert_allclose(gradient, found, atol=0.02 * np.abs(found).max())
    assert np.linalg.eigvalsh(products).min() > 0
    cost, gradient, _ = pull.equations(R, pull.transl + 100.0)
    assert abs(cost) < 2 * ColorPull.REACH and np.abs(gradient).max() < 1


def test_the_command_uses_colour_and_says_so(
    model: BodyModel, film: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_take(tmp_path / "rec", film)
    out = tmp_path / "out"
    code = app(["track", str(folder), "-o", str(out), "--color", "--json", "--frames", "0-29", "--no-video"])
    how = json.loads(capfd.readouterr().out)["track"]
    assert code in (0, 4) and how["color"]["frames"] > 5
    assert json.loads((out / "measurements.json").read_text())["provenance"]["color"] == how["color"]


def test_colour_that_there_is_not_is_refused(
    model: BodyModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_take(tmp_path / "rec", plan_film(model, 41, motion="wave", seconds=0.1).take())
    assert app(["track", str(folder), "-o", str(tmp_path / "o"), "--color"]) == 2
    error = capfd.readouterr().err
    assert "color" in error and "sensors have colour" in error and not (tmp_path / "o").exists()
