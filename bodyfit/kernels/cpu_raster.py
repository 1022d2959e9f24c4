"""Points of a mesh on the CPU, the gradient of depth, and the names of what is seen; `cpu_draw` draws the faces.

One call does one image and holds no lock of Python's: the caller runs images side by side. Samples are n × n per
pixel, regularly spaced; sample (i, j) of the fine grid lies at u = (j + ½) / n − ½, v = (i + ½) / n − ½.
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
    plane_sum_vjp,
    project,
    project_vjp,
    surface_weights,
    surface_weights_vjp,
)

kernel = njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy", forceinline=True)
# For what is called with arrays in a loop: a call, inlined by LLVM or not, counts each array's references up and down
# in atomic instructions, which take longer than the work on a pixel. Inlined by Numba, without a loop of its own, it
# leaves no call; with loops it may take longer than written out, which is to be measured.
part = njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy", inline="always")

# Neighbours overlap by this share of a triangle, so that rounding leaves no gap between them.
OVERLAP = np.float32(1e-6)
FAR = np.float32(-3e38)
NO_AREA, TOO_LARGE = np.float32(1e-12), np.float32(1e30)


@kernel
def all_within(values, most):
    """Whether every one of values (N,) lies between -most and most; NaN and infinity do not."""
    wrong = 0
    for i in range(np.uintp(values.shape[0])):
        wrong |= np.int32(not (abs(values[i]) <= np.float32(most)))
    return wrong == 0


@kernel
def all_below(numbers, count):
    """Whether every one of numbers (N,) int32 lies in 0 ... count - 1."""
    largest = np.uint32(0)
    for i in range(np.uintp(numbers.shape[0])):
        number = np.uint32(numbers[i])  # what is negative is large
        largest = number if number > largest else largest
    return largest < count


@kernel
def all_equal(a, b):
    """Whether two arrays (N,) int32 are the same."""
    differs = 0
    for i in range(np.uintp(a.shape[0])):
        differs |= a[i] ^ b[i]
    return differs == 0


@kernel
def move_points(points, pose, most, moved):
    """moved (V, 3) = rotation · points (V, 3) + translation, of a pose (4, 4).

    Returns the smallest z of moved, and whether every one of points lies between -most and most.
    """
    r00, r01, r02, tx = pose[0, 0], pose[0, 1], pose[0, 2], pose[0, 3]
    r10, r11, r12, ty = pose[1, 0], pose[1, 1], pose[1, 2], pose[1, 3]
    r20, r21, r22, tz = pose[2, 0], pose[2, 1], pose[2, 2], pose[2, 3]
    nearest = np.float32(3e38) * (ONE + ZERO * tz)
    for i in range(points.shape[0]):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        moved[i, 0] = r00 * x + r01 * y + r02 * z + tx
        moved[i, 1] = r10 * x + r11 * y + r12 * z + ty
        moved[i, 2] = r20 * x + r21 * y + r22 * z + tz
    for i in range(points.shape[0]):
        there = moved[i, 2]
        nearest = there if there < nearest else nearest
    return nearest, all_within(points.reshape(-1), most)


@kernel
def move_points_vjp(points, pose, v_moved, both, v_points, v_pose):
    """Fills v_points (V, 3) and, where both are asked for, the first three rows of v_pose (4, 4) float64."""
    r00, r01, r02 = pose[0, 0], pose[0, 1], pose[0, 2]
    r10, r11, r12 = pose[1, 0], pose[1, 1], pose[1, 2]
    r20, r21, r22 = pose[2, 0], pose[2, 1], pose[2, 2]
    for i in range(points.shape[0]):
        gx, gy, gz = v_moved[i, 0], v_moved[i, 1], v_moved[i, 2]
        v_points[i, 0] = r00 * gx + r10 * gy + r20 * gz
        v_points[i, 1] = r01 * gx + r11 * gy + r21 * gz
        v_points[i, 2] = r02 * gx + r12 * gy + r22 * gz
    if not both:
        return
    s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = s20 = s21 = s22 = s23 = 0.0
    for i in range(points.shape[0]):
        gx, gy, gz = v_moved[i, 0], v_moved[i, 1], v_moved[i, 2]
        x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        s00, s01, s02, s03 = s00 + gx * x, s01 + gx * y, s02 + gx * z, s03 + gx
        s10, s11, s12, s13 = s10 + gy * x, s11 + gy * y, s12 + gy * z, s13 + gy
        s20, s21, s22, s23 = s20 + gz * x, s21 + gz * y, s22 + gz * z, s23 + gz
    v_pose[0, 0], v_pose[0, 1], v_pose[0, 2], v_pose[0, 3] = s00, s01, s02, s03
    v_pose[1, 0], v_pose[1, 1], v_pose[1, 2], v_pose[1, 3] = s10, s11, s12, s13
    v_pose[2, 0], v_pose[2, 1], v_pose[2, 2], v_pose[2, 3] = s20, s21, s22, s23


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
    """Fills v_points (V, 3) and adds to v_intrinsics (4,) what v_screen (V, 3) float64 says."""
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    s0 = s1 = s2 = s3 = 0.0
    for i in range(points.shape[0]):
        v_u, v_v, v_q = v_screen[i, 0], v_screen[i, 1], v_screen[i, 2]
        # one that is in no picture may lie anywhere, also at z = 0
        seen = (v_u != 0.0) | (v_v != 0.0) | (v_q != 0.0)
        x, y, z, k0, k1, k2, k3 = project_vjp(
            points[i, 0], points[i, 1], points[i, 2], fx, fy, cx, cy, perspective, v_u, v_v, v_q
        )
        v_points[i, 0], v_points[i, 1], v_points[i, 2] = x if seen else 0.0, y if seen else 0.0, z if seen else 0.0
        s0, s1 = s0 + (k0 if seen else 0.0), s1 + (k1 if seen else 0.0)
        s2, s3 = s2 + k2, s3 + k3
    v_intrinsics[0] += s0
    v_intrinsics[1] += s1
    v_intrinsics[2] += s2
    v_intrinsics[3] += s3


@part
def share_of(samples, screen):
    """One over the number of samples in a pixel, in the precision of the screen's points."""
    one = np.ones(1, screen.dtype)[0]
    return one / np.float32(samples * samples)


