"""Which parts of a followed body a frame does not show, what is told of them, and how well their pose is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.fit.follow import Pose, place_points
from bodyfit.fit.mesh import Mesh, mesh_for
from bodyfit.fit.track import Tracker
from bodyfit.fit.track_estimate import TrackEstimate, TrackState
from bodyfit.fit.track_hidden import BEHIND, TRUNK, UNSEEN, HiddenParts
from bodyfit.fit.track_recording import _quality, step_of
from bodyfit.fit.view import View
from bodyfit.kernels import evidence as E
from bodyfit.kernels import hidden as K
from bodyfit.observe.observation import BACKGROUND, PERSON, UNKNOWN
from bodyfit.rotation import matrix_from_axis_angle
from bodyfit.synthetic.motion import plan_film

H, W = 120, 90
ROOM_M = 4.0
LEFT_ARM, RIGHT_ARM = ({f"{side}_upper_arm", f"{side}_forearm"} for side in ("left", "right"))


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(scope="module")
def mesh(model: BodyModel) -> Mesh:
    return mesh_for(model, 2, 1, np.zeros(model.num_betas))


def standing(model: BodyModel, heading_deg: float, arms_deg: float = 75.0) -> Pose:
    """Arms lowered by so much from the T pose; at heading 0 they face the camera, at 90 they show it their right."""
    turns = np.zeros((model.num_joints, 3))
    turns[0, 1] = np.radians(heading_deg)
    for side, sign in (("left", -1), ("right", 1)):
        turns[model.joint_names.index(f"{side}_shoulder"), 2] = sign * np.radians(arms_deg)
    return Pose(matrix_from_axis_angle(turns), np.zeros(3))


def seen_of(mesh: Mesh, pose: Pose) -> View:
    """What a sensor in front of the body sees of it, a wall behind it."""
    intrinsics = np.array([100, 100, W / 2, H / 2 - 10], np.float32)
    R_cw, t_cw = np.diag([1.0, -1.0, -1.0]), np.array([0.0, 0.0, 2.5])
    points = np.empty_like(mesh.template)
    place_points(mesh, pose, R_cw, t_cw, points)
    drawn, face, near = np.empty((H, W), np.float32), np.empty((H, W), np.int32), np.empty((H, W), np.int32)
    E.draw_body(points, mesh.faces, intrinsics, drawn, face, near)
    label = np.where(face >= 0, PERSON, BACKGROUND).astype(np.uint8)
    depth = np.where(face >= 0, drawn, ROOM_M).astype(np.float32)
    return View(
        depth, label, near, intrinsics, R_cw, t_cw, np.zeros(4), int((label == PERSON).sum()), 0.0, 1e3, 4, (0, 0)
    )


def before_it(view: View, rows: slice) -> View:
    """The same with a board before some rows."""
    depth, label = view.depth.copy(), view.label.copy()
    depth[rows], label[rows] = 1.0, UNKNOWN
    return replace(view, depth=depth, label=label)


def test_areas_of_what_faces_a_camera_lies_in_front_and_is_shown() -> None:
    def square(x: float, z: float, size: float) -> list[list[float]]:
        return [[x, 0, z], [x + size, 0, z], [x + size, size, z], [x, size, z]]

    # a square of 20 px (part 0) before the left half of one of 40 px (part 1), and the back of another (part 2)
    points = np.array([*square(0.0, 1.0, 0.2), *square(0.0, 2.0, 0.8), *square(-0.4, 1.0, 0.1)], np.float32)
    faces = np.array([[0, 3, 2], [0, 2, 1], [4, 7, 6], [4, 6, 5], [8, 9, 10], [8, 10, 11]], np.int32)
    depth, label = np.full((60, 60), 2.0, np.float32), np.full((60, 60), PERSON, np.uint8)
    depth[10:30, 10:30] = 1.02
    depth[30:40, 10:50] = 1.5  # something else of the person, before part 1
    label[40:50, 10:50] = UNKNOWN
    drawn, face, areas = np.empty_like(depth), np.empty((60, 60), np.int32), np.empty((3, K.NUM_AREAS))
    intrinsics = np.array([100, 100, 9.5, 9.5], np.float32)
    K.part_areas(
        points, faces, np.array([0, 0, 1, 1, 2, 2], np.uint8), intrinsics, depth, label, 0.1, drawn, face, areas
    )
    np.testing.assert_allclose(areas[:, K.FACING], [400, 1600, 0], rtol=1e-5)
    assert areas[:, K.IN_FRONT].tolist() == [400, 1200, 0]
    assert areas[:, K.SHOWN].tolist() == [400, 400, 0]
    # out of the picture they face the camera all the same
    intrinsics[2:] = 79.5
    K.part_areas(
        points, faces, np.array([0, 0, 1, 1, 2, 2], np.uint8), intrinsics, depth, label, 0.1, drawn, face, areas
    )
    np.testing.assert_allclose(areas[1], [1600, 0, 0], rtol=1e-5)


def test_who_faces_the_sensor_hides_nothing(model: BodyModel, mesh: Mesh) -> None:
    parts, pose = HiddenParts(model), standing(model, 0.0)
    assert not parts.look(mesh, pose, [seen_of(mesh, pose)])
    assert parts.hidden == parts.behind_body == ()


@pytest.mark.parametrize(("heading", "far", "near"), [(90.0, LEFT_ARM, RIGHT_ARM), (-90.0, RIGHT_ARM, LEFT_ARM)])
def test_an_arm_behind_the_own_body_is_told(
    model: BodyModel, mesh: Mesh, heading: float, far: set[str], near: set[str]
) -> None:
    parts, pose = HiddenParts(model), standing(model, heading, 85.0)
    view = seen_of(mesh, pose)
    (told,) = parts.look(mesh, pose, [view])
    assert told.startswith(BEHIND) and all(p.replace("_", " ") in told for p in far)
    assert far <= set(parts.behind_body) <= set(parts.hidden) and parts.obstructed == ()
    assert not (near | set(TRUNK) | {"head"}) & set(parts.hidden)
    assert not parts.look(mesh, pose, [view])  # and not again
    # a second sensor sees them from the other side
    across = np.diag([-1.0, 1.0, -1.0])
    other = replace(seen_of(mesh, standing(model, heading + 180.0, 85.0)), R_cw=view.R_cw @ across)
    (told,) = parts.look(mesh, pose, [view, other])
    assert told.startswith("seen again") and parts.hidden == ()


def test_what_hides_a_part_is_told_apart(model: BodyModel, mesh: Mesh) -> None:
    parts, pose = HiddenParts(model), standing(model, 90.0, 85.0)
    view = seen_of(mesh, pose)
    parts.look(mesh, pose, [view])
    told = parts.look(mesh, pose, [before_it(view, slice(0, H // 2))])
    assert any(t.startswith(UNSEEN) and "left upper arm" in t and "head" in t for t in told)
    assert not any(t.startswith(BEHIND) for t in told)
    assert {"head", "right_upper_arm", "left_upper_arm"} <= set(parts.obstructed)
    assert not {"head", "right_upper_arm", "left_upper_arm"} & set(parts.behind_body)
    # the person's arms hang down, the body has them raised: there the frame shows the wall
    raised = standing(model, 0.0, 10.0)
    parts = HiddenParts(model)
    (told,) = parts.look(mesh, raised, [seen_of(mesh, standing(model, 0.0, 80.0))])
    assert told.startswith(UNSEEN) and {"left_forearm", "right_forearm"} <= set(parts.hidden)
    assert parts.behind_body == parts.obstructed == ()


def test_a_part_at_the_border_does_not_flicker(model: BodyModel, mesh: Mesh) -> None:
    parts = HiddenParts(model)
    told = []
    # the left arm comes forward from behind the body and trembles there
    for heading in (90, 60, 50, 45, 50, 45, 50, 45, 40, 45, 40, 45, 40):
        pose = standing(model, float(heading), 85.0)
        told += [t for t in parts.look(mesh, pose, [seen_of(mesh, pose)]) if "left forearm" in t]
    assert len(told) == 2 and told[0].startswith(BEHIND) and told[1].startswith("seen again")


def test_a_part_of_few_pixels_stays_as_it_was(model: BodyModel, mesh: Mesh) -> None:
    parts, pose = HiddenParts(model), standing(model, 90.0, 85.0)
    view = seen_of(mesh, pose)
    parts.look(mesh, pose, [view])
    assert set(parts.behind_body) >= LEFT_ARM
    far = replace(view, t_cw=np.array([0.0, 0.0, 60.0]), depth=np.full((H, W), 60.0, np.float32))
    parts.look(mesh, pose, [far])
    assert set(parts.hidden) >= LEFT_ARM and not {"head", "chest"} & set(parts.hidden)
    assert all(np.isnan(s).any() for s in parts.shares(mesh, pose, [far])[1:])


@pytest.fixture(scope="module")
def film(model: BodyModel) -> Any:
    return plan_film(model, 78, motion="step_aside", seconds=0.6, sensor="azure", heading_deg=90.0).take()


@pytest.fixture(scope="module")
def tracker(model: BodyModel, film: Any) -> Tracker:
    return Tracker(model, gravity_world=film.gravity_world)


@pytest.fixture(scope="module")
def estimates(tracker: Tracker, film: Any) -> list[TrackEstimate]:
    return [tracker.update(list(i.frames.values())) for i in film.instants]


def shoulder_sd(model: BodyModel, estimate: TrackEstimate, side: str) -> NDArray[np.float64]:
    return estimate.pose_sd[model.joint_names.index(f"{side}_shoulder")]


def test_who_is_seen_from_the_side_has_an_arm_that_is_a_guess(estimates: list[TrackEstimate]) -> None:
    assert all(LEFT_ARM <= set(e.behind_body) <= set(e.hidden) for e in estimates)
    assert not any((RIGHT_ARM | set(TRUNK)) & set(e.hidden) for e in estimates)
    assert any(BEHIND in t and "left forearm" in t for t in estimates[0].told)
    assert not any(BEHIND in t for e in estimates[1:] for t in e.told)
    later = _quality(step_of(estimates[-1], 9))  # what a recording's result says of such a frame
    assert any(BEHIND in flag and "left upper arm, left forearm" in flag for flag in later.flags)
    assert not any(UNSEEN in flag for flag in later.flags)


def test_an_arm_that_is_not_seen_is_known_less_from_frame_to_frame(
    model: BodyModel, estimates: list[TrackEstimate], tracker: Tracker
) -> None:
    followed = [e for e in estimates if e.state is TrackState.TRACKED]
    assert len(followed) > 12
    far = np.array([shoulder_sd(model, e, "left").mean() for e in followed])
    near = np.array([shoulder_sd(model, e, "right").mean() for e in followed])
    # no frame's solution lets a joint turn by more than this from where it was expected
    assert far[-1] > 1.5 * tracker.config.sigma_turn_rad and far[-1] > 2 * near[-1]
    assert near.max() < 2 * near.min()


def test_with_nothing_seen_all_is_known_less_from_frame_to_frame(
    estimates: list[TrackEstimate], tracker: Tracker, film: Any
) -> None:
    last = next(iter(film.instants[-1].frames.values()))
    nothing = [
        replace(last, depth=np.zeros_like(last.depth), timestamp_s=last.timestamp_s + k / 30) for k in range(1, 7)
    ]
    coasting = [tracker.update([frame]) for frame in nothing]
    assert all(e.state is TrackState.COASTING for e in coasting)
    sd = np.array([estimates[-1].pose_sd, *(e.pose_sd for e in coasting)])
    assert (np.diff(sd.mean((1, 2))) > 0).all()
    # the near shoulder, hip and knee were seen until now
    joints = [tracker.model.joint_names.index(f"right_{name}") for name in ("shoulder", "hip", "knee")]
    assert (sd[-1, joints].mean(1) > 1.5 * sd[0, joints].mean(1)).all()
    assert sd.max() < 1  # people's poses are known, whatever is seen
