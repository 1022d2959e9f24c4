"""The maths of light on one point: spherical harmonics, lights, a glossy lobe, a texture's cell. See `scalar`.

Directions are unit vectors away from the surface unless said otherwise; colours are linear.
"""

from __future__ import annotations

from math import floor, sqrt

import numpy as np

from bodyfit.kernels.scalar import HALF, ONE, TWO, ZERO, scalar

INV_PI = np.float32(0.3183098861837907)
# Order-2 real spherical harmonics times Lambert's factors over pi: 1, 2/3, 1/4 (Ramamoorthi and Hanrahan 2001, eq. 8).
Y0 = np.float32(0.28209479177387814)
Y1 = np.float32(0.4886025119029199 * 2 / 3)
Y2 = np.float32(1.0925484305920792 / 4)
Y20 = np.float32(0.31539156525252005 / 4)
Y22 = np.float32(0.5462742152960396 / 4)
THREE, FIVE, SIX = np.float32(3.0), np.float32(5.0), np.float32(6.0)
LEAST_COSINE = np.float32(1e-3)


@scalar
def diffuse_harmonics(x, y, z):
    """What a white Lambert surface of unit normal (x, y, z) sends out for each of the nine coefficients of radiance."""
    return (
        Y0 + ZERO * x,
        Y1 * y,
        Y1 * z,
        Y1 * x,
        Y2 * x * y,
        Y2 * y * z,
        Y20 * (THREE * z * z - ONE),
        Y2 * x * z,
        Y22 * (x * x - y * y),
    )


@scalar
def diffuse_harmonics_vjp(x, y, z, v1, v2, v3, v4, v5, v6, v7, v8):
    """Cotangents of x, y, z; v1 … v8 belong to the coefficients after the first, which is constant."""
    return (
        Y1 * v3 + Y2 * (y * v4 + z * v7) + TWO * Y22 * x * v8,
        Y1 * v1 + Y2 * (x * v4 + z * v5) - TWO * Y22 * y * v8,
        Y1 * v2 + Y2 * (y * v5 + x * v7) + SIX * Y20 * z * v6,
    )


@scalar
def toward(x, y, z, px, py, pz):
    """Unit vector from (x, y, z) to (px, py, pz), and one over their distance squared."""
    dx, dy, dz = px - x, py - y, pz - z
    inv2 = ONE / (dx * dx + dy * dy + dz * dz)
    inv = sqrt(inv2)
    return dx * inv, dy * inv, dz * inv, inv2


@scalar
def toward_vjp(x, y, z, px, py, pz, v_x, v_y, v_z, v_inv2):
    """Cotangents of px, py, pz; those of x, y, z are their negatives."""
    dx, dy, dz = px - x, py - y, pz - z
    inv2 = ONE / (dx * dx + dy * dy + dz * dz)
    inv = sqrt(inv2)
    lx, ly, lz = dx * inv, dy * inv, dz * inv
    # (v - l (l · v)) / r, and 1/r² falls by 2 l / r³
    along = lx * v_x + ly * v_y + lz * v_z + TWO * v_inv2 * inv2
    return (v_x - lx * along) * inv, (v_y - ly * along) * inv, (v_z - lz * along) * inv


@scalar
def glossy_lobe(nx, ny, nz, lx, ly, lz, ex, ey, ez, alpha):
    """The microfacet lobe D V (n · l) and Schlick's weight (1 - l · h)^5, for normal n, light l and eye e, n · l > 0.

    D is GGX (Walter et al. 2007), V Smith's height-correlated visibility with 4 (n·l)(n·e) divided out
    (Heitz 2014, eq. 99). The radiance sent out is the lobe × (F0 + (1 - F0) weight) × irradiance.
    """
    nl, ne = nx * lx + ny * ly + nz * lz, max(nx * ex + ny * ey + nz * ez, LEAST_COSINE)
    hx, hy, hz = lx + ex, ly + ey, lz + ez
    length = sqrt(hx * hx + hy * hy + hz * hz)
    nh = (nx * hx + ny * hy + nz * hz) / length
    a2 = alpha * alpha
    t = nh * nh * (a2 - ONE) + ONE
    spread = nl * sqrt(ne * ne * (ONE - a2) + a2) + ne * sqrt(nl * nl * (ONE - a2) + a2)
    w = ONE - HALF * length
    return a2 * INV_PI / (t * t) * HALF / spread * nl, w * w * w * w * w


