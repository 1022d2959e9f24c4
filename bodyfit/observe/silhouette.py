"""From a person's main surface to a label for every pixel: person, not the person, or not to be known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bodyfit.observe.ground import Ground
from bodyfit.observe.scene import JUMP_M, JUMP_SHARE, Scene, pixels_where

BACKGROUND, PERSON, UNKNOWN = 0, 1, 2

FOOTPRINT_M = 0.2
"""Pieces that a nearer thing or the person's own arm cuts off lie within this of the rest, seen from above."""
LIMB_REACH_M = 0.8
"""A limb that the body hides the root of is within this of the rest, seen from above."""
LIMB_RADIUS_M = 0.13
"""Half the width of a clothed thigh, with room."""
MAX_LIMB_M = 1.1
"""A leg from hip to toe, or an arm with the shoulder."""
RAISED_M = 0.5
"""The fingers of a raised arm reach this far above the head."""
BRIDGE_PX = 4
"""Where more than this of what lies behind is seen between two surfaces, nothing joins them that could be hidden."""
MAX_PIECE_M2 = 0.4
"""A separate piece of a person is smaller than this."""
SOLE_REACH_M = 0.06
"""From where a foot rises out of the floor's noise to its sole's rim."""
SOLE_BAND_M = 0.025
"""Floor this close to a foot may be the foot's rim: its height does not tell."""
SOLE_HEIGHT_M, FOOT_HEIGHT_M = 0.04, 0.10
"""What is lower than the former may be floor; what is lower than the latter may be a foot."""
OCCLUDER_GAP_M = 0.10
"""A reading this much nearer than the person beside it may hide a part of them."""
OCCLUDER_REACH_M = 1.0
"""... unless it is farther to the side than an arm reaches."""
EDGE_BAND_M = 0.06
"""No reading this close to the person may be the person: stereo shadows, grazing surfaces."""
HAIR_BAND_M = 0.18
"""No reading above the head may be hair, which sends little light back."""
SPARSE = 400
"""Pixels of a surface that stand for all of it where ways between surfaces are looked at."""
OPEN_AREA_M2 = 0.3
"""Without readings over more than this, away from a person seen from head to foot, there is just nothing in reach."""


@dataclass(frozen=True)
class NearGround:
    """The floor under the person: the plane shifted to it, and from what height on a reading is a foot's."""

    ground: Ground
    height: NDArray[np.float32]
    foot_m: float


