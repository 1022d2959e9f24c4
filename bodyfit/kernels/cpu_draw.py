"""Drawing on the CPU: the nearest face at every sample, coverage and depth of every pixel.

Both sides of a triangle are drawn. A body has some ten thousand triangles of a pixel or two: its time goes into
fetching corners and into branches that are guessed wrong, so what can be done for many faces at once is.
"""

from __future__ import annotations

import numpy as np

from bodyfit.kernels.cpu_raster import FAR, NO_AREA, OVERLAP, TOO_LARGE, kernel, part, project_points
from bodyfit.kernels.scalar import HALF, ONE, ZERO, signed_area

FACES_AT_ONCE = 256
"""faces whose corners lie side by side, as many as stay in the fastest memory"""


@kernel
def find_reach(screen, samples, height, width, reach):
    """reach (4,) = first and last row, first and last column of samples that faces between the points can meet.

    height and width count samples. A sample more on each side, whatever is rounded where the faces are looked at.
    """
    n = np.float32(samples)
    left = top = ONE * np.float32(3e38)
    right = low = -left
    for i in range(screen.shape[0]):
        u, v = screen[i, 0], screen[i, 1]
        # a comparison with NaN is false
        left, right = u if u < left else left, u if u > right else right
        top, low = v if v < top else top, v if v > low else low
    across, down = np.float32(width), np.float32(height)
    left, right = (left + HALF) * n - HALF, (right + HALF) * n - HALF
    top, low = (top + HALF) * n - HALF, (low + HALF) * n - HALF
    reach[0] = max(np.int64(min(max(top, ZERO), down)) - 1, 0)
    reach[1] = min(np.int64(max(min(low, down), -ONE - ONE)) + 1, height - 1)
    reach[2] = max(np.int64(min(max(left, ZERO), across)) - 1, 0)
    reach[3] = min(np.int64(max(min(right, across), -ONE - ONE)) + 1, width - 1)


@part
def draw_face(nearest, ids, f, r0, r1, c0, c1, ua, va, ub, vb, uc, vc, qa, qb, qc):
    """Draws face f, corners (u, v) on the grid of samples and q, into rows r0 to r1 - 1 and columns c0 to c1 - 1;
    whether it was the nearest anywhere."""
    inv = ONE / signed_area(ua, va, ub, vb, uc, vc)
    lb_du, lb_dv = (vc - va) * inv, -(uc - ua) * inv
    lc_du, lc_dv = -(vb - va) * inv, (ub - ua) * inv
    dq_b, dq_c = qb - qa, qc - qa
    seen = False
    for r in range(r0, r1):
        dv = np.float32(np.int32(r)) - va
        lb_row, lc_row = dv * lb_dv, dv * lc_dv
        inside = False
        for col in range(c0, c1):
            du = np.float32(np.int32(col)) - ua
            lb = du * lb_du + lb_row
            lc = du * lc_du + lc_row
            if min(lb, lc, ONE - lb - lc) >= -OVERLAP:
                inside = True
                q = qa + lb * dq_b + lc * dq_c
                if q > nearest[r, col]:
                    nearest[r, col] = q
                    ids[r, col] = f
                    seen = True
            elif inside:
                break  # a triangle is convex: the row has left it
    return seen


