"""Points of a body's surface in a colour image: where they are, which are seen, what colour they have there, and the
normal equations that draw each to where the image has its colour.

A point is skinned like a vertex, with the mean of its face's rest places and weights. Colours are display values from 0
to 1: the root of order `GAMMA` of linear light, as the pictures of cameras are, so that light and gain are factors and
noise is about even. A residual has three channels; what they say about a point's place in the image (two numbers) is
condensed into at most two rows, along the main axes of the gradients' 2 x 2 product, so that no channel costs a row of
its own.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from bodyfit.kernels.body import FAST, joint_motions, joint_shape_motion, rest_shape, shaped_joints, skin
from bodyfit.kernels.evidence import BLOCK, add_products, surface_row
from bodyfit.kernels.raster import barycentrics

# places in `settings`
(SIGMA, ROBUST, POINT_WEIGHT, LEAST_GRADIENT) = range(4)
NUM_SETTINGS = 4
# places in `stats`
(COST, NUM_POINTS, SUM_SQUARES, SUM_KEEP) = range(4)
NUM_STATS = 4

SH_BANDS = 9
GAMMA = 2.2
"""sRGB is a root of this order but for the darkest hundredth"""
SAME_SURFACE_M = np.float32(0.025)
EDGE_STEP_M = np.float32(0.06)


@njit(nogil=True, cache=True, inline="always")
def sh_basis(x, y, z):
    """The nine real spherical harmonics of order 0 to 2 at a unit vector, without their constant factors."""
    one = np.float32(1.0)
    return one, x, y, z, x * y, y * z, np.float32(3.0) * z * z - one, x * z, x * x - y * y


@njit(nogil=True, cache=True, fastmath=FAST)
def see_points(
    points, normals, drawn, intrinsics, margin, least_facing, depth, depth_intrinsics, R_dc, t_dc, agreement, facing
):  # fmt: skip
    """Fills facing (N,): the cosine between normal and line of sight where a point is seen, otherwise 0.

    drawn (h, w): depth of the whole body in this camera, 0 = nothing. A point is seen where the drawn surface is its
    own, neither the body's outline nor a step of its depth is within `margin` pixels, and the depth sensor (depth
    (H, W), R_dc, t_dc from this camera to its own) has a reading within `agreement` metres: what hangs before a limb,
    and a limb that is elsewhere, has colours of its own.
    """
    H, W = depth.shape
    dfx, dfy, dcx, dcy = depth_intrinsics[0], depth_intrinsics[1], depth_intrinsics[2], depth_intrinsics[3]
    height, width = drawn.shape
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    for v in range(points.shape[0]):
        facing[v] = np.float32(0.0)
        x, y, z = points[v, 0], points[v, 1], points[v, 2]
        if not z > np.float32(0.05):
            continue
        towards = -(normals[v, 0] * x + normals[v, 1] * y + normals[v, 2] * z) / np.sqrt(x * x + y * y + z * z)
        if towards < least_facing:
            continue
        c, r = int(np.rint(fx * x / z + cx)), int(np.rint(fy * y / z + cy))
        if c < margin or r < margin or c >= width - margin or r >= height - margin:
            continue
        here = drawn[r, c]
        if here <= 0 or abs(here - z) > SAME_SURFACE_M:
            continue
        xd = R_dc[0, 0] * x + R_dc[0, 1] * y + R_dc[0, 2] * z + t_dc[0]
        yd = R_dc[1, 0] * x + R_dc[1, 1] * y + R_dc[1, 2] * z + t_dc[1]
        zd = R_dc[2, 0] * x + R_dc[2, 1] * y + R_dc[2, 2] * z + t_dc[2]
        if not zd > np.float32(0.05):
            continue
        cd, rd = int(np.rint(dfx * xd / zd + dcx)), int(np.rint(dfy * yd / zd + dcy))
        if cd < 0 or rd < 0 or cd >= W or rd >= H:
            continue
        reading = depth[rd, cd]
        if reading <= 0 or abs(reading - zd) > agreement:
            continue
        near_edge = False
        for dr in (-margin, 0, margin):
            for dc in (-margin, 0, margin):
                there = drawn[r + dr, c + dc]
                if there <= 0 or abs(there - here) > EDGE_STEP_M:
                    near_edge = True
        if not near_edge:
            facing[v] = towards


@njit(nogil=True, cache=True, fastmath=FAST)
def light_of(normals, chosen, R_wc, light, out):
    """Fills out (N, 3) at `chosen` (n,): display values of the light on surfaces of the given normals in a camera.

    light (9, 3) linear, R_wc (3, 3) camera to world. At least 0.05 of the light's unit: nothing is lit by less.
    """
    for i in range(chosen.shape[0]):
        v = chosen[i]
        a, b, c = normals[v, 0], normals[v, 1], normals[v, 2]
        x = R_wc[0, 0] * a + R_wc[0, 1] * b + R_wc[0, 2] * c
        y = R_wc[1, 0] * a + R_wc[1, 1] * b + R_wc[1, 2] * c
        z = R_wc[2, 0] * a + R_wc[2, 1] * b + R_wc[2, 2] * c
        basis = sh_basis(x, y, z)
        for k in range(3):
            e = np.float32(0.0)
            for q in range(SH_BANDS):
                e += basis[q] * light[q, k]
            out[v, k] = max(e, np.float32(0.05)) ** np.float32(1.0 / GAMMA)


@njit(nogil=True, cache=True, fastmath=FAST)
def delight(image, drawn, face, faces, vertices, lit, gain, intrinsics, out):
    """Fills out (h, w, 3): the image without the light that the drawn body has at each pixel, and without its gain.

    drawn and face (h, w) of vertices (V, 3) in the colour camera, lit (V, 3) and gain (3,) display values. A body of
    one colour becomes flat: shading is no texture that moves with the surface. Beside the body the image is only
    divided by the gain.
    """
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    g0, g1, g2 = np.float32(1.0) / gain[0], np.float32(1.0) / gain[1], np.float32(1.0) / gain[2]
    for r in range(image.shape[0]):
        for c in range(image.shape[1]):
            f = face[r, c]
            if f < 0:
                out[r, c, 0], out[r, c, 1], out[r, c, 2] = image[r, c, 0] * g0, image[r, c, 1] * g1, image[r, c, 2] * g2
                continue
            i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
            wb, wc = barycentrics(
                vertices[i, 0], vertices[i, 1], vertices[i, 2], vertices[j, 0], vertices[j, 1], vertices[j, 2],
                vertices[k, 0], vertices[k, 1], vertices[k, 2],
                (np.float32(c) - cx) / fx, (np.float32(r) - cy) / fy,
            )  # fmt: skip
            wa = np.float32(1.0) - wb - wc
            out[r, c, 0] = image[r, c, 0] * g0 / (wa * lit[i, 0] + wb * lit[j, 0] + wc * lit[k, 0])
            out[r, c, 1] = image[r, c, 1] * g1 / (wa * lit[i, 1] + wb * lit[j, 1] + wc * lit[k, 1])
            out[r, c, 2] = image[r, c, 2] * g2 / (wa * lit[i, 2] + wb * lit[j, 2] + wc * lit[k, 2])


@njit(nogil=True, cache=True, fastmath=FAST)
def part_products(seen, parts, normals, ratio, weight, M, b):
    """Adds to M (P, 4, 4) and b (P, 4) the products of [1, normal] with the brightness `ratio` (n,) of points `seen`
    (n,), each part of the body (parts (N,)) for itself."""
    row = np.empty(4, np.float32)
    for i in range(seen.shape[0]):
        v = seen[i]
        w = weight[i]
        if w == 0:
            continue
        p = parts[v]
        row[0], row[1], row[2], row[3] = np.float32(1.0), normals[v, 0], normals[v, 1], normals[v, 2]
        for x in range(4):
            b[p, x] += w * row[x] * ratio[i]
            for y in range(4):
                M[p, x, y] += w * row[x] * row[y]


@njit(nogil=True, cache=True, fastmath=FAST)
def sample_points(points, seen, image, intrinsics, colors, steepness):
    """Fills colors (n, 3) and steepness (n,), the image gradient's size per pixel, of the points `seen` (n,)."""
    height, width = image.shape[0], image.shape[1]
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    for i in range(seen.shape[0]):
        v = seen[i]
        z = points[v, 2]
        u, w = fx * points[v, 0] / z + cx, fy * points[v, 1] / z + cy
        c = min(max(int(u), 0), width - 2)
        r = min(max(int(w), 0), height - 2)
        a, b = u - np.float32(c), w - np.float32(r)
        size = np.float32(0.0)
        for k in range(3):
            i00, i01, i10, i11 = image[r, c, k], image[r, c + 1, k], image[r + 1, c, k], image[r + 1, c + 1, k]
            top, low = i00 + a * (i01 - i00), i10 + a * (i11 - i10)
            colors[i, k] = top + b * (low - top)
            du = (i01 - i00) + b * (i11 - i10 - i01 + i00)
            dv = low - top
            size += du * du + dv * dv
        steepness[i] = np.sqrt(size)


