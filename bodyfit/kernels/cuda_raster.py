"""Rasterising a batch of meshes on a GPU: screen points, the nearest face at every sample, depth and coverage.

As `cpu_raster`, for all images at once. The nearest face of a sample is a maximum over the faces of one number: q,
nearer is more, and below it the face's number, where fewer is more; so no order of threads changes what wins.
"""

from __future__ import annotations

from math import ceil, floor

import numpy as np

from bodyfit.kernels.cpu_raster import NO_AREA, OVERLAP, TOO_LARGE, weights_at
from bodyfit.kernels.cuda_jit import F1, F2, F3, F4, FLAG, I1, I2, I3, INT, L3, cuda, device, kernel, rank_of, value_of
from bodyfit.kernels.scalar import HALF, ONE, ZERO, project, project_vjp, signed_area, surface_depth_vjp
from bodyfit.kernels.scalar_edges import face_plane

NOTHING = np.int64(-(2**63))
"""What a sample that no face covers has for its nearest face."""
LAST_FACE = np.int64(2**32 - 1)
NAN = np.float32(np.nan)
LARGE_SAMPLES = 512
"""A face over so many samples is drawn by a whole block of threads."""


@kernel(F3, F2, FLAG, F1, F3, I1)
def project_points(points, intrinsics, perspective, near, screen, too_near):
    """screen (B, V, 3) = (u, v, q) of camera points (B, V, 3); intrinsics (B, 4) fx fy cx cy.

    What is nearer than near (1,) becomes NaN, so that its faces have no area, and is counted in too_near (1,).
    """
    n_points = points.shape[1]
    for i in range(cuda.grid(1), points.shape[0] * n_points, cuda.gridsize(1)):
        b = i // n_points
        k = i - b * n_points
        u, v, q = project(
            points[b, k, 0], points[b, k, 1], points[b, k, 2],
            intrinsics[b, 0], intrinsics[b, 1], intrinsics[b, 2], intrinsics[b, 3], perspective,
        )  # fmt: skip
        if not points[b, k, 2] >= near[0]:
            cuda.atomic.add(too_near, 0, 1)
            u = NAN
        screen[b, k, 0], screen[b, k, 1], screen[b, k, 2] = u, v, q


@kernel(F3, F2, FLAG, F3, F3, F2)
def project_points_vjp(points, intrinsics, perspective, v_screen, v_points, v_intrinsics):
    """Fills v_points (B, V, 3) and adds to v_intrinsics (B, 4) what v_screen (B, V, 3) says."""
    n_points = points.shape[1]
    for i in range(cuda.grid(1), points.shape[0] * n_points, cuda.gridsize(1)):
        b = i // n_points
        k = i - b * n_points
        v_u, v_v, v_q = v_screen[b, k, 0], v_screen[b, k, 1], v_screen[b, k, 2]
        if v_u == ZERO and v_v == ZERO and v_q == ZERO:
            v_points[b, k, 0] = v_points[b, k, 1] = v_points[b, k, 2] = ZERO
            continue
        x, y, z, fx, fy, cx, cy = project_vjp(
            points[b, k, 0], points[b, k, 1], points[b, k, 2],
            intrinsics[b, 0], intrinsics[b, 1], intrinsics[b, 2], intrinsics[b, 3], perspective, v_u, v_v, v_q,
        )  # fmt: skip
        v_points[b, k, 0], v_points[b, k, 1], v_points[b, k, 2] = x, y, z
        cuda.atomic.add(v_intrinsics, (b, 0), fx)
        cuda.atomic.add(v_intrinsics, (b, 1), fy)
        cuda.atomic.add(v_intrinsics, (b, 2), cx)
        cuda.atomic.add(v_intrinsics, (b, 3), cy)


@device
def face_reach(screen, faces, b, f, samples, height, width):
    """First row, last row, first column and last column of the samples about a face; last < first where none is."""
    n = np.float32(samples)
    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
    ua, ub, uc = screen[b, i, 0], screen[b, j, 0], screen[b, k, 0]
    va, vb, vc = screen[b, i, 1], screen[b, j, 1], screen[b, k, 1]
    u_low, u_high = (min(ua, ub, uc) + HALF) * n - HALF, (max(ua, ub, uc) + HALF) * n - HALF
    v_low, v_high = (min(va, vb, vc) + HALF) * n - HALF, (max(va, vb, vc) + HALF) * n - HALF
    u_low, u_high = max(u_low, ZERO), min(u_high, np.float32(width - 1))
    v_low, v_high = max(v_low, ZERO), min(v_high, np.float32(height - 1))
    if not (u_low <= u_high and v_low <= v_high):
        return 0, -1, 0, -1
    return np.int32(ceil(v_low)), np.int32(floor(v_high)), np.int32(ceil(u_low)), np.int32(floor(u_high))


