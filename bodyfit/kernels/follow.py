"""Which pixels are the person's, when it is known where they were a moment ago: labels on a thinned grid."""

from __future__ import annotations

import numpy as np
from numba import njit

from bodyfit.kernels.scalar_evidence import BACKGROUND, PERSON, UNKNOWN

CANDIDATE = 3
AROUND_PX = 3
"""how far a rim is looked for at most, whatever a stereo matcher's window"""

LEAST_SOLE_PX = 1.5
"""floor this near to a foot may be its rim, however wide a pixel is"""
UNREAD_PX = 2.5
"""so near to the person what has no reading may be theirs"""
MIXED_OVER, MIXED_BEFORE_M = 1.03, 0.15
"""behind a mixed pixel something is farther than the person by this factor; it is no nearer than this before them"""

# places in `rules`
(
    SEED, REACH, DEEP, STEP, STEP_PX, FLOOR, BEHIND, BLEED_PX, SURE_PX, JUMP, JUMP_PER_Z2, NEARER, SOLE, SOLE_HEIGHT,
    FOOT_HEIGHT,
) = range(15)  # fmt: skip
NUM_RULES = 15


@njit(nogil=True, cache=True)
def follow_labels(
    depth, flying, row0, col0, stride, drawn, near_model, fx, fy, cx, cy, plane, background, mask, rules, queue,
    out_depth, out_label,
):  # fmt: skip
    """Labels a grid over a depth image from where the body is expected: connected readings near it are the person's.

    Args:
        depth: (H, W) float32 metres, 0 = no reading; flying (Hb, Wb) bool: readings of no surface in the grid's box.
        row0, col0, stride: the grid's pixel (r, c) is the image's (row0 + r·stride, col0 + c·stride).
        drawn, near_model: (h, w) depth of the expected body, 0 = none, and the nearest pixel that has one.
        fx, fy, cx, cy: the grid's intrinsics, pixels of the grid.
        plane: (4,) the floor in the camera, n·x + d = 0, n pointing up; zeros where unknown.
        background: (H, W) metres, what was seen there without the person, 0 = unknown; or of size (1, 1): nothing.
        mask: (H, W) bool of whom to follow; or of size (1, 1): nobody is marked.
        rules: (NUM_RULES,) see the names above.
        queue: (h·w,) int32 scratch.
        out_depth, out_label: (h, w) filled.

    Returns:
        How many pixels are the person's, and how many of the others lie nearer than the body and before it.
    """
    h, w = drawn.shape
    masked, known = mask.shape[0] > 1, background.shape[0] > 1
    floor_known = plane[0] != 0 or plane[1] != 0 or plane[2] != 0
    pitch = np.float32(2.0) / (fx + fy)
    n = 0
    for r in range(h):
        for c in range(w):
            v, u = row0 + r * stride, col0 + c * stride
            z = depth[v, u]
            if z > 0 and flying[v - row0, u - col0]:
                z = np.float32(0.0)
            out_depth[r, c] = z
            if z <= 0:
                out_label[r, c] = UNKNOWN
                continue
            out_label[r, c] = CANDIDATE
            above = plane[0] * (np.float32(c) - cx) / fx * z + plane[1] * (np.float32(r) - cy) / fy * z
            above += plane[2] * z + plane[3]
            room = known and background[v, u] > 0 and z > background[v, u] - rules[BEHIND] * z
            if room or (floor_known and above < rules[FLOOR]):
                out_label[r, c] = BACKGROUND
            elif drawn[r, c] > 0 and abs(z - drawn[r, c]) < rules[SEED] and (not masked or mask[v, u]):
                out_label[r, c] = PERSON
                queue[n] = r * w + c
                n += 1
    # what hangs together with it is the person's too, as far as a limb gets in the time
    first = 0
    while first < n:
        place = queue[first]
        first += 1
        r, c = place // w, place % w
        z = out_depth[r, c]
        step = rules[STEP] + rules[STEP_PX] * pitch * z
        for k in range(4):
            rr, cc = r + (k == 0) - (k == 1), c + (k == 2) - (k == 3)
            if rr < 0 or cc < 0 or rr >= h or cc >= w or out_label[rr, cc] != CANDIDATE:
                continue
            zz = out_depth[rr, cc]
            near = near_model[rr, cc]
            if near < 0 or abs(zz - z) > step or abs(zz - drawn[near // w, near % w]) > rules[DEEP]:
                continue
            dr, dc = np.float32(rr - near // w), np.float32(cc - near % w)
            if np.sqrt(dr * dr + dc * dc) * pitch * zz > rules[REACH]:
                continue
            out_label[rr, cc] = PERSON
            queue[n] = rr * w + cc
            n += 1
    before = 0
    for r in range(h):
        for c in range(w):
            if out_label[r, c] == CANDIDATE:
                near = near_model[r, c]
                nearer = near >= 0 and out_depth[r, c] < drawn[near // w, near % w] - rules[NEARER]
                before += nearer and drawn[r, c] > 0
                # something nearer may hide the person
                out_label[r, c] = UNKNOWN if nearer else BACKGROUND
    if floor_known and rules[SOLE] > 0:
        _soles(rules, plane, fx, fy, cx, cy, out_depth, out_label)
    n += _unread(depth, flying, row0, col0, stride, out_depth, out_label)
    if rules[BLEED_PX] > 0:
        n -= _without_bleeding(depth, flying, row0, col0, stride, drawn, near_model, rules, out_depth, out_label)
    for r in range(h):
        for c in range(w):
            out_depth[r, c] = max(out_depth[r, c], np.float32(0.0))
    return n, before


@njit(nogil=True, cache=True, forceinline=True)
def _height(plane, fx, fy, cx, cy, r, c, z):
    """Metres above the floor of a grid's pixel."""
    return (plane[0] * (np.float32(c) - cx) / fx + plane[1] * (np.float32(r) - cy) / fy + plane[2]) * z + plane[3]


@njit(nogil=True, cache=True, forceinline=True)
def _soles(rules, plane, fx, fy, cx, cy, out_depth, out_label):
    """Floor beside a foot may be the foot's rim, which lies no higher than the floor's noise: it becomes unknown."""
    h, w = out_label.shape
    pitch = np.float32(2.0) / (fx + fy)
    for r in range(h):
        for c in range(w):
            z = out_depth[r, c]
            if out_label[r, c] != PERSON or z <= 0:
                continue
            if _height(plane, fx, fy, cx, cy, r, c, z) >= rules[FOOT_HEIGHT]:
                continue
            band = max(rules[SOLE] / (pitch * z), np.float32(LEAST_SOLE_PX))
            reach = int(band)
            for rr in range(max(0, r - reach), min(h, r + reach + 1)):
                for cc in range(max(0, c - reach), min(w, c + reach + 1)):
                    if out_label[rr, cc] != BACKGROUND or (rr - r) ** 2 + (cc - c) ** 2 > band * band:
                        continue
                    if _height(plane, fx, fy, cx, cy, rr, cc, out_depth[rr, cc]) < rules[SOLE_HEIGHT]:
                        out_label[rr, cc] = UNKNOWN


@njit(nogil=True, cache=True, forceinline=True)
def _person_towards(out_depth, out_label, r, c, dr, dc, reach):
    """Depth of the person some pixels on in a direction, 0 where something else is read before or nothing is."""
    h, w = out_label.shape
    for k in range(1, reach + 1):
        rr, cc = r + k * dr, c + k * dc
        if rr < 0 or cc < 0 or rr >= h or cc >= w:
            return np.float32(0.0)
        if out_depth[rr, cc] > 0:
            return out_depth[rr, cc] if out_label[rr, cc] == PERSON else np.float32(0.0)
    return np.float32(0.0)


@njit(nogil=True, cache=True, forceinline=True)
def _unread(depth, flying, row0, col0, stride, out_depth, out_label):
    """Pixels without a reading of a surface that are the person's all the same: specks within them, and mixed pixels on
    their rim that are nearer to them than to what lies behind (`bodyfit.observe.silhouette`); how many. Until the end
    their depth is that of the person beside them, below zero."""
    h, w = out_label.shape
    reach = int(UNREAD_PX / stride)
    found = 0
    if reach < 1:
        return found
    for r in range(h):
        for c in range(w):
            if out_label[r, c] != UNKNOWN or out_depth[r, c] > 0:
                continue
            v, u = row0 + r * stride, col0 + c * stride
            if not flying[v - row0, u - col0]:
                least = np.float32(99.0)
                for k in range(4):
                    towards = _person_towards(
                        out_depth, out_label, r, c, (k == 0) - (k == 1), (k == 2) - (k == 3), reach
                    )
                    least = min(least, towards)
                if least > 0:
                    out_label[r, c], out_depth[r, c] = PERSON, -least
                    found += 1
                continue
            beside, nearest = np.float32(0.0), np.float32(99.0)
            for rr in range(max(0, r - reach), min(h, r + reach + 1)):
                for cc in range(max(0, c - reach), min(w, c + reach + 1)):
                    away = np.float32((rr - r) ** 2 + (cc - c) ** 2)
                    if out_label[rr, cc] == PERSON and out_depth[rr, cc] > 0 and away < nearest:
                        nearest, beside = away, out_depth[rr, cc]
            if beside <= 0 or nearest > (UNREAD_PX / stride) ** 2:
                continue
            behind = np.float32(0.0)
            for fv in range(max(0, v - row0 - 2), min(flying.shape[0], v - row0 + 3)):
                for fu in range(max(0, u - col0 - 2), min(flying.shape[1], u - col0 + 3)):
                    if not flying[fv, fu]:
                        behind = max(behind, depth[row0 + fv, col0 + fu])
            mixed = depth[v, u]
            if behind > beside * MIXED_OVER and beside - MIXED_BEFORE_M < mixed < 0.5 * (beside + behind):
                out_label[r, c], out_depth[r, c] = PERSON, -beside
                found += 1
    return found


@njit(nogil=True, cache=True, forceinline=True)
def _without_bleeding(depth, flying, row0, col0, stride, drawn, near_model, rules, out_depth, out_label):
    """Takes off the person's rim where a stereo matcher may have made it (see `bodyfit.observe.bleed`); how many."""
    h, w = drawn.shape
    reach = min(AROUND_PX, int(np.ceil(rules[BLEED_PX])))
    lost = 0
    for r in range(h):
        for c in range(w):
            if out_label[r, c] != PERSON:
                continue
            z = abs(out_depth[r, c])
            jump = rules[JUMP] + rules[JUMP_PER_Z2] * z * z
            nearest, own = np.float32(99.0), False
            v, u = row0 + r * stride, col0 + c * stride
            near = near_model[r, c]
            body = drawn[near // w, near % w] if near >= 0 else np.float32(0.0)
            for dv in range(-reach, reach + 1):
                for du in range(-reach, reach + 1):
                    y, x = v + dv, u + du
                    if y < 0 or x < 0 or y >= depth.shape[0] or x >= depth.shape[1]:
                        continue
                    fv, fu = y - row0, x - col0
                    if 0 <= fv < flying.shape[0] and 0 <= fu < flying.shape[1] and flying[fv, fu]:
                        continue  # of neither side
                    away = np.sqrt(np.float32(dv * dv + du * du))
                    if depth[y, x] > z + jump and away < nearest and away <= rules[BLEED_PX] + np.float32(0.2):
                        nearest = away
                        own = abs(depth[y, x] - body) < rules[DEEP] * np.float32(0.5)
            if nearest < 99:
                out_depth[r, c] = np.float32(0.0)
                if own:
                    continue  # before the own body: the pixel is theirs, its depth is not known
                lost += 1
                out_label[r, c] = BACKGROUND if nearest <= rules[SURE_PX] else UNKNOWN
    return lost