def floor_at_feet(scene: Scene, person: NDArray[np.bool_]) -> NearGround:
    """Shifts the floor to the readings around the person, where carpet, lens or sensor bend it by a centimetre."""
    ground = scene.ground
    if ground.plane is None:
        return NearGround(ground, scene.height, 0.0)
    rows, cols = pixels_where(person)
    low = scene.height[rows, cols] < 0.3
    if low.any():
        rows, cols = rows[low], cols[low]
    z = float(np.median(scene.depth[rows, cols]))
    foot_m = float(np.clip(2.5 * ground.sigma(z), 0.012, 0.03))
    # the floor around the feet, in the picture and in the room
    reach = round(0.35 / (scene.pitch * z))
    v0, v1 = max(0, rows.min() - reach // 2), rows.max() + reach // 2
    u0, u1 = max(0, cols.min() - reach), cols.max() + reach
    box = (slice(v0, v1, 2), slice(u0, u1, 2))
    near = scene.floor[box] & (np.abs(scene.height[box]) < 0.06)
    lo, hi = np.percentile(scene.plan[rows, cols], [1, 99], axis=0)
    for axis in (0, 1):
        near &= (scene.plan[box][..., axis] > lo[axis] - 0.35) & (scene.plan[box][..., axis] < hi[axis] + 0.35)
    residual = scene.height[box][near]
    if len(residual) < 100:
        return NearGround(ground, scene.height, foot_m)
    shift = float(np.median(residual))
    spread = 1.4826 * float(np.median(np.abs(residual - shift)))
    if abs(shift) > 0.03:
        return NearGround(ground, scene.height, foot_m)
    height = np.where(scene.depth > 0, scene.height - np.float32(shift), np.float32(0))
    shifted = replace(ground, plane=ground.plane - np.array([0, 0, 0, shift]))
    return NearGround(shifted, height, float(np.clip(2.5 * spread, 0.012, 0.03)))


def gather(scene: Scene, main: NDArray[np.bool_], near: NearGround) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The whole person: the main surface, pieces that something in front cuts off from it, and the feet to the sole.

    Returns:
        (H, W) bool, the person's readings; and (H, W) bool, readings that may be theirs.
    """
    from bodyfit.kernels.depthgrid import grow_into

    pieces, doubtful = _pieces(scene, main)
    person = main | pieces
    if scene.ground.plane is None:
        return person, doubtful
    rows, cols = np.flatnonzero(person.any(1)), np.flatnonzero(person.any(0))
    steps = max(2, round(SOLE_REACH_M / (scene.pitch * float(np.median(scene.depth[person])))))
    box = (
        slice(max(0, rows[0] - steps), rows[-1] + steps + 1), slice(max(0, cols[0] - steps), cols[-1] + steps + 1)
    )  # fmt: skip
    height = near.height[box]
    allowed = (height > near.foot_m) & (height < 0.25) & ~scene.wall[box]  # no reading has height 0
    depth = np.ascontiguousarray(scene.depth[box])
    person[box] = grow_into(depth, np.ascontiguousarray(person[box]), allowed, steps, JUMP_M, JUMP_SHARE)
    return person, doubtful & ~person


def _pieces(scene: Scene, main: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Surfaces that are the person's though nothing in the picture joins them, and surfaces that may be.

    Theirs is what stands, as a whole, over their own footprint; and what borders on them in the picture, within an
    arm's reach, and is as thin as a limb: the far leg of a side view, a hand stretched towards the camera. What borders
    on them within reach and is thicker may be a part of them or a thing beside them.
    """
    import cv2

    cell_m = 0.05
    main_v, main_u = pixels_where(main)
    own = scene.plan[main_v, main_u]
    margin = LIMB_REACH_M + 2 * cell_m
    lo = np.array([own[:, 0].min(), own[:, 1].min()]) - margin
    size = np.ceil((np.array([own[:, 0].max(), own[:, 1].max()]) + margin - lo) / cell_m).astype(int)
    theirs, doubtful = np.zeros_like(main), np.zeros_like(main)
    small = (scene.pixels >= 12) & (scene.area_m2 < MAX_PIECE_M2)
    # a surface that the person's own was cut from (a desk they touch) is not a piece of them
    small[scene.surface[main_v, main_u]] = False
    small[0] = False
    other = small[scene.surface] & ~main
    if size.max() > 200 or not other.any():
        return theirs, doubtful
    grid = np.ones((size[0], size[1]), np.uint8)
    cells = ((own - lo) / cell_m).astype(np.int64)
    grid[cells[:, 0], cells[:, 1]] = 0
    from_footprint = cv2.distanceTransform(grid, cv2.DIST_L2, 5) * cell_m

    v, u = pixels_where(other)
    labels = scene.surface[v, u]
    where = np.floor((scene.plan[v, u] - lo) / cell_m).astype(np.int64)
    inside = (where >= 0).all(1) & (where < size).all(1)
    away = np.full(len(where), np.inf)
    away[inside] = from_footprint[where[inside, 0], where[inside, 1]]
    away[scene.height[v, u] > scene.height[main_v, main_u].max() + RAISED_M] = np.inf
    count = len(scene.pixels)
    over = np.bincount(labels, weights=away < FOOTPRINT_M, minlength=count) > 0.9 * scene.pixels
    good = small & (np.bincount(labels, weights=away < LIMB_REACH_M, minlength=count) > 0.95 * scene.pixels)
    if not good.any():
        return theirs, doubtful
    distance = cv2.distanceTransform((~main).astype(np.uint8), cv2.DIST_L2, 3)
    for label in np.flatnonzero(good):
        v0, v1, u0, u1 = scene.boxes[label]
        box = (slice(v0, v1), slice(u0, u1))
        piece = scene.surface[box] == label
        scale = scene.pitch * float(np.median(scene.depth[box][piece]))
        gap = distance[box][piece]
        inner = cv2.distanceTransform(cv2.copyMakeBorder(piece.astype(np.uint8), 1, 1, 1, 1, 0), cv2.DIST_L2, 3)
        length = float(np.hypot(v1 - v0, u1 - u0)) * scale
        limb = float(inner.max()) * scale < LIMB_RADIUS_M and length < MAX_LIMB_M
        borders = int((gap < 4).sum()) >= min(5, len(gap) // 4)
        cut_off = over[label] and gap.min() * scale < 0.35 and _hidden_between(scene, main, int(label))
        if cut_off or (borders and limb):
            theirs[box] |= piece
        elif borders:
            doubtful[box] |= piece
    return theirs, doubtful


def _hidden_between(scene: Scene, main: NDArray[np.bool_], label: int) -> bool:
    """Whether what joins a surface to the main one may be hidden: on the straight ways from where it is nearest in the
    picture no more than a seam of something behind both of them is seen."""
    v0, v1, u0, u1 = scene.boxes[label]
    rows, cols = pixels_where(scene.surface[v0:v1, u0:u1] == label)
    rows, cols = rows + v0, cols + u0
    main_v, main_u = pixels_where(main)
    near = np.stack([main_v, main_u], 1)[:: max(1, len(main_v) // SPARSE)]
    own = np.stack([rows, cols], 1)[:: max(1, len(rows) // SPARSE)]
    squares = ((own[:, None, :] - near[None]) ** 2).sum(2)
    nearest = squares.argmin(1)
    first = np.argsort(squares[np.arange(len(own)), nearest], kind="stable")[: max(1, len(own) // 4)]
    seen = []
    for k in first:
        a, b = own[k], near[nearest[k]]
        steps = int(np.abs(b - a).max()) + 1
        way = np.rint(np.linspace(a, b, steps + 1)).astype(np.int64)
        depth = scene.depth[way[:, 0], way[:, 1]]
        behind = max(float(scene.depth[tuple(a)]), float(scene.depth[tuple(b)])) + OCCLUDER_GAP_M
        floor = scene.floor[way[:, 0], way[:, 1]]
        seen.append(int(((depth > behind) | floor).sum()))
    return float(np.median(seen)) <= BRIDGE_PX


def keep_consistent(scene: Scene, mask: NDArray[np.bool_], near: NearGround) -> NDArray[np.bool_]:
    """Readings inside a given mask that are the person's: a mask may take in a rim of wall or floor."""
    from bodyfit.kernels.depthgrid import surface_labels

    reading = mask & (scene.depth > 0)
    if scene.ground.plane is not None:
        reading &= near.height > 0.5 * near.foot_m
    if not reading.any():
        return reading
    labels, count = surface_labels(scene.depth, reading, JUMP_M, JUMP_SHARE)
    flat = labels[reading]
    main = int(np.bincount(flat, weights=~scene.wall[reading], minlength=count + 1).argmax())
    own = labels == main
    lo = np.percentile(scene.plan[own], 1, axis=0) - LIMB_REACH_M
    hi = np.percentile(scene.plan[own], 99, axis=0) + LIMB_REACH_M
    within = ((scene.plan[reading] > lo) & (scene.plan[reading] < hi)).all(1) & ~scene.wall[reading]
    good = np.bincount(flat, weights=within, minlength=count + 1) > 0.5 * np.bincount(flat, minlength=count + 1)
    good[0], good[main] = False, True
    return reading & good[labels]


def label_pixels(
    scene: Scene,
    person: NDArray[np.bool_],
    near: NearGround,
    raw: NDArray[np.float32],
    whole: bool,
    mask: NDArray[np.bool_] | None,
    doubtful: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """A label for every pixel.

    Args:
        scene: what was measured of every pixel.
        person: (H, W) bool, the readings that are the person's.
        near: the floor at the feet.
        raw: (H, W) depth before flying pixels were dropped: which side of an edge a mixed pixel is on.
        whole: the person is seen from head to foot, so no large part of them can be without readings.
        mask: (H, W) bool as given with the recording, or None.
        doubtful: (H, W) bool, readings that may be the person's.

    Returns:
        (H, W) uint8 of BACKGROUND, PERSON and UNKNOWN.
    """
    from bodyfit.kernels.depthgrid import nearest_pixel
    from bodyfit.kernels.follow import LEAST_SOLE_PX

    label = np.zeros(person.shape, np.uint8)
    shape = mask if mask is not None else person
    rows, cols = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
    own_depth = scene.depth[person]
    z, deepest = float(np.median(own_depth)), float(own_depth.max())
    pixel = scene.pitch * z  # its width at the person
    reach = int(OCCLUDER_REACH_M / pixel) + 1
    v0, v1 = max(0, rows[0] - reach // 2), min(person.shape[0], rows[-1] + reach + 1)
    u0, u1 = max(0, cols[0] - reach), min(person.shape[1], cols[-1] + reach + 1)
    box = (slice(v0, v1), slice(u0, u1))
    own, depth, floor = np.ascontiguousarray(person[box]), scene.depth[box], scene.floor[box]
    distance, owner = nearest_pixel(own)
    flat_depth = np.ascontiguousarray(depth).ravel()

    out = np.zeros(own.shape, np.uint8)
    reading = depth > 0
    v, u = pixels_where(reading & ~own & ~floor & (depth < deepest - OCCLUDER_GAP_M) & (distance < reach))
    hides = depth[v, u] < flat_depth[owner[v, u]] - OCCLUDER_GAP_M
    out[v[hides], u[hides]] = UNKNOWN
    if doubtful is not None:
        out[doubtful[box]] = UNKNOWN
    if scene.ground.plane is not None:
        height = near.height[box]
        v, u = pixels_where(
            reading & ~own & (height < SOLE_HEIGHT_M) & (distance <= max(SOLE_BAND_M / pixel, LEAST_SOLE_PX))
        )
        foot = height.ravel()[owner[v, u]] < FOOT_HEIGHT_M
        out[v[foot], u[foot]] = UNKNOWN
    out[own] = PERSON
    if mask is not None:
        given = mask[box]
        out[given & ~reading] = PERSON
        out[given & reading & ~own] = UNKNOWN
        label[box] = out
        return label

    _label_gaps(out, own, reading, distance, rows[0] - v0, pixel, whole)
    _label_mixed(out, own, reading, np.ascontiguousarray(raw[box]), distance, owner)
    label[box] = out
    return label


def _label_gaps(
    out: NDArray[np.uint8],
    own: NDArray[np.bool_],
    reading: NDArray[np.bool_],
    distance: NDArray[np.float32],
    top: int,
    pixel: float,
    whole: bool,
) -> None:
    """Labels what has no reading, in place: enclosed by the person, by background, or open."""
    import cv2

    from bodyfit.kernels.depthgrid import gap_facts
    from bodyfit.kernels.follow import UNREAD_PX

    count, numbered, stats, _ = cv2.connectedComponentsWithStats((~reading).astype(np.uint8), connectivity=4)
    gaps = np.asarray(numbered, dtype=np.int32)
    by_background, by_person, by_unsure, border = gap_facts(gaps, out, count).T
    area = stats[:, cv2.CC_STAT_AREA] * pixel**2
    enclosed = by_person & ~by_background & ~by_unsure & ~border
    dropout = ~by_person & ~by_unsure & ~border & (area < 0.02)
    open_air = (area > OPEN_AREA_M2) | border
    kind = np.full(count, 1, np.uint8)  # 1: unknown
    kind[enclosed], kind[dropout] = 2, 3
    if whole:
        kind[open_air] = 4
    kind[0] = 0
    per_pixel = kind[gaps]
    out[per_pixel == 1] = UNKNOWN
    inner = per_pixel == 2
    out[inner] = UNKNOWN
    out[inner & (distance <= UNREAD_PX)] = PERSON  # a crease or a speck; a hole wider than that might be one
    air = per_pixel == 4
    out[air & (distance < EDGE_BAND_M / pixel)] = UNKNOWN
    # hair: above the head's crown
    crown = np.flatnonzero(own[top : top + max(1, round(0.1 / pixel))].any(0))
    if len(crown):
        h, side = round(HAIR_BAND_M / pixel), round(EDGE_BAND_M / pixel)
        head = np.zeros_like(air)
        head[max(0, top - h) : top + 1, max(0, crown[0] - side) : crown[-1] + side + 1] = True
        out[air & head] = UNKNOWN


def _label_mixed(
    out: NDArray[np.uint8],
    own: NDArray[np.bool_],
    reading: NDArray[np.bool_],
    raw: NDArray[np.float32],
    distance: NDArray[np.float32],
    owner: NDArray[np.int32],
) -> None:
    """Labels dropped readings on the person's rim, in place: nearer to them than to what is behind is theirs.

    A mixed pixel's depth lies between the two surfaces in the measure in which it sees each of them.
    """
    from bodyfit.kernels.follow import MIXED_BEFORE_M, UNREAD_PX

    v, u = pixels_where((distance <= UNREAD_PX) & (raw > 0) & ~reading)
    beside = raw.ravel()[owner[v, u]]
    others = np.pad(np.where(reading & ~own, raw, 0), 2)
    behind = np.zeros(len(v), np.float32)
    for dv in range(5):
        for du in range(5):
            behind = np.maximum(behind, others[v + dv, u + du])
    mixed = raw[v, u]
    theirs = (behind > beside) & (mixed < 0.5 * (beside + behind)) & (mixed > beside - MIXED_BEFORE_M)
    out[v[theirs], u[theirs]] = PERSON
