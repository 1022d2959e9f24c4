"""A person found among floor, wall, desk and box; and refused, by name, where there is none or more than one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from room import CAMERA, GRAVITY, Room

from bodyfit.camera import Camera
from bodyfit.errors import DepthUnitError, FrameError, PersonNotFoundError, SeveralPeopleError
from bodyfit.frame import Frame
from bodyfit.observe.edges import drop_flying_pixels
from bodyfit.observe.ground import find_ground
from bodyfit.observe.normals import normals_from_depth
from bodyfit.observe.observation import BACKGROUND, PERSON, UNKNOWN, Observation, observe

DESK = ((0.75, 2.2, 0.0), (1.9, 2.9, 0.74))
BOX = ((-1.5, 3.0, 0.0), (-0.9, 3.6, 0.8))


def overlap(seen: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((seen & truth).sum() / (seen | truth).sum())


def known_overlap(observation: Observation, truth: NDArray[np.bool_]) -> float:
    known = observation.label != UNKNOWN
    return overlap((observation.label == PERSON)[known], truth[known])


def test_person_between_desk_and_box() -> None:
    frame, who = Room(boxes=[DESK, BOX], people=[(0.0, 2.6, 20.0)]).cast()
    seen = observe(frame, gravity_world=GRAVITY)
    assert overlap(seen.label == PERSON, who == 1) > 0.95
    assert known_overlap(seen, who == 1) > 0.99
    # feet to the sole: the lowest true rows are the person's or left open, never denied
    feet = (who == 1) & (np.arange(CAMERA.height)[:, None] > np.flatnonzero((who == 1).any(1))[-1] - 4)
    assert (seen.label[feet] != BACKGROUND).mean() > 0.95
    assert seen.cut_off == frozenset()
    assert seen.up_world == pytest.approx([0, 0, 1])
    assert seen.floor_height_m == pytest.approx(0.0, abs=0.003)
    assert not seen.mask_given


def test_same_frame_same_bytes() -> None:
    frame, _ = Room(boxes=[DESK], people=[(0.2, 2.4, 60.0)]).cast()
    first, second = (observe(frame, gravity_world=GRAVITY) for _ in range(2))
    assert first.label.tobytes() == second.label.tobytes()
    assert first.depth.tobytes() == second.depth.tobytes()


def test_no_gravity_floor_found() -> None:
    frame, who = Room(boxes=[BOX], people=[(0.0, 2.6, 0.0)], tilt_deg=15.0).cast()
    seen = observe(frame, gravity_world=None)
    assert seen.up_world is not None
    assert np.degrees(np.arccos(seen.up_world[2])) < 1.0
    assert seen.floor_height_m == pytest.approx(0.0, abs=0.01)
    assert known_overlap(seen, who == 1) > 0.99
    again = observe(frame, gravity_world=None)
    assert seen.label.tobytes() == again.label.tobytes()


def test_no_gravity_no_floor() -> None:
    frame, who = Room(wall_y=3.0, people=[(0.0, 1.5, 0.0)], tilt_deg=-12.0, eye_m=1.3).cast()
    seen = observe(frame, gravity_world=None)
    assert seen.up_world is None
    assert seen.floor_height_m is None
    assert seen.floor_plane_world is None
    assert "bottom" in seen.cut_off
    assert known_overlap(seen, who == 1) > 0.98


def test_gravity_a_degree_off_does_not_cut_the_feet() -> None:
    frame, who = Room(people=[(0.0, 2.6, 0.0)]).cast()
    lean = np.radians(1.5)
    seen = observe(frame, gravity_world=np.array([np.sin(lean), 0.0, -np.cos(lean)]))
    assert known_overlap(seen, who == 1) > 0.99


def test_two_people_are_refused_and_chosen_by_number() -> None:
    frame, who = Room(people=[(0.7, 2.6, 0.0), (-0.7, 3.0, 90.0)]).cast()
    with pytest.raises(SeveralPeopleError) as error:
        observe(frame, gravity_world=GRAVITY)
    assert error.value.count == 2
    assert "--person" in str(error.value)
    for number, truth in ((1, who == 2), (2, who == 1)):  # counted from the left
        assert known_overlap(observe(frame, gravity_world=GRAVITY, person=number), truth) > 0.98
    for number in (0, 3):
        with pytest.raises(PersonNotFoundError, match="person"):
            observe(frame, gravity_world=GRAVITY, person=number)


def test_two_people_side_by_side_whose_hands_touch() -> None:
    frame, _ = Room(people=[(0.38, 2.6, 0.0), (-0.38, 2.6, 0.0)]).cast()
    with pytest.raises(SeveralPeopleError) as error:
        observe(frame, gravity_world=GRAVITY)
    assert error.value.count == 2


@pytest.mark.parametrize(
    "boxes",
    [
        [],
        [BOX],
        [DESK],
        [((-0.4, 3.0, 0.0), (0.4, 3.5, 1.9))],  # a cupboard
        [((-0.2, 3.0, 0.0), (0.2, 3.4, 1.7))],  # a narrow one
        [DESK, BOX, ((-0.3, 2.0, 0.0), (0.3, 2.4, 0.5))],
    ],
)
def test_nobody_is_not_somebody(boxes: list[tuple[tuple[float, float, float], tuple[float, float, float]]]) -> None:
    frame, _ = Room(boxes=boxes).cast()
    with pytest.raises(PersonNotFoundError, match="a person standing in sight"):
        observe(frame, gravity_world=GRAVITY)


def test_nobody_and_no_gravity() -> None:
    frame, _ = Room(boxes=[BOX]).cast()
    with pytest.raises(PersonNotFoundError):
        observe(frame, gravity_world=None)


def test_table_in_front_may_hide_the_person() -> None:
    table = ((-0.6, 1.6, 0.0), (0.6, 2.2, 0.75))
    frame, who = Room(boxes=[table], people=[(0.0, 2.7, 0.0)]).cast()
    seen = observe(frame, gravity_world=GRAVITY)
    assert known_overlap(seen, who == 1) > 0.98
    # what the table hides of the person, were it not there
    whole = Room(people=[(0.0, 2.7, 0.0)]).cast()[1] == 1
    hidden = whole & (who == 0)
    assert hidden.sum() > 300
    assert (seen.label[hidden] == UNKNOWN).mean() > 0.97
    assert (seen.label[hidden] == PERSON).sum() == 0


def test_person_who_touches_a_desk() -> None:
    desk = ((-1.2, 2.55, 0.0), (-0.16, 3.2, 0.74))
    frame, who = Room(boxes=[desk], people=[(0.0, 2.7, 0.0)]).cast()
    assert known_overlap(observe(frame, gravity_world=GRAVITY), who == 1) > 0.9


def test_person_close_to_a_wall() -> None:
    frame, who = Room(wall_y=2.85, people=[(0.0, 2.65, 0.0)]).cast()
    assert known_overlap(observe(frame, gravity_world=GRAVITY), who == 1) > 0.97


def test_cropped_person_is_flagged() -> None:
    frame, who = Room(people=[(0.0, 1.35, 0.0)]).cast()
    seen = observe(frame, gravity_world=GRAVITY)
    assert seen.cut_off >= {"bottom"}
    assert known_overlap(seen, who == 1) > 0.98
    frame, who = Room(people=[(1.25, 2.2, 0.0)]).cast()
    assert "right" in observe(frame, gravity_world=GRAVITY).cut_off


def test_bar_in_front_does_not_cut_the_person_in_two() -> None:
    """A bar before the chest leaves an upper and a lower part: one person, and the bar may hide some of them."""
    bar = ((-0.7, 2.1, 1.05), (0.65, 2.16, 1.12))
    frame, who = Room(boxes=[bar], people=[(0.0, 2.6, 0.0)]).cast()
    seen = observe(frame, gravity_world=GRAVITY)
    assert known_overlap(seen, who == 1) > 0.98


def test_arm_stretched_towards_the_camera_is_theirs() -> None:
    arm = [((0.24, 0.05, 1.38), (0.1, 0.3, 1.2), 0.05), ((0.1, 0.3, 1.2), (-0.25, 0.42, 1.25), 0.045)]
    frame, who = Room(people=[(0.0, 2.6, 0.0)], gestures=arm).cast()
    seen = observe(frame, gravity_world=GRAVITY)
    assert known_overlap(seen, who == 1) > 0.99


def test_far_leg_of_a_side_view_is_theirs() -> None:
    leg = [((-0.2, 0.0, 0.85), (-0.42, -0.22, 0.45), 0.075), ((-0.42, -0.22, 0.45), (-0.45, -0.3, 0.06), 0.06)]
    frame, who = Room(people=[(0.0, 2.4, 90.0)], gestures=leg).cast()
    assert known_overlap(observe(frame, gravity_world=GRAVITY), who == 1) > 0.99


def test_raised_hand_is_no_second_head() -> None:
    arm = [((0.2, 0, 1.4), (0.45, 0, 1.5), 0.05), ((0.45, 0, 1.5), (0.5, 0.02, 1.85), 0.045)]
    frame, who = Room(people=[(0.0, 2.6, 0.0)], gestures=arm).cast()
    assert known_overlap(observe(frame, gravity_world=GRAVITY), who == 1) > 0.99


def test_hand_raised_behind_the_head_is_theirs() -> None:
    """The forearm is hidden by the head: the hand above it is a piece of its own, up to 40 cm above the head."""
    arm = [((0.0, -0.2, 1.55), (0.05, -0.2, 2.09), 0.025)]
    frame, who = Room(people=[(0.0, 2.6, 0.0)], gestures=arm).cast()
    alone = Room(people=[(0.0, 2.6, 0.0)]).cast()[1]
    hand = (who == 1) & (alone != 1)
    assert hand.sum() > 80
    assert (observe(frame, gravity_world=GRAVITY).label[hand] == PERSON).mean() > 0.6  # its rim is one or two pixels


def test_what_stands_beside_a_person_in_plain_sight_is_not_theirs() -> None:
    """A table's leg within a hand's breadth of where the person stands, with the wall to be seen in between."""
    leg = ((0.5, 2.58, 0.0), (0.54, 2.62, 0.7))
    frame, who = Room(boxes=[leg], people=[(0.0, 2.6, 0.0)]).cast()
    without, _ = Room(people=[(0.0, 2.6, 0.0)]).cast()
    on_leg = frame.depth < without.depth - 0.1
    assert on_leg.sum() > 200
    seen = observe(frame, gravity_world=GRAVITY)
    assert (seen.label[on_leg] == PERSON).sum() == 0
    assert known_overlap(seen, who == 1) > 0.98


def test_given_mask_wins() -> None:
    frame, who = Room(people=[(0.7, 2.6, 0.0), (-0.7, 3.0, 90.0)]).cast()
    mask = who == 1
    holed = frame.depth.copy()
    rows, cols = np.nonzero(mask)
    holed[rows[200:240], cols[200:240]] = 0
    seen = observe(replace(frame, depth=holed, mask=mask), gravity_world=GRAVITY)
    assert seen.mask_given
    assert (seen.label[mask] == PERSON).mean() > 0.98
    assert (seen.label[rows[200:240], cols[200:240]] == PERSON).all()  # no reading, yet the mask says whose
    assert ((seen.label == PERSON) & ~mask).sum() == 0


def test_a_mask_too_wide_does_not_bring_the_wall_along() -> None:
    import cv2

    frame, who = Room(people=[(0.0, 2.6, 0.0)]).cast()
    wide = cv2.dilate((who == 1).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    seen = observe(replace(frame, mask=wide), gravity_world=GRAVITY)
    assert (seen.person & (who != 1)).sum() < 0.03 * (who == 1).sum()
    assert (seen.person & (who == 1)).sum() > 0.95 * (who == 1).sum()


def test_empty_mask_is_refused() -> None:
    frame, _ = Room(people=[(0.0, 2.6, 0.0)]).cast()
    with pytest.raises(PersonNotFoundError, match="mask"):
        observe(replace(frame, mask=np.zeros(frame.depth.shape, dtype=bool)), gravity_world=GRAVITY)


@pytest.mark.parametrize(("factor", "found"), [(1e-3, "mm"), (1e3, "km"), (0.1, " m"), (10.0, " m")])
def test_wrong_depth_unit_is_named(factor: float, found: str) -> None:
    frame, _ = Room(boxes=[BOX], people=[(0.0, 2.4, 0.0)]).cast()
    wrong = replace(frame, depth=frame.depth * np.float32(factor))
    with pytest.raises(DepthUnitError, match="depth_unit_m") as error:
        observe(wrong, gravity_world=GRAVITY)
    assert found in error.value.found


def test_unreadable_depth_is_refused() -> None:
    frame, _ = Room(people=[(0.0, 2.6, 0.0)]).cast()
    with pytest.raises(FrameError, match="all zero"):
        observe(replace(frame, depth=np.zeros_like(frame.depth)), gravity_world=GRAVITY)
    for bad in (np.nan, np.inf, -1.0):
        depth = frame.depth.copy()
        depth[100, 100] = bad
        with pytest.raises(FrameError, match="depth"):
            observe(replace(frame, depth=depth), gravity_world=GRAVITY)


def test_flying_pixels_go_and_thin_arms_stay() -> None:
    """A 5-pixel arm 1 m before a wall, a mixed pixel on either side of it, and one speck."""
    depth = np.full((60, 80), 3.0, np.float32)
    depth[10:50, 40:45] = 2.0
    depth[10:50, 39] = 2.4
    depth[10:50, 45] = 2.7
    depth[30, 10] = 1.2
    cleaned, dropped = drop_flying_pixels(depth, Camera(80, 60, 100.0, 100.0, 39.5, 29.5))
    assert dropped[11:49, 39].all()
    assert dropped[11:49, 45].all()
    assert dropped[30, 10]
    assert not dropped[:, 40:45].any()
    assert dropped.sum() <= 2 * 40 + 5
    assert (cleaned[dropped] == 0).all()
    assert np.array_equal(cleaned[~dropped], depth[~dropped])


def test_floor_is_the_lowest_level_not_the_desk() -> None:
    frame, _ = Room(boxes=[((-2.0, 1.5, 0.0), (2.0, 3.0, 0.7))], tilt_deg=20.0, wall_y=6.0).cast()
    R = frame.T_world_depth[:3, :3]
    ground = find_ground(frame.depth, CAMERA, R.T @ GRAVITY)
    assert ground.plane is not None
    assert ground.plane[3] == pytest.approx(1.2, abs=0.01)


def test_normals_of_a_slanted_plane() -> None:
    n = np.array([0.3, -0.5, -0.8])
    n /= np.linalg.norm(n)
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
    rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones(u.shape)], -1)
    depth = (-2.0 / (rays @ n)).astype(np.float32)
    depth[(depth < 0) | (depth > 10)] = 0
    normals = normals_from_depth(depth, CAMERA)
    inner = normals[(normals != 0).any(-1)]
    assert len(inner) > 0.95 * (depth > 0).sum()
    assert np.degrees(np.arccos(np.clip(inner @ n, -1, 1))).max() < 0.5
    assert (normals[depth == 0] == 0).all()


def test_person_normals_face_the_camera() -> None:
    frame, _ = Room(people=[(0.0, 2.6, 0.0)]).cast()
    seen = observe(frame, gravity_world=GRAVITY)
    normals = seen.normals()[seen.person]
    length = np.linalg.norm(normals, axis=-1)
    assert (length > 0).mean() > 0.99
    assert length[length > 0] == pytest.approx(1, abs=1e-5)
    rays = np.stack(np.broadcast_arrays(*_rays(CAMERA)), -1)[seen.person]
    assert ((normals * rays).sum(-1) <= 1e-3).mean() > 0.99


def _rays(camera: Camera) -> tuple[NDArray[np.float64], ...]:
    v, u = np.mgrid[: camera.height, : camera.width]
    return (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)


@pytest.mark.parametrize("name", ["single_00", "single_01", "turn4_00", "turn4_01", "sequence_00", "rig_00", "hard_00"])
def test_mask_of_recordings(shared_recordings: Path, name: str) -> None:
    """Found without the recording's mask, the person overlaps the true mask; ToF sensors, 0.95 and more."""
    import cv2

    folder = shared_recordings / name
    document = json.loads((folder / "recording.json").read_text())
    for sensor in document["sensors"]:
        camera = sensor["depth_camera"]
        grid = Camera(*(camera[k] for k in ("width", "height", "fx", "fy", "cx", "cy")))
        for file in sorted((folder / sensor["name"] / "depth").iterdir())[:4]:
            counts = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            truth = cv2.imread(str(folder / "truth" / "mask" / sensor["name"] / file.name), cv2.IMREAD_UNCHANGED)
            assert counts is not None
            assert truth is not None
            depth = counts.astype(np.float32) * np.float32(document["depth_unit_m"])
            frame = Frame(depth, grid, np.array(sensor["T_world_depth"], dtype=float))
            seen = observe(frame, gravity_world=np.array(document["gravity_world"], dtype=float))
            assert overlap(seen.label == PERSON, truth > 127) > 0.95
            assert known_overlap(seen, truth > 127) > 0.98


