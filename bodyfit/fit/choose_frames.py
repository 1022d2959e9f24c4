"""Which frames of a long recording tell most of a person's shape: whole, near, and from different sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError, PersonNotFoundError
from bodyfit.observe.observation import PERSON, Observation, observe
from bodyfit.recording.source import FrameSource

LOOKED_AT = 48
"""so many frames are read, spread evenly"""
GRID = (16, 8)
"""rows and columns on which two looks of a person are compared"""
CUT = 0.5
"""what a frame is worth whose border cuts the person, against one that shows all"""
UNLIKE = 0.02
"""frames less unlike than this tell the same; fewer are chosen then"""


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

    Args:
        recording: what is chosen from; read one frame at a time.
        at_most: how many.
        sensors: names, all where None.
        person: which of several people, counted from the left.
        looked_at: so many frames are looked at.
        progress: called with the fraction of the whole.

    Raises:
        InputError: at_most below 1.
        PersonNotFoundError: none of the frames shows a person; why the first of them does not.
    """
    if at_most < 1:
        raise InputError("at_most", "1 or more frames", str(at_most))
    names = list(sensors or (sensor.name for sensor in recording.sensors))
    if recording.num_frames <= at_most:
        return list(range(recording.num_frames))
    positions = np.unique(np.linspace(0, recording.num_frames - 1, max(looked_at, at_most)).round().astype(int))
    looks: list[Look] = []
    problem: InputError | None = None
    for n, i in enumerate(positions):
        try:
            look = _look(recording, int(i), names, person)
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
    return sorted(looks[k].position for k in _unlike(looks, at_most))


def _unlike(looks: list[Look], at_most: int) -> list[int]:
    """Farthest-point sampling, from the most worthy look; worth counts as much as being unlike."""
    worth = np.array([look.worth for look in looks])
    every = np.stack([look.looks for look in looks])
    chosen = [int(np.argmax(worth))]
    apart = np.full(len(looks), np.inf)
    while len(chosen) < at_most:
        apart = np.minimum(apart, np.abs(every - every[chosen[-1]]).mean((1, 2, 3, 4)))
        apart[chosen[-1]] = 0.0
        gain = apart * worth
        best = int(np.argmax(gain))
        if gain[best] < UNLIKE * float(worth.max()):
            break
        chosen.append(best)
    return chosen


def _look(recording: FrameSource, i: int, names: Sequence[str], person: int | None) -> Look | None:
    worths, looks, problem = [], [], None
    for name in names:
        looks.append(np.zeros((2, *GRID), np.float32))
        frame = recording.frame(i, name)
        if frame is None:
            continue
        try:
            seen = observe(frame, gravity_world=recording.gravity_world, person=person)
        except InputError as refused:
            problem = refused
            continue
        worth, looks[-1] = _one(seen)
        worths.append(worth)
    if not worths:
        if problem is not None:
            raise problem
        return None
    return Look(i, float(np.mean(worths)), np.stack(looks))


def _one(seen: Observation) -> tuple[float, NDArray[np.float32]]:
    """How much one sensor's look is worth, and coverage and depth on the grid."""
    own = seen.label == PERSON
    rows, cols = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
    height, width = own.shape
    cut = rows[0] == 0 or rows[-1] == height - 1 or cols[0] == 0 or cols[-1] == width - 1
    known = own & (seen.depth > 0)
    readings = float(known.sum()) / max(float(own.sum()), 1.0)
    # square about the person, so that a frontal look is wider than one from the side
    middle, half = 0.5 * (cols[0] + cols[-1]), 0.25 * (rows[-1] - rows[0] + 1)
    r = np.linspace(rows[0], rows[-1], GRID[0] * 4).round().astype(int)
    c = np.clip(np.linspace(middle - half, middle + half, GRID[1] * 4).round().astype(int), 0, width - 1)
    patch, depth = known[np.ix_(r, c)], seen.depth[np.ix_(r, c)]
    typical = float(np.median(seen.depth[known])) if known.any() else 0.0
    relief = np.where(patch, np.clip((depth - typical) / 0.3, -1, 1), 0.0)
    blocks = (GRID[0], 4, GRID[1], 4)
    looks = np.stack([patch.reshape(blocks).mean((1, 3)), relief.reshape(blocks).mean((1, 3))]).astype(np.float32)
    # many pixels tell more than few, up to what a fit takes of them
    near = min(1.0, float(known.sum()) / 4000.0)
    return readings * (CUT if cut else 1.0) * (0.5 + 0.5 * near), looks