@kernel
def draw(screen, faces, samples, reach, areas, backs, nearest, ids):
    """The nearest face at every sample of an image.

    Fills areas (F,), twice each triangle's signed area on the screen in square pixels, exactly 0 where it has none;
    within reach, that of `find_reach`, ids (H n, W n) int32, -1 where nothing is, and nearest (H n, W n), the q there.
    What is in them elsewhere has no meaning. backs (F + 1, 5) int32 is scratch. Returns whether any face of positive
    area, which looks away if wound outwards, was the nearest when it was drawn, and how many faces of negative area
    have a sample in their bounding box.

    Those are drawn first, the others after all of them: most that look away are behind others.
    """
    height, width = ids.shape
    n = np.float32(samples)
    for r in range(reach[0], reach[1] + 1):
        for col in range(np.uintp(reach[2]), np.uintp(reach[3] + 1)):
            nearest[r, col] = FAR
            ids[r, col] = -1
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    n_fronts, n_backs = np.uintp(0), np.uintp(0)
    corners = np.empty((6, FACES_AT_ONCE), screen.dtype)
    sizes = np.empty(FACES_AT_ONCE, screen.dtype)
    boxes = np.empty((6, FACES_AT_ONCE), np.int32)  # first and last row, first and last column, kept as front, as back
    fronts = np.empty(FACES_AT_ONCE, np.int32)
    for first in range(0, faces.shape[0], FACES_AT_ONCE):
        count = np.uintp(min(FACES_AT_ONCE, faces.shape[0] - first))
        for k in range(count):
            f = np.uintp(first) + k
            # unsigned: no number counts from the end, which would have to be looked into at every access
            a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
            corners[0, k], corners[1, k] = screen[a, 0], screen[a, 1]
            corners[2, k], corners[3, k] = screen[b, 0], screen[b, 1]
            corners[4, k], corners[5, k] = screen[c, 0], screen[c, 1]
        # Whether a face is drawn is a coin's toss for a body of small triangles: so there are no branches here, and
        # several are done in one instruction.
        for k in range(count):
            ua, va, ub, vb, uc, vc = (
                corners[0, k], corners[1, k], corners[2, k], corners[3, k], corners[4, k], corners[5, k]
            )  # fmt: skip
            area = signed_area(ua, va, ub, vb, uc, vc)
            # a comparison with NaN, which numbers beyond all measure make, is false
            size = abs(area)
            some = (size > NO_AREA) & (size < TOO_LARGE)
            area = area if some else ZERO * HALF
            sizes[k] = area
            u0, u1 = ua if ua < ub else ub, ua if ua > ub else ub
            v0, v1 = va if va < vb else vb, va if va > vb else vb
            u0, u1 = u0 if u0 < uc else uc, u1 if u1 > uc else uc
            v0, v1 = v0 if v0 < vc else vc, v1 if v1 > vc else vc
            # on the grid of samples, sample (i, j) at (j, i)
            u0, u1 = (u0 + HALF) * n - HALF, (u1 + HALF) * n - HALF
            v0, v1 = (v0 + HALF) * n - HALF, (v1 + HALF) * n - HALF
            u0, v0 = u0 if u0 > ZERO else ZERO, v0 if v0 > ZERO else ZERO
            u0, v0 = u0 if u0 < right else right, v0 if v0 < bottom else bottom
            away = (u1 < u0) | (v1 < v0)
            u1, v1 = u1 if u1 < right else right, v1 if v1 < bottom else bottom
            u1, v1 = u1 if u1 > ZERO else ZERO, v1 if v1 > ZERO else ZERO
            c0, r0, c1, r1 = np.int32(u0), np.int32(v0), np.int32(u1), np.int32(v1)
            c0, r0 = c0 + np.int32(np.float32(c0) < u0), r0 + np.int32(np.float32(r0) < v0)
            kept = some & (not away) & (c0 <= c1) & (r0 <= r1)
            boxes[0, k], boxes[1, k], boxes[2, k], boxes[3, k] = r0, r1, c0, c1
            boxes[4, k], boxes[5, k] = np.int32(kept & (area < ZERO)), np.int32(kept & (area > ZERO))
        # what is not kept is overwritten by the next
        n_here = np.uintp(0)
        for k in range(count):
            f = np.uintp(first) + k
            areas[f] = sizes[k]
            fronts[n_here] = k
            n_here += np.uintp(boxes[4, k])
            backs[n_backs, 0] = f
            backs[n_backs, 1], backs[n_backs, 2] = boxes[0, k], boxes[1, k]
            backs[n_backs, 3], backs[n_backs, 4] = boxes[2, k], boxes[3, k]
            n_backs += np.uintp(boxes[5, k])
        n_fronts += n_here
        for m in range(n_here):
            k = np.uintp(fronts[m])
            f = np.uintp(first) + k
            r0, r1 = np.uintp(boxes[0, k]), np.uintp(boxes[1, k] + 1)
            c0, c1 = np.uintp(boxes[2, k]), np.uintp(boxes[3, k] + 1)
            a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
            qa, qb, qc = screen[a, 2], screen[b, 2], screen[c, 2]
            ua, va = (corners[0, k] + HALF) * n - HALF, (corners[1, k] + HALF) * n - HALF
            ub, vb = (corners[2, k] + HALF) * n - HALF, (corners[3, k] + HALF) * n - HALF
            uc, vc = (corners[4, k] + HALF) * n - HALF, (corners[5, k] + HALF) * n - HALF
            draw_face(nearest, ids, f, r0, r1, c0, c1, ua, va, ub, vb, uc, vc, qa, qb, qc)
    backs_seen = False
    for k in range(n_backs):
        f = backs[k, 0]
        r0, r1 = np.uintp(backs[k, 1]), np.uintp(backs[k, 2] + 1)
        c0, c1 = np.uintp(backs[k, 3]), np.uintp(backs[k, 4] + 1)
        a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
        qa, qb, qc = screen[a, 2], screen[b, 2], screen[c, 2]
        # It is hidden if what is drawn in its box is before all its corners, and by more than rounding can do.
        most, least = max(qa, qb, qc), min(qa, qb, qc)
        most += np.float32(1e-5) * (most - least + abs(most))
        hidden = True
        for r in range(r0, r1):
            for col in range(c0, c1):
                hidden &= nearest[r, col] > most
        if hidden:
            continue
        ua, va = (screen[a, 0] + HALF) * n - HALF, (screen[a, 1] + HALF) * n - HALF
        ub, vb = (screen[b, 0] + HALF) * n - HALF, (screen[b, 1] + HALF) * n - HALF
        uc, vc = (screen[c, 0] + HALF) * n - HALF, (screen[c, 1] + HALF) * n - HALF
        if draw_face(nearest, ids, f, r0, r1, c0, c1, ua, va, ub, vb, uc, vc, qa, qb, qc):
            backs_seen = True
    return backs_seen, n_fronts


