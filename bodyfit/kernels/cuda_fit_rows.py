"""What the pixels of a batch of fits say, on a GPU: first a record for each residual, then a Jacobian row for each.

As `kernels.evidence.linearize_view`, whose scalar functions these grids call. A pixel has up to two records; rows lie
together in the order of the pixels, whatever order the threads come in.
"""

from __future__ import annotations

import numpy as np
from numba import float32, int32

from bodyfit.kernels.cuda_jit import F2, F3, F4, FLAG, I1, I2, I3, INT, L2, U3, cuda, kernel
from bodyfit.kernels.evidence import (
    FLOOR_WEIGHT,
    PIXEL_WEIGHT,
    ROBUST_DEPTH,
    ROBUST_FLOOR,
    ROBUST_OUTLINE,
    SIGMA_BEHIND,
    SIGMA_DEPTH,
    SIGMA_FLOOR,
    SIGMA_OUTLINE,
    SIGMA_SUNK,
    WINDOW,
    nearest_in_window,
    surface_row,
)
from bodyfit.kernels.raster import barycentrics
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

ZERO, HALF, ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)
MOST_JOINTS = 64
"""a body may have so many: room in each thread"""
CHUNK = 256
"""rows that lie together"""
# places in a record
(GRAD_X, GRAD_Y, GRAD_Z, STRENGTH, RESIDUAL, COST, GAP) = range(7)
NUM_RECORD = 7