@njit(nogil=True, cache=True, fastmath=FAST)
def remember(seen, colors, found, factor, facing, robust, most, albedo, weight, variance):
    """One frame's colours into the running means: albedo (N, 3), weight (N,), variance (N,) of the residual.

    colors (n, 3): the image at the points `seen` (n,); found (n, 3): without light and gain; factor (n,): what its
    part's brightness is beside the light's. What differs from a known albedo by more than `robust` hardly counts, and
    neither does what is saturated or black. `most` caps the weight, so that very old frames fade.
    """
    for i in range(seen.shape[0]):
        v = seen[i]
        brightest = max(colors[i, 0], colors[i, 1], colors[i, 2])
        if brightest > np.float32(0.98) or brightest < np.float32(0.02):
            continue
        f = np.float32(1.0) / factor[i]
        w = facing[v] * facing[v]
        before = min(weight[v], most)
        if before > 0:
            d0, d1, d2 = found[i, 0] * f - albedo[v, 0], found[i, 1] * f - albedo[v, 1], found[i, 2] * f - albedo[v, 2]
            far = d0 * d0 + d1 * d1 + d2 * d2
            # the first frames' colours are not so certain that others are wrong
            scale = robust * robust * (np.float32(1.0) + np.float32(3.0) / before)
            w *= scale / (scale + far)
            variance[v] = (before * variance[v] + w * min(far, robust * robust)) / (before + w)
        if not w > 0:
            continue
        share = w / (before + w)
        for k in range(3):
            albedo[v, k] += share * (found[i, k] * f - albedo[v, k])
        weight[v] = before + w