@kernel
def cover_vjp(screen, faces, nearest, ids, samples, reach, perspective, v_depth, sums, v_screen):
    """Adds to v_screen (V, 3) float64 what moves the depth inside of the faces, v_depth (H, W).

    sums (F, 3) float64 is scratch that comes 0 and is left so: each face's sums over its samples are carried to its
    corners once.
    """
    n = np.float32(samples)
    share = share_of(samples, screen)
    for r in range(np.uintp(reach[0]), np.uintp(reach[1] + 1)):
        v = (np.float32(np.int32(r)) + HALF) / n - HALF
        row = r if samples == 1 else r // np.uintp(samples)
        for col in range(np.uintp(reach[2]), np.uintp(reach[3] + 1)):
            f = ids[r, col]
            if f < 0:
                continue
            u = (np.float32(np.int32(col)) + HALF) / n - HALF
            g = -v_depth[row, col if samples == 1 else col // np.uintp(samples)] * share
            if perspective:
                z = ONE / nearest[r, col]
                g *= z * z
            at = np.uintp(f)
            sums[at, 0] += g
            sums[at, 1] += np.float64(g) * u
            sums[at, 2] += np.float64(g) * v
    for f in range(faces.shape[0]):
        s, su, sv = sums[f, 0], sums[f, 1], sums[f, 2]
        if s == 0.0 and su == 0.0 and sv == 0.0:
            continue
        sums[f, 0] = sums[f, 1] = sums[f, 2] = 0.0
        a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
        v_corners = plane_sum_vjp(
            screen[a, 0], screen[a, 1], screen[a, 2], screen[b, 0], screen[b, 1], screen[b, 2],
            screen[c, 0], screen[c, 1], screen[c, 2], s, su, sv, 1.0,
        )  # fmt: skip
        for k in range(3):
            v_screen[a, k] += v_corners[k]
            v_screen[b, k] += v_corners[3 + k]
            v_screen[c, k] += v_corners[6 + k]


@part
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


@part
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
