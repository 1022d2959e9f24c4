"""Who in the picture: the human-sized standing things among walls, desks, boxes and the floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.observe.ground import STRIDE, Ground, linear_map
from bodyfit.observe.walls import find_walls, on_walls

JUMP_M, JUMP_SHARE = 0.03, 0.01
"""Neighbours are of one surface when their depths differ by less than 3 cm plus 1 % of the depth."""
MIN_TOP_M, MAX_TOP_M = 1.15, 2.3
"""The height of a standing adult's highest point; hands may be raised."""
MIN_AREA_M2, MAX_AREA_M2 = 0.12, 2.0
"""What a person shows the camera, face on: a side view behind a table to arms spread wide."""
MAX_SPAN_M = 2.2
"""Arms spread wide."""
MAX_TRUNK_M = 1.0
"""The middle four fifths of the points, seen from above, are no wider than this."""
MAX_HEAD_M = 0.36
"""The highest 12 cm of a person are a head or a hand, not the flat top of a cupboard."""
TABLE_CELL_M = 0.05
TABLE_CELLS = 72
"""A level surface of more than 0.18 m² is a table's: shoulders, seen from above, are a third of that."""
COLUMN_M = 0.55
"""A standing person's legs and trunk stay within this of their head's plumb line."""
REACH_M = 0.95
"""And the hands within this."""


@dataclass(frozen=True)
class Candidate:
    """A connected thing that stands in the room.

    Attributes:
        mask: (H, W) bool.
        area_m2: its area as the camera sees it, face on.
        top_m, bottom_m: heights above the floor (above its lowest point where no floor is in sight).
        span_m: its greatest width, seen from above.
        column: horizontal pixel position of its middle.
        human: None if it may be a person, else what speaks against it.
    """

    mask: NDArray[np.bool_]
    area_m2: float
    top_m: float
    bottom_m: float
    span_m: float
    column: float
    human: str | None


@dataclass(frozen=True)
class Scene:
    """Per-pixel quantities that finding and labelling share.

    Attributes:
        depth: (H, W) float32 metres, cleaned.
        height: (H, W) float32 metres above the floor (or above the lowest thing in sight).
        plan: (H, W, 2) float32 position seen from above, metres.
        sigma: (H, W) float32 standard deviation of a floor reading's height.
        floor: (H, W) bool, readings on or below the floor.
        wall: (H, W) bool, readings on a wall.
        area: (H, W) float32 m² that a pixel covers, face on.
        surface: (H, W) int32, connected surfaces off floor and walls, from 1; 0 for none. `surfaces` is their number.
    """

    camera: Camera
    ground: Ground
    depth: NDArray[np.float32]
    height: NDArray[np.float32]
    plan: NDArray[np.float32]
    sigma: NDArray[np.float32]
    floor: NDArray[np.bool_]
    wall: NDArray[np.bool_]
    area: NDArray[np.float32]
    surface: NDArray[np.int32]
    surfaces: int


def build_scene(depth: NDArray[np.float32], camera: Camera, ground: Ground) -> Scene:
    """Heights, plan positions, floor, walls and connected surfaces of every pixel."""
    from bodyfit.kernels.depthgrid import surface_labels

    up = ground.plane[:3] if ground.plane is not None else ground.up
    e1 = np.cross(up, [0.0, 0.0, 1.0] if abs(up[2]) < 0.9 else [0.0, 1.0, 0.0])
    e1 /= np.linalg.norm(e1)
    e2 = np.cross(up, e1)
    valid = depth > 0
    height = ground.heights(depth, camera)
    if ground.plane is None:
        height = height - np.float32(np.percentile(height[valid], 0.5))
    plan = np.stack([linear_map(np.array([*e, 0.0]), depth, camera) for e in (e1, e2)], axis=-1)
    sigma = ground.sigma(depth)
    if ground.plane is not None:
        floor = valid & (height < np.maximum(0.03, 3.5 * sigma))
    else:
        floor = np.zeros_like(valid)
    area = depth * depth * np.float32(1 / (camera.fx * camera.fy))

    sparse = (slice(None, None, STRIDE), slice(None, None, STRIDE))
    some = valid[sparse] & ~floor[sparse] & (height[sparse] > 0.1)
    noise = np.maximum(0.004, 1.5 * sigma)
    walls = find_walls(
        plan[sparse][some].astype(np.float64),
        area[sparse][some].astype(np.float64) * STRIDE**2,
        noise[sparse][some].astype(np.float64),
    )
    wall = np.zeros_like(valid)
    if walls:
        there = valid & ~floor
        wall[there] = on_walls(plan[there], noise[there], walls)
    free = valid & ~floor & ~wall & (height < 2.6)
    surface, surfaces = surface_labels(depth, free, JUMP_M, JUMP_SHARE)
    return Scene(camera, ground, depth, height, plan, sigma, floor, wall, area, surface, surfaces)


