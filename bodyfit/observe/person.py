"""Who in the picture: the human-sized standing things among walls, desks, boxes and the floor."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bodyfit.observe.columns import COLUMN_M, LEGS_M, split_columns
from bodyfit.observe.scene import Scene, pixels_where

MIN_TOP_M, MAX_TOP_M = 1.15, 2.3
"""The height of a standing adult's highest point; hands may be raised."""
MIN_PART_M2 = 0.02
"""Surfaces from this size on are looked at: a person may be cut in two by their own arm, half a head above it."""
MERGE_M = 0.45
"""The parts of a person that an arm cuts in two have their middles over nearly the same place."""
MIN_AREA_M2, MAX_AREA_M2 = 0.12, 2.0
"""What a person shows the camera, face on: a side view behind a table to arms spread wide."""
MAX_SPAN_M = 2.2
"""Arms spread wide."""
MAX_TRUNK_M = 1.0
"""The middle four fifths of the points, seen from above, are no wider than this."""
MAX_HEAD_M = 0.36
"""The highest 12 cm of a person are a head or a hand, not the flat top of a cupboard."""
SAMPLES = 4000
"""A thing's size and shape are taken from so many of its pixels."""
MAX_SPREAD = 0.03
"""More than this share of what should be legs, farther out than legs are: the thing is a person and what they touch."""
LONE_SPAN_M = 0.95
"""No two people standing side by side are narrower than this."""
LOOKED_AT = 24
"""So many of the largest surfaces are looked at."""


NEVER = ("too large", "too tall", "flat-sided")
"""What no part of a person is."""