@kernel
def sign_seen(areas, ids, reach):
    """The sign of the areas of the faces seen, 0 where both are."""
    positive = negative = False
    for r in range(reach[0], reach[1] + 1):
        for c in range(reach[2], reach[3] + 1):
            f = ids[r, c]
            if f >= 0:
                positive |= areas[f] > ZERO
                negative |= areas[f] < ZERO
    return np.int64(positive) - np.int64(negative)


@kernel
def any_seen(ids, reach):
    """Whether any sample has a face."""
    for r in range(reach[0], reach[1] + 1):
        for c in range(reach[2], reach[3] + 1):
            if ids[r, c] >= 0:
                return True
    return False


@kernel
def cover(nearest, samples, reach, perspective, alpha, depth):
    """Fills alpha (H, W) = share of samples covered, depth (H, W) = mean over all samples of z, 0 where none.

    nearest (H n, W n) has a meaning in reach alone.
    """
    height = alpha.shape[0]
    if reach[1] < reach[0] or reach[3] < reach[2]:
        alpha[:], depth[:] = ZERO, ZERO
        return
    top, bottom = reach[0] // samples, reach[1] // samples
    left, right = reach[2] // samples, reach[3] // samples
    # counted first: a pixel with every sample covered has a coverage of 1 exactly
    all_of_them = np.float32(samples * samples)
    for row in range(height):
        if row < top or row > bottom:
            alpha[row], depth[row] = ZERO, ZERO
            continue
        alpha[row, :left], alpha[row, right + 1 :] = ZERO, ZERO
        depth[row, :left], depth[row, right + 1 :] = ZERO, ZERO
        if samples == 1:
            for c in range(np.uintp(left), np.uintp(right + 1)):
                q = nearest[row, c]
                hit = q > FAR
                z = ONE / q if perspective else -q
                alpha[row, c] = ONE if hit else ZERO
                depth[row, c] = z if hit else ZERO
            continue
        alpha[row, left : right + 1], depth[row, left : right + 1] = ZERO, ZERO
        for r in range(max(row * samples, reach[0]), min((row + 1) * samples, reach[1] + 1)):
            for c in range(np.uintp(reach[2]), np.uintp(reach[3] + 1)):
                q = nearest[r, c]
                if q > FAR:
                    alpha[row, c // np.uintp(samples)] += ONE
                    depth[row, c // np.uintp(samples)] += ONE / q if perspective else -q
        for c in range(left, right + 1):
            alpha[row, c] /= all_of_them
            depth[row, c] /= all_of_them


@kernel
def draw_image(
    points, intrinsics, faces, samples, perspective, screen, reach, areas, backs, nearest, ids, alpha, depth
):
    """One image of camera points (V, 3): all of the above in one call. Returns the sign of the areas of what is seen.

    That is 0 where faces of both signs are seen, or none.
    """
    project_points(points, intrinsics, perspective, screen)
    find_reach(screen, samples, ids.shape[0], ids.shape[1], reach)
    backs_seen, n_fronts = draw(screen, faces, samples, reach, areas, backs, nearest, ids)
    cover(nearest, samples, reach, perspective, alpha, depth)
    if backs_seen or n_fronts == 0:
        return sign_seen(areas, ids, reach)
    # one of them is nearest wherever it has a sample; with none, nothing is known
    return -np.int64(any_seen(ids, reach))
