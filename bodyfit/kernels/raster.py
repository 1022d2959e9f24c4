"""A z-buffer rasteriser for closed meshes, camera coordinates in, depth and faces at pixel centres out.

Camera axes are OpenCV's (y down), where a triangle wound outwards has negative area in the image when it faces the
camera: those are drawn, the others are the far side. Triangles with a corner nearer than `NEAR_M`, with NaN or
without area are left out.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bodyfit.kernels.body import FAST

NEAR_M = np.float32(0.05)
MAX_PX = np.float32(1.0e6)
LEAST_AREA_PX2 = np.float32(1e-9)
FACES_AT_ONCE = 512
LANES = 8
"""pixels of a row that are tested together: most of a body's triangles are narrower"""


@njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def facing_faces(uvw, faces, first, height, width, found, boxes):
    """Which of the faces from `first` on (up to `FACES_AT_ONCE`) face the camera and have a pixel centre in their box.

    uvw (V, 3) are columns, rows and inverse depths (below 0: not to be drawn). Fills `found` with face numbers and
    `boxes` with first and last row, first and last column within the image; returns how many. What is not drawn is
    overwritten by the next: half of a body's faces look away, and a branch for each would be guessed wrong too often.
    """
    zero, right, bottom = np.float32(0.0), np.float32(width - 1), np.float32(height - 1)
    n = np.uintp(0)
    for f in range(first, min(first + FACES_AT_ONCE, faces.shape[0])):
        # unsigned: no number counts from the end, which would have to be looked into at every access
        a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
        ua, va, ub, vb, uc, vc = uvw[a, 0], uvw[a, 1], uvw[b, 0], uvw[b, 1], uvw[c, 0], uvw[c, 1]
        area = (ub - ua) * (vc - va) - (vb - va) * (uc - ua)
        u_high, v_high = max(ua, ub, uc), max(va, vb, vc)
        u_low, v_low = max(min(ua, ub, uc), zero), max(min(va, vb, vc), zero)
        c0, r0 = np.int32(u_low), np.int32(v_low)
        c0, r0 = c0 + (np.float32(c0) < u_low), r0 + (np.float32(r0) < v_low)
        c1, r1 = np.int32(min(u_high, right)), np.int32(min(v_high, bottom))
        found[n] = f
        boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3] = r0, r1, c0, c1
        before = (min(uvw[a, 2], uvw[b, 2], uvw[c, 2]) > 0) & (area < -LEAST_AREA_PX2)
        n += np.uintp(before & (u_high >= 0) & (v_high >= 0) & (c0 <= c1) & (r0 <= r1))
    return n