@njit(nogil=True, cache=True, fastmath=FAST)
def light_products(seen, normals, R_wc, albedo, colors, facing, gain, M, b):
    """Adds to M (3, 9, 9) and b (3, 9) what points `seen` (n,) with known albedo (N, 3) say of the light, per channel.

    colors (n, 3) of the image, gain (3,), albedo: display values. The residual is relative to the albedo.
    """
    for i in range(seen.shape[0]):
        v = seen[i]
        n0, n1, n2 = normals[v, 0], normals[v, 1], normals[v, 2]
        x = R_wc[0, 0] * n0 + R_wc[0, 1] * n1 + R_wc[0, 2] * n2
        y = R_wc[1, 0] * n0 + R_wc[1, 1] * n1 + R_wc[1, 2] * n2
        z = R_wc[2, 0] * n0 + R_wc[2, 1] * n1 + R_wc[2, 2] * n2
        basis = sh_basis(x, y, z)
        for k in range(3):
            a = albedo[v, k]
            if a < np.float32(0.05):
                continue
            e = (colors[i, k] / (gain[k] * a)) ** np.float32(GAMMA)
            # bounded: a shadow or a gloss is not the light of its normal
            if e > np.float32(3.0) or e < np.float32(0.1):
                continue
            w = facing[v]
            for p in range(SH_BANDS):
                b[k, p] += w * basis[p] * e
                for q in range(p, SH_BANDS):
                    M[k, p, q] += w * basis[p] * basis[q]


