"""A given mask mended where the depth shows that it has holes or bites: segmentations are rarely exact.

The mask still says who the person is. Of a mask that follows the edges of the depth only pixels within a hand's breadth
of it, at the depth of the mask beside them and above the floor, are looked at: inside the mask's closing they become
the person, outside they become unknown (a bite at a limb's end, or a held thing that the mask leaves out on purpose).
A mask that misses the depth's edges nearly everywhere says who, but not how far: hands are thinner than its error.
There the person's surface is followed to where it ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bodyfit.camera import Camera
from bodyfit.observe.scene import JUMP_M, JUMP_SHARE, Scene

REACH_M = 0.08
SAME_DEPTH_M = 0.05
ABOVE_FLOOR_M = 0.05
OFF_EDGE_PX = 1
OFF_EDGE_SHARE = 0.3
"""a mask whose border lies further than those pixels from the depth's edge on this share of its length is rough"""
LIMB_END_M = 0.45
"""a forearm with its hand: so much of a limb a rough mask may have lost"""
LIMB_END_M2 = 0.06
"""and what that shows of itself"""
RIM_M = 0.03


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


def is_rough(mask: NDArray[np.bool_], own: NDArray[np.bool_], scene: Scene, above: NDArray[np.bool_]) -> bool:
    """Whether a mask's border misses the edges of the depth nearly everywhere.

    Args:
        mask: (H, W) bool as given.
        own: (H, W) bool, its readings that are the person's.
        scene: what was measured of every pixel.
        above: (H, W) bool, readings higher than the floor's noise.
    """
    import cv2

    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    margin = 3 * OFF_EDGE_PX
    box = (
        slice(max(0, rows[0] - margin), rows[-1] + margin + 1),
        slice(max(0, cols[0] - margin), cols[-1] + margin + 1),
    )
    given, mine, depth = mask[box].astype(np.uint8), own[box], np.ascontiguousarray(scene.depth[box])
    square = np.ones((3, 3), np.uint8)
    border = (given > 0) & (cv2.erode(given, square) == 0)
    if not border.any():
        return False
    from bodyfit.kernels.depthgrid import grow_into

    # short of the edge: the person's surface goes on beyond the border
    allowed = above[box] & ~scene.wall[box] & ~scene.floor[box] & (given == 0)
    beyond = grow_into(depth, mine, allowed, OFF_EDGE_PX + 1, JUMP_M, JUMP_SHARE) & ~mine
    outside = cv2.distanceTransform(1 - given, cv2.DIST_L2, 3)
    past = beyond & (outside > OFF_EDGE_PX - 0.5)
    around = cv2.dilate(past.astype(np.uint8), np.ones((2 * OFF_EDGE_PX + 1,) * 2, np.uint8)) > 0
    # past the edge: none of the person's readings is near
    from_own = cv2.distanceTransform((~mine).astype(np.uint8), cv2.DIST_L2, 3)
    off = around | (from_own > OFF_EDGE_PX + 0.5)
    return float(off[border].mean()) > OFF_EDGE_SHARE


def follow_surface(
    own: NDArray[np.bool_], scene: Scene, above: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The person's surface, followed from a rough mask's readings to where it ends.

    What goes on for longer than a limb's end, or is wider, is something that the person touches: doubtful.

    Returns:
        (H, W) bool, the person's readings; (H, W) bool, readings that may be theirs.
    """
    import cv2

    from bodyfit.kernels.depthgrid import grow_into

    pixel = scene.pitch * float(np.median(scene.depth[own]))
    steps = max(2, round(LIMB_END_M / pixel))
    rows, cols = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
    box = (
        slice(max(0, rows[0] - steps - 2), rows[-1] + steps + 3),
        slice(max(0, cols[0] - steps - 2), cols[-1] + steps + 3),
    )
    mine, depth = np.ascontiguousarray(own[box]), np.ascontiguousarray(scene.depth[box])
    allowed = above[box] & ~scene.wall[box] & ~scene.floor[box]
    grown = grow_into(depth, mine, allowed, steps, JUMP_M, JUMP_SHARE)
    further = grow_into(depth, grown, allowed, 2, JUMP_M, JUMP_SHARE) & ~grown
    rim = cv2.distanceTransform((~mine).astype(np.uint8), cv2.DIST_L2, 3) <= max(1.5, RIM_M / pixel)
    beyond = ((grown & ~rim) | further).astype(np.uint8)
    count, numbered, stats, _ = cv2.connectedComponentsWithStats(beyond, connectivity=8)
    pieces = np.asarray(numbered, np.int32)
    endless = np.bincount(pieces[further], minlength=count) > 0
    too_wide = stats[:, cv2.CC_STAT_AREA] * pixel**2 > LIMB_END_M2
    foreign = (endless | too_wide)[pieces] & (pieces > 0)
    person, doubtful = own.copy(), np.zeros_like(own)
    person[box] = grown & ~foreign
    doubtful[box] = (grown | further) & foreign
    return person, doubtful
