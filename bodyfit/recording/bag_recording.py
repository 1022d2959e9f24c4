"""From topics of depth and colour images to a recording's instants: which image belongs to which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import RecordingError
from bodyfit.recording.bag import Bag
from bodyfit.recording.description import Sensor
from bodyfit.recording.encoded import EncodedFrame
from bodyfit.recording.ros_images import UNREADABLE, ImageTopic, encoded_image
from bodyfit.recording.timeline import Timeline

SINGLE_PERIOD_S = 1 / 30
"""the image period that is assumed where there is one image"""
JUMP_S = 1.0
"""images that come later than their time says, by more than this, show a clock that was set"""
_NONE = -1


@dataclass(frozen=True)
class Times:
    """The images of a topic that are used, in the order of their times.

    Attributes:
        order: (N,) their numbers among the topic's messages.
        ns: (N,) int64, rising.
        is_recorders: they are when the messages were recorded, not what their headers say.
    """

    order: NDArray[np.int64]
    ns: NDArray[np.int64]
    is_recorders: bool = False

    @property
    def period_ns(self) -> float:
        """Between two images, mostly."""
        return float(np.median(np.diff(self.ns))) if len(self.ns) > 1 else SINGLE_PERIOD_S * 1e9


@dataclass(frozen=True)
class SensorImages:
    """What one sensor saw.

    Attributes:
        sensor: it.
        depth, color: its topics.
        depth_times, color_times: their images' times, on one clock.
        paired: (N,) for each depth image the place of its colour image in color_times, -1 where none.
    """

    sensor: Sensor
    depth: ImageTopic
    depth_times: Times
    color: ImageTopic | None
    color_times: Times | None
    paired: NDArray[np.int64]


def header_times(images: ImageTopic, notes: list[str]) -> Times:
    """Times by the messages' headers; by the recorder's where headers have none. Two images of one time are one.

    Raises:
        RecordingError: no messages.
    """
    stamps = images.stamps_ns
    if (len(stamps) > 1 and len(np.unique(stamps)) < max(2, len(stamps) // 2)) or not (stamps > 0).any():
        notes.append(f"{images.topic.name}: no times in the messages' headers; those of the recorder are used.")
        return recorder_times(images, notes)
    return rising_times(images, stamps, notes)


def common_times(topics: Sequence[ImageTopic], notes: list[str]) -> list[Times]:
    """The times of several topics on one clock: by the headers of all, or by the recorder for all."""
    every = [header_times(one, notes) for one in topics]
    if not any(one.is_recorders for one in every):
        return every
    return [times if times.is_recorders else recorder_times(one, []) for one, times in zip(topics, every, strict=True)]


def recorder_times(images: ImageTopic, notes: list[str]) -> Times:
    """Times by when the messages were recorded."""
    return replace(rising_times(images, images.topic.times_ns, notes), is_recorders=True)


def rising_times(images: ImageTopic, stamps_ns: NDArray[np.int64], notes: list[str]) -> Times:
    """Images sorted by their times; broken ones, and those of a time that there was already, are left out with a note.

    Where times jump back, by a clock that was set or went round (that of a camera counts microseconds in 32 bits: 72
    minutes), the recorder's are used.

    Raises:
        RecordingError: no images are left.
    """
    name = images.topic.name
    good = np.flatnonzero(images.stamps_ns != UNREADABLE)
    if not len(good):
        raise RecordingError(name, "at least one image", "none")
    back_ns = -int(np.diff(stamps_ns[good]).min(initial=0))
    if back_ns > JUMP_S * 1e9:
        notes.append(f"{name}: the images' times jump back by {back_ns / 1e9:.0f} s; the recorder's are used.")
        return recorder_times(images, notes)
    if len(good) < len(stamps_ns):
        notes.append(f"{name}: {len(stamps_ns) - len(good)} messages are broken and left out.")
    ns, first = np.unique(stamps_ns[good], return_index=True)
    if len(ns) < len(good):
        notes.append(f"{name}: {len(good) - len(ns)} images have the time of another one and are left out.")
    return Times(good[first].astype(np.int64), ns)


def nearest_within(times_ns: NDArray[np.int64], wanted_ns: NDArray[np.int64], within_ns: float) -> NDArray[np.int64]:
    """For each wanted time the place of the nearest in rising `times_ns`, -1 where none is so near."""
    after = np.clip(np.searchsorted(times_ns, wanted_ns), 0, len(times_ns) - 1)
    before = np.maximum(after - 1, 0)
    gap_after, gap_before = np.abs(times_ns[after] - wanted_ns), np.abs(times_ns[before] - wanted_ns)
    place = np.where(gap_before <= gap_after, before, after)
    return np.where(np.minimum(gap_before, gap_after) <= within_ns, place, _NONE).astype(np.int64)


def sensor_images(
    sensor: Sensor,
    depth: ImageTopic,
    depth_times: Times,
    color: ImageTopic | None,
    color_times: Times | None,
    notes: list[str],
) -> SensorImages:
    """Pairs each depth image with the colour image nearest in time, within half a depth image's period."""
    paired = np.full(len(depth_times.ns), _NONE, np.int64)
    if color is not None and color_times is not None:
        within = depth_times.period_ns / 2
        paired = nearest_within(color_times.ns, depth_times.ns, within)
        lonely = int((paired == _NONE).sum())
        if lonely:
            notes.append(f"{sensor.name}: {lonely} depth images have no colour image within {within / 1e6:.0f} ms.")
    return SensorImages(sensor, depth, depth_times, color, color_times, paired)


