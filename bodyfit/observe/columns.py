"""Upright columns within a larger thing: people who touch a desk, a box or one another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bodyfit.observe.scene import JUMP_M, JUMP_SHARE, Scene, pixels_where

CELL_M = 0.05
"""Width of a cell of the plan view."""
MIN_TABLE_CELLS = 72
"""A level surface of more than 0.18 m² is a table's: shoulders, seen from above, are a third of that."""
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
    scene: Scene, rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """What stands under each head-like peak of a thing, table tops taken out.

    Args:
        scene: what was measured of every pixel.
        rows, cols: (N,) the thing's pixels.

    Returns:
        For each peak, highest first, rows and cols of the largest connected surface around its plumb line.
    """
    from bodyfit.kernels.depthgrid import surface_labels, surface_stats

    keep = ~_on_table(scene, rows, cols)
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
    at = np.stack(np.indices(tops.shape), axis=-1)
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
    maybe = np.flatnonzero((height > 0.15) & (height < 1.25))
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
