"""What is said to who stands before the sensor, on synthetic frames of each case; and the lead through the views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.capture.guidance import Advice, Sight, advise, heading_deg, is_still, look
from bodyfit.capture.protocol import TAKE_S, TurnProtocol, wrapped_deg
from bodyfit.capture.replay import back_and_forth, captured_of
from bodyfit.capture.session import Session
from bodyfit.capture.source import PlayedSource
from bodyfit.capture.watching import Watcher
from bodyfit.errors import InputError
from bodyfit.frame import Frame
from bodyfit.recording.description import Sensor
from bodyfit.rotation import matrix_from_axis_angle
from bodyfit.synthetic.clothing import dress
from bodyfit.synthetic.contact import both_feet_down, free_arms
from bodyfit.synthetic.poses import everyday_pose
from bodyfit.synthetic.scene import place_camera, room
from bodyfit.synthetic.sensor import SENSORS
from bodyfit.synthetic.subject import sample_subject
from bodyfit.synthetic.take import Instant, film, full_pose

GRAVITY = np.array([0.0, 0.0, -1.0])
AZIMUTH = 0.4


class Studio:
    """One person in one room; the sensor may stand anywhere."""

    def __init__(self) -> None:
        self.model: BodyModel = load_body_model()
        rng = np.random.default_rng(11)
        self.subject = sample_subject(self.model, rng, "female", 2.0)
        self.clothes = dress(self.model, self.subject, "tight", rng)

    def shoot(
        self, *, distance: float = 2.4, height: float = 1.1, tilt_deg: float = 0.0, aside_m: float = 0.0,
        heading: float = 0.0,
    ) -> Instant:  # fmt: skip
        """Args: tilt_deg: the sensor looks up by this. aside_m: the person stands to the right in the image."""
        rng = np.random.default_rng(5)
        T = place_camera(rng, azimuth=AZIMUTH, distance=(distance, distance), height=(height, height))
        T = T.copy()
        T[:3, :3] = T[:3, :3] @ matrix_from_axis_angle(np.array([np.radians(tilt_deg), 0, 0]))
        scene = room(rng, T[:3, 3], boxes=0)
        pose = everyday_pose("a_pose", rng, yaw=AZIMUTH + np.radians(heading), jitter_deg=0.0)
        pose = free_arms(
            self.model, self.subject, both_feet_down(self.model, self.subject, full_pose(self.model, pose))
        )
        place = T[:2, 0] * aside_m
        take = film(
            self.model, self.subject, self.clothes, [pose], place[None], (SENSORS["azure"](),), (T,), scene,
            np.random.default_rng(7), color=True,
        )  # fmt: skip
        return take.instants[0]


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio()


@pytest.fixture(scope="module")
def well(studio: Studio) -> Frame:
    return frame_of(studio.shoot())


def frame_of(instant: Instant) -> Frame:
    (frame,) = instant.frames.values()
    return frame


def said(frame: Frame) -> set[Advice]:
    return set(advise(look(frame, GRAVITY)))


def test_nothing_is_said_where_all_is_well(well: Frame) -> None:
    sight = look(well, GRAVITY)
    assert advise(sight) == ()
    assert sight.people == 1 and sight.distance_m == pytest.approx(2.4, abs=0.3) and sight.valid_share > 0.9


def test_too_near(studio: Studio) -> None:
    for distance in (0.7, 1.0):
        assert Advice.TOO_NEAR in said(frame_of(studio.shoot(distance=distance))), distance


def test_too_far(studio: Studio) -> None:
    assert said(frame_of(studio.shoot(distance=3.9))) == {Advice.TOO_FAR}


def test_feet_cut_off(studio: Studio) -> None:
    assert Advice.FEET_CUT in said(frame_of(studio.shoot(tilt_deg=16)))


def test_head_cut_off(studio: Studio) -> None:
    assert Advice.HEAD_CUT in said(frame_of(studio.shoot(tilt_deg=-18)))


def test_out_of_the_picture_to_either_side(studio: Studio) -> None:
    right = frame_of(studio.shoot(aside_m=1.5))
    left = frame_of(studio.shoot(aside_m=-1.5))
    assert said(right) == {Advice.OUT_RIGHT}
    assert said(left) == {Advice.OUT_LEFT}


def test_nobody(studio: Studio, well: Frame) -> None:
    empty = frame_of(studio.shoot(aside_m=6.0))
    assert said(empty) == {Advice.NOBODY}
    assert said(replace(well, depth=np.zeros_like(well.depth))) == {Advice.NOBODY}


def test_several_people(studio: Studio) -> None:
    one, two = (frame_of(studio.shoot(distance=2.9, aside_m=a)) for a in (-0.7, 0.7))
    both = np.where((one.depth > 0) & (two.depth > 0), np.minimum(one.depth, two.depth), 0).astype(np.float32)
    sight = look(replace(one, depth=both), GRAVITY)
    assert sight.people == 2 and advise(sight) == (Advice.SEVERAL,)


def test_too_dark(well: Frame) -> None:
    assert well.color is not None
    dark = replace(well, color=(well.color // 6).astype(np.uint8))
    assert said(dark) == {Advice.TOO_DARK}
    assert said(replace(well, color=None, color_camera=None, T_color_depth=None)) == set()


def test_too_little_depth(well: Frame, studio: Studio) -> None:
    holes = well.depth.copy()
    (mask,) = studio.shoot().masks.values()
    rng = np.random.default_rng(1)
    rows, cols = np.nonzero(mask)
    # blotches, as black clothes make them
    for k in rng.choice(len(rows), 120, replace=False):
        v, u = rows[k], cols[k]
        holes[v - 4 : v + 5, u - 4 : u + 5] = 0
    lost = 1 - (holes[mask] > 0).mean() / (well.depth[mask] > 0).mean()
    assert lost > 0.25
    assert Advice.LITTLE_DEPTH in said(replace(well, depth=holes))


def test_hold_still(studio: Studio, well: Frame) -> None:
    before = look(well, GRAVITY)
    again = replace(well, timestamp_s=well.timestamp_s + 0.2)
    # the same pose, moved by 1 cm and by 6 cm in a fifth of a second, with noise of its own
    slow = replace(frame_of(studio.shoot(aside_m=0.01)), timestamp_s=again.timestamp_s)
    fast = replace(frame_of(studio.shoot(aside_m=0.06)), timestamp_s=again.timestamp_s)
    nearer = replace(frame_of(studio.shoot(distance=2.34)), timestamp_s=again.timestamp_s)
    for frame, still in ((again, True), (slow, True), (fast, False), (nearer, False)):
        sight = look(frame, GRAVITY, before)
        assert is_still(sight) is still, sight.speed_m_s
        assert (Advice.HOLD_STILL in advise(sight)) is not still


def test_heading_is_what_the_person_faces(studio: Studio) -> None:
    for heading in (0.0, 45.0, 90.0, -120.0):
        instant = studio.shoot(heading=heading)
        frame = frame_of(instant)
        found = heading_deg(
            matrix_from_axis_angle(instant.pose[0]), instant.joints_world[0], frame.T_world_depth, np.array([0, 0, 1.0])
        )
        assert abs(wrapped_deg(found - heading)) < 6
        sight = look(
            frame, GRAVITY, root_rotation=matrix_from_axis_angle(instant.pose[0]), place_world=instant.joints_world[0]
        )
        assert sight.heading_deg == pytest.approx(found, abs=1)


def test_a_watcher_tells_which_way_they_face(studio: Studio) -> None:
    """The tracker follows frames as they come, and advice is there before it has found anybody."""
    frame = frame_of(studio.shoot(heading=30.0))
    sensor = Sensor(
        frame.sensor, frame.depth_camera, frame.T_world_depth, frame.color_camera, frame.T_color_depth, 0.001
    )
    source = PlayedSource("played", sensor, back_and_forth([captured_of(frame, sensor)], 30.0), gravity_world=GRAVITY)
    session = Session(source, seconds=120)
    watcher = Watcher(session, GRAVITY, studio.model)
    session.start()
    watcher.start()
    early = heading = None
    while not session.over.wait(0.05):
        latest = watcher.latest
        assert watcher.problem is None
        if latest is None:
            continue
        early = early or latest
        heading = latest.sight.heading_deg
        if heading is not None:
            break
    session.stop("asked")
    watcher.stop(60)
    assert early is not None and early.advice == ()
    assert heading is not None and abs(wrapped_deg(heading - 30)) < 12


def lead(
    views: int, heading: Callable[[float], float | None], *, still: bool = True, people: int = 1, seconds: float = 120
) -> tuple[TurnProtocol, list[tuple[float, bool, int, str]]]:
    guide, log, now = TurnProtocol(views), [], 0.0
    while now < seconds:
        sight = Sight(now, people, distance_m=2.0, speed_m_s=0.02 if still else 0.5, heading_deg=heading(now))
        step = guide.step(now, sight)
        log.append((now, step.wanted, step.view, step.say))
        if step.done:
            break
        now += 0.1
    return guide, log


@pytest.mark.parametrize(("views", "side"), [(4, 1), (4, -1), (8, 1), (6, -1)])
def test_views_are_taken_as_the_person_turns(views: int, side: int) -> None:
    guide, log = lead(views, lambda now: wrapped_deg(17 + side * 12 * max(now - 5.5, 0)))
    assert [v["by"] for v in guide.taken] == ["heading"] * views
    for view in guide.taken:
        off = wrapped_deg(side * (view["heading_deg"] - guide.taken[0]["heading_deg"]) - view["wanted_deg"])
        assert abs(off) <= 25.1
    recorded = sum(wanted for _, wanted, _, _ in log) * 0.1
    assert recorded == pytest.approx(views * TAKE_S, abs=0.11 * views)
    assert log[-1][3].startswith("done")


def test_without_a_heading_time_leads() -> None:
    guide, _ = lead(4, lambda now: None)
    assert [v["by"] for v in guide.taken] == ["time"] * 4


def test_nothing_is_taken_of_who_moves_or_is_not_there() -> None:
    assert not lead(4, lambda now: 0.0, still=False, seconds=40)[0].taken
    guide, log = lead(4, lambda now: 0.0, people=0, seconds=40)
    assert not guide.taken and any("nobody" in say for *_, say in log)


def test_who_does_not_turn_is_taken_in_the_end_and_it_is_told() -> None:
    guide, log = lead(4, lambda now: 3.0)
    assert [v["by"] for v in guide.taken] == ["heading", "time", "time", "time"]
    assert log[-1][0] > 40


def test_views_are_four_to_eight() -> None:
    for views in (3, 9):
        with pytest.raises(InputError, match="--views"):
            TurnProtocol(views)
