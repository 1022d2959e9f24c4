"""People who move in films: smooth joints, feet that stand, what goes wrong when; and scores of motion."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bodyfit.bench.motion_scores import MotionScorer, held, twist_between
from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.errors import InputError
from bodyfit.rotation import matrix_from_axis_angle
from bodyfit.synthetic.clips import clip_names
from bodyfit.synthetic.clothing import wear
from bodyfit.synthetic.everyday import MOVERS
from bodyfit.synthetic.legs import FootTrack, ankle_places, legs_of, solve_leg, upright
from bodyfit.synthetic.motion import MOTIONS, Filming, Scenario, motion_poses, plan_film
from bodyfit.synthetic.subject import sample_subject
from bodyfit.synthetic.take import sample_take

FPS = 60.0


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


def _joints(film: Filming) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Joints (T, J, 3), lowest point of each foot (T, 2) and which feet are pinned (T, 2)."""
    poses, root, planted = film.truth()
    main = film.model.lbs_weights.argmax(1)
    names = film.model.joint_names
    feet = [
        np.nonzero(np.isin(main, [names.index(f"{s}_{n}") for n in ("ankle", "foot")]))[0] for s in ("left", "right")
    ]
    joints, low = [], []
    for pose, place in zip(poses, root, strict=True):
        vertices, at = film.subject.posed(film.model, pose, place - film.subject.rest_joints[0])
        surface = wear(vertices, film.model.faces, film.clothing)
        joints.append(at)
        low.append([surface[f, 2].min() for f in feet])
    return np.array(joints), np.array(low), planted


# --- movements


@pytest.mark.parametrize("name", list(MOVERS))
def test_movements_are_smooth_and_stand_on_the_floor(model: BodyModel, name: str) -> None:
    film = plan_film(model, 5, motion=name, seconds=2.5, fps=FPS, clothing="casual")
    joints, low, planted = _joints(film)
    acceleration = np.linalg.norm(np.diff(joints, 2, axis=0), axis=-1) * FPS**2
    jerk = np.linalg.norm(np.diff(joints, 3, axis=0), axis=-1) * FPS**3
    assert 0.02 < acceleration.mean() < 8.0
    assert acceleration.max() < 70.0  # m/s²: a knee that swings, a foot that is set down
    assert jerk.max() < 4000.0  # of a step in velocity it would be FPS² times the step: 3,600 for 1 m/s
    # no foot in the floor, a pinned one on it (in a walk it rolls over heel and ball)
    assert low.min() > -0.004
    assert low[planted].max() < 0.02
    # nothing slides: the ball of a pinned foot stays but for the rolling over the heel
    ball = [model.joint_names.index(f"{side}_foot") for side in ("left", "right")]
    for k in (0, 1):
        speed = np.linalg.norm(np.diff(joints[:, ball[k], :2], axis=0), axis=1) * FPS
        stands = planted[1:, k] & planted[:-1, k]
        if stands.any():
            assert np.median(speed[stands]) < 0.002


def test_a_walk_goes_on_its_way_and_both_feet_step(model: BodyModel) -> None:
    film = plan_film(model, 1, motion="walk", seconds=4)
    joints, _, planted = _joints(film)
    way = np.linalg.norm(np.diff(joints[:, 0, :2], axis=0), axis=1).sum()
    assert 1.5 < way < 4.5
    assert (planted.mean(0) > 0.4).all() and (planted.mean(0) < 0.9).all()
    assert planted.any(1).all()  # one foot at least is on the floor
    left, right = (joints[:, model.joint_names.index(f"{s}_ankle"), 2] for s in ("left", "right"))
    assert np.corrcoef(left, right)[0, 1] < -0.2  # in turn
    # an arm swings with the leg of the other side
    _, root, _ = film.truth()
    ahead = np.gradient(root[:, :2], axis=0)
    ahead = ahead / np.linalg.norm(ahead, axis=1, keepdims=True)

    def forward(name: str) -> np.ndarray:
        return ((joints[:, model.joint_names.index(name), :2] - joints[:, 0, :2]) * ahead).sum(1)

    arms = forward("left_wrist") - forward("right_wrist")
    legs = forward("left_ankle") - forward("right_ankle")
    assert np.corrcoef(arms, legs)[0, 1] < -0.7