@dataclass(frozen=True)
class Candidate:
    """A connected thing that stands in the room.

    Attributes:
        rows, cols: (N,) its pixels.
        area_m2: its area as the camera sees it, face on.
        top_m, bottom_m: heights above the floor (above the lowest thing in sight where there is no floor).
        span_m: its greatest width, seen from above.
        column: horizontal pixel position of its middle.
        middle: (2,) its middle seen from above, metres.
        spread: the share of its lower half farther from its middle than legs reach.
        human: None if it may be a person, else what speaks against it.
    """

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    area_m2: float
    top_m: float
    bottom_m: float
    span_m: float
    column: float
    middle: NDArray[np.float64]
    spread: float
    human: str | None

    def mask(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """(H, W) bool."""
        out = np.zeros(shape, dtype=bool)
        out[self.rows, self.cols] = True
        return out


def find_candidates(scene: Scene) -> list[Candidate]:
    """Everything that stands in the room and is large enough to be looked at, people first, then by size."""
    things = []
    for label in np.argsort(-scene.area_m2, kind="stable")[:LOOKED_AT]:
        if scene.area_m2[label] >= MIN_PART_M2:
            v0, v1, u0, u1 = scene.boxes[label]
            rows, cols = pixels_where(scene.surface[v0:v1, u0:u1] == label)
            things.append(describe(scene, rows + v0, cols + u0))
    found: list[Candidate] = []
    for thing in _merge(scene, things):
        narrow = thing.human is None and thing.spread < MAX_SPREAD
        if (narrow and thing.span_m < LONE_SPAN_M) or thing.area_m2 < MIN_AREA_M2 or thing.top_m < MIN_TOP_M:
            found.append(thing)
            continue
        parts = [describe(scene, *pixels) for pixels in split_columns(scene, thing.rows, thing.cols, single=narrow)]
        people = [part for part in parts if part.human is None]
        # one person with arms spread, or a hand raised like a second head, stays whole
        found.extend(people if len(people) > 1 or (people and not narrow) else [thing])
    found.sort(key=lambda c: (c.human is not None, -c.area_m2))
    return _without_fragments([c for c in found if c.area_m2 >= MIN_AREA_M2])


def _merge(scene: Scene, things: list[Candidate]) -> list[Candidate]:
    """Joins what an arm across the body cuts in two: surfaces in one place that together are one person."""
    things = list(things)
    i = 0
    while i < len(things):
        for j in range(i + 1, len(things)):
            a, b = things[i], things[j]
            if a.human in NEVER or b.human in NEVER or np.hypot(*(a.middle - b.middle)) > MERGE_M:
                continue
            if not _touch(a, b, scene.depth.shape):
                continue
            both = describe(scene, np.concatenate([a.rows, b.rows]), np.concatenate([a.cols, b.cols]))
            if both.human is None:
                del things[j], things[i]
                things.insert(0, both)
                i = -1
                break
        i += 1
    return things


def _touch(a: Candidate, b: Candidate, shape: tuple[int, ...]) -> bool:
    """Whether two things come within five pixels of one another along a border of about ten: two pixels are dropped on
    either side of an inner edge."""
    import cv2

    near = cv2.dilate(a.mask(shape).astype(np.uint8), np.ones((11, 11), np.uint8))
    return int(near[b.rows, b.cols].sum()) >= 40


def _without_fragments(found: list[Candidate]) -> list[Candidate]:
    """Leaves out as people what is small beside the best one: bits of furniture that happen to be tall."""
    best = max((c.area_m2 for c in found if c.human is None), default=0.0)
    return [
        c if c.human is not None or c.area_m2 >= 0.3 * best
        else replace(c, human="much smaller than a person beside it")
        for c in found
    ]  # fmt: skip


def describe(scene: Scene, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Candidate:
    """Measures a thing, given its pixels (N,), and says what speaks against its being a person."""
    step = max(1, len(rows) // SAMPLES)
    some = (rows[::step], cols[::step])
    height, plan = scene.height[some].astype(np.float64), scene.plan[some].astype(np.float64)
    weight = scene.area_of(scene.depth[some])
    area = float(weight.sum()) * len(rows) / len(height)
    bottom, top = np.percentile(height, [0.5, 99.7])
    middle = np.median(plan, axis=0)
    axes = np.linalg.eigh(np.cov(plan.T, aweights=weight))[1] if len(plan) > 10 else np.eye(2)
    across = plan @ axes
    q = np.percentile(across, [0.5, 10, 90, 99.5], axis=0)
    span, trunk = float((q[3] - q[0]).max()), float((q[2] - q[1]).max())
    legs = height < LEGS_M
    spread = float((np.hypot(*(plan[legs] - middle).T) > COLUMN_M).mean()) if legs.any() else 0.0
    h, w = scene.depth.shape
    cut_top, cut_bottom = rows.min() <= 2, rows.max() >= h - 3
    cut = cut_top or cut_bottom or cols.min() <= 2 or cols.max() >= w - 3
    human: str | None = None
    if area > MAX_AREA_M2 or span > MAX_SPAN_M or trunk > MAX_TRUNK_M:
        human = "too large"
    elif top > MAX_TOP_M and not cut_top:
        human = "too tall"
    elif area > 0.1 and _boxy(plan, weight, scene.ground.sigma(float(np.median(scene.depth[some])))):
        human = "flat-sided"
    elif area < MIN_AREA_M2 or len(rows) < 150:
        human = "too small"
    elif top < MIN_TOP_M and not (cut_top and top > 0.7):
        human = "too low"
    elif top - bottom < 0.5 or (top - bottom < 0.8 * trunk and not cut):
        human = "not upright"
    elif bottom > 0.35 and scene.ground.plane is not None and not cut_bottom and not _hidden_below(scene, rows, cols):
        human = "does not stand on the floor"
    elif not cut_top and _widest_top(across, height, top) > MAX_HEAD_M:
        human = "flat on top"
    column = float(np.median(some[1]))
    return Candidate(rows, cols, area, float(top), float(bottom), span, column, middle, spread, human)


def _hidden_below(scene: Scene, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> bool:
    """Whether the camera sees something nearer, or nothing readable, just below most of the thing's lower rim."""
    lowest = np.full(scene.depth.shape[1], -1)
    np.maximum.at(lowest, cols, rows)
    columns = np.flatnonzero(lowest >= 0)
    rim = lowest[columns]
    low = rim >= np.percentile(rim, 60)
    columns, rim = columns[low], rim[low]
    below = np.minimum(rim[:, None] + np.arange(2, 12), scene.depth.shape[0] - 1)
    there = scene.depth[below, columns[:, None]]
    own = scene.depth[rim, columns][:, None]
    hides = ((there > 0) & (there < own - 0.05) & ~scene.floor[below, columns[:, None]]) | (there <= 0)
    return bool((hides.mean(1) > 0.5).mean() > 0.5)


def _widest_top(across: NDArray[np.float64], height: NDArray[np.float64], top: float) -> float:
    """Width of the widest thing in the highest 12 cm, two raised hands counting as two."""
    crest = across[height > top - 0.12]
    widest = 0.0
    for axis in (0, 1):
        x = np.sort(crest[:, axis])
        groups = np.split(x, np.flatnonzero(np.diff(x) > 0.05) + 1)
        big = [g for g in groups if len(g) > 0.1 * len(x)]
        widest = max([widest, *(float(np.percentile(g, 98) - np.percentile(g, 2)) for g in big)])
    return widest


def _boxy(plan: NDArray[np.float64], weight: NDArray[np.float64], sigma: float) -> bool:
    """Whether nearly all of it lies on one or two upright planes, as a cupboard's or a door's does."""
    step = max(1, len(plan) // 600)
    plan, weight = plan[::step], weight[::step]
    bin_m = 0.01 + min(sigma, 0.008)
    angles = np.arange(60) * np.pi / 60
    offsets = plan @ np.stack([np.cos(angles), np.sin(angles)])
    bins = ((offsets - offsets.min(axis=0)) / bin_m).astype(np.int64)
    width = int(bins.max()) + 2
    flat = bins + np.arange(len(angles)) * width
    left = np.ones(len(plan), dtype=bool)
    for _ in range(2):
        votes = np.bincount(
            flat[left].ravel(), weights=np.repeat(weight[left], len(angles)), minlength=len(angles) * width
        ).reshape(len(angles), width)
        votes = votes[:, :-1] + votes[:, 1:]
        k, j = np.unravel_index(int(votes.argmax()), votes.shape)
        left &= (bins[:, k] != j) & (bins[:, k] != j + 1)
    return bool(weight[left].sum() < 0.15 * weight.sum())