@kernel(
    F3, I2, F3, I3, I3, F3, U3, I3, F2, F2, I1, F4, I3, I2
)  # fmt: skip
def compare_pixels(
    points, faces, drawn, face, near_model, depth, label, near_person, intrinsics, settings, view_of_item, records,
    where, modes,
):  # fmt: skip
    """What every pixel says of every item: up to two records.

    points (M, V, 3), drawn, face, near_model (M, H, W) of the items; depth, label, near_person (U, H, W), intrinsics
    (U, 4), settings (U, NUM_SETTINGS) of the views; near_model and near_person count in columns of W. Fills records
    (M, H·W, 2, NUM_RECORD), where (M, H·W, 2), the model's pixel of each record or -1 for none, and modes (M, H·W).
    """
    height, width = depth.shape[1], depth.shape[2]
    for p in range(cuda.grid(1), points.shape[0] * height * width, cuda.gridsize(1)):
        m = p // (height * width)
        pixel = p - m * height * width
        r = pixel // width
        c = pixel - r * width
        view = view_of_item[m]
        where[m, pixel, 0], where[m, pixel, 1] = -1, -1
        f = face[m, r, c]
        kind = label[view, r, c]
        near_drawn = -ONE
        if f < 0 and kind == PERSON and near_model[m, r, c] >= 0:
            near_drawn = drawn[m, near_model[m, r, c] // width, near_model[m, r, c] % width]
        mode = mode_of_pixel(f >= 0, kind, depth[view, r, c], drawn[m, r, c], near_person[view, r, c] >= 0, near_drawn)
        modes[m, pixel] = mode
        if mode == NOTHING:
            continue
        fx, fy, cx, cy = intrinsics[view, 0], intrinsics[view, 1], intrinsics[view, 2], intrinsics[view, 3]
        f_mean = HALF * (fx + fy)
        weight, window = settings[view, PIXEL_WEIGHT], settings[view, WINDOW]
        passes = 1
        gap = ZERO
        if mode == DEPTH:
            gap = depth[view, r, c] - drawn[m, r, c]
            if window > ZERO and abs(gap) > GAPING:
                passes = 2
        for turn in range(passes):
            rr, cc, sr, sc = r, c, r, c
            if mode == BARE:
                rr, cc = near_model[m, r, c] // width, near_model[m, r, c] % width
            if passes == 2:
                half = min(MAX_WINDOW, int(window * f_mean / drawn[m, r, c]))
                if turn == 0:
                    z = depth[view, r, c]
                    rr, cc, _ = nearest_in_window(
                        (np.float32(c) - cx) / fx * z, (np.float32(r) - cy) / fy * z, z,
                        drawn[m], label[view], -1, r, c, half, fx, fy, cx, cy,
                    )  # fmt: skip
                else:
                    z = drawn[m, r, c]
                    sr, sc, _ = nearest_in_window(
                        (np.float32(c) - cx) / fx * z, (np.float32(r) - cy) / fy * z, z,
                        depth[view], label[view], PERSON, r, c, half, fx, fy, cx, cy,
                    )  # fmt: skip
            f = face[m, rr, cc]
            dx, dy = (np.float32(cc) - cx) / fx, (np.float32(rr) - cy) / fy
            z = drawn[m, rr, cc]
            if mode == DEPTH:
                i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
                nx, ny, nz, norm = face_normal(
                    points[m, i, 0], points[m, i, 1], points[m, i, 2], points[m, j, 0], points[m, j, 1],
                    points[m, j, 2], points[m, k, 0], points[m, k, 1], points[m, k, 2],
                )  # fmt: skip
                if norm == ZERO:
                    continue
                zs = depth[view, sr, sc]
                outside, gx, gy, gz, cost, strength = depth_evidence(
                    nx, ny, nz,
                    (np.float32(sc) - cx) / fx * zs - dx * z, (np.float32(sr) - cy) / fy * zs - dy * z, zs - z,
                    gap, passes == 2, weight / np.float32(passes), settings[view, SIGMA_DEPTH],
                    settings[view, SIGMA_BEHIND], settings[view, ROBUST_DEPTH] * settings[view, ROBUST_DEPTH],
                )  # fmt: skip
                residual, apart = -outside, abs(outside) if turn == 0 else ZERO
            else:
                if mode == SPILLED:
                    q = near_person[view, r, c]
                    du, dv = np.float32(c - q % width), np.float32(r - q // width)
                else:
                    du, dv = np.float32(cc - c), np.float32(rr - r)
                residual, gx, gy, gz, cost, strength = outline_evidence(
                    du, dv, dx, dy, z, f_mean, weight, settings[view, SIGMA_OUTLINE],
                    settings[view, ROBUST_OUTLINE] * settings[view, ROBUST_OUTLINE],
                )  # fmt: skip
                apart = ZERO
            where[m, pixel, turn] = rr * width + cc
            records[m, pixel, turn, GRAD_X] = gx
            records[m, pixel, turn, GRAD_Y] = gy
            records[m, pixel, turn, GRAD_Z] = gz
            records[m, pixel, turn, STRENGTH] = strength
            records[m, pixel, turn, RESIDUAL] = residual
            records[m, pixel, turn, COST] = cost
            records[m, pixel, turn, GAP] = apart


@kernel(
    INT, F4, I3, L2, F3, I2, I3, F2, F3, F4, I2, F2, F3, I1, F4, F3, F4, F3, I1, I1, I1, F4
)  # fmt: skip
def write_rows(
    room, records, where, order, points, faces, face, intrinsics, rest, shapedirs, weight_joints, weights, joints,
    parents, G, posed, shape_motion, R_cw, view_of_item, group_of_item, mesh_of_group, rows,
):  # fmt: skip
    """Jacobian rows of the records: rows (M, C, P + 1, CHUNK), which comes 0, row k of an item at [k // CHUNK, :,
    k % CHUNK]; order (M, H·W·2) is k + 1 at a record, counted from the first; from `room` on they are left out."""
    width = face.shape[2]
    n_slots = order.shape[1]
    W = cuda.local.array(MOST_JOINTS, float32)
    X = cuda.local.array((MOST_JOINTS, 3), float32)
    corners = cuda.local.array(3, int32)
    bary = cuda.local.array(3, float32)
    grad = cuda.local.array(3, float32)
    for p in range(cuda.grid(1), points.shape[0] * n_slots, cuda.gridsize(1)):
        m = p // n_slots
        slot = p - m * n_slots
        pixel = slot // 2
        turn = slot - pixel * 2
        at = where[m, pixel, turn]
        k = order[m, slot] - 1
        if at < 0 or k >= room:
            continue
        view, group = view_of_item[m], group_of_item[m]
        rr = at // width
        cc = at - rr * width
        f = face[m, rr, cc]
        for q in range(3):
            corners[q] = faces[f, q]
            grad[q] = records[m, pixel, turn, GRAD_X + q]
        a, b, c = corners[0], corners[1], corners[2]
        wb, wc = barycentrics(
            points[m, a, 0], points[m, a, 1], points[m, a, 2], points[m, b, 0], points[m, b, 1], points[m, b, 2],
            points[m, c, 0], points[m, c, 1], points[m, c, 2],
            (np.float32(cc) - intrinsics[view, 2]) / intrinsics[view, 0],
            (np.float32(rr) - intrinsics[view, 3]) / intrinsics[view, 1],
        )  # fmt: skip
        bary[0], bary[1], bary[2] = ONE - wb - wc, wb, wc
        surface_row(
            corners, bary, grad, records[m, pixel, turn, STRENGTH], records[m, pixel, turn, RESIDUAL],
            rest[group], shapedirs[mesh_of_group[group]], weight_joints, weights, joints[group], parents, G[m], G[m],
            posed[m], shape_motion[m], R_cw[view], W, X, rows[m, k // CHUNK, :, k % CHUNK],
        )  # fmt: skip


@kernel(
    F3, I2, F2, F2, F3, F4, I2, F2, F3, I1, F4, F3, F4, F3, I1, I1, I1, F2, FLAG, F4
)  # fmt: skip
def write_soles(
    points, soles, planes, settings, rest, shapedirs, weight_joints, weights, joints, parents, G, posed,
    shape_motion, R_cw, view_of_item, group_of_item, mesh_of_group, costs, want_rows, rows,
):  # fmt: skip
    """Costs (M, F) and, where wanted, rows (M, C, P + 1, CHUNK) of the soles' vertices against the floor.

    soles (D, F) vertices, -1 for none; planes (U, 4) n·x + d in the camera, zero where the floor is unknown. The rows
    are the last F of the last chunk.
    """
    n_soles, n_chunks = soles.shape[1], rows.shape[1]
    W = cuda.local.array(MOST_JOINTS, float32)
    X = cuda.local.array((MOST_JOINTS, 3), float32)
    corners = cuda.local.array(3, int32)
    bary = cuda.local.array(3, float32)
    grad = cuda.local.array(3, float32)
    for p in range(cuda.grid(1), points.shape[0] * n_soles, cuda.gridsize(1)):
        m = p // n_soles
        i = p - m * n_soles
        view, group = view_of_item[m], group_of_item[m]
        d = mesh_of_group[group]
        v = soles[d, i]
        costs[m, i] = ZERO
        n0, n1, n2 = planes[view, 0], planes[view, 1], planes[view, 2]
        if v < 0 or (n0 == ZERO and n1 == ZERO and n2 == ZERO):
            continue
        above = n0 * points[m, v, 0] + n1 * points[m, v, 1] + n2 * points[m, v, 2] + planes[view, 3]
        cost, strength = floor_evidence(
            above, settings[view, FLOOR_WEIGHT], settings[view, SIGMA_FLOOR], settings[view, SIGMA_SUNK],
            settings[view, ROBUST_FLOOR] * settings[view, ROBUST_FLOOR],
        )  # fmt: skip
        costs[m, i] = cost
        if not want_rows:
            continue
        corners[0], corners[1], corners[2] = v, v, v
        bary[0], bary[1], bary[2] = ONE, ZERO, ZERO
        grad[0], grad[1], grad[2] = n0, n1, n2
        surface_row(
            corners, bary, grad, strength, above,
            rest[group], shapedirs[d], weight_joints, weights, joints[group], parents, G[m], G[m],
            posed[m], shape_motion[m], R_cw[view], W, X, rows[m, n_chunks - 1, :, CHUNK - n_soles + i],
        )  # fmt: skip