def test_who_leaves_the_view_is_gone_for_a_while_and_returns(model: BodyModel) -> None:
    film = plan_film(model, 2, motion="leave", seconds=10, sensor="d435")
    joints, _, _ = _joints(film)
    T, camera = film.T_world_depth[0], film.sensors[0].depth_camera
    uv = camera.project((joints - T[:3, 3]) @ T[:3, :3])
    outside = np.all((uv[..., 0] < 0) | (uv[..., 0] > camera.width - 1), axis=1)
    assert not outside[:30].any() and not outside[-15:].any()
    assert outside.sum() > 15


def test_poses_do_not_depend_on_the_rate(model: BodyModel) -> None:
    for name in ("walk", *(f"cmu_{c}" for c in clip_names()[:1])):
        slow = motion_poses(name, np.random.default_rng(3), seconds=1.0, fps=30, yaw=0.4, model=model)
        fast = motion_poses(name, np.random.default_rng(3), seconds=1.0, fps=90, yaw=0.4, model=model)
        assert slow[0].shape == (30, 24, 3) and slow[1].shape == (30, 3)
        same = matrix_from_axis_angle(slow[0]) - matrix_from_axis_angle(fast[0][::3])
        assert np.abs(same).max() < 1e-9
        assert np.abs(slow[1] - fast[1][::3]).max() < 1e-9


@pytest.mark.skipif(not clip_names(), reason="no recorded clips")
def test_a_clip_is_put_on_another_body_and_back_again_without_a_jerk(model: BodyModel) -> None:
    name = f"cmu_{clip_names()[1]}"
    assert name in MOTIONS
    film = plan_film(model, 4, motion=name, seconds=12, fps=FPS)
    joints, low, _ = _joints(replace(film, seconds=8.0))
    acceleration = np.linalg.norm(np.diff(joints, 2, axis=0), axis=-1) * FPS**2
    assert acceleration.mean() < 20 and acceleration.max() < 250  # a recorded jump
    assert low.min() > -0.02
    assert low.min(1).max() > 0.05  # and it leaves the floor


def test_legs_reach_where_their_feet_are(model: BodyModel) -> None:
    rng = np.random.default_rng(0)
    subject = sample_subject(model, rng)
    n, leg = 40, legs_of(model, subject, subject.rest_vertices)[0]
    foot = FootTrack(
        rng.normal(0, 0.08, (n, 2)), rng.normal(0, 0.3, n), rng.uniform(0, 0.2, n), rng.uniform(0, 0.5, n),
        rng.uniform(0, 0.3, n), np.ones(n, bool),
    )  # fmt: skip
    root = np.concatenate([rng.normal(0, 0.05, (n, 2)), np.full((n, 1), 0.75)], 1)
    pelvis = upright(rng.normal(0, 0.2, n)) @ matrix_from_axis_angle(rng.normal(0, 0.1, (n, 3)))
    hip, knee, ankle, _ = solve_leg(leg, foot, root, pelvis)
    at, orientation = ankle_places(leg, foot)
    found = root + (pelvis @ (leg.hip + (hip @ (leg.thigh + knee @ leg.shin)[..., None])[..., 0])[..., None])[..., 0]
    assert np.abs(found - at).max() < 1e-9
    assert np.abs(pelvis @ hip @ knee @ ankle - orientation).max() < 1e-9
    assert (knee[:, 2, 1] > 0).all()  # knees bend one way


# --- films


def test_a_film_is_the_same_each_time_and_its_truth_is_what_it_shows(model: BodyModel) -> None:
    film = plan_film(model, 9, motion="reach", seconds=0.2, sensor="d435")
    take = film.take()
    assert len(film) == len(take.instants) == 6
    for k, (instant, again) in enumerate(zip(take.instants, film, strict=True)):
        frame = instant.frames["d435"]
        assert np.array_equal(frame.depth, again.frames["d435"].depth)
        assert frame.index == k and frame.timestamp_s == pytest.approx(k / 30)
        vertices, joints = film.subject.posed(model, instant.pose, instant.transl)
        assert np.abs(vertices - instant.vertices_world).max() < 1e-6
        assert np.abs(joints - instant.joints_world).max() < 1e-6
        # joints lie within the person's picture
        T = take.T_world_depth[0]
        u, v = np.rint(frame.depth_camera.project((joints[:16] - T[:3, 3]) @ T[:3, :3])).astype(int).T
        assert instant.masks["d435"][v, u].mean() > 0.8


