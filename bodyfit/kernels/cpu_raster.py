"""Rasterising on the CPU: screen points of a mesh, the nearest face at every sample, depth and coverage of every pixel.

One call does one image and holds no lock of Python's: the caller runs images side by side. Both sides of a triangle
are drawn. Samples are n × n per pixel, regularly spaced; sample (i, j) of the fine grid lies at
u = (j + ½) / n − ½, v = (i + ½) / n − ½.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bodyfit.kernels.body import FAST
from bodyfit.kernels.scalar import (
    HALF,
    ONE,
    ZERO,
    barycentrics,
    barycentrics_vjp,
    project,
    project_vjp,
    signed_area,
    surface_depth_vjp,
    surface_weights,
    surface_weights_vjp,
)

kernel = njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy", forceinline=True)

# Neighbours overlap by this share of a triangle, so that rounding leaves no gap between them.
OVERLAP = np.float32(1e-6)
FAR = np.float32(-3e38)
NO_AREA, TOO_LARGE = np.float32(1e-12), np.float32(1e30)


@kernel
def move_points(points, pose, moved):
    """moved (V, 3) = rotation · points (V, 3) + translation, of a pose (4, 4)."""
    r00, r01, r02, tx = pose[0, 0], pose[0, 1], pose[0, 2], pose[0, 3]
    r10, r11, r12, ty = pose[1, 0], pose[1, 1], pose[1, 2], pose[1, 3]
    r20, r21, r22, tz = pose[2, 0], pose[2, 1], pose[2, 2], pose[2, 3]
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        moved[i, 0] = r00 * x + r01 * y + r02 * z + tx
        moved[i, 1] = r10 * x + r11 * y + r12 * z + ty
        moved[i, 2] = r20 * x + r21 * y + r22 * z + tz


@kernel
def move_points_vjp(points, pose, v_moved, v_points, v_pose):
    """Fills v_points (V, 3) and adds to v_pose (4, 4) float64."""
    for i in range(points.shape[0]):
        gx, gy, gz = v_moved[i, 0], v_moved[i, 1], v_moved[i, 2]
        for k in range(3):
            v_points[i, k] = pose[0, k] * gx + pose[1, k] * gy + pose[2, k] * gz
        if gx == ZERO and gy == ZERO and gz == ZERO:
            continue
        for k in range(3):
            v_pose[0, k] += gx * points[i, k]
            v_pose[1, k] += gy * points[i, k]
            v_pose[2, k] += gz * points[i, k]
        v_pose[0, 3] += gx
        v_pose[1, 3] += gy
        v_pose[2, 3] += gz


@kernel
def project_points(points, intrinsics, perspective, screen):
    """screen (V, 3) = (u, v, q) of camera points (V, 3); intrinsics (4,) fx fy cx cy. Returns the smallest z."""
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    nearest = points[0, 2] if points.shape[0] else fx
    for i in range(points.shape[0]):
        u, v, q = project(points[i, 0], points[i, 1], points[i, 2], fx, fy, cx, cy, perspective)
        screen[i, 0], screen[i, 1], screen[i, 2] = u, v, q
        nearest = min(nearest, points[i, 2])
    return nearest


@kernel
def project_points_vjp(points, intrinsics, perspective, v_screen, v_points, v_intrinsics):
    """Adds to v_points (V, 3) and v_intrinsics (4,) what v_screen (V, 3) float64 says."""
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    s0 = s1 = s2 = s3 = 0.0
    for i in range(points.shape[0]):
        v_u, v_v, v_q = v_screen[i, 0], v_screen[i, 1], v_screen[i, 2]
        if v_u == 0.0 and v_v == 0.0 and v_q == 0.0:
            continue
        x, y, z, k0, k1, k2, k3 = project_vjp(
            points[i, 0], points[i, 1], points[i, 2], fx, fy, cx, cy, perspective, v_u, v_v, v_q
        )
        v_points[i, 0] += x
        v_points[i, 1] += y
        v_points[i, 2] += z
        s0, s1, s2, s3 = s0 + k0, s1 + k1, s2 + k2, s3 + k3
    v_intrinsics[0] += s0
    v_intrinsics[1] += s1
    v_intrinsics[2] += s2
    v_intrinsics[3] += s3


@kernel
def face_areas(screen, faces, areas):
    """areas (F,) twice each triangle's signed area on the screen in square pixels, exactly 0 where it has none."""
    for f in range(faces.shape[0]):
        a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
        area = signed_area(screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1])
        # a comparison with NaN, which numbers beyond all measure make, is false
        if NO_AREA < abs(area) < TOO_LARGE:
            areas[f] = area
        else:
            areas[f] = ZERO


