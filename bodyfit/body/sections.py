"""Slices of a standing body as a tape measures them: girths, their extents and their outlines.

A tape bridges hollows, so a girth is the perimeter of the convex hull of the slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError

UP = np.array([0.0, 1.0, 0.0])
LEFT = np.array([1.0, 0.0, 0.0])
FRONT = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Slices:
    """Parallel slices of each of D bodies, at even distances along a unit normal.

    Attributes:
        origin: (D, 3) metres; offsets are measured from it along `normal`.
        normal: unit vectors (D, 3).
        first, step: (D,) metres from the origin to the first slice, and from slice to slice.
        girths: (D, L) metres, convex perimeters; NaN where a plane misses the mesh.
        extents: (D, L, 4) metres: lowest and highest u, lowest and highest v, from the origin, in `plane_axes`.
    """

    origin: NDArray[np.float64]
    normal: NDArray[np.float64]
    first: NDArray[np.float64]
    step: NDArray[np.float64]
    girths: NDArray[np.float64]
    extents: NDArray[np.float64]

    def offset(self, index: NDArray[Any]) -> NDArray[np.float64]:
        """(D,) metres from the origin to a slice of each body (D,), which may lie between two."""
        return self.first + self.step * index


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a mesh: edges (E, 2), the vertices (C,) at their ends, each once, and the edges as rows of these."""

    edges: NDArray[np.int32]
    corners: NDArray[np.int32]
    ends: NDArray[np.int32]

    @staticmethod
    def of(edges: NDArray[Any]) -> Region:
        """The region of some edges (E, 2)."""
        e = np.ascontiguousarray(edges, np.int32)
        corners, ends = np.unique(e, return_inverse=True)
        return Region(e, corners.astype(np.int32), ends.reshape(e.shape).astype(np.int32))


def mesh_edges(faces: NDArray[Any]) -> NDArray[np.int32]:
    """(E, 2) the edges of faces (F, 3), each once, the smaller vertex first, in ascending order."""
    f = np.asarray(faces, dtype=np.int64)
    a, b = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]).T
    size = int(f.max(initial=0)) + 1
    keys = np.unique(np.minimum(a, b) * size + np.maximum(a, b))
    return np.stack([keys // size, keys % size], 1).astype(np.int32)


def plane_axes(normal: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The unit normals and two unit vectors that span each plane, all (..., 3); for UP they are LEFT and FRONT."""
    normal = np.asarray(normal, np.float64)
    x, y, z = normal[..., 0], normal[..., 1], normal[..., 2]
    length = np.sqrt(x * x + y * y + z * z)
    if not (length > 0).all():
        raise InputError("normal", "a direction", str(normal))
    x, y, z = x / length, y / length, z / length
    # u: what is left of x, or of z where the normal is nearly x, across the normal; v = u × n
    by_x = np.abs(x) < 0.9
    ux = np.where(by_x, 1 - x * x, -z * x)
    uy = np.where(by_x, -x * y, -z * y)
    uz = np.where(by_x, -x * z, 1 - z * z)
    size = np.sqrt(ux * ux + uy * uy + uz * uz)
    ux, uy, uz = ux / size, uy / size, uz / size
    v = (uy * z - uz * y, uz * x - ux * z, ux * y - uy * x)
    return np.stack([x, y, z], -1), np.stack([ux, uy, uz], -1), np.stack(v, -1)


def slices(
    bodies: NDArray[np.float64],
    region: Region,
    origin: NDArray[Any],
    normal: NDArray[Any],
    offsets: tuple[NDArray[Any] | float, NDArray[Any] | float] = (0.0, 0.0),
    count: int = 1,
) -> Slices:
    """Slices bodies (D, N, 3) metres at `count` even offsets (first, last; each a number or (D,)) along the normal.

    origin and normal: (3,) for all of them, or (D, 3).
    """
    from bodyfit.kernels import sections as kernel

    D = len(bodies)
    n, u, v = (UP, LEFT, FRONT) if normal is UP else plane_axes(normal)
    o, n, u, v = (_each(a, (D, 3)) for a in (origin, n, u, v))
    first, step = _each(offsets[0], (D,)), _each(offsets[1] - offsets[0], (D,)) / max(count - 1, 1)
    if count > 1 and not (step > 0).all():
        raise InputError("offsets", "last above first", str(offsets))
    out = np.empty((D, count, 5))
    kernel.scan(
        np.ascontiguousarray(bodies), region.corners, region.ends, o, n, u, v, first,
        step if count > 1 else np.ones(D), out,
    )  # fmt: skip
    return Slices(o, n, first, step, out[:, :, 0], out[:, :, 1:])


def _each(value: NDArray[Any] | float, shape: tuple[int, ...]) -> NDArray[np.float64]:
    out = np.empty(shape)
    out[...] = value
    return out


def girth(points: NDArray[np.float64], edges: NDArray[np.int32], origin: NDArray[Any], normal: NDArray[Any]) -> float:
    """Metres that a tape around one slice of the edges (E, 2) of points (N, 3) reads; NaN where the plane misses."""
    return float(slices(points[None], Region.of(edges), origin, normal).girths[0, 0])


def extremum(values: NDArray[np.float64], sign: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The largest (sign 1) or smallest (-1) of evenly spaced values (D, L) and its fractional index, (D,) each.

    By a parabola through the best value and its neighbours, which makes both follow the body smoothly, where the best
    of the values alone would jump from slice to slice. NaN, at 0, where every value is NaN.
    """
    from bodyfit.kernels import sections as kernel

    out = np.empty((len(values), 2))
    kernel.extrema(np.ascontiguousarray(values, np.float64), float(sign), out)
    return out[:, 0], out[:, 1]


def outline(
    points: NDArray[np.float64], edges: NDArray[np.int32], origin: NDArray[Any], normal: NDArray[Any]
) -> NDArray[np.float64]:
    """(K + 1, 3) metres: the closed line in which a tape lies around one slice; empty where the plane misses."""
    from bodyfit.kernels import sections as kernel

    n, u, v = plane_axes(normal)
    o = np.ascontiguousarray(origin, dtype=np.float64)
    uv = np.empty((len(edges), 2))
    found = kernel.cut(points, edges, o, n, u, v, uv)
    if found < 2:
        return np.empty((0, 3))
    hull = np.empty(2 * found + 2, np.int32)
    size, _ = kernel.convex_hull(uv, found, np.arange(found, dtype=np.int32), hull)
    ring = uv[hull[np.r_[:size, 0]]]
    return o + ring[:, :1] * u + ring[:, 1:] * v


def bridged_path(points_2d: NDArray[Any]) -> tuple[float, NDArray[np.float64]]:
    """A tape drawn tight from the first of points_2d (N, 2) to the last, on the right of the way between them.

    Points on the other side are ignored. Returns metres and the way (K, 2).
    """
    from bodyfit.kernels import sections as kernel

    p = np.ascontiguousarray(points_2d, dtype=np.float64)
    hull, kept = np.empty(2 * len(p) + 2, np.int32), np.empty(len(p), np.int32)
    length, start, count, ring = kernel.bridge_one(p, hull, kept)
    if ring == 0:
        return float(length), p[[0, -1]]
    return float(length), p[kept[hull[(start + np.arange(count)) % ring]]]


def bridged_lengths(points_2d: NDArray[Any], use: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(D,) metres of `bridged_path` over those of each body's points_2d (D, N, 2) that are used (D, N)."""
    from bodyfit.kernels import sections as kernel

    out = np.empty(len(points_2d))
    kernel.bridges(np.ascontiguousarray(points_2d, np.float64), use, out)
    return out
