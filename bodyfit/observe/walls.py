"""Large upright planes: walls, doors, cupboards. In plan view they are long lines, and no person is one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_WALLS = 5
MIN_AREA_M2 = 1.2
"""A person shows the camera half to one square metre in all, rounded: a slab that holds more is a wall."""
MIN_RUN_M = 1.2
"""A wall is at least so wide without a gap; the people in a row that one plane cuts are not."""
BIN_M = 0.05
ANGLES = 45
SLAB_M = 0.04


def find_walls(
    plan: NDArray[np.float64], area: NDArray[np.float64], noise: NDArray[np.float64]
) -> list[tuple[float, float, float, float, float]]:
    """Walls as lines in plan view, the largest first.

    Args:
        plan: (N, 2) points seen from above, metres.
        area: (N,) m² that each point stands for.
        noise: (N,) standard deviation of a point's position, metres.

    Returns:
        For each wall (nx, ny, d, start, end): nx·x + ny·y + d = 0, and where along (-ny, nx) it runs.
    """
    walls: list[tuple[float, float, float, float, float]] = []
    if len(plan) < 200:
        return walls
    # a few thousand points say where a wall is; every one has its share of the area
    keep = np.arange(0, len(plan), max(1, len(plan) // 2500))
    plan, area, noise = plan[keep], area[keep] * (len(plan) / len(keep)), noise[keep]
    angles = np.arange(ANGLES) * np.pi / ANGLES
    normals = np.stack([np.cos(angles), np.sin(angles)])
    left = np.ones(len(plan), dtype=bool)
    reach = SLAB_M + 2 * noise
    offsets = plan @ normals
    low = offsets.min(axis=0)
    bins = ((offsets - low) / BIN_M).astype(np.int64)
    width = int(bins.max()) + 2
    flat = bins + np.arange(ANGLES) * width
    for _ in range(MAX_WALLS):
        if area[left].sum() < MIN_AREA_M2:
            break
        votes = np.bincount(
            flat[left].ravel(), weights=np.repeat(area[left], ANGLES), minlength=ANGLES * width
        ).reshape(ANGLES, width)
        votes = votes[:, :-1] + votes[:, 1:]
        k, j = np.unravel_index(int(votes.argmax()), votes.shape)
        if votes[k, j] < 0.6 * MIN_AREA_M2:
            break
        n, d = normals[:, k], -(low[k] + (j + 1) * BIN_M)
        inside = left
        for gate in (2.0, 1.0, 1.0):
            inside = left & (np.abs(plan @ n + d) < gate * reach)
            if inside.sum() < 30:
                break
            w = area[inside] / noise[inside] ** 2
            mean = (plan[inside] * w[:, None]).sum(0) / w.sum()
            away = plan[inside] - mean
            n = np.linalg.eigh((away * w[:, None]).T @ away)[1][:, 0]
            d = -float(n @ mean)
        inside = left & (np.abs(plan @ n + d) < reach)
        along = plan[inside] @ np.array([-n[1], n[0]])
        for start, end in _runs(along, area[inside]):
            walls.append((float(n[0]), float(n[1]), float(d), start, end))
        left = left & ~inside
    return walls


def _runs(along: NDArray[np.float64], area: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Stretches of a line without a gap that are long and large enough for a wall."""
    if not len(along):
        return []
    low = along.min()
    filled = np.bincount(((along - low) / 0.1).astype(np.int64), weights=area) > 0.02  # 20 cm of height at least
    padded = np.concatenate([[False], filled, [False]])
    # a person or a dropout in front leaves a gap: bridge up to 60 cm, but count only what is there
    starts, ends = np.flatnonzero(padded[1:] & ~padded[:-1]), np.flatnonzero(~padded[1:] & padded[:-1])
    runs: list[list[int]] = []
    for s, e in zip(starts.tolist(), ends.tolist(), strict=True):
        if runs and s - runs[-1][1] <= 6:
            runs[-1][1] = e
        else:
            runs.append([s, e])
    out = []
    for s, e in runs:
        inside = (along >= low + 0.1 * s) & (along < low + 0.1 * e)
        longest = max((b - a for a, b in zip(starts, ends, strict=True) if s <= a and b <= e), default=0)
        if 0.1 * longest >= MIN_RUN_M and area[inside].sum() >= MIN_AREA_M2:
            out.append((float(low + 0.1 * s), float(low + 0.1 * e)))
    return out
