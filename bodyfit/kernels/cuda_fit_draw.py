"""Bodies of a batch of fits drawn on a GPU: the nearest face at every pixel, and the nearest covered pixel to each.

As `kernels.raster` and `kernels.nearest`, for all items at once. Images are as large as the batch's largest; each item
draws within its own size (h, w). The nearest face is a maximum over the faces of one number: the bits of the inverse
depth, and below them the face's number, where fewer is more; so no order of threads changes what wins.
"""

from __future__ import annotations

import numpy as np

from bodyfit.kernels.cuda_jit import F2, F3, I1, I2, I3, L3, cuda, float_as_int, int_as_float, kernel
from bodyfit.kernels.raster import LEAST_AREA_PX2, MAX_PX, NEAR_M

ZERO, ONE = np.float32(0.0), np.float32(1.0)
LAST_FACE = np.int64(2**32 - 1)
FAR_ROW = np.int64(1 << 20)
"""farther than any row"""


@kernel(F3, F2, I1, F3)
def project_points(points, intrinsics, view_of_item, screen):
    """screen (M, V, 3): column, row and inverse depth of points (M, V, 3); inverse depth -1: not to be drawn."""
    n_points = points.shape[1]
    for i in range(cuda.grid(1), points.shape[0] * n_points, cuda.gridsize(1)):
        m = i // n_points
        v = i - m * n_points
        view = view_of_item[m]
        z = points[m, v, 2]
        w = ONE / z
        x = intrinsics[view, 0] * points[m, v, 0] * w + intrinsics[view, 2]
        y = intrinsics[view, 1] * points[m, v, 1] * w + intrinsics[view, 3]
        # behind the camera, too near, or NaN: every comparison with NaN is false
        good = z > NEAR_M and abs(x) < MAX_PX and abs(y) < MAX_PX
        screen[m, v, 0] = x if good else ZERO
        screen[m, v, 1] = y if good else ZERO
        screen[m, v, 2] = w if good else -ONE


@kernel(F3, I2, I2, I1, L3)
def draw_faces(screen, faces, sizes, view_of_item, nearest):
    """The nearest face at every pixel centre, into nearest (M, H, W), which comes 0; sizes (U, 2) rows and columns."""
    n_faces = faces.shape[0]
    for i in range(cuda.grid(1), screen.shape[0] * n_faces, cuda.gridsize(1)):
        m = i // n_faces
        f = i - m * n_faces
        height, width = sizes[view_of_item[m], 0], sizes[view_of_item[m], 1]
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        wa, wb, wc = screen[m, a, 2], screen[m, b, 2], screen[m, c, 2]
        ua, va, ub, vb = screen[m, a, 0], screen[m, a, 1], screen[m, b, 0], screen[m, b, 1]
        uc, vc = screen[m, c, 0], screen[m, c, 1]
        area = (ub - ua) * (vc - va) - (vb - va) * (uc - ua)
        u_high, v_high = max(ua, ub, uc), max(va, vb, vc)
        if not (min(wa, wb, wc) > ZERO and area < -LEAST_AREA_PX2 and u_high >= ZERO and v_high >= ZERO):
            continue
        u_low, v_low = max(min(ua, ub, uc), ZERO), max(min(va, vb, vc), ZERO)
        c0, r0 = np.int32(u_low), np.int32(v_low)
        c0 += 1 if np.float32(c0) < u_low else 0
        r0 += 1 if np.float32(r0) < v_low else 0
        c1, r1 = np.int32(min(u_high, np.float32(width - 1))), np.int32(min(v_high, np.float32(height - 1)))
        inv = ONE / area
        db_du, db_dv = (vc - va) * inv, -(uc - ua) * inv
        dc_du, dc_dv = -(vb - va) * inv, (ub - ua) * inv
        for r in range(r0, r1 + 1):
            dv = np.float32(r) - va
            for q in range(c0, c1 + 1):
                du = np.float32(q) - ua
                lb, lc = du * db_du + dv * db_dv, du * dc_du + dv * dc_dv
                if lb >= ZERO and lc >= ZERO and lb + lc <= ONE:
                    w = wa + lb * (wb - wa) + lc * (wc - wa)
                    if w > ZERO:
                        key = np.int64(float_as_int(w)) * (LAST_FACE + 1) + (LAST_FACE - f)
                        cuda.atomic.max(nearest, (m, r, q), key)


@kernel(L3, F3, I3)
def read_faces(nearest, drawn, face):
    """drawn (M, H, W) metres, 0 where nothing is, and face (M, H, W), -1 where nothing is, of `draw_faces`."""
    height, width = face.shape[1], face.shape[2]
    for i in range(cuda.grid(1), face.shape[0] * height * width, cuda.gridsize(1)):
        m = i // (height * width)
        at = i - m * height * width
        r = at // width
        c = at - r * width
        key = nearest[m, r, c]
        if key == 0:
            drawn[m, r, c], face[m, r, c] = ZERO, -1
        else:
            drawn[m, r, c] = ONE / int_as_float(np.int32(key >> 32))
            face[m, r, c] = np.int32(LAST_FACE - (key & LAST_FACE))


@kernel(I3, I3)
def nearest_rows(face, rows):
    """rows (M, H, W): the row of the nearest covered pixel in the same column, far away where there is none."""
    height, width = face.shape[1], face.shape[2]
    for i in range(cuda.grid(1), face.shape[0] * width, cuda.gridsize(1)):
        m = i // width
        c = i - m * width
        last = np.int32(-FAR_ROW)
        for r in range(height):
            if face[m, r, c] >= 0:
                last = r
            rows[m, r, c] = last
        last = np.int32(FAR_ROW)
        for back in range(height):
            r = height - 1 - back
            if face[m, r, c] >= 0:
                last = r
            if last - r < r - rows[m, r, c]:
                rows[m, r, c] = last


@kernel(I3, I2, I1, I3)
def nearest_pixels(rows, sizes, view_of_item, near):
    """near (M, H, W): the flat number (row · W + column) of the nearest covered pixel to each within an item's size,
    as `kernels.nearest`
    finds it; -1 where nothing is covered. rows (M, H, W) from `nearest_rows`."""
    height, width = rows.shape[1], rows.shape[2]
    for i in range(cuda.grid(1), rows.shape[0] * height * width, cuda.gridsize(1)):
        m = i // (height * width)
        at = i - m * height * width
        r = at // width
        c = at - r * width
        columns = sizes[view_of_item[m], 1]
        found = -1
        if r < sizes[view_of_item[m], 0] and c < columns:
            best = FAR_ROW * FAR_ROW
            column = columns
            for step in range(max(c, columns - 1 - c) + 1):
                if step * step > best:
                    break
                for side in range(2):
                    q = c - step if side == 0 else c + step
                    if q < 0 or q >= columns:
                        continue
                    dr = np.int64(rows[m, r, q] - r)
                    apart = dr * dr + step * step
                    # of equally near ones the one furthest to the left
                    if abs(dr) < height and (apart < best or (apart == best and q < column)):
                        best, column = apart, q
                        found = rows[m, r, q] * width + q
        near[m, r, c] = found