@device
def draw_samples(screen, faces, b, f, samples, r0, r1, c0, c1, begin, step, nearest):
    """Draws every step-th sample from `begin` on of those about a face."""
    n = np.float32(samples)
    i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
    # on the grid of samples, sample (i, j) at (j, i)
    ua, va = (screen[b, i, 0] + HALF) * n - HALF, (screen[b, i, 1] + HALF) * n - HALF
    ub, vb = (screen[b, j, 0] + HALF) * n - HALF, (screen[b, j, 1] + HALF) * n - HALF
    uc, vc = (screen[b, k, 0] + HALF) * n - HALF, (screen[b, k, 1] + HALF) * n - HALF
    qa, qb, qc = screen[b, i, 2], screen[b, j, 2], screen[b, k, 2]
    area = signed_area(ua, va, ub, vb, uc, vc)
    lb_du, lb_dv, lc_du, lc_dv, _, _ = face_plane(ua, va, qa, ub, vb, qb, uc, vc, qc, area)
    wide = c1 - c0 + 1
    for s in range(begin, (r1 - r0 + 1) * wide, step):
        r = r0 + s // wide
        c = c0 + s - (r - r0) * wide
        du, dv = np.float32(c) - ua, np.float32(r) - va
        lb, lc = du * lb_du + dv * lb_dv, du * lc_du + dv * lc_dv
        if lb >= -OVERLAP and lc >= -OVERLAP and lb + lc <= ONE + OVERLAP:
            q = qa + lb * (qb - qa) + lc * (qc - qa)
            cuda.atomic.max(nearest, (b, r, c), rank_of(q) * (LAST_FACE + 1) + (LAST_FACE - f))


@kernel(F3, I2, INT, F2, L3, I2, I1)
def draw(screen, faces, samples, areas, nearest, large, counts):
    """The nearest face at every sample, into nearest (B, H n, W n), which comes filled with NOTHING.

    Fills areas (B, F) as `cpu_raster.face_areas` does. large (M, 2): image and face of those left to
    `draw_large_faces`; counts (1,), which comes 0, how many.
    """
    n_faces = faces.shape[0]
    height, width = nearest.shape[1], nearest.shape[2]
    for i in range(cuda.grid(1), screen.shape[0] * n_faces, cuda.gridsize(1)):
        b = i // n_faces
        f = i - b * n_faces
        x, y, z = faces[f, 0], faces[f, 1], faces[f, 2]
        area = signed_area(
            screen[b, x, 0], screen[b, x, 1], screen[b, y, 0], screen[b, y, 1], screen[b, z, 0], screen[b, z, 1]
        )
        # a comparison with NaN, which numbers beyond all measure make, is false
        if not NO_AREA < abs(area) < TOO_LARGE:
            areas[b, f] = ZERO
            continue
        areas[b, f] = area
        r0, r1, c0, c1 = face_reach(screen, faces, b, f, samples, height, width)
        if r1 < r0 or c1 < c0:
            continue
        if (r1 - r0 + 1) * (c1 - c0 + 1) > LARGE_SAMPLES:
            at = cuda.atomic.add(counts, 0, 1)
            if at < large.shape[0]:
                large[at, 0], large[at, 1] = b, f
                continue
        draw_samples(screen, faces, b, f, samples, r0, r1, c0, c1, 0, 1, nearest)


@kernel(F3, I2, INT, L3, I2, I1)
def draw_large_faces(screen, faces, samples, nearest, large, counts):
    """Does what `draw` left: a block of threads for each face."""
    height, width = nearest.shape[1], nearest.shape[2]
    for k in range(cuda.blockIdx.x, min(counts[0], large.shape[0]), cuda.gridDim.x):
        b, f = large[k, 0], large[k, 1]
        r0, r1, c0, c1 = face_reach(screen, faces, b, f, samples, height, width)
        draw_samples(
            screen, faces, b, f, samples, r0, r1, c0, c1, cuda.threadIdx.x, cuda.blockDim.x, nearest
        )  # fmt: skip