@scalar
def glossy_lobe_vjp(nx, ny, nz, lx, ly, lz, ex, ey, ez, alpha, v_lobe, v_weight):
    """Cotangents of n, l, e and alpha, ten numbers."""
    nl, ne_ = nx * lx + ny * ly + nz * lz, nx * ex + ny * ey + nz * ez
    ne = max(ne_, LEAST_COSINE)
    hx, hy, hz = lx + ex, ly + ey, lz + ez
    length = sqrt(hx * hx + hy * hy + hz * hz)
    inv = ONE / length
    hx, hy, hz = hx * inv, hy * inv, hz * inv
    nh = nx * hx + ny * hy + nz * hz
    a2 = alpha * alpha
    t = nh * nh * (a2 - ONE) + ONE
    d = a2 * INV_PI / (t * t)
    se, sl = sqrt(ne * ne * (ONE - a2) + a2), sqrt(nl * nl * (ONE - a2) + a2)
    spread = nl * se + ne * sl
    vis = HALF / spread
    v_d, v_vis, v_nl = v_lobe * vis * nl, v_lobe * d * nl, v_lobe * d * vis
    v_spread = -v_vis * vis / spread
    v_se, v_sl = v_spread * nl, v_spread * ne
    v_nl += v_spread * se + v_sl * nl * (ONE - a2) / sl
    v_ne = v_spread * sl + v_se * ne * (ONE - a2) / se
    v_a2 = v_se * (ONE - ne * ne) * HALF / se + v_sl * (ONE - nl * nl) * HALF / sl
    v_t = -TWO * v_d * d / t
    v_a2 += v_d * INV_PI / (t * t) + v_t * nh * nh
    v_nh = v_t * TWO * nh * (a2 - ONE)
    w = ONE - HALF * length
    v_length = -FIVE * HALF * w * w * w * w * v_weight
    # the half vector before it was shortened: its length, and its direction
    v_hx = hx * v_length + (nx - hx * nh) * inv * v_nh
    v_hy = hy * v_length + (ny - hy * nh) * inv * v_nh
    v_hz = hz * v_length + (nz - hz * nh) * inv * v_nh
    if ne_ < LEAST_COSINE:
        v_ne = v_ne * ZERO
    return (
        v_nh * hx + v_nl * lx + v_ne * ex,
        v_nh * hy + v_nl * ly + v_ne * ey,
        v_nh * hz + v_nl * lz + v_ne * ez,
        v_hx + v_nl * nx,
        v_hy + v_nl * ny,
        v_hz + v_nl * nz,
        v_hx + v_ne * nx,
        v_hy + v_ne * ny,
        v_hz + v_ne * nz,
        v_a2 * TWO * alpha,
    )


@scalar
def texel(s, size, repeat):
    """The two texels beside a place s (0 to 1 across `size` texels) and how far it is from the first to the second."""
    x = s * np.float32(size) - HALF
    first = np.int64(floor(x))
    second = first + 1
    share = x - np.float32(first)
    if repeat:
        return first % size, second % size, share
    last = size - 1
    return min(max(first, 0), last), min(max(second, 0), last), share


@scalar
def bilinear(c00, c10, c01, c11, s, t):
    """The value between four texels, s of the way along the first axis and t along the second."""
    top, bottom = c00 + s * (c10 - c00), c01 + s * (c11 - c01)
    return top + t * (bottom - top)


@scalar
def bilinear_vjp(c00, c10, c01, c11, s, t, v_out):
    """Cotangents of the four texels, s and t."""
    one_s, one_t = ONE - s, ONE - t
    return (
        one_s * one_t * v_out,
        s * one_t * v_out,
        one_s * t * v_out,
        s * t * v_out,
        (one_t * (c10 - c00) + t * (c11 - c01)) * v_out,
        (one_s * (c01 - c00) + s * (c11 - c10)) * v_out,
    )