@njit(nogil=True, cache=True, fastmath=FAST)
def linearize_points(
    template, shapedirs, weight_joints, weights, joint_template, jointdirs, parents,
    rotations, transl, shape, R_cw, t_cw, intrinsics, image, targets, spread, settings, want_rows, H, g, stats,
):  # fmt: skip
    """Adds to H (P, P) and g (P,) what points (n) of wanted colours `targets` (n, 3) say; fills stats.

    template (n, 3), shapedirs (n, 3, S) and weights of the points alone; image (h, w, 3) sRGB, smooth; R_cw, t_cw and
    intrinsics of the colour camera; spread (n,) variance of a point's colour beside the sensor's, sRGB².
    """
    n_points, n_joints, n_shape = template.shape[0], parents.shape[0], shape.shape[0]
    n_params = 3 * n_joints + 3 + n_shape
    height, width = image.shape[0], image.shape[1]
    joints = np.empty((n_joints, 3), np.float64)
    shaped_joints(joint_template, jointdirs, shape, joints)
    G = np.empty((n_joints, 3, 3), np.float64)
    posed = np.empty((n_joints, 3), np.float64)
    joint_motions(rotations, joints, parents, R_cw, t_cw, transl, G, posed)
    rest = np.empty_like(template)
    rest_shape(template, shapedirs, shape.astype(np.float32), rest)
    Gf = G.astype(np.float32)
    posed_f = posed.astype(np.float32)
    joints_f = joints.astype(np.float32)
    motion = np.empty((n_joints, 3, n_shape), np.float64)
    if want_rows:
        joint_shape_motion(jointdirs, parents, R_cw, G, motion)
    motion_f = motion.astype(np.float32)
    at = np.empty_like(template)
    skin(rest, weight_joints, weights, G, posed, joints, at)
    H32 = np.zeros((n_params, n_params), np.float32)
    g32 = np.zeros(n_params, np.float32)
    rows = np.zeros((BLOCK, n_params + 1), np.float32)
    filled = 0
    W = np.empty(n_joints, np.float32)
    X = np.empty((n_joints, 3), np.float32)
    corners = np.empty(3, np.int32)
    bary = np.zeros(3, np.float32)
    bary[0] = np.float32(1.0)
    grad = np.empty(3, np.float32)
    stats[:] = 0.0
    fx, fy, cx, cy = intrinsics[0], intrinsics[1], intrinsics[2], intrinsics[3]
    sigma2, c2 = np.float32(settings[SIGMA] ** 2), np.float32(settings[ROBUST] ** 2)
    weight, least = np.float32(settings[POINT_WEIGHT]), np.float32(settings[LEAST_GRADIENT] ** 2)
    cost = 0.0
    for p in range(n_points):
        x, y, z = at[p, 0], at[p, 1], at[p, 2]
        if not z > np.float32(0.05):
            continue
        u, v = fx * x / z + cx, fy * y / z + cy
        if not (u >= 0 and v >= 0 and u < width - 1 and v < height - 1):
            continue  # left the part of the image that was cut out: as one that is too far off, it has no say
        c, r = int(u), int(v)
        a, b = u - np.float32(c), v - np.float32(r)
        uu, uv, vv = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        bu, bv, far = np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for k in range(3):
            i00, i01, i10, i11 = image[r, c, k], image[r, c + 1, k], image[r + 1, c, k], image[r + 1, c + 1, k]
            top, low = i00 + a * (i01 - i00), i10 + a * (i11 - i10)
            d = top + b * (low - top) - targets[p, k]
            du = (i01 - i00) + b * (i11 - i10 - i01 + i00)
            dv = low - top
            uu += du * du
            uv += du * dv
            vv += dv * dv
            bu += du * d
            bv += dv * d
            far += d * d
        keep = c2 / (c2 + far)
        precision = weight / (sigma2 + spread[p])
        cost += 0.5 * precision * far * keep
        stats[NUM_POINTS] += 1
        stats[SUM_SQUARES] += far
        stats[SUM_KEEP] += keep
        if not want_rows:
            continue
        # main axes of the gradients' product
        half, diff = np.float32(0.5) * (uu + vv), np.float32(0.5) * (uu - vv)
        root = np.sqrt(diff * diff + uv * uv)
        eu, ev = diff + root, uv
        if diff < 0:
            eu, ev = uv, root - diff
        norm = np.sqrt(eu * eu + ev * ev)
        if norm > 0:
            eu, ev = eu / norm, ev / norm
        else:
            eu, ev = np.float32(1.0), np.float32(0.0)
        strength = np.sqrt(precision) * keep
        corners[0] = p
        corners[1] = p
        corners[2] = p
        for axis in range(2):
            lam = half + root if axis == 0 else half - root
            if lam < least:
                break
            if axis == 1:
                eu, ev = -ev, eu
            size = np.sqrt(lam)
            along = (eu * bu + ev * bv) / size
            gu, gv = size * eu * fx / z, size * ev * fy / z
            grad[0], grad[1], grad[2] = gu, gv, -(gu * x + gv * y) / z
            surface_row(
                corners, bary, grad, strength, along,
                rest, shapedirs, weight_joints, weights, joints_f, parents, Gf, Gf, posed_f, motion_f,
                R_cw, W, X, rows[filled],
            )  # fmt: skip
            filled += 1
            if filled == BLOCK:
                add_products(rows, BLOCK, H32, g32, n_params)
                filled = 0
    stats[COST] = cost
    if want_rows:
        while filled % 4 != 0:
            rows[filled, :] = np.float32(0.0)
            filled += 1
        add_products(rows, filled, H32, g32, n_params)
        for i in range(n_params):
            g[i] += g32[i]
            for k in range(i, n_params):
                H[i, k] += H32[i, k]
                if k > i:
                    H[k, i] += H32[i, k]
