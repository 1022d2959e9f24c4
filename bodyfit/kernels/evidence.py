"""One view of one posed body against one depth image: residuals, their Jacobian and the normal equations.

Parameters of an instant, in this order: a rotation δ of each joint (3J, radians; R ← R·exp δ), the translation (3,
metres, world) and the shape (S, betas and then clothing). Residuals are in metres:

- depth: where model and person share a pixel, the distance from the model's face to the sensor's point along the
  face's normal (projective point-to-plane);
- outline, both ways: a model pixel where only background is seen is drawn to the nearest person pixel, and a person
  pixel that the model leaves bare draws the nearest model pixel; the residual is the lateral distance.

What a single pixel says is in `scalar_evidence`. Robustifier: Geman-McClure, whose weight stays fixed within a step
(iteratively reweighted least squares).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bodyfit.kernels.body import FAST, joint_motions, joint_shape_motion, rest_shape, shaped_joints, skin
from bodyfit.kernels.nearest import nearest_marked
from bodyfit.kernels.raster import barycentrics, draw_faces
from bodyfit.kernels.scalar_evidence import (
    BARE,
    DEPTH,
    GAPING,
    MAX_WINDOW,
    NOTHING,
    PERSON,
    SPILLED,
    depth_evidence,
    face_normal,
    floor_evidence,
    mode_of_pixel,
    outline_evidence,
)

BLOCK = 128

# places in `settings`
(
    SIGMA_DEPTH, ROBUST_DEPTH, SIGMA_OUTLINE, ROBUST_OUTLINE, PIXEL_WEIGHT, SIGMA_BEHIND,
    SIGMA_FLOOR, ROBUST_FLOOR, SIGMA_SUNK, FLOOR_WEIGHT, WINDOW,
) = range(11)  # fmt: skip
NUM_SETTINGS = 11
# places in `stats`
(COST_DEPTH, COST_OUTLINE, COST_FLOOR, NUM_BOTH, NUM_PERSON, NUM_SPILLED, NUM_BARE, SUM_GAP) = range(8)
NUM_STATS = 8


@njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def add_products(rows, n, H, g, n_params):
    """H (P, P) += rowsᵀ·rows on and above the diagonal, g (P,) += rowsᵀ·residuals, for n rows [P values, residual].

    A row is zero for every joint that does not move its point: columns that no row uses are left out, the others are
    laid out one after the other, so that a product is a run through memory.
    """
    size = np.zeros(n_params + 1, np.float32)
    for i in range(n):
        row = rows[i]
        for a in range(n_params + 1):
            size[a] += abs(row[a])
    columns = np.empty(n_params + 1, np.int64)
    m = 0
    for a in range(n_params + 1):
        if size[a] != 0:
            columns[m] = a
            m += 1
    R = np.empty((m, n), np.float32)
    for first in range(0, n, 8):
        for k in range(m):
            a = columns[k]
            for i in range(first, min(first + 8, n)):
                R[k, i] = rows[i, a]
    for k in range(m):
        a = columns[k]
        if a == n_params:
            break
        p, q = np.uintp(k), k
        # four sums at once: each value of p is read once for four columns
        while q + 3 < m:
            q0, q1, q2, q3 = np.uintp(q), np.uintp(q + 1), np.uintp(q + 2), np.uintp(q + 3)
            s0, s1, s2, s3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
            for i in range(np.uintp(n)):
                x = R[p, i]
                s0 += x * R[q0, i]
                s1 += x * R[q1, i]
                s2 += x * R[q2, i]
                s3 += x * R[q3, i]
            H[a, columns[q]] += s0
            H[a, columns[q + 1]] += s1
            H[a, columns[q + 2]] += s2
            if columns[q + 3] < n_params:
                H[a, columns[q + 3]] += s3
            else:
                g[a] += s3
            q += 4
        while q < m:
            s0 = np.float32(0.0)
            for i in range(n):
                s0 += R[k, i] * R[q, i]
            if columns[q] < n_params:
                H[a, columns[q]] += s0
            else:
                g[a] += s0
            q += 1


@njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def surface_row(
    corners, bary, grad, scale, residual,
    rest, shapedirs, weight_joints, weights, joints, parents, G, Gf, posed, shape_motion, R_cw, W, X, row,
):  # fmt: skip
    """One Jacobian row: how a surface point's coordinate along `grad` (3,) changes with every parameter, times scale.

    corners (3,) vertex numbers and bary (3,) weights of the point. W (J,) and X (J, 3) are scratch. Moving joint k by
    ω moves the point by ω × Σ over the joints below k of w·(x - place of k): no per-vertex Jacobian is kept.
    """
    n_joints = parents.shape[0]
    n_shape = shapedirs.shape[2]
    base = 3 * n_joints
    g0, g1, g2 = grad[0] * scale, grad[1] * scale, grad[2] * scale
    for j in range(n_joints):
        W[j] = 0.0
        X[j, 0] = 0.0
        X[j, 1] = 0.0
        X[j, 2] = 0.0
    # unsigned numbers cannot count from the end, so that these loops run in wide registers; a slice would do too, but
    # counts references, which costs more than the sums
    shape_at = np.uintp(base + 3)
    for s in range(np.uintp(n_shape)):
        row[shape_at + s] = np.float32(0.0)
    for i in range(3):
        b = bary[i]
        if b == 0:
            continue
        v = np.uintp(corners[i])
        h0, h1, h2 = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for k in range(weights.shape[1]):
            w = weights[v, k] * b
            if w == 0:
                break
            j = np.uintp(weight_joints[v, k])
            dx, dy, dz = rest[v, 0] - joints[j, 0], rest[v, 1] - joints[j, 1], rest[v, 2] - joints[j, 2]
            W[j] += w
            X[j, 0] += w * (Gf[j, 0, 0] * dx + Gf[j, 0, 1] * dy + Gf[j, 0, 2] * dz + posed[j, 0])
            X[j, 1] += w * (Gf[j, 1, 0] * dx + Gf[j, 1, 1] * dy + Gf[j, 1, 2] * dz + posed[j, 1])
            X[j, 2] += w * (Gf[j, 2, 0] * dx + Gf[j, 2, 1] * dy + Gf[j, 2, 2] * dz + posed[j, 2])
            h0 += w * (Gf[j, 0, 0] * g0 + Gf[j, 1, 0] * g1 + Gf[j, 2, 0] * g2)
            h1 += w * (Gf[j, 0, 1] * g0 + Gf[j, 1, 1] * g1 + Gf[j, 2, 1] * g2)
            h2 += w * (Gf[j, 0, 2] * g0 + Gf[j, 1, 2] * g1 + Gf[j, 2, 2] * g2)
        for s in range(np.uintp(n_shape)):
            row[shape_at + s] += h0 * shapedirs[v, 0, s] + h1 * shapedirs[v, 1, s] + h2 * shapedirs[v, 2, s]
    for j in range(n_joints):
        w = np.float32(W[j])
        if w != 0:
            w0, w1, w2 = w * g0, w * g1, w * g2
            for s in range(np.uintp(n_shape)):
                row[shape_at + s] += (
                    w0 * shape_motion[j, 0, s] + w1 * shape_motion[j, 1, s] + w2 * shape_motion[j, 2, s]
                )
    for j in range(n_joints - 1, 0, -1):
        if W[j] != 0:
            p = parents[j]
            W[p] += W[j]
            X[p, 0] += X[j, 0]
            X[p, 1] += X[j, 1]
            X[p, 2] += X[j, 2]
    for j in range(n_joints):
        if W[j] == 0:
            row[3 * j] = np.float32(0.0)
            row[3 * j + 1] = np.float32(0.0)
            row[3 * j + 2] = np.float32(0.0)
            continue
        a0 = X[j, 0] - W[j] * posed[j, 0]
        a1 = X[j, 1] - W[j] * posed[j, 1]
        a2 = X[j, 2] - W[j] * posed[j, 2]
        c0, c1, c2 = a1 * g2 - a2 * g1, a2 * g0 - a0 * g2, a0 * g1 - a1 * g0
        row[3 * j] = G[j, 0, 0] * c0 + G[j, 1, 0] * c1 + G[j, 2, 0] * c2
        row[3 * j + 1] = G[j, 0, 1] * c0 + G[j, 1, 1] * c1 + G[j, 2, 1] * c2
        row[3 * j + 2] = G[j, 0, 2] * c0 + G[j, 1, 2] * c1 + G[j, 2, 2] * c2
    for c in range(3):
        row[base + c] = R_cw[0, c] * g0 + R_cw[1, c] * g1 + R_cw[2, c] * g2
    row[base + 3 + n_shape] = residual * scale


@njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def nearest_in_window(x, y, z, depth, wanted, value, r, c, half, fx, fy, cx, cy):
    """The pixel within `half` of (r, c) whose point is nearest in space to (x, y, z): row, column, squared distance.

    Looks at pixels with a depth where `wanted` equals value, or, for value < 0, wherever there is a depth.
    """
    best = np.float32(1e9)
    br, bc = -1, -1
    for rr in range(max(0, r - half), min(depth.shape[0], r + half + 1)):
        for cc in range(max(0, c - half), min(depth.shape[1], c + half + 1)):
            zz = depth[rr, cc]
            if zz <= 0 or (value >= 0 and wanted[rr, cc] != value):
                continue
            dx = (np.float32(cc) - cx) / fx * zz - x
            dy = (np.float32(rr) - cy) / fy * zz - y
            d = dx * dx + dy * dy + (zz - z) * (zz - z)
            if d < best:
                best, br, bc = d, rr, cc
    return br, bc, best


@njit(nogil=True, cache=True, fastmath=FAST)
def draw_body(points, faces, intrinsics, drawn, face, near_model):
    """Draws points (V, 3) in a camera's axes: fills drawn (h, w) metres, 0 = nothing, face (h, w), -1 = none, and
    near_model (h, w), the flat number of the nearest pixel that the body covers."""
    draw_faces(points, faces, intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3], drawn, face)
    for r in range(face.shape[0]):
        for c in range(face.shape[1]):
            near_model[r, c] = r * face.shape[1] + c if face[r, c] >= 0 else -1
    nearest_marked(near_model)


@njit(nogil=True, cache=True, fastmath=FAST)
def linearize_view(
    template, shapedirs, weight_joints, weights, faces, joint_template, jointdirs, parents,
    rotations, transl, shape,
    R_cw, t_cw, intrinsics, depth, label, near_person,
    floor_vertices, floor_plane, settings, want_rows,
    rest, points, drawn, face, near_model, H, g, stats,
):  # fmt: skip
    """Normal equations of one view: fills H (P, P), g (P,) = gradient of the cost, stats (NUM_STATS,).

    floor_plane (4,) in world coordinates, n·x + d = 0, all zero where the floor is unknown; floor_vertices (N,) are
    the soles. rest, points (V, 3), drawn, face and near_model (h, w) are scratch that the caller may read afterwards.
    """
    n_joints, n_shape = parents.shape[0], shape.shape[0]
    n_params = 3 * n_joints + 3 + n_shape
    height, width = depth.shape
    joints = np.empty((n_joints, 3), np.float64)
    shaped_joints(joint_template, jointdirs, shape, joints)
    G = np.empty((n_joints, 3, 3), np.float64)
    posed = np.empty((n_joints, 3), np.float64)
    joint_motions(rotations, joints, parents, R_cw, t_cw, transl, G, posed)
    rest_shape(template, shapedirs, shape.astype(np.float32), rest)
    skin(rest, weight_joints, weights, G, posed, joints, points)
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    draw_faces(points, faces, fx, fy, cx, cy, drawn, face)
    for r in range(height):
        for c in range(width):
            near_model[r, c] = r * width + c if face[r, c] >= 0 else -1
    nearest_marked(near_model)

    Gf = G.astype(np.float32)
    posed_f = posed.astype(np.float32)
    joints_f = joints.astype(np.float32)
    motion = np.empty((n_joints, 3, n_shape), np.float64)
    if want_rows:
        joint_shape_motion(jointdirs, parents, R_cw, G, motion)
    motion_f = motion.astype(np.float32)
    H32 = np.zeros((n_params, n_params), np.float32)
    g32 = np.zeros(n_params, np.float32)
    rows = np.zeros((BLOCK, n_params + 1), np.float32)
    filled = 0
    W = np.empty(n_joints, np.float32)
    X = np.empty((n_joints, 3), np.float32)
    corners = np.empty(3, np.int32)
    bary = np.empty(3, np.float32)
    grad = np.empty(3, np.float32)
    stats[:] = 0.0
    weight = settings[PIXEL_WEIGHT]
    sigma_d, c_d = settings[SIGMA_DEPTH], settings[ROBUST_DEPTH]
    sigma_o, c_o = settings[SIGMA_OUTLINE], settings[ROBUST_OUTLINE]
    c_d2, c_o2 = c_d * c_d, c_o * c_o
    fmean = 0.5 * (fx + fy)
    window = settings[WINDOW]
    for pixel in range(height * width):
        r, c = pixel // width, pixel % width
        f = face[r, c]
        kind = label[r, c]
        if kind == PERSON:
            stats[NUM_PERSON] += 1
        near_drawn = np.float32(-1.0)
        if f < 0 and kind == PERSON and near_model[r, c] >= 0:
            near_drawn = drawn[near_model[r, c] // width, near_model[r, c] % width]
        mode = mode_of_pixel(f >= 0, kind, depth[r, c], drawn[r, c], near_person[r, c] >= 0, near_drawn)
        if mode == NOTHING:
            continue
        # at an inner edge (an arm before the trunk) the surface in the same pixel is another limb: a pixel that gapes
        # is compared with the nearest surface in a window around it, sensor to body and body to sensor
        passes = 1
        gap = np.float32(0.0)
        if mode == DEPTH:
            gap = depth[r, c] - drawn[r, c]
            if window > 0 and abs(gap) > GAPING:
                passes = 2
        for turn in range(passes):
            # rr, cc: the model's pixel; sr, sc: the sensor's
            rr, cc, sr, sc = r, c, r, c
            if mode == BARE:
                rr, cc = near_model[r, c] // width, near_model[r, c] % width
            if passes == 2:
                half = min(MAX_WINDOW, int(window * fmean / drawn[r, c]))
                if turn == 0:
                    z = depth[r, c]
                    rr, cc, _ = nearest_in_window(
                        (np.float32(c) - cx) / fx * z, (np.float32(r) - cy) / fy * z, z,
                        drawn, label, -1, r, c, half, fx, fy, cx, cy,
                    )  # fmt: skip
                else:
                    z = drawn[r, c]
                    sr, sc, _ = nearest_in_window(
                        (np.float32(c) - cx) / fx * z, (np.float32(r) - cy) / fy * z, z,
                        depth, label, PERSON, r, c, half, fx, fy, cx, cy,
                    )  # fmt: skip
            f = face[rr, cc]
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            dx, dy = (np.float32(cc) - cx) / fx, (np.float32(rr) - cy) / fy
            wb, wc = barycentrics(
                points[i, 0], points[i, 1], points[i, 2], points[j, 0], points[j, 1], points[j, 2],
                points[k, 0], points[k, 1], points[k, 2], dx, dy,
            )  # fmt: skip
            z = drawn[rr, cc]
            if mode == DEPTH:
                nx, ny, nz, norm = face_normal(
                    points[i, 0], points[i, 1], points[i, 2], points[j, 0], points[j, 1], points[j, 2],
                    points[k, 0], points[k, 1], points[k, 2],
                )  # fmt: skip
                if norm == 0:
                    continue
                zs = depth[sr, sc]
                outside, grad[0], grad[1], grad[2], cost, strength = depth_evidence(
                    nx, ny, nz,
                    (np.float32(sc) - cx) / fx * zs - dx * z, (np.float32(sr) - cy) / fy * zs - dy * z, zs - z,
                    gap, passes == 2, weight / passes, sigma_d, settings[SIGMA_BEHIND], c_d2,
                )  # fmt: skip
                stats[COST_DEPTH] += cost
                if turn == 0:
                    stats[NUM_BOTH] += 1
                    stats[SUM_GAP] += abs(outside)
                # residual = n·(model - sensor)
                residual = np.float32(-outside)
            else:
                if mode == SPILLED:
                    q = near_person[r, c]
                    du, dv = np.float32(c - q % width), np.float32(r - q // width)
                    stats[NUM_SPILLED] += 1
                else:
                    du, dv = np.float32(cc - c), np.float32(rr - r)
                    stats[NUM_BARE] += 1
                across, grad[0], grad[1], grad[2], cost, strength = outline_evidence(
                    du, dv, dx, dy, z, fmean, weight, sigma_o, c_o2
                )
                stats[COST_OUTLINE] += cost
                residual = np.float32(across)
            if want_rows:
                corners[0], corners[1], corners[2] = i, j, k
                bary[0], bary[1], bary[2] = np.float32(1.0) - wb - wc, wb, wc
                surface_row(
                    corners, bary, grad, np.float32(strength), np.float32(residual),
                    rest, shapedirs, weight_joints, weights, joints_f, parents, Gf, Gf, posed_f, motion_f,
                    R_cw, W, X, rows[filled],
                )  # fmt: skip
                filled += 1
                if filled == BLOCK:
                    add_products(rows, BLOCK, H32, g32, n_params)
                    filled = 0
    if floor_plane[0] != 0 or floor_plane[1] != 0 or floor_plane[2] != 0:
        c_f, share_f = settings[ROBUST_FLOOR], settings[FLOOR_WEIGHT]
        # the plane seen from the camera: n_c = R n, d_c = d - n_c·t
        n0 = R_cw[0, 0] * floor_plane[0] + R_cw[0, 1] * floor_plane[1] + R_cw[0, 2] * floor_plane[2]
        n1 = R_cw[1, 0] * floor_plane[0] + R_cw[1, 1] * floor_plane[1] + R_cw[1, 2] * floor_plane[2]
        n2 = R_cw[2, 0] * floor_plane[0] + R_cw[2, 1] * floor_plane[1] + R_cw[2, 2] * floor_plane[2]
        d_c = floor_plane[3] - (n0 * t_cw[0] + n1 * t_cw[1] + n2 * t_cw[2])
        bary[0], bary[1], bary[2] = np.float32(1.0), np.float32(0.0), np.float32(0.0)
        for i in range(floor_vertices.shape[0]):
            v = floor_vertices[i]
            above = n0 * points[v, 0] + n1 * points[v, 1] + n2 * points[v, 2] + d_c
            cost, strength = floor_evidence(above, share_f, settings[SIGMA_FLOOR], settings[SIGMA_SUNK], c_f * c_f)
            stats[COST_FLOOR] += cost
            if want_rows:
                grad[0], grad[1], grad[2] = n0, n1, n2
                corners[0] = v
                surface_row(
                    corners, bary, grad, np.float32(strength), np.float32(above),
                    rest, shapedirs, weight_joints, weights, joints_f, parents, Gf, Gf, posed_f, motion_f,
                    R_cw, W, X, rows[filled],
                )  # fmt: skip
                filled += 1
                if filled == BLOCK:
                    add_products(rows, BLOCK, H32, g32, n_params)
                    filled = 0
    if want_rows:
        while filled % 4 != 0:
            rows[filled, :] = np.float32(0.0)
            filled += 1
        add_products(rows, filled, H32, g32, n_params)
        for a in range(n_params):
            g[a] = g32[a]
            for b in range(a, n_params):
                H[a, b] = H32[a, b]
                H[b, a] = H32[a, b]
