"""Frames for the shape: they go round the person, show all of them, and are the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from bodyfit.body.model import load_body_model
from bodyfit.camera import Camera
from bodyfit.errors import InputError, PersonNotFoundError
from bodyfit.fit.choose_frames import choose_frames
from bodyfit.frame import Frame
from bodyfit.recording import MemoryInstant, MemoryRecording
from bodyfit.recording.description import Sensor
from bodyfit.synthetic.sensor import SensorModel
from bodyfit.synthetic.take import Take, sample_take

TURN_DEG = tuple(range(0, 360, 15))


@pytest.fixture(scope="module")
def turning() -> Take:
    """A person turning once about themselves, as a sensor of 320×288 sees it."""
    camera = Camera(320, 288, 252.0, 252.0, 159.5, 143.5)
    beside = np.eye(4)
    sensor = SensorModel("depth", camera, camera, beside)
    names = ("a_pose",) * len(TURN_DEG)
    return sample_take(load_body_model(), 5, pose_names=names, headings_deg=TURN_DEG, sensor=sensor, jitter_deg=2.0)


def recording_of(take: Take, frames: Sequence[Frame]) -> MemoryRecording:
    device = take.sensors[0]
    sensor = Sensor(device.name, device.depth_camera, take.T_world_depth[0])
    instants = [
        MemoryInstant(i, i / 30.0, {device.name: replace(frame, index=i, timestamp_s=i / 30.0)})
        for i, frame in enumerate(frames)
    ]
    return MemoryRecording([sensor], instants, take.gravity_world)


def shown(take: Take) -> list[Frame]:
    return [instant.frames[take.sensors[0].name] for instant in take.instants]


def nobody(take: Take) -> Frame:
    """The room alone: where the person stands in one frame there is another frame's background."""
    name = take.sensors[0].name
    one = take.instants[0]
    depth = one.frames[name].depth.copy()
    rows = np.flatnonzero(one.masks[name].any(1))
    depth[rows[0] - 8 :] = 0  # nothing but wall above their head
    return replace(one.frames[name], depth=depth)


def cut(take: Take, frame: Frame, t: int) -> Frame:
    """The frame moved down until the knees are below its border."""
    rows = np.flatnonzero(take.instants[t].masks[take.sensors[0].name].any(1))
    by = frame.depth.shape[0] - int(rows[0] + 0.7 * (rows[-1] - rows[0]))
    depth = np.zeros_like(frame.depth)
    depth[by:] = frame.depth[:-by]
    depth[:by] = frame.depth[0]
    return replace(frame, depth=depth)


def widest_gap_deg(headings: Sequence[float]) -> float:
    rising = np.sort(np.asarray(headings, float) % 360)
    return float(np.diff(np.append(rising, rising[0] + 360)).max())


@pytest.mark.parametrize(("at_most", "gap_deg"), [(4, 150), (6, 105), (8, 90)])
def test_a_turn_is_covered(turning: Take, at_most: int, gap_deg: float) -> None:
    chosen = choose_frames(recording_of(turning, shown(turning)), at_most)
    assert len(chosen) == at_most and chosen == sorted(set(chosen))
    assert widest_gap_deg([TURN_DEG[i] for i in chosen]) <= gap_deg


def test_frames_that_are_alike_are_chosen_once(turning: Take) -> None:
    frames = shown(turning)
    # still for a long while, then a turn of a quarter, then still again
    still = [frames[0]] * 15 + frames[1:6] + [frames[6]] * 15
    chosen = choose_frames(recording_of(turning, still), 8)
    assert sum(i < 15 for i in chosen) == 1
    assert sum(i >= 20 for i in chosen) == 1


def test_frames_without_the_person_or_with_half_of_them_are_left_out(turning: Take) -> None:
    frames = shown(turning)
    mixed: list[Frame] = []
    bad = set()
    for t in range(0, len(frames), 2):
        bad |= {len(mixed), len(mixed) + 2}
        mixed += [nobody(turning), frames[t], cut(turning, frames[t + 1], t + 1)]
    chosen = choose_frames(recording_of(turning, mixed), 6)
    assert len(chosen) == 6
    assert not bad & set(chosen)


def test_a_new_side_that_is_cut_off_does_not_stand_for_a_whole_one(turning: Take) -> None:
    frames = shown(turning)
    mixed = frames[:5] + [cut(turning, frame, t) for t, frame in enumerate(frames) if t >= 5]
    chosen = choose_frames(recording_of(turning, mixed), 4)
    assert chosen and max(chosen) < 5


def test_where_all_are_cut_they_are_taken(turning: Take) -> None:
    frames = [cut(turning, frame, t) for t, frame in enumerate(shown(turning))]
    chosen = choose_frames(recording_of(turning, frames), 4)
    assert len(chosen) == 4
    assert widest_gap_deg([TURN_DEG[i] for i in chosen]) <= 180


def test_where_nobody_is_seen_the_first_frames_reason_is_told(turning: Take) -> None:
    empty = recording_of(turning, [nobody(turning)] * 5)
    with pytest.raises(PersonNotFoundError):
        choose_frames(empty, 2)


def test_the_same_recording_gives_the_same_frames_and_few_are_read(turning: Take) -> None:
    frames = shown(turning) * 10
    read: list[int] = []

    class Counted(MemoryRecording):
        def frame(self, i: int, sensor_name: str, *, color: bool = True) -> Frame | None:
            read.append(i)
            return super().frame(i, sensor_name, color=color)

    whole = recording_of(turning, frames)
    counted = Counted(whole.sensors, whole._instants, whole.gravity_world)  # pyright: ignore[reportPrivateUsage]
    said: list[float] = []
    first = choose_frames(counted, 5, looked_at=20, progress=said.append)
    assert len(read) == 20 and read[0] == 0 and read[-1] == len(frames) - 1
    assert said[-1] == 1.0 and said == sorted(said)
    assert choose_frames(whole, 5, looked_at=20) == first


def test_a_short_recording_is_taken_whole_and_not_read(turning: Take) -> None:
    recording = recording_of(turning, shown(turning)[:3])
    assert choose_frames(recording, 3) == [0, 1, 2]
    assert choose_frames(recording, 100) == [0, 1, 2]


def test_what_does_not_exist_is_refused(turning: Take) -> None:
    recording = recording_of(turning, shown(turning)[:3])
    with pytest.raises(InputError, match="at_most"):
        choose_frames(recording, 0)
    with pytest.raises(InputError, match="sensors"):
        choose_frames(recording, 1, sensors=["other"])