def test_what_goes_wrong_in_a_film_goes_wrong_when_it_should(model: BodyModel) -> None:
    scenario = Scenario(missing=(1, 2), stall=(4, 3), hidden=(8, 2))
    film = plan_film(model, 3, motion="turn", seconds=11 / 30, scenario=scenario)
    instants = list(film)
    indices = [i.frames["azure"].index for i in instants]
    assert indices == [0, 1, 2, 3, 7, 8, 9, 10]
    assert [i.frames["azure"].timestamp_s for i in instants] == pytest.approx([k / 30 for k in indices])
    read = np.array([(i.frames["azure"].depth > 0).mean() for i in instants])
    assert (read[[1, 2]] == 0).all() and (np.delete(read, [1, 2]) > 0.5).all()
    seen = np.array([i.masks["azure"].sum() for i in instants])
    assert (seen[[5, 6]] < 0.02 * seen[0]).all() and (np.delete(seen, [5, 6]) > 0.5 * seen[0]).all()
    legs = next(
        iter(plan_film(model, 3, motion="turn", seconds=1 / 30, scenario=Scenario(hidden=(0, 1), hides="legs")))
    )
    assert 0.25 * seen[0] < legs.masks["azure"].sum() < 0.8 * seen[0]


def test_colour_sticks_to_the_body_and_exposure_wanders(model: BodyModel) -> None:
    film = plan_film(model, 6, motion="wave", seconds=1.2, fps=5, color=True, exposure_wanders=True)
    assert film.studio is not None
    few = [instant for k, instant in enumerate(film) if k in (0, 5)]
    albedo = film.studio.texture.at_vertices(model.faces, model.num_vertices)
    chest = (model.lbs_weights.argmax(1) == model.joint_names.index("spine3")) & (
        film.subject.rest_vertices[:, 2] > 0.08
    )
    seen = []
    for instant in few:
        frame = instant.frames["azure"]
        assert frame.color is not None and frame.color_camera is not None and frame.T_color_depth is not None
        T = film.T_world_depth[0] @ np.linalg.inv(frame.T_color_depth)
        cam = (instant.surface_world[chest] - T[:3, 3]) @ T[:3, :3]
        u, v = np.rint(frame.color_camera.project(cam)).astype(int).T
        seen.append((frame.color[v, u] / 255.0) ** 2.2)
    # where the body was, the same colour but for light and exposure
    correlation = np.corrcoef(seen[0].ravel(), seen[1].ravel())[0, 1]
    assert correlation > 0.6
    assert np.abs(np.log(seen[0].mean() / seen[1].mean())) > 0.005
    assert albedo.min() > 0 and albedo.max() < 1
    gains = np.array([film.studio.exposure.at(t) for t in np.arange(0, 10, 0.1)])  # pyright: ignore
    assert 0.03 < np.log(gains).std() < 0.25


def test_colour_that_comes_late_shows_a_later_body(model: BodyModel) -> None:
    in_time, late = (
        list(plan_film(model, 6, motion="walk", seconds=5 / 30, color=True, color_lag_s=lag)) for lag in (0.0, 3 / 30)
    )
    assert np.array_equal(in_time[0].frames["azure"].depth, late[0].frames["azure"].depth)

    def picture(instant: object) -> np.ndarray:
        return instant.frames["azure"].color.astype(int)  # type: ignore[attr-defined]

    # apart from the noise
    apart = [(np.abs(picture(late[1]) - picture(other)).max(-1) > 40).sum() for other in (in_time[1], in_time[4])]
    assert apart[1] < 0.02 * apart[0]


def test_texture_changes_no_depth(model: BodyModel) -> None:
    plain = sample_take(model, 3, color=True)
    textured = sample_take(model, 3, color=True, textured=True)
    assert np.array_equal(plain.frames[0].depth, textured.frames[0].depth)
    one, other = plain.frames[0].color, textured.frames[0].color
    assert one is not None and other is not None and one.shape == other.shape
    assert np.abs(one.astype(int) - other.astype(int)).mean() > 2


def test_unknown_movements_and_rates_are_refused(model: BodyModel) -> None:
    with pytest.raises(InputError, match="motion"):
        plan_film(model, 0, motion="fly", seconds=1)
    with pytest.raises(InputError, match="seconds"):
        plan_film(model, 0, motion="walk", seconds=0)
    with pytest.raises(InputError, match="fps"):
        plan_film(model, 0, motion="walk", seconds=1, fps=-1)
    with pytest.raises(InputError, match="motion"):
        motion_poses("fly", np.random.default_rng(0), seconds=1, model=model)


# --- scores