@kernel
def draw(screen, faces, areas, samples, nearest, ids, reach):
    """The nearest face at every sample.

    Within reach (4,) int64, which becomes the first row, last row, first column and last column of samples that the
    mesh can cover, fills ids (H n, W n) int32, -1 where nothing is, and nearest (H n, W n), the q there. What is in
    them elsewhere has no meaning.
    """
    height, width = ids.shape
    n = np.float32(samples)
    low_u = low_v = -FAR
    high_u = high_v = FAR
    for f in range(faces.shape[0]):
        if areas[f] != ZERO:
            for k in range(3):
                i = np.uintp(faces[f, k])
                low_u, high_u = min(low_u, screen[i, 0]), max(high_u, screen[i, 0])
                low_v, high_v = min(low_v, screen[i, 1]), max(high_v, screen[i, 1])
    top = np.int64(max(np.floor((low_v + HALF) * n - HALF), ZERO)) if low_v < np.float32(height) else height
    left = np.int64(max(np.floor((low_u + HALF) * n - HALF), ZERO)) if low_u < np.float32(width) else width
    bottom = np.int64(min(np.ceil((high_v + HALF) * n - HALF), np.float32(height - 1))) if high_v > -ONE else -1
    right = np.int64(min(np.ceil((high_u + HALF) * n - HALF), np.float32(width - 1))) if high_u > -ONE else -1
    if bottom < top or right < left:
        top, bottom = height, -1
    reach[0], reach[1], reach[2], reach[3] = top, bottom, left, right
    if bottom < top:
        return
    nearest[top : bottom + 1, left : right + 1] = FAR
    ids[top : bottom + 1, left : right + 1] = -1
    last_u, last_v = np.float32(width - 1), np.float32(height - 1)
    for f in range(faces.shape[0]):
        area = areas[f]
        if area == ZERO:
            continue
        # unsigned: no number counts from the end, which would have to be looked into at every access
        a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
        # on the grid of samples, sample (i, j) at (j, i)
        ua, va = (screen[a, 0] + HALF) * n - HALF, (screen[a, 1] + HALF) * n - HALF
        ub, vb = (screen[b, 0] + HALF) * n - HALF, (screen[b, 1] + HALF) * n - HALF
        uc, vc = (screen[c, 0] + HALF) * n - HALF, (screen[c, 1] + HALF) * n - HALF
        u_low, u_high = max(min(ua, ub, uc), ZERO), min(max(ua, ub, uc), last_u)
        v_low, v_high = max(min(va, vb, vc), ZERO), min(max(va, vb, vc), last_v)
        if not (u_low <= u_high and v_low <= v_high):
            continue
        c0, r0 = np.int64(u_low), np.int64(v_low)
        c0, r0 = c0 + (np.float32(c0) < u_low), r0 + (np.float32(r0) < v_low)
        c1, r1 = np.int64(u_high), np.int64(v_high)
        if c0 > c1 or r0 > r1:
            continue
        inv = ONE / signed_area(ua, va, ub, vb, uc, vc)
        lb_du, lb_dv = (vc - va) * inv, -(uc - ua) * inv
        lc_du, lc_dv = -(vb - va) * inv, (ub - ua) * inv
        qa = screen[a, 2]
        qb, qc = screen[b, 2] - qa, screen[c, 2] - qa
        for r in range(np.uintp(r0), np.uintp(r1 + 1)):
            dv = np.float32(r) - va
            lb_row, lc_row = dv * lb_dv, dv * lc_dv
            inside = False
            for col in range(np.uintp(c0), np.uintp(c1 + 1)):
                du = np.float32(col) - ua
                lb = du * lb_du + lb_row
                lc = du * lc_du + lc_row
                if lb >= -OVERLAP and lc >= -OVERLAP and lb + lc <= ONE + OVERLAP:
                    inside = True
                    q = qa + lb * qb + lc * qc
                    if q > nearest[r, col]:
                        nearest[r, col] = q
                        ids[r, col] = f
                elif inside:
                    break  # a triangle is convex: the row has left it