# --- masks ------------------------------------------------------------------------------------------------------------


def moved_border(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_dilation, binary_erosion

    change = binary_dilation if pixels > 0 else binary_erosion
    return np.asarray(change(mask, iterations=abs(pixels)), bool)


@pytest.mark.parametrize("pixels", [-3, -2, 3])
def test_a_rough_mask_says_who_and_the_depth_how_far(pixels: int) -> None:
    frame, who = Room(boxes=[DESK, BOX], people=[(0.0, 2.6, 20.0)]).cast()
    rough = moved_border(who == 1, pixels)
    assert overlap(rough, who == 1) < 0.87
    seen = observe(replace(frame, mask=rough), gravity_world=GRAVITY)
    assert seen.mask_given
    assert overlap(seen.label == PERSON, who == 1) > 0.95
    assert ((seen.label == BACKGROUND) & (who == 1)).sum() < 0.01 * (who == 1).sum()


def test_a_rough_mask_does_not_take_in_what_the_person_touches() -> None:
    shelf = ((0.3, 2.45, 0.0), (1.6, 2.9, 0.95))
    frame, who = Room(boxes=[shelf], people=[(0.0, 2.6, 0.0)]).cast()
    seen = observe(replace(frame, mask=moved_border(who == 1, -3)), gravity_world=GRAVITY)
    beside = (seen.label == PERSON) & (who != 1)
    assert beside.sum() < 0.03 * (who == 1).sum()


def test_a_good_mask_leaves_out_what_it_leaves_out() -> None:
    """A ball in the hand that an exact mask does not hold is not the person's."""
    ball = ((0.38, 0.10, 0.76), (0.38, 0.10, 0.76), 0.09)
    frame, _ = Room(people=[(0.0, 2.6, 0.0)], gestures=[ball]).cast()
    without, who = Room(people=[(0.0, 2.6, 0.0)]).cast()
    only_ball = np.abs(frame.depth - without.depth) > 0.03
    seen = observe(replace(frame, mask=(who == 1) & ~only_ball), gravity_world=GRAVITY)
    assert only_ball.sum() > 100
    assert (seen.label[only_ball] == PERSON).mean() < 0.3