def find_candidates(scene: Scene) -> list[Candidate]:
    """Everything that stands in the room and is large enough to be looked at, people first, then by size."""
    labels = scene.surface
    areas = np.bincount(labels.ravel(), weights=scene.area.ravel(), minlength=scene.surfaces + 1)
    areas[0] = 0
    found: list[Candidate] = []
    for label in np.flatnonzero(areas >= MIN_AREA_M2):
        mask = labels == label
        whole = describe(scene, mask)
        if whole.human is None:
            found.append(whole)
            continue
        parts = [describe(scene, part) for part in _columns(scene, mask)]
        people = [part for part in parts if part.human is None]
        found.extend(people or [whole])
    found.sort(key=lambda c: (c.human is not None, -c.area_m2))
    return _without_fragments(found)


def _without_fragments(found: list[Candidate]) -> list[Candidate]:
    """Leaves out as people what is small beside the best one: bits of furniture that happen to be tall."""
    best = max((c.area_m2 for c in found if c.human is None), default=0.0)
    return [
        c if c.human is not None or c.area_m2 >= 0.3 * best
        else Candidate(c.mask, c.area_m2, c.top_m, c.bottom_m, c.span_m, c.column, "much smaller than a person beside it")
        for c in found
    ]  # fmt: skip


def describe(scene: Scene, mask: NDArray[np.bool_]) -> Candidate:
    """Measures a thing, and says what speaks against its being a person."""
    rows, cols = np.nonzero(mask)
    height = scene.height[mask].astype(np.float64)
    plan = scene.plan[mask].astype(np.float64)
    weight = scene.area[mask].astype(np.float64)
    area = float(weight.sum())
    bottom, top = np.percentile(height, [0.5, 99.7])
    axes = np.linalg.eigh(np.cov(plan.T, aweights=weight))[1] if len(plan) > 10 else np.eye(2)
    across = plan @ axes
    span = float((np.percentile(across, 99.5, axis=0) - np.percentile(across, 0.5, axis=0)).max())
    trunk = float((np.percentile(across, 90, axis=0) - np.percentile(across, 10, axis=0)).max())
    h, w = mask.shape
    cut_top, cut_bottom = rows.min() <= 2, rows.max() >= h - 3
    cut_side = cols.min() <= 2 or cols.max() >= w - 3
    human: str | None = None
    if area < MIN_AREA_M2 or len(height) < 150:
        human = "too small"
    elif area > MAX_AREA_M2 or span > MAX_SPAN_M or trunk > MAX_TRUNK_M:
        human = "too large"
    elif top > MAX_TOP_M and not cut_top:
        human = "too tall"
    elif top < MIN_TOP_M and not (cut_top and top > 0.7):
        human = "too low"
    elif top - bottom < 0.5 or (top - bottom < 0.8 * trunk and not (cut_top or cut_bottom or cut_side)):
        human = "not upright"
    elif bottom > 0.35 and scene.ground.plane is not None and not cut_bottom and not _hidden_below(scene, mask):
        human = "does not stand on the floor"
    elif not cut_top and _widest_top(across, height, top) > MAX_HEAD_M:
        human = "flat on top"
    elif _boxy(plan, height, weight, scene.sigma[mask]):
        human = "flat-sided"
    return Candidate(mask, area, float(top), float(bottom), span, float(np.median(cols)), human)


def _hidden_below(scene: Scene, mask: NDArray[np.bool_]) -> bool:
    """Whether something nearer (or nothing readable) is what the camera sees just below most of the thing's lower rim."""
    rows, cols = np.nonzero(mask)
    order = np.argsort(rows, kind="stable")
    lowest = np.full(mask.shape[1], -1)
    lowest[cols[order]] = rows[order]
    columns = np.flatnonzero(lowest >= 0)
    rim = lowest[columns]
    low = rim >= np.percentile(rim, 60)
    columns, rim = columns[low], rim[low]
    below = np.minimum(rim[:, None] + np.arange(2, 12), mask.shape[0] - 1)
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