@kernel
def cover(nearest, areas, ids, samples, reach, perspective, alpha, depth):
    """alpha (H, W) = share of samples covered, depth (H, W) = mean over all samples of z, 0 where none; both come 0.

    Returns the sign of the areas of the faces seen, 0 where both are.
    """
    positive = negative = False
    for r in range(reach[0], reach[1] + 1):
        row = r // samples
        for c in range(reach[2], reach[3] + 1):
            f = ids[r, c]
            if f < 0:
                continue
            positive |= areas[f] > ZERO
            negative |= areas[f] < ZERO
            q = nearest[r, c]
            z = ONE / q if perspective else -q
            if samples == 1:
                alpha[r, c], depth[r, c] = ONE, z
            else:
                alpha[row, c // samples] += ONE
                depth[row, c // samples] += z
    if samples > 1 and reach[1] >= reach[0]:
        # counted first: a pixel with every sample covered has a coverage of 1 exactly
        all_of_them = np.float32(samples * samples)
        for row in range(reach[0] // samples, reach[1] // samples + 1):
            for column in range(reach[2] // samples, reach[3] // samples + 1):
                alpha[row, column] /= all_of_them
                depth[row, column] /= all_of_them
    return np.int64(positive) - np.int64(negative)


@kernel
def share_of(samples, screen):
    """One over the number of samples in a pixel, in the precision of the screen's points."""
    one = np.ones(1, screen.dtype)[0]
    return one / np.float32(samples * samples)


@kernel
def cover_vjp(screen, faces, ids, samples, reach, perspective, v_depth, v_screen):
    """Adds to v_screen (V, 3) float64 what moves the depth inside of the faces, v_depth (H, W)."""
    n = np.float32(samples)
    share = share_of(samples, screen)
    for r in range(reach[0], reach[1] + 1):
        v = (np.float32(r) + HALF) / n - HALF
        for col in range(reach[2], reach[3] + 1):
            f = ids[r, col]
            if f < 0:
                continue
            g = v_depth[r // samples, col // samples] * share
            if g == ZERO:
                continue
            a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
            u = (np.float32(col) + HALF) / n - HALF
            v_corners = surface_depth_vjp(
                u, v, screen[a, 0], screen[a, 1], screen[a, 2], screen[b, 0], screen[b, 1], screen[b, 2],
                screen[c, 0], screen[c, 1], screen[c, 2], perspective, g,
            )  # fmt: skip
            for k in range(3):
                v_screen[a, k] += v_corners[k]
                v_screen[b, k] += v_corners[3 + k]
                v_screen[c, k] += v_corners[6 + k]


@kernel
def scatter_weights(screen, v_screen, a, b, c, u, v, perspective, v_pa, v_pb, v_pc, v_z):
    """Adds to v_screen at the corners a, b, c what moves the surface weights and z seen at (u, v)."""
    ua, va, qa = screen[a, 0], screen[a, 1], screen[a, 2]
    ub, vb, qb = screen[b, 0], screen[b, 1], screen[b, 2]
    uc, vc, qc = screen[c, 0], screen[c, 1], screen[c, 2]
    la, lb, lc = barycentrics(u, v, ua, va, ub, vb, uc, vc)
    v_la, v_lb, v_lc, v_qa, v_qb, v_qc = surface_weights_vjp(la, lb, lc, qa, qb, qc, perspective, v_pa, v_pb, v_pc, v_z)
    v_ua, v_va, v_ub, v_vb, v_uc, v_vc = barycentrics_vjp(u, v, ua, va, ub, vb, uc, vc, v_la, v_lb, v_lc)
    v_screen[a, 0] += v_ua
    v_screen[a, 1] += v_va
    v_screen[a, 2] += v_qa
    v_screen[b, 0] += v_ub
    v_screen[b, 1] += v_vb
    v_screen[b, 2] += v_qb
    v_screen[c, 0] += v_uc
    v_screen[c, 1] += v_vc
    v_screen[c, 2] += v_qc


@kernel
def weights_at(screen, a, b, c, u, v, perspective):
    """Surface weights and z of the face with corners a, b, c at a point of the screen."""
    ua, va, qa = screen[a, 0], screen[a, 1], screen[a, 2]
    ub, vb, qb = screen[b, 0], screen[b, 1], screen[b, 2]
    uc, vc, qc = screen[c, 0], screen[c, 1], screen[c, 2]
    la, lb, lc = barycentrics(u, v, ua, va, ub, vb, uc, vc)
    return surface_weights(la, lb, lc, qa, qb, qc, perspective)


@kernel
def name_faces(screen, faces, ids, samples, reach, perspective, face_id, weights):
    """face_id (H, W) and weights (H, W, 3) of the covered sample nearest to each pixel's centre."""
    n = np.float32(samples)
    for row in range(face_id.shape[0]):
        for column in range(face_id.shape[1]):
            face_id[row, column] = -1
            weights[row, column, 0] = weights[row, column, 1] = weights[row, column, 2] = ZERO
            best, best_i, best_j = np.float32(1e9), 0, 0
            for i in range(samples):
                for j in range(samples):
                    di, dj = np.float32(2 * i + 1 - samples), np.float32(2 * j + 1 - samples)
                    far = di * di + dj * dj
                    r, c = row * samples + i, column * samples + j
                    if far < best and reach[0] <= r <= reach[1] and reach[2] <= c <= reach[3] and ids[r, c] >= 0:
                        best, best_i, best_j = far, i, j
            if best > np.float32(1e8):
                continue
            f = ids[row * samples + best_i, column * samples + best_j]
            u = (np.float32(column * samples + best_j) + HALF) / n - HALF
            v = (np.float32(row * samples + best_i) + HALF) / n - HALF
            pa, pb, pc, _ = weights_at(screen, faces[f, 0], faces[f, 1], faces[f, 2], u, v, perspective)
            face_id[row, column] = f
            weights[row, column, 0], weights[row, column, 1], weights[row, column, 2] = pa, pb, pc
