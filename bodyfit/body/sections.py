"""Slices of a standing body as a tape measures them: girths, their extents and their outlines.

A tape bridges hollows, so a girth is the perimeter of the convex hull of the slice.
"""

from __future__ import annotations

import math
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
    """Parallel slices at even distances along a unit normal.

    Attributes:
        origin: (3,) metres; offsets are measured from it along `normal`.
        normal, u, v: unit vectors (3,); u and v span the planes.
        first, step: metres from the origin to the first slice, and from slice to slice.
        girths: (L,) metres, convex perimeters; NaN where a plane misses the mesh.
        extents: (L, 4) metres: lowest and highest u, lowest and highest v, from the origin.
    """

    origin: NDArray[np.float64]
    normal: NDArray[np.float64]
    u: NDArray[np.float64]
    v: NDArray[np.float64]
    first: float
    step: float
    girths: NDArray[np.float64]
    extents: NDArray[np.float64]

    def offset(self, index: float) -> float:
        """Metres from the origin to a slice, which may lie between two."""
        return self.first + self.step * index


def mesh_edges(faces: NDArray[Any]) -> NDArray[np.int32]:
    """(E, 2) the edges of faces (F, 3), each once, the smaller vertex first, in ascending order."""
    f = np.asarray(faces, dtype=np.int64)
    a, b = np.concatenate([f[:, [0, 1]], f[:, [1, 2]], f[:, [2, 0]]]).T
    size = int(f.max(initial=0)) + 1
    keys = np.unique(np.minimum(a, b) * size + np.maximum(a, b))
    return np.stack([keys // size, keys % size], 1).astype(np.int32)


def plane_axes(normal: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """The unit normal and two unit vectors that span its plane; for UP they are LEFT and FRONT."""
    if normal is UP:
        return UP, LEFT, FRONT
    x, y, z = (float(c) for c in normal)
    length = math.sqrt(x * x + y * y + z * z)
    if not length > 0:
        raise InputError("normal", "a direction", str(normal))
    x, y, z = x / length, y / length, z / length
    # u: what is left of x, or of z where the normal is nearly x, across the normal; v = u × n
    ux, uy, uz = (1 - x * x, -x * y, -x * z) if abs(x) < 0.9 else (-z * x, -z * y, 1 - z * z)
    size = math.sqrt(ux * ux + uy * uy + uz * uz)
    ux, uy, uz = ux / size, uy / size, uz / size
    v = np.array([uy * z - uz * y, uz * x - ux * z, ux * y - uy * x])
    return np.array([x, y, z]), np.array([ux, uy, uz]), v


def slices(
    points: NDArray[np.float64],
    edges: NDArray[np.int32],
    origin: NDArray[Any],
    normal: NDArray[Any],
    offsets: tuple[float, float] = (0.0, 0.0),
    count: int = 1,
) -> Slices:
    """Slices the edges (E, 2) of points (N, 3) metres at `count` even offsets (first, last) along the normal."""
    from bodyfit.kernels import sections as kernel

    n, u, v = plane_axes(normal)
    o = np.ascontiguousarray(origin, dtype=np.float64)
    first, step = float(offsets[0]), float(offsets[1] - offsets[0]) / max(count - 1, 1)
    if count > 1 and not step > 0:
        raise InputError("offsets", "last above first", str(offsets))
    out = np.empty((count, 5))
    kernel.scan(points, edges, o, n, u, v, first, step if count > 1 else 1.0, out)
    return Slices(o, n, u, v, first, step, out[:, 0], out[:, 1:])


def girth(points: NDArray[np.float64], edges: NDArray[np.int32], origin: NDArray[Any], normal: NDArray[Any]) -> float:
    """Metres that a tape around one slice reads; NaN where the plane misses the mesh."""
    return float(slices(points, edges, origin, normal).girths[0])


def extremum(values: NDArray[np.float64], sign: float) -> tuple[float, float]:
    """The largest (sign 1) or smallest (-1) of evenly spaced values and its fractional index, by a parabola.

    The parabola through the best value and its neighbours makes both follow the body smoothly, where the best of the
    values alone would jump from slice to slice.
    """
    from bodyfit.kernels import sections as kernel

    return kernel.extremum(np.asarray(values, dtype=np.float64), float(sign))


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
    size, _ = kernel.convex_hull(uv, found, np.empty(found, np.int32), hull)
    ring = uv[hull[np.r_[:size, 0]]]
    return o + ring[:, :1] * u + ring[:, 1:] * v


def bridged_path(points_2d: NDArray[Any]) -> tuple[float, NDArray[np.float64]]:
    """A tape drawn tight from the first of points_2d (N, 2) to the last, on the right of the way between them.

    Points on the other side are ignored. Returns metres and the way (K, 2).
    """
    from bodyfit.kernels import sections as kernel

    p = np.ascontiguousarray(points_2d, dtype=np.float64)
    chord = p[-1] - p[0]
    side = chord[0] * (p[:, 1] - p[0, 1]) - chord[1] * (p[:, 0] - p[0, 0])
    keep = side < 0
    keep[0] = keep[-1] = True
    p = np.ascontiguousarray(p[keep])
    hull = np.empty(2 * len(p) + 2, np.int32)
    size, perimeter = kernel.convex_hull(p, len(p), np.empty(len(p), np.int32), hull)
    ring = list(hull[:size])
    # counter-clockwise from the first point, the right-hand side comes before the last point
    if 0 not in ring or len(p) - 1 not in ring:
        return float(np.linalg.norm(chord)), p[[0, -1]]
    start = ring.index(0)
    ring = ring[start:] + ring[:start]
    way = p[ring[: ring.index(len(p) - 1) + 1]]
    return float(perimeter - np.linalg.norm(chord)), way
