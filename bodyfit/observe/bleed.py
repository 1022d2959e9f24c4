"""Where a stereo matcher gave the person's depth to pixels beside them: the rim of what it sees may not be theirs.

A matching window that straddles an edge matches the side with more texture, often the nearer one: the nearer surface
grows by up to half a window ("foreground fattening"; Scharstein and Szeliski, "A taxonomy and evaluation of dense
two-frame stereo correspondence algorithms", IJCV 2002), here more, there less. Half a centimetre on each side of a
person is three centimetres of every girth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bodyfit.observe.noise import DepthNoise
from bodyfit.observe.silhouette import BACKGROUND, PERSON, UNKNOWN

NOT_THEIRS = 0.25
"""Of the reach of the bleeding this much is taken for the background's: the least that it is nearly everywhere."""
JUMP_M, JUMP_SIGMAS = 0.04, 2.0
"""The far side of an edge is farther than both together."""
PATCH_PX = 4
GOLDEN = (0.7548776662, 0.5698402910)
"""Steps of the plane's golden-ratio sequence (M. Roberts 2018), which spreads a share of the patches evenly."""
CORNER_PX = 0.2
"""A rim of n pixels along an edge leaves out the pixels that touch it with a corner only."""


def without_bleeding(
    depth: NDArray[np.float32], label: NDArray[np.uint8], noise: DepthNoise
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Depth and label (H, W) without the readings on the near side of an edge that a matcher may have made.

    The first quarter of the bleeding's reach (a fraction of a pixel as that share of the image's patches) becomes
    background, the rest of it unknown: a body may end there, but need not. A rim before the person's own body only
    loses its depth.

    Args:
        depth: (H, W) metres, 0 = no reading.
        label: (H, W) BACKGROUND, PERSON or UNKNOWN.
        noise: the sensor's noise; its length is half a matching window, and so the reach of the bleeding.
    """
    rows, cols = np.flatnonzero((label == PERSON).any(1)), np.flatnonzero((label == PERSON).any(0))
    if not len(rows) or noise.length_px <= 0:
        return depth, label
    most = int(np.ceil(noise.length_px))
    box = (
        slice(max(0, rows[0] - most - 2), rows[-1] + most + 3), slice(max(0, cols[0] - most - 2), cols[-1] + most + 3)
    )  # fmt: skip
    z, kind = depth[box], label[box]
    near, far = _sides(z, kind)
    mine = ((kind == PERSON) | ((kind == UNKNOWN) & (z > 0))) & (near > 0)
    jump = np.float32(JUMP_M) + np.float32(JUMP_SIGMAS * noise.inverse_sigma) * near * near
    open_air = (kind == BACKGROUND) & (far <= 0)
    row, col = np.indices(z.shape)
    sure_px = NOT_THEIRS * noise.length_px
    sure = np.floor(sure_px) + ((row // PATCH_PX * GOLDEN[0] + col // PATCH_PX * GOLDEN[1]) % 1.0 < sure_px % 1.0)
    others, rim, edge_of_mine = (np.zeros(z.shape, bool) for _ in range(3))
    h, w = z.shape
    for dv in range(-most, most + 1):
        for du in range(-most, most + 1):
            away = float(np.hypot(dv, du))
            if not 0 < away <= noise.length_px + CORNER_PX:
                continue
            at = (slice(max(0, dv), h + min(0, dv)), slice(max(0, du), w + min(0, du)))
            of = (slice(max(0, -dv), h + min(0, -dv)), slice(max(0, -du), w + min(0, -du)))
            edge = mine[of] & ((far[at] > near[of] + jump[of]) | open_air[at])
            outer = edge & (kind[at] == BACKGROUND)
            edge_of_mine[of] |= edge
            rim[of] |= outer
            others[of] |= outer & (away <= sure[of] + CORNER_PX)
    new_depth, new_label = depth.copy(), label.copy()
    new_label[box] = np.where(others, BACKGROUND, np.where(rim & (kind == PERSON), UNKNOWN, kind)).astype(np.uint8)
    new_depth[box] = np.where(others | (edge_of_mine & (kind == PERSON)), np.float32(0), z)
    return new_depth, new_label


def _sides(z: NDArray[np.float32], kind: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What each pixel (H, W) is as the near side of an edge and as its far side, metres, 0 = nothing.

    A reading that was lost at an edge may be of either side: the nearest and the farthest around it; but what is not
    the person's lies no nearer than its surroundings without them.
    """
    import cv2

    square, none = np.ones((3, 3), np.uint8), np.float32(99)
    lowest = np.asarray(cv2.erode(np.where(z > 0, z, none), square), np.float32)
    beside = np.asarray(cv2.dilate(np.where(kind == PERSON, np.float32(0), z), square), np.float32)
    highest = np.where(kind == PERSON, np.asarray(cv2.dilate(z, square), np.float32), beside)
    return np.where(z > 0, z, np.where(lowest < none, lowest, np.float32(0))), np.where(z > 0, z, highest)