def instants(every: Sequence[SensorImages], notes: list[str]) -> tuple[Timeline, NDArray[np.int64]]:
    """One instant for each depth image; images of several sensors within half a period are of one instant.

    Returns:
        the timeline, and (T, S) which depth image each sensor has at each instant, -1 where none.
    """
    leader = max(every, key=lambda one: len(one.depth_times.ns)).depth_times
    within = leader.period_ns / 2
    times = leader.ns
    for one in every:
        own = one.depth_times.ns
        times = np.union1d(times, own[nearest_within(times, own, within) == _NONE])
    table = np.full((len(times), len(every)), _NONE, np.int64)
    lost = 0
    for s, one in enumerate(every):
        own = one.depth_times.ns
        place = nearest_within(times, own, within)
        # two images of one sensor at one instant: the nearer one stays
        far_first = np.argsort(-np.abs(times[place] - own), kind="stable")
        table[place[far_first], s] = far_first
        lost += len(own) - int((table[:, s] != _NONE).sum())
    if len(every) > 1:
        notes.append(f"Depth images of different sensors within {within / 1e6:.0f} ms are taken as of one instant.")
    if lost:
        notes.append(f"{lost} depth images are left out: their sensor has a nearer one at that instant.")
    streams: dict[str, NDArray[np.float64]] = {}
    for s, one in enumerate(every):
        depth_s, color_s = (np.full(len(times), np.nan) for _ in range(2))
        there = table[:, s] != _NONE
        depth_s[there] = one.depth_times.ns[table[there, s]] / 1e9
        streams[f"{one.sensor.name}.depth_s"] = depth_s
        if one.color_times is not None:
            pairs = np.where(there, one.paired[table[:, s]], _NONE)
            color_s[pairs != _NONE] = one.color_times.ns[pairs[pairs != _NONE]] / 1e9
            streams[f"{one.sensor.name}.color_s"] = color_s
    timeline = Timeline(np.arange(len(times), dtype=np.int64), (times - times[0]) / 1e9, streams)
    return timeline, table


class BagImages:
    """The images of a bag, read where their messages lie.

    Args:
        bag: closed with this.
        every: the sensors.
        table: (T, S) as `instants` gives it.
    """

    def __init__(self, bag: Bag, every: Sequence[SensorImages], table: NDArray[np.int64]) -> None:
        self._bag, self._table = bag, table
        self._sensors = {one.sensor.name: (s, one) for s, one in enumerate(every)}

    def encoded(self, i: int, sensor: Sensor) -> EncodedFrame | None:
        """What a sensor saw at the `i`-th instant."""
        s, one = self._sensors[sensor.name]
        row = int(self._table[i, s])
        if row == _NONE:
            return None
        color = None
        if one.color is not None and one.color_times is not None and sensor.color_camera and one.paired[row] != _NONE:
            k = int(one.color_times.order[one.paired[row]])
            color = encoded_image(self._bag, one.color, k, sensor.color_camera)
        k = int(one.depth_times.order[row])
        return EncodedFrame(encoded_image(self._bag, one.depth, k, sensor.depth_camera), color)

    def close(self) -> None:
        """Closes the bag's files."""
        self._bag.close()