# numpy's error model: a division by zero is infinite and fails every test below; it needs no branch and no exception
@njit(nogil=True, cache=True, fastmath=FAST, forceinline=True, error_model="numpy")
def draw_faces(points_cam, faces, fx, fy, cx, cy, depth, face):
    """Fills depth (H, W) metres, 0 where nothing is, and face (H, W), -1 where nothing is."""
    height, width = depth.shape
    zero, one = np.float32(0.0), np.float32(1.0)
    uvw = np.empty((points_cam.shape[0], 3), np.float32)
    for i in range(points_cam.shape[0]):
        z = points_cam[i, 2]
        w = one / z
        u, v = fx * points_cam[i, 0] * w + cx, fy * points_cam[i, 1] * w + cy
        # behind the camera, too near, or NaN: every comparison with NaN is false
        good = (z > NEAR_M) & (abs(u) < MAX_PX) & (abs(v) < MAX_PX)
        uvw[i, 0], uvw[i, 1], uvw[i, 2] = u if good else zero, v if good else zero, w if good else -one
    # depth holds 1/z while drawing: it is linear in the image, and the nearest has the largest; as positive floats are
    # ordered as their bits are, it is compared and put together as integers, for which there are no branches
    depth[:] = zero
    face[:] = -1
    bits = depth.view(np.int32)
    lanes = min(np.int32(LANES), np.int32(width))
    last = np.int32(width) - lanes
    top, bottom, left, right = np.int32(height), np.int32(-1), np.int32(width), np.int32(-1)
    found, boxes = np.empty(FACES_AT_ONCE, np.int32), np.empty((FACES_AT_ONCE, 4), np.int32)
    for first in range(0, faces.shape[0], FACES_AT_ONCE):
        for k in range(facing_faces(uvw, faces, first, height, width, found, boxes)):
            f = found[k]
            a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
            wa, wb, wc = uvw[a, 2], uvw[b, 2], uvw[c, 2]
            ua, va, ub, vb, uc, vc = uvw[a, 0], uvw[a, 1], uvw[b, 0], uvw[b, 1], uvw[c, 0], uvw[c, 1]
            inv = one / ((ub - ua) * (vc - va) - (vb - va) * (uc - ua))
            # barycentrics of b and c are linear in the pixel: start and slopes
            db_du, db_dv = (vc - va) * inv, -(uc - ua) * inv
            dc_du, dc_dv = -(vb - va) * inv, (ub - ua) * inv
            dwb, dwc = wb - wa, wc - wa
            r0, r1, c0, c1 = boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3]
            top, bottom, left, right = min(top, r0), max(bottom, r1), min(left, c0), max(right, c1)
            while c0 <= c1:
                # as many pixels as there are lanes, all within the image: what lies beside the triangle fails its test
                start = min(c0, last)
                u0 = np.float32(start) - ua
                for r in range(r0, r1 + 1):
                    dv = np.float32(r) - va
                    lb_row, lc_row = dv * db_dv, dv * dc_dv
                    for i in range(lanes):
                        row, col = np.uintp(r), np.uintp(start) + np.uintp(i)
                        du = np.float32(np.int32(i)) + u0
                        lb, lc = du * db_du + lb_row, du * dc_du + lc_row
                        w = wa + lb * dwb + lc * dwc
                        w = w if (lb >= 0) & (lc >= 0) & (lb + lc <= one) else zero
                        new, old, who = np.float32(w).view(np.int32), bits[row, col], face[row, col]
                        mask = -np.int32(new > old)
                        bits[row, col] = (new & mask) | (old & ~mask)
                        face[row, col] = (f & mask) | (who & ~mask)
                c0 = start + lanes
    for r in range(np.uintp(top), np.uintp(bottom + 1)):
        for col in range(np.uintp(left), np.uintp(right + 1)):
            w = depth[r, col]
            depth[r, col] = one / w if w > 0 else zero


@njit(nogil=True, cache=True, inline="always")
def barycentrics(xa, ya, za, xb, yb, zb, xc, yc, zc, dx, dy):
    """Weights (of b, of c) of the point where the ray (dx, dy, 1) meets the plane of the triangle a b c."""
    # signed volumes of the ray with each edge: the ray's point is a weighted mean with these weights
    va = dx * (yb * zc - zb * yc) + dy * (zb * xc - xb * zc) + (xb * yc - yb * xc)
    vb = dx * (yc * za - zc * ya) + dy * (zc * xa - xc * za) + (xc * ya - yc * xa)
    vc = dx * (ya * zb - za * yb) + dy * (za * xb - xa * zb) + (xa * yb - ya * xb)
    total = va + vb + vc
    if total == 0:
        return np.float32(0.0), np.float32(0.0)
    return vb / total, vc / total


@njit(nogil=True, cache=True)
def rasterize(points_cam, faces, fx, fy, cx, cy, depth_out, face_out, bary_out):
    """Draws the mesh points_cam (V, 3) float32, faces (F, 3) int32.

    Fills depth_out (H, W) float32 metres (0 = nothing), face_out (H, W) int32 (-1 = nothing) and bary_out (H, W, 2)
    float32: the weights of the face's first and second corner (the third's is the rest), perspective-correct.
    """
    fx, fy, cx, cy = np.float32(fx), np.float32(fy), np.float32(cx), np.float32(cy)
    draw_faces(points_cam, faces, fx, fy, cx, cy, depth_out, face_out)
    for r in range(face_out.shape[0]):
        for c in range(face_out.shape[1]):
            f = face_out[r, c]
            if f >= 0:
                i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
                wb, wc = barycentrics(
                    points_cam[i, 0], points_cam[i, 1], points_cam[i, 2],
                    points_cam[j, 0], points_cam[j, 1], points_cam[j, 2],
                    points_cam[k, 0], points_cam[k, 1], points_cam[k, 2],
                    (np.float32(c) - cx) / fx, (np.float32(r) - cy) / fy,
                )  # fmt: skip
                bary_out[r, c, 0] = np.float32(1.0) - wb - wc
                bary_out[r, c, 1] = wb
            else:
                bary_out[r, c, 0] = np.float32(0.0)
                bary_out[r, c, 1] = np.float32(0.0)
