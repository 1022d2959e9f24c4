"""Upright columns within a larger thing: people who touch a desk, a box or one another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bodyfit.observe.scene import JUMP_M, JUMP_SHARE, Scene, pixels_where

CELL_M = 0.05
"""Width of a cell of the plan view."""
MIN_TABLE_CELLS = 72
"""A level surface of more than 0.18 m² is a table's: shoulders, seen from above, are a third of that."""
LOW_M = 0.4
"""Furniture is as wide as higher up below this height."""
BAND_M = 0.1
"""An upright plane is looked at in bands of this height."""
MIN_PANEL_M2, MIN_PANEL_M = 0.15, 0.4
"""An upright plane of this area and, without a gap, this width is a piece of furniture: legs are apart and round."""
PANEL_M = 0.02
"""Half the thickness of such a plane, noise aside."""
MIN_HEAD_M, MAX_HEAD_M = 1.15, 2.3
"""A standing adult's highest point."""
HEAD_DROP_M = 0.15
"""A head stands out by this much from what is around it."""
SHOULDER_M = 0.38
"""Two heads are farther apart than this."""
LEGS_M = 0.6
"""Below this height there are only legs (and the hands of somebody who bends)."""
COLUMN_M = 0.6
"""Standing people's legs stay within this of their middle's plumb line."""
REACH_M = 0.95
"""And the hands within this."""


