"""Following a person: accuracy against truth, what is told when they are lost, and the shape over time."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.body.skeleton import PART_NAMES
from bodyfit.errors import FrameError, InputError
from bodyfit.fit.solver import StopReason
from bodyfit.fit.track import Tracker
from bodyfit.fit.track_config import EFFORTS, TrackConfig
from bodyfit.fit.track_estimate import TrackEstimate, TrackState
from bodyfit.fit.track_recording import _quality, step_of
from bodyfit.fit.track_return import ASTRAY_M, KEPT, PIXELS, ways_of
from bodyfit.frame import Frame
from bodyfit.observe.observation import BACKGROUND, PERSON, observe
from bodyfit.rotation import matrix_from_axis_angle
from bodyfit.synthetic.motion import plan_film

FRAMES = 36
BEGUN = 3


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(scope="module")
def film(model: BodyModel) -> Any:
    return plan_film(model, 77, motion="turn", seconds=FRAMES / 30, sensor="azure", heading_deg=0.0).take()


@pytest.fixture(scope="module")
def frames(film: Any) -> list[list[Frame]]:
    return [list(instant.frames.values()) for instant in film.instants]


@pytest.fixture(scope="module")
def begun(model: BodyModel, film: Any, frames: list[list[Frame]]) -> Tracker:
    """A tracker that has seen the first frames; tests go on with copies of it."""
    tracker = Tracker(model, gravity_world=film.gravity_world)
    states = [tracker.update(f).state for f in frames[:BEGUN]]
    assert states == [TrackState.FOUND, *[TrackState.TRACKED] * (BEGUN - 1)]
    tracker._blas = None
    return tracker


def go_on(begun: Tracker, frames: list[list[Frame]]) -> list[TrackEstimate]:
    tracker = copy.deepcopy(begun)
    return [tracker.update(f) for f in frames]


def empty_room(frames: list[list[Frame]], gravity: NDArray[np.float64]) -> NDArray[np.float32]:
    """What the sensor sees once the person has gone, put together from what is seen beside them."""
    room = np.zeros_like(frames[0][0].depth)
    for f in frames[:: FRAMES // 5]:
        seen = observe(f[0], gravity_world=gravity)
        behind = np.where(seen.label == BACKGROUND, seen.depth, np.float32(0))
        room = np.where(room == 0, behind, room)
    return room


def test_follows_within_two_centimetres(begun: Tracker, film: Any, frames: list[list[Frame]]) -> None:
    estimates = go_on(begun, frames[BEGUN:])
    assert all(e.state is TrackState.TRACKED for e in estimates)
    truth = np.stack([i.joints_world for i in film.instants[BEGUN:]])
    error = np.linalg.norm(np.stack([e.joints_world for e in estimates]) - truth, axis=2)
    assert error.mean() < 0.020
    assert error.mean(1).max() < 0.040
    assert all(e.depth_residual_m < 0.010 and e.overlap > 0.9 for e in estimates)
    assert np.median([e.steps for e in estimates]) <= EFFORTS[1].evaluations
    assert all(0.9 < e.covered <= 1 and "solve" in e.times_s for e in estimates)
    assert {e.stop_reason for e in estimates} <= {StopReason.CONVERGED, StopReason.STEPS_USED}


def test_pose_and_joints_are_one_body(begun: Tracker, model: BodyModel, frames: list[list[Frame]]) -> None:
    e = go_on(begun, frames[BEGUN : BEGUN + 2])[-1]
    joints = model.forward(e.betas, e.pose, e.transl)[1]
    np.testing.assert_allclose(joints, e.joints_world, atol=1e-6)
    assert np.isfinite(e.pose_sd).all() and (e.pose_sd > 0).all()


def test_same_frames_same_bytes(begun: Tracker, frames: list[list[Frame]]) -> None:
    a, b = (go_on(begun, frames[BEGUN : BEGUN + 8])[-1] for _ in range(2))
    assert np.array_equal(a.pose, b.pose) and np.array_equal(a.betas, b.betas) and np.array_equal(a.transl, b.transl)


def test_frames_without_depth_are_told_and_passed_over(begun: Tracker, frames: list[list[Frame]]) -> None:
    broken = [[replace(f[0], depth=np.zeros_like(f[0].depth))] for f in frames[BEGUN : BEGUN + 10]]
    estimates = go_on(begun, [*broken, *frames[BEGUN + 10 : BEGUN + 14]])
    assert all(e.state is TrackState.COASTING for e in estimates[:10])
    assert all("no depth" in " ".join(e.told) for e in estimates[:10])
    assert all(e.stop_reason is StopReason.NO_EVIDENCE and e.overlap == 0 for e in estimates[:10])
    assert estimates[10].state is TrackState.TRACKED
    assert "followed again after 0.3" in " ".join(estimates[10].told)


def test_a_person_who_left_is_lost_and_found_again(begun: Tracker, film: Any, frames: list[list[Frame]]) -> None:
    room = empty_room(frames, film.gravity_world)
    gone = [[replace(f[0], depth=room)] for f in frames[BEGUN : BEGUN + 18]]
    estimates = go_on(begun, [*gone, *frames[BEGUN + 18 : BEGUN + 22]])
    states = [e.state for e in estimates]
    assert states[0] is TrackState.COASTING and states[17] is TrackState.LOST
    told = " ".join(t for e in estimates[:18] for t in e.told)
    assert "lost: nobody was followed for 0.4" in told
    back = estimates[18]
    assert back.state is TrackState.FOUND and "found again after" in " ".join(back.told)
    truth = film.instants[BEGUN + 21].joints_world
    assert np.linalg.norm(estimates[-1].joints_world - truth, axis=1).mean() < 0.040


def test_what_passes_before_the_person_is_no_limb(begun: Tracker, film: Any, frames: list[list[Frame]]) -> None:
    hidden = []
    for f in frames[BEGUN : BEGUN + 6]:
        depth = f[0].depth.copy()
        rows, cols = np.nonzero(observe(f[0], gravity_world=film.gravity_world).label == 1)
        depth[int(np.percentile(rows, 25)) :, cols.min() - 30 : cols.max() + 30] = 1.0
        hidden.append([replace(f[0], depth=depth)])
    estimates = go_on(begun, [*hidden, *frames[BEGUN + 6 : BEGUN + 10]])
    assert all(e.state is not TrackState.LOST for e in estimates)
    for e, instant in zip(estimates[6:], film.instants[BEGUN + 6 : BEGUN + 10], strict=True):
        assert e.state is TrackState.TRACKED
        assert np.linalg.norm(e.joints_world - instant.joints_world, axis=1).mean() < 0.040


def test_who_comes_back_is_found_in_any_heading(begun: Tracker, film: Any, frames: list[list[Frame]]) -> None:
    room = empty_room(frames, film.gravity_world)
    tracker = copy.deepcopy(begun)
    for f in frames[BEGUN : BEGUN + 6]:
        tracker.update(f)
    last = frames[BEGUN + 6][0]
    away = [replace(last, depth=room, timestamp_s=last.timestamp_s + k / 30) for k in range(30)]
    assert [tracker.update([f]) for f in away][-1].state is TrackState.LOST
    # the person went as they do not come back: turned by more than a right angle
    assert tracker._pose is not None
    turned = tracker._pose.rotations.copy()
    up = -film.gravity_world / np.linalg.norm(film.gravity_world)
    turned[0] = matrix_from_axis_angle(2.0 * up) @ turned[0]
    tracker._pose = replace(tracker._pose, rotations=turned)
    back = [replace(f[0], timestamp_s=f[0].timestamp_s + 1.0) for f in frames[BEGUN + 7 : BEGUN + 12]]
    estimates = [tracker.update([f]) for f in back]
    assert estimates[0].state is TrackState.FOUND and set(estimates[0].hidden) < set(PART_NAMES)
    assert [e.state for e in estimates[1:]] == [TrackState.TRACKED] * 4
    truth = film.instants[BEGUN + 11].joints_world
    assert np.linalg.norm(estimates[-1].joints_world - truth, axis=1).mean() < 0.040


def test_a_way_that_leaves_the_picture_is_none(begun: Tracker, frames: list[list[Frame]]) -> None:
    tracker = copy.deepcopy(begun)
    assert tracker.shape is not None and tracker._pose is not None
    mesh, pose, returns = tracker.shape.mesh(tracker.config.regain.level), tracker._pose, tracker._return
    seen = tracker._sensors.look_coarsely(mesh, frames[BEGUN], pose, PIXELS)
    place = returns.place_of(frames[BEGUN], mesh, seen, pose, gone_s=2.0)
    # nothing in the picture speaks against a body that is not in it: it costs least
    beside = np.cross(place.up, place.toward)
    astray = replace(pose, transl=pose.transl + 8.0 * beside)
    views = [s.view for s in seen]
    comeback = returns.comeback
    cost = comeback.improved(mesh, views, ways_of([pose, astray]), 0, place, ordered=False).cost
    assert cost[1] < cost[0]
    ways = comeback.search(mesh, views, pose, place, (astray,))
    assert 0 < len(ways) <= KEPT
    assert (np.linalg.norm(ways.state.transl - pose.transl, axis=1) < ASTRAY_M).all()


def test_what_stood_before_the_person_does_not_tell_where_they_go(begun: Tracker) -> None:
    returns = copy.deepcopy(begun._return)
    returns.forget()
    for k in range(6):  # a board
        returns.note(k / 30, np.array([0.5, 1.0, 1.0]))
    for k in range(6, 10):  # and who stood behind it
        returns.note(k / 30, np.array([0.0, 2.5, 1.0]))
    assert returns.travel() is None
    for k in range(10, 20):
        returns.note(k / 30, np.array([0.04 * (k - 9), 2.5, 1.0 + 0.01 * k]))
    walked = returns.travel()
    assert walked is not None
    np.testing.assert_allclose(walked, [1.2, 0, 0], atol=1e-6)


def test_legs_that_are_hidden_are_told(begun: Tracker, film: Any, frames: list[list[Frame]]) -> None:
    behind_a_box = []
    for f in frames[BEGUN : BEGUN + 6]:
        depth = f[0].depth.copy()
        rows, cols = np.nonzero(observe(f[0], gravity_world=film.gravity_world).label == PERSON)
        depth[int(np.percentile(rows, 60)) :, cols.min() - 30 : cols.max() + 30] = 1.0
        behind_a_box.append([replace(f[0], depth=depth)])
    estimates = go_on(begun, [*behind_a_box, *frames[BEGUN + 6 : BEGUN + 10]])
    legs = {"left_calf", "right_calf", "left_foot", "right_foot"}
    assert all(legs <= set(e.hidden) and "head" not in e.hidden for e in estimates[:6])
    assert all("chest" not in e.hidden for e in estimates)
    assert any("not seen, and guessed" in t and "left calf" in t for t in estimates[0].told)
    assert any("seen again" in t and "left calf" in t for t in estimates[6].told)
    assert not legs & set(estimates[-1].hidden)
    held = _quality(step_of(estimates[3], 3))  # what a recording's result says of such a frame
    assert any("not seen, and guessed" in flag and "left calf" in flag for flag in held.flags)


def test_a_stall_is_bridged(begun: Tracker, film: Any, frames: list[list[Frame]]) -> None:
    estimates = go_on(begun, [*frames[BEGUN : BEGUN + 5], *frames[BEGUN + 9 : BEGUN + 12]])
    assert [e.state for e in estimates] == [TrackState.TRACKED] * 8
    assert any("followed again" in t for t in estimates[5].told)
    truth = film.instants[BEGUN + 9].joints_world
    assert np.linalg.norm(estimates[5].joints_world - truth, axis=1).mean() < 0.040


def test_more_frames_tell_more_of_the_shape(begun: Tracker, film: Any, frames: list[list[Frame]]) -> None:
    tracker = copy.deepcopy(begun)
    assert tracker.shape is not None
    first, before = tracker.shape.betas(), tracker.shape.online.vertex_sd_m
    for f in frames[BEGUN:]:
        tracker.update(f)
    betas, cov = tracker.shape.betas()
    assert tracker.shape.online.keyframes
    assert tracker.shape.online.vertex_sd_m < before
    assert np.trace(cov) < np.trace(first[1]) and np.linalg.eigvalsh(cov).min() > 0
    # far from the truth by no more than at first, but for what is by chance
    rest = film.subject.rest_vertices

    def wrong(b: NDArray[np.float64]) -> float:
        mine = tracker.model.rest_vertices(b)
        return float(np.median(np.linalg.norm((mine - mine.mean(0)) - (rest - rest.mean(0)), axis=1)))

    assert wrong(betas) < max(wrong(first[0]) + 0.001, 0.008)


def test_how_people_usually_stand_says_little_of_their_shape(begun: Tracker, frames: list[list[Frame]]) -> None:
    assert begun.shape is not None and begun._pose is not None
    mesh, pose, tell = begun.shape.mesh(begun.config.stage.level), begun._pose, begun.config.tell
    views = [s.view for s in copy.deepcopy(begun)._sensors.look_closer(mesh, frames[BEGUN - 1], pose, tell.pixels)]
    assert views
    first = begun.shape.online

    def told(widening: float, bent_rad: float) -> NDArray[np.float64]:
        """The shape after a keyframe, where people usually bend knees and spine by so much more."""
        online = copy.deepcopy(first)
        mean = online.prior.mean.copy()
        mean[[i for i, n in enumerate(mesh.joint_names) if n.endswith("knee") or n.startswith("spine")], 0] += bent_rad
        online.prior = replace(online.prior, mean=mean)
        online.stage = replace(tell, pose_prior=widening)
        online.add(pose.rotations, pose.transl, views)
        return online.x

    pull, usual = (np.linalg.norm(told(w, 0.3) - told(w, 0.0)) for w in (tell.pose_prior, 1.0))
    assert 0 < pull < 0.4 * usual


def test_less_is_done_where_time_is_short(begun: Tracker, frames: list[list[Frame]]) -> None:
    tracker = copy.deepcopy(begun)
    tracker.config = replace(tracker.config, budget_s=1e-4)
    for f in frames[BEGUN : BEGUN + 12]:
        assert tracker.update(f).state is TrackState.TRACKED
    assert tracker.effort == EFFORTS[-1].name


@pytest.mark.parametrize(("options", "field"), [({"sex": "x"}, "sex"), ({"clothing": "armour"}, "clothing")])
def test_options_that_do_not_exist(model: BodyModel, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        Tracker(model, **options)


def test_frames_come_in_the_order_of_time(begun: Tracker, frames: list[list[Frame]]) -> None:
    tracker = copy.deepcopy(begun)
    with pytest.raises(InputError, match=r"after 0\.0667 s"):
        tracker.update(frames[1])
    with pytest.raises(InputError, match="at least one"):
        tracker.update([])
    assert tracker.update(frames[BEGUN]).state is TrackState.TRACKED


def test_broken_depth_is_refused_and_changes_nothing(begun: Tracker, frames: list[list[Frame]]) -> None:
    tracker = copy.deepcopy(begun)
    for value, found in ((np.nan, "NaN"), (-1.0, "-1 m")):
        depth = frames[BEGUN][0].depth.copy()
        depth[10, 10] = value
        with pytest.raises(FrameError, match=found):
            tracker.update([replace(frames[BEGUN][0], depth=depth)])
    a, b = tracker.update(frames[BEGUN]), go_on(begun, frames[BEGUN : BEGUN + 1])[0]
    assert np.array_equal(a.pose, b.pose)


def test_nobody_in_the_picture_is_an_answer(model: BodyModel, film: Any, frames: list[list[Frame]]) -> None:
    room = empty_room(frames, film.gravity_world)
    tracker = Tracker(model, gravity_world=film.gravity_world, config=TrackConfig())
    e = tracker.update([replace(frames[0][0], depth=room)])
    assert e.state is TrackState.LOST and "nobody found" in " ".join(e.told)
    assert tracker.update(frames[1]).state is TrackState.FOUND
