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


@njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def draw_faces(points_cam, faces, fx, fy, cx, cy, depth, face):
    """Fills depth (H, W) metres, 0 where nothing is, and face (H, W), -1 where nothing is."""
    height, width = depth.shape
    n_points = points_cam.shape[0]
    uvw = np.empty((n_points, 3), np.float32)
    one = np.float32(1.0)
    for i in range(n_points):
        z = points_cam[i, 2]
        if z > NEAR_M:
            w = one / z
            u = fx * points_cam[i, 0] * w + cx
            v = fy * points_cam[i, 1] * w + cy
            if abs(u) < MAX_PX and abs(v) < MAX_PX:
                uvw[i, 0], uvw[i, 1], uvw[i, 2] = u, v, w
            else:
                uvw[i, 2] = np.float32(-1.0)
        else:
            uvw[i, 2] = np.float32(-1.0)  # behind the camera, too near, or NaN: every comparison with NaN is false
    # depth holds 1/z while drawing: it is linear in the image, and the nearest has the largest
    depth[:] = np.float32(0.0)
    face[:] = -1
    top, bottom = height, -1
    for f in range(faces.shape[0]):
        # unsigned: no number counts from the end, which would have to be looked into at every access
        a, b, c = np.uintp(faces[f, 0]), np.uintp(faces[f, 1]), np.uintp(faces[f, 2])
        wa, wb, wc = uvw[a, 2], uvw[b, 2], uvw[c, 2]
        if wa <= 0 or wb <= 0 or wc <= 0:
            continue
        ua, va, ub, vb, uc, vc = uvw[a, 0], uvw[a, 1], uvw[b, 0], uvw[b, 1], uvw[c, 0], uvw[c, 1]
        area = (ub - ua) * (vc - va) - (vb - va) * (uc - ua)
        if not area < np.float32(-1e-9):
            continue
        u_low, u_high = min(ua, ub, uc), max(ua, ub, uc)
        v_low, v_high = min(va, vb, vc), max(va, vb, vc)
        if u_high < 0 or v_high < 0:
            continue
        u_low, v_low = max(u_low, np.float32(0.0)), max(v_low, np.float32(0.0))
        c0, r0 = np.int32(u_low), np.int32(v_low)
        c0, r0 = c0 + (np.float32(c0) < u_low), r0 + (np.float32(r0) < v_low)
        c1, r1 = min(width - 1, np.int32(u_high)), min(height - 1, np.int32(v_high))
        if c0 > c1 or r0 > r1:
            continue
        top, bottom = min(top, r0), max(bottom, r1)
        inv = one / area
        # barycentrics of b and c are linear in the pixel: start and slopes
        db_du, db_dv = (vc - va) * inv, -(uc - ua) * inv
        dc_du, dc_dv = -(vb - va) * inv, (ub - ua) * inv
        dwb, dwc = wb - wa, wc - wa
        for r in range(np.uintp(r0), np.uintp(r1 + 1)):
            dv = np.float32(r) - va
            inside = False
            lb_row, lc_row = dv * db_dv, dv * dc_dv
            for col in range(np.uintp(c0), np.uintp(c1 + 1)):
                du = np.float32(col) - ua
                lb = du * db_du + lb_row
                lc = du * dc_du + lc_row
                if lb >= 0 and lc >= 0 and lb + lc <= one:
                    inside = True
                    w = wa + lb * dwb + lc * dwc
                    if w > depth[r, col]:
                        depth[r, col] = w
                        face[r, col] = f
                elif inside:
                    break  # a triangle is convex: the row has left it
    for r in range(top, bottom + 1):
        for col in range(width):
            w = depth[r, col]
            depth[r, col] = one / w if w > 0 else w


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