def split_columns(
    scene: Scene, rows: NDArray[np.int64], cols: NDArray[np.int64], *, single: bool
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """What stands under each head-like peak of a thing, table tops and furniture's sides taken out.

    Args:
        scene: what was measured of every pixel.
        rows, cols: (N,) the thing's pixels.
        single: the thing would do as one person: nothing is returned unless there are two peaks.

    Returns:
        For each peak, highest first, rows and cols of the largest connected surface around its plumb line.
    """
    from bodyfit.kernels.depthgrid import surface_labels, surface_stats

    if single and len(_heads(scene, rows, cols)) < 2:
        return []
    keep = ~(_on_table(scene, rows, cols) | _on_panel(scene, rows, cols))
    rows, cols = rows[keep], cols[keep]
    heads = _heads(scene, rows, cols)
    if not len(heads):
        return []
    height, plan = scene.height[rows, cols], scene.plan[rows, cols]
    away = np.hypot(plan[:, None, 0] - heads[None, :, 0], plan[:, None, 1] - heads[None, :, 1])
    nearest = away.argmin(axis=1)
    # between two people an arm's owner is the nearer one; alone, an arm may reach out
    reach = np.where(height < LEGS_M, COLUMN_M, REACH_M if len(heads) == 1 else 0.75)
    out = []
    for k in range(len(heads)):
        mine = (nearest == k) & (away[:, k] < reach)
        if not mine.any():
            continue
        mask = np.zeros(scene.depth.shape, dtype=bool)
        mask[rows[mine], cols[mine]] = True
        labels, count = surface_labels(scene.depth, mask, JUMP_M, JUMP_SHARE)
        _, squares, _ = surface_stats(labels, scene.depth, count)
        out.append(pixels_where(labels == int(squares.argmax())))
    return out


def _heads(scene: Scene, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.float64]:
    """Plan positions (K, 2) of peaks of head height that stand apart from one another, highest first."""
    import cv2

    height = scene.height[rows, cols]
    tall = height > MIN_HEAD_M - HEAD_DROP_M
    if not tall.any():
        return np.zeros((0, 2))
    height, plan = height[tall], scene.plan[rows[tall], cols[tall]].astype(np.float64)
    low = plan.min(axis=0) - CELL_M
    cell = ((plan - low) / CELL_M).astype(np.int64)
    size = cell.max(axis=0) + 2
    if size.max() > 400:
        return np.zeros((0, 2))
    tops = np.zeros((size[0], size[1]), dtype=np.float32)
    np.maximum.at(tops, (cell[:, 0], cell[:, 1]), height)
    tops[tops < MIN_HEAD_M] = 0
    at = np.moveaxis(np.indices(tops.shape), 0, -1)
    heads: list[NDArray[np.float64]] = []
    left = tops.copy()
    for _ in range(16):
        i, j = np.unravel_index(int(left.argmax()), left.shape)
        peak = left[i, j]
        if peak <= 0:
            break
        crest = (tops > max(peak - HEAD_DROP_M, MIN_HEAD_M - HEAD_DROP_M)).astype(np.uint8)
        _, labels = cv2.connectedComponents(cv2.dilate(crest, np.ones((3, 3), np.uint8)))
        blob = (labels == labels[i, j]) & (crest > 0)
        middle = at[blob].mean(axis=0)
        near = np.hypot(*np.moveaxis(at - middle, -1, 0)) * CELL_M < SHOULDER_M
        place = low + (middle + 0.5) * CELL_M
        # what joins something higher before it has dropped by a head is that one's shoulder; a wide crest is a shelf
        alone = tops[blob].max() <= peak and all(np.hypot(*(place - h)) > SHOULDER_M for h in heads)
        if alone and peak < MAX_HEAD_M and (blob & ~near).sum() < 4:
            heads.append(place)
        left[near | blob] = 0
    return np.array(heads).reshape(-1, 2)


def _on_table(scene: Scene, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) bool: which of the pixels are on a large level surface below shoulder height."""
    out = np.zeros(len(rows), dtype=bool)
    height = scene.height[rows, cols]
    # what runs away from the camera without rising; a person's surface at that height is upright
    above, below = np.maximum(rows - 2, 0), np.minimum(rows + 2, scene.depth.shape[0] - 1)
    rise = np.abs(scene.height[above, cols] - scene.height[below, cols])
    over = scene.plan[above, cols] - scene.plan[below, cols]
    maybe = np.flatnonzero((height > 0.15) & (height < 1.25) & (rise < 0.7 * np.hypot(over[:, 0], over[:, 1])))
    if len(maybe) < 50:
        return out
    height = height[maybe]
    plan = scene.plan[rows[maybe], cols[maybe]]
    cell = np.floor((plan - plan.min(axis=0)) / CELL_M).astype(np.int64)
    cell_id = cell[:, 0] * (cell[:, 1].max() + 1) + cell[:, 1]
    thick = max(0.02, 2.0 * scene.ground.sigma(float(np.median(scene.depth[rows, cols]))))
    level = np.floor(height / thick).astype(np.int64)
    for k in range(int(level.max()) + 1):
        inside = (level == k) | (level == k + 1)
        if len(np.unique(cell_id[inside])) >= MIN_TABLE_CELLS:
            out[maybe[inside]] = True
    return out


def _on_panel(scene: Scene, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) bool: which of the pixels are on a large upright plane below shoulder height."""
    out = np.zeros(len(rows), dtype=bool)
    height = scene.height[rows, cols]
    maybe = np.flatnonzero((height > 0.05) & (height < 1.2))
    if len(maybe) < 50:
        return out
    some = maybe[:: max(1, len(maybe) // 2000)]
    plan = scene.plan[rows[some], cols[some]].astype(np.float64)
    area = scene.area_of(scene.depth[rows[some], cols[some]]) * len(maybe) / len(some)
    half = PANEL_M + min(0.02, 2.0 * scene.ground.sigma(float(np.median(scene.depth[rows, cols]))))
    angles = np.arange(60) * np.pi / 60
    normals = np.stack([np.cos(angles), np.sin(angles)])
    offsets = plan @ normals
    low = offsets.min(axis=0)
    bins = ((offsets - low) / half).astype(np.int64)
    width = int(bins.max()) + 2
    flat = bins + np.arange(len(angles)) * width
    left = np.ones(len(some), dtype=bool)
    everywhere = scene.plan[rows[maybe], cols[maybe]].astype(np.float64)
    free = np.ones(len(maybe), dtype=bool)
    for _ in range(4):
        votes = np.bincount(
            flat[left].ravel(), weights=np.repeat(area[left], len(angles)), minlength=len(angles) * width
        ).reshape(len(angles), width)
        votes = votes[:, :-1] + votes[:, 1:]
        k, j = np.unravel_index(int(votes.argmax()), votes.shape)
        if votes[k, j] < MIN_PANEL_M2:
            break
        n, d = normals[:, k], low[k] + (j + 1) * half
        left &= np.abs(plan @ n - d) >= half
        line = np.flatnonzero(free & (np.abs(everywhere @ n - d) < 1.2 * half))
        free[line] = False
        wide = _wide_bands(height[maybe[line]], everywhere[line] @ np.array([-n[1], n[0]]))
        found = maybe[line[wide]]
        # furniture is wide near the floor too; a trunk with its arms only higher up
        if not (height[found] < LOW_M).any():
            continue
        if scene.area_of(scene.depth[rows[found], cols[found]]).sum() >= MIN_PANEL_M2:
            out[found] = True
    return out


def _wide_bands(height: NDArray[np.float32], along: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) bool: the points of an upright plane where it is wide without a gap at their height: legs never are."""
    out = np.zeros(len(height), dtype=bool)
    band = np.floor(height / BAND_M).astype(np.int64)
    for k in range(int(band.max(initial=-1)) + 1):
        here = np.flatnonzero(band == k)
        if len(here) < 10:
            continue
        here = here[np.argsort(along[here], kind="stable")]
        gaps = np.flatnonzero(np.diff(along[here]) > 0.04)
        for a, b in zip(np.concatenate([[0], gaps + 1]), np.concatenate([gaps, [len(here) - 1]]), strict=True):
            if along[here[b]] - along[here[a]] >= MIN_PANEL_M:
                out[here[a : b + 1]] = True
    return out
