"""A given mask mended where the depth shows that it has holes or bites: segmentations are rarely exact.

The mask still says who the person is. Only pixels within a hand's breadth of it, at the depth of the mask beside them
and above the floor, are looked at: inside the mask's closing they become the person, outside they become unknown (a
bite at a limb's end, or a held thing that the mask leaves out on purpose).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera

REACH_M = 0.08
SAME_DEPTH_M = 0.05
ABOVE_FLOOR_M = 0.05


def mend_mask(
    mask: NDArray[np.bool_],
    depth: NDArray[np.float32],
    camera: Camera,
    height: NDArray[np.float32] | None,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What to add to a mask (H, W) and what to call unknown, both (H, W) bool.

    depth (H, W) metres; height (H, W) metres above the floor, or None where no floor is known.
    """
    import cv2

    nothing = np.zeros_like(mask)
    seen = mask & (depth > 0)
    if not seen.any():
        return nothing, nothing
    reach = int(np.clip(REACH_M * camera.fx / float(np.median(depth[seen])), 2, 40))
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (
        slice(max(0, rows[0] - reach), rows[-1] + reach + 1),
        slice(max(0, cols[0] - reach), cols[-1] + reach + 1),
    )
    inner, z = mask[box].astype(np.uint8), depth[box]
    distance, label = cv2.distanceTransformWithLabels(
        1 - (inner & (z > 0)).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # each label belongs to one masked pixel with a reading: its depth, at every pixel that is nearest to it
    number = np.asarray(label, np.int32)
    own = np.zeros(int(number.max()) + 1, np.float32)
    at = (inner > 0) & (z > 0)
    own[number[at]] = z[at]
    near = own[number]
    alike = (inner == 0) & (z > 0) & (distance <= reach) & (np.abs(z - near) < SAME_DEPTH_M)
    if height is not None:
        alike &= height[box] > ABOVE_FLOOR_M
    # an edge of the person's own depth profile would be continued for ever: no further than the closing says
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    padded = cv2.copyMakeBorder(inner, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc)[reach:-reach, reach:-reach] > 0
    add, unknown = nothing, nothing.copy()
    add[box] = alike & closed
    unknown[box] = alike & ~closed
    return add, unknown