def _boxy(
    plan: NDArray[np.float64], height: NDArray[np.float64], weight: NDArray[np.float64], sigma: NDArray[np.float32]
) -> bool:
    """Whether nearly all of it lies on one or two upright planes, as a cupboard's or a door's does."""
    keep = np.arange(0, len(plan), max(1, len(plan) // 1500))
    plan, weight = plan[keep], weight[keep]
    tolerance = 0.012 + 1.5 * float(np.median(sigma))
    left = np.ones(len(plan), dtype=bool)
    total = weight.sum()
    angles = np.arange(90) * np.pi / 90
    offsets = plan @ np.stack([np.cos(angles), np.sin(angles)])
    for _ in range(2):
        best = np.zeros(len(plan), dtype=bool)
        for k in range(len(angles)):
            x = offsets[left, k]
            if len(x) < 20:
                continue
            low = x.min()
            count = np.bincount(((x - low) / tolerance).astype(np.int64), weights=weight[left], minlength=3)
            j = int(np.convolve(count, [1, 1], mode="valid").argmax())
            inside = left & (offsets[:, k] >= low + j * tolerance) & (offsets[:, k] < low + (j + 2) * tolerance)
            if weight[inside].sum() > weight[best].sum():
                best = inside
        left &= ~best
    return bool(weight[left].sum() < 0.2 * total)


def _columns(scene: Scene, mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Upright columns within a larger thing: people who touch a desk or one another."""
    import cv2

    from bodyfit.kernels.depthgrid import surface_labels

    mask = mask & ~_tables(scene, mask)
    height = scene.height
    tall = mask & (height > 0.35)
    out: list[NDArray[np.bool_]] = []
    if not tall.any():
        return out
    plan = scene.plan
    low = plan[tall].min(axis=0)
    size = np.ceil((plan[tall].max(axis=0) - low) / TABLE_CELL_M).astype(int) + 3
    if size.max() > 400:
        return out
    cell = ((plan[tall] - low) / TABLE_CELL_M).astype(np.int64) + 1
    tops = np.zeros((size[0], size[1]), dtype=np.float32)
    np.maximum.at(tops, (cell[:, 0], cell[:, 1]), height[tall])
    # heads: what stands out by 15 cm or more from everything within a shoulder's breadth, from the top down
    heads: list[NDArray[np.float32]] = []
    remaining = np.where(tops > MIN_TOP_M, tops, 0)
    while remaining.max() > 0 and len(heads) < 8:
        peak = remaining.max()
        crest = (remaining > peak - 0.15).astype(np.uint8)
        _, crest_labels = cv2.connectedComponents(cv2.dilate(crest, np.ones((3, 3), np.uint8)))
        i, j = np.unravel_index(int(remaining.argmax()), remaining.shape)
        blob = (crest_labels == crest_labels[i, j]) & (crest > 0)
        middle = (np.argwhere(blob).mean(0) - 0.5) * TABLE_CELL_M + low
        if peak < MAX_TOP_M and all(np.linalg.norm(middle - h) > 0.38 for h in heads):
            heads.append(middle.astype(np.float32))
        ii, jj = np.indices(remaining.shape)
        near = np.hypot((ii - 0.5) * TABLE_CELL_M + low[0] - middle[0], (jj - 0.5) * TABLE_CELL_M + low[1] - middle[1])
        remaining[(near < 0.38) | blob] = 0
    if not heads:
        return out
    away = np.stack([np.hypot(plan[..., 0] - h[0], plan[..., 1] - h[1]) for h in heads])
    nearest = away.argmin(0)
    for k in range(len(heads)):
        reach = np.where(height < 1.0, COLUMN_M, REACH_M if len(heads) == 1 else COLUMN_M)
        part = mask & (nearest == k) & (away[k] < reach)
        labels, count = surface_labels(scene.depth, part, JUMP_M, JUMP_SHARE)
        if count:
            weight = np.bincount(labels.ravel(), weights=scene.area.ravel())
            weight[0] = 0
            out.append(labels == int(weight.argmax()))
    return out


def _tables(scene: Scene, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) bool: the pixels of `mask` on a large level surface below shoulder height."""
    out = np.zeros_like(mask)
    rows, cols = np.nonzero(mask & (scene.height > 0.15) & (scene.height < 1.25))
    if len(rows) < 50:
        return out
    height = scene.height[rows, cols]
    plan = scene.plan[rows, cols]
    cell = np.floor((plan - plan.min(axis=0)) / TABLE_CELL_M).astype(np.int64)
    cell_id = cell[:, 0] * (cell[:, 1].max() + 1) + cell[:, 1]
    thick = max(0.02, 2.0 * float(np.median(scene.sigma[rows, cols])))
    level = np.floor(height / thick).astype(np.int64)
    for k in range(int(level.max()) + 1):
        inside = (level == k) | (level == k + 1)
        if len(np.unique(cell_id[inside])) >= TABLE_CELLS:
            out[rows[inside], cols[inside]] = True
    return out