@kernel(L3, F2, INT, FLAG, I3, F3, F3, I1)
def cover(nearest, areas, samples, perspective, ids, alpha, depth, seen):
    """Images of the nearest faces.

    ids (B, H n, W n) with -1 where nothing is; alpha (B, H, W) the share of samples covered; depth (B, H, W) the mean
    over all samples of z, 0 where none; seen (B,), which comes 0: bit 1 where a face of positive area is seen, bit 2
    where one of negative area is.
    """
    height, width = alpha.shape[1], alpha.shape[2]
    for i in range(cuda.grid(1), alpha.shape[0] * height * width, cuda.gridsize(1)):
        b = i // (height * width)
        at = i - b * height * width
        row = at // width
        column = at - row * width
        count, total, signs = 0, ZERO, 0
        for r in range(row * samples, (row + 1) * samples):
            for c in range(column * samples, (column + 1) * samples):
                key = nearest[b, r, c]
                if key == NOTHING:
                    ids[b, r, c] = -1
                    continue
                f = LAST_FACE - (key & LAST_FACE)
                ids[b, r, c] = f
                q = value_of(key >> 32)
                total += ONE / q if perspective else -q
                count += 1
                signs |= 1 if areas[b, f] > ZERO else 2
        share = np.float32(samples * samples)
        alpha[b, row, column], depth[b, row, column] = np.float32(count) / share, total / share
        if signs & ~seen[b]:
            cuda.atomic.or_(seen, b, signs)


@kernel(F3, I2, I3, INT, FLAG, F3, F3)
def cover_vjp(screen, faces, ids, samples, perspective, v_depth, v_screen):
    """Adds to v_screen (B, V, 3) what moves the depth inside of the faces, v_depth (B, H, W)."""
    height, width = ids.shape[1], ids.shape[2]
    n = np.float32(samples)
    for s in range(cuda.grid(1), ids.shape[0] * height * width, cuda.gridsize(1)):
        b = s // (height * width)
        at = s - b * height * width
        r = at // width
        c = at - r * width
        f = ids[b, r, c]
        if f < 0:
            continue
        g = v_depth[b, r // samples, c // samples] / np.float32(samples * samples)
        if g == ZERO:
            continue
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        u, v = (np.float32(c) + HALF) / n - HALF, (np.float32(r) + HALF) / n - HALF
        v_corners = surface_depth_vjp(
            u, v, screen[b, i, 0], screen[b, i, 1], screen[b, i, 2], screen[b, j, 0], screen[b, j, 1], screen[b, j, 2],
            screen[b, k, 0], screen[b, k, 1], screen[b, k, 2], perspective, g,
        )  # fmt: skip
        for m in range(3):
            cuda.atomic.add(v_screen, (b, i, m), v_corners[m])
            cuda.atomic.add(v_screen, (b, j, m), v_corners[3 + m])
            cuda.atomic.add(v_screen, (b, k, m), v_corners[6 + m])


@kernel(F3, I2, I3, INT, FLAG, I3, F4)
def name_faces(screen, faces, ids, samples, perspective, face_id, weights):
    """face_id (B, H, W) and weights (B, H, W, 3) of the covered sample nearest to each pixel's centre."""
    n = np.float32(samples)
    height, width = face_id.shape[1], face_id.shape[2]
    for p in range(cuda.grid(1), face_id.shape[0] * height * width, cuda.gridsize(1)):
        b = p // (height * width)
        at = p - b * height * width
        row = at // width
        column = at - row * width
        best, best_r, best_c = 4 * samples * samples, -1, -1
        for i in range(samples):
            for j in range(samples):
                di, dj = 2 * i + 1 - samples, 2 * j + 1 - samples
                r, c = row * samples + i, column * samples + j
                if di * di + dj * dj < best and ids[b, r, c] >= 0:
                    best, best_r, best_c = di * di + dj * dj, r, c
        pa = pb = pc = ZERO
        f = -1
        if best_r >= 0:
            f = ids[b, best_r, best_c]
            u, v = (np.float32(best_c) + HALF) / n - HALF, (np.float32(best_r) + HALF) / n - HALF
            pa, pb, pc, _ = weights_at(screen[b], faces[f, 0], faces[f, 1], faces[f, 2], u, v, perspective)
        face_id[b, row, column] = f
        weights[b, row, column, 0], weights[b, row, column, 1], weights[b, row, column, 2] = pa, pb, pc
