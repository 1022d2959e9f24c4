"""Which frames of a long recording tell most of a person's shape: whole, near, and from different sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError, PersonNotFoundError
from bodyfit.fit.blas import one_blas_thread
from bodyfit.fit.fit import MIN_PERSON_PIXELS
from bodyfit.observe.observation import PERSON, Observation, observe
from bodyfit.recording.source import FrameSource

LOOKED_AT = 48
"""so many frames are read, spread evenly"""
GRID = (16, 8)
"""rows and columns on which two looks of a person are compared"""
RELIEF_M = 0.15
"""so far before or behind the body's middle counts as much as being there or not"""
CUT = 0.5
"""what a frame is worth whose border cuts the person, against one that shows all"""
ENOUGH_PIXELS = 4000
"""of the person; more tell a fit little more"""
GOOD = 0.7
"""frames worth less than this share of the best one are left out"""
UNLIKE = 0.02
"""frames less unlike than this (mean over the grid) tell the same; fewer are chosen then"""


@dataclass(frozen=True)
class Look:
    """What a frame shows of the person: its position in the recording, how much it is worth (0 to 1), and how the
    person looks in it: coverage and depth on a grid over them, by sensor, (S, 2, rows, columns)."""

    position: int
    worth: float
    looks: NDArray[np.float32]


def choose_frames(
    recording: FrameSource,
    at_most: int,
    *,
    sensors: Sequence[str] | None = None,
    person: int | None = None,
    looked_at: int = LOOKED_AT,
    progress: Callable[[float], None] | None = None,
) -> list[int]:
    """Positions of at most so many frames, rising: the best one first of all, then always the one that differs most
    from those that are chosen. The same recording gives the same frames.

    A frame without the person, with several people of whom none was named, or with an image that is broken is passed
    over; one that cuts the person off, or is much worse otherwise, is taken only where the others are no better.

    Args:
        recording: what is chosen from; read one frame at a time. With no more frames than asked for none is read.
        at_most: how many.
        sensors: names, all where None.
        person: which of several people, counted from the left.
        looked_at: so many frames are looked at, or `at_most` where that is more.
        progress: called with the fraction of the whole.

    Raises:
        InputError: at_most below 1, or a sensor that does not exist.
        PersonNotFoundError: none of the frames shows a person; why the first of them does not.
    """
    if at_most < 1:
        raise InputError("at_most", "1 or more frames", str(at_most))
    there = [sensor.name for sensor in recording.sensors]
    for name in sensors or ():
        if name not in there:
            raise InputError("sensors", f"names of this recording's sensors ({', '.join(there)})", repr(name))
    if recording.num_frames <= at_most:
        return list(range(recording.num_frames))
    positions = np.unique(np.linspace(0, recording.num_frames - 1, max(looked_at, at_most)).round().astype(int))
    looks: list[Look] = []
    problem: InputError | None = None
    with one_blas_thread():
        for n, i in enumerate(positions):
            try:
                look = _look(recording, int(i), list(sensors or there), person)
                if look is not None:
                    looks.append(look)
            except InputError as refused:
                problem = problem or refused
            if progress is not None:
                progress((n + 1) / len(positions))
    if not looks:
        if problem is not None:
            raise problem
        raise PersonNotFoundError("frames", "a person in at least one frame", "no frame of these sensors")
    best = max(look.worth for look in looks)
    good = [look for look in looks if look.worth >= GOOD * best]
    return sorted(good[k].position for k in _unlike(good, at_most))


def _unlike(looks: Sequence[Look], at_most: int) -> list[int]:
    """Farthest-point sampling (T. F. Gonzalez, Theor. Comput. Sci. 38, 1985) from the look that is worth most; a look
    counts by how unlike it is to those that are chosen times what it is worth."""
    worth = np.array([look.worth for look in looks])
    every = np.stack([look.looks for look in looks])
    chosen = [int(np.argmax(worth))]
    apart = np.full(len(looks), np.inf)
    while len(chosen) < at_most:
        apart = np.minimum(apart, np.abs(every - every[chosen[-1]]).mean((1, 2, 3, 4)))
        gain = apart * worth
        best = int(np.argmax(gain))
        if gain[best] < UNLIKE * float(worth.max()):
            break
        chosen.append(best)
    return chosen


def _look(recording: FrameSource, i: int, names: Sequence[str], person: int | None) -> Look | None:
    """What the sensors show at one instant; None where none of them saw it.

    Raises:
        InputError: none that saw it shows the person.
    """
    worths, looks, problem = [], [], None
    for name in names:
        looks.append(np.zeros((2, *GRID), np.float32))
        frame = recording.frame(i, name, color=False)
        if frame is None:
            continue
        try:
            seen = observe(frame, gravity_world=recording.gravity_world, person=person)
            worth, looks[-1] = _one(seen, f"frame {i} of {name}")
        except InputError as refused:
            problem = problem or refused
            continue
        worths.append(worth)
    if not worths:
        if problem is not None:
            raise problem
        return None
    return Look(i, float(np.mean(worths)), np.stack(looks))


def _one(seen: Observation, what: str) -> tuple[float, NDArray[np.float32]]:
    """How much one sensor's look is worth, and coverage and relief on the grid (2, rows, columns).

    Raises:
        PersonNotFoundError: so little of the person that a fit would not take it.
    """
    own = seen.label == PERSON
    known = own & (seen.depth > 0)
    pixels = int(known.sum())
    if pixels < MIN_PERSON_PIXELS:
        raise PersonNotFoundError(what, f"at least {MIN_PERSON_PIXELS} pixels with depth on the person", str(pixels))
    rows, cols = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
    # half as wide as high and about the person's middle, so that a frontal look is wider than one from the side
    middle, half = 0.5 * (cols[0] + cols[-1]), 0.25 * (rows[-1] - rows[0] + 1)
    r = np.linspace(rows[0], rows[-1], GRID[0] * 4).round().astype(int)
    c = np.linspace(middle - half, middle + half, GRID[1] * 4).round().astype(int)
    inside = (c >= 0) & (c < own.shape[1])
    at = np.ix_(r, np.clip(c, 0, own.shape[1] - 1))
    patch, depth = known[at] & inside, seen.depth[at]
    typical = float(np.median(seen.depth[known]))
    relief = np.where(patch, np.clip((depth - typical) / RELIEF_M, -1, 1), 0.0)
    blocks = (GRID[0], 4, GRID[1], 4)
    looks = np.stack([patch.reshape(blocks).mean((1, 3)), relief.reshape(blocks).mean((1, 3))]).astype(np.float32)
    readings = pixels / float(own.sum())
    near = min(1.0, pixels / ENOUGH_PIXELS)
    return readings * (CUT if seen.cut_off else 1.0) * (0.5 + 0.5 * near), looks