def test_twist_is_told_from_swing() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(50, 3)) * (0.04, 0.04, 0.15)
    axis = np.array([0.0, 0.0, 1.0])
    for degrees in (-150.0, -20.0, 0.0, 35.0):
        twisted = points @ matrix_from_axis_angle(np.radians(degrees) * axis).T
        assert twist_between(twisted + 0.3, points, axis * 2) == pytest.approx(degrees, abs=1e-6)
        swung = twisted @ matrix_from_axis_angle(np.array([0.3, 0.0, 0.0])).T
        assert twist_between(swung, points, axis) == pytest.approx(degrees, abs=1e-6)


def test_scores_of_a_perfect_a_shifted_and_a_trembling_track(model: BodyModel) -> None:
    film = plan_film(model, 8, motion="walk", seconds=1.0)
    poses, root, _ = film.truth()
    rng = np.random.default_rng(0)
    perfect, shifted, trembling, gaps = (MotionScorer(model) for _ in range(4))
    for t, time_s in enumerate(film.times_s.tolist()):
        at = film.subject.posed(model, poses[t], root[t] - film.subject.rest_joints[0])
        perfect.add(time_s, at, at[1], at[0])
        shifted.add(time_s, (at[0] + (0.03, 0, 0), at[1] + (0.03, 0, 0)), at[1], at[0])
        shake = rng.normal(0, 0.005, 3)
        trembling.add(time_s, (at[0] + shake, at[1] + shake), at[1], at[0])
        gaps.add(time_s, None if t % 3 == 2 else at, at[1], at[0])
    best, moved, shaken, few = (s.score() for s in (perfect, shifted, trembling, gaps))
    assert best.joints_mm == pytest.approx(0) and best.acceleration_ratio == pytest.approx(1)
    assert best.lost == 0 and best.twist_deg["forearm"] < 1e-4
    assert moved.joints_mm == pytest.approx(30, abs=1e-6) and moved.acceleration_ratio == pytest.approx(1)
    assert moved.slide_m_s == pytest.approx(moved.true_slide_m_s)
    # white noise of s per axis has second differences of sqrt(6) s: 5 mm at 30 frames a second are 17 m/s² on average
    assert shaken.acceleration == pytest.approx(0.005 * np.sqrt(6) * 900 * np.sqrt(8 / np.pi), rel=0.25)
    assert shaken.acceleration_ratio is not None and shaken.acceleration_ratio > 2
    assert few.lost == 10 and few.acceleration is None


def test_shares_within_intervals() -> None:
    assert held([0.1, -1.0, 1.7, -3.0]) == 0.5
    assert np.isnan(held([]))


# --- the benchmark of following

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def tracking(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("tracking")


def test_films_of_the_benchmark_take_turns(tracking: ModuleType) -> None:
    cases = [tracking.case_of(s) for s in range(6000, 6032)]
    assert cases == [tracking.case_of(s) for s in range(6000, 6032)]
    for motion in ("walk", "turn", "reach", "squat"):
        assert {c.sensor for c in cases if c.motion == motion} == {"azure", "d435"}
    assert len({c.motion for c in cases[:16]}) == 8 and {c.clothing for c in cases} == {"tight", "casual"}


def test_what_goes_wrong_is_found_in_the_frames_that_came(tracking: ModuleType) -> None:
    numbers = np.array([k for k in range(100) if not 45 <= k < 48])
    assert tracking.event_frames("100 ms stall", numbers, np.ones(97)) == (45, 45)
    assert tracking.event_frames("10 frames without depth", np.arange(100), np.ones(100)) == (45, 55)
    shown = np.concatenate([np.full(40, 1000), np.linspace(1000, 0, 20), np.zeros(30), np.linspace(0, 1000, 21)])
    begin, end = tracking.event_frames("leaves the view and returns", np.arange(len(shown)), shown)
    assert shown[begin] < 50 <= shown[begin - 1] and shown[end] > 700 >= shown[end - 1]


@pytest.mark.slow
def test_one_film_one_recovery_and_a_short_long_film(tmp_path: Path) -> None:
    out = tmp_path / "tracking"
    arguments = ["--films", "1", "--first-seed", "6003", "--recoveries", "1", "--frames", "120", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "tracking.py"), *arguments], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    _, film = map(json.loads, (out / "films.jsonl").read_text().splitlines())
    assert 1 < film["score"]["joints_mm"] < 100 and film["score"]["frames"] == 90
    assert film["shapes"]["1"]["rest_mm"] > 0.5 and film["wall_ms"][0] < film["wall_ms"][1]
    text = (out / "report.md").read_text()
    assert "A long film (120 frames" in text and (out / "tracking.png").stat().st_size > 2000
