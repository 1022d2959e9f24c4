"""Meshes for the examples, made by formula: a square, a sphere, a jug. Metres, z up, faces wound outwards."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Mesh = tuple[NDArray[np.float32], NDArray[np.int64]]


def square() -> Mesh:
    """Side 1 in the plane z = 0, middle at the origin."""
    corners = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]], np.float32)
    return corners, np.array([[0, 1, 2], [0, 2, 3]])


def icosphere(divisions: int) -> Mesh:
    """Radius 1, an icosahedron whose faces are cut in four `divisions` times."""
    g = (1 + math.sqrt(5)) / 2
    points = [(-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g), (0, -1, -g), (0, 1, -g)]
    points += [(g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1)]
    vertices = [np.array(p) / np.linalg.norm(p) for p in points]
    # the faces of the convex hull: triples of vertices that are all one edge apart, turned outwards
    edge = 1.1 * 2 / math.hypot(1, g)
    near = [[np.linalg.norm(a - b) < edge for b in vertices] for a in vertices]
    faces = []
    for i in range(12):
        for j in range(i + 1, 12):
            for k in range(j + 1, 12):
                if near[i][j] and near[j][k] and near[i][k]:
                    a, b, c = vertices[i], vertices[j], vertices[k]
                    faces.append((i, j, k) if np.cross(b - a, c - a) @ a > 0 else (i, k, j))
    for _ in range(divisions):
        middle: dict[tuple[int, int], int] = {}

        def between(i: int, j: int, middle: dict[tuple[int, int], int] = middle) -> int:
            key = (min(i, j), max(i, j))
            if key not in middle:
                point = vertices[i] + vertices[j]
                middle[key] = len(vertices)
                vertices.append(point / np.linalg.norm(point))
            return middle[key]

        cut = []
        for i, j, k in faces:
            a, b, c = between(i, j), between(j, k), between(k, i)
            cut += [(i, a, c), (j, b, a), (k, c, b), (a, b, c)]
        faces = cut
    return np.array(vertices, np.float32), np.array(faces)


def revolved(profile: NDArray[np.float64], around: int) -> Mesh:
    """A profile (N, 2) of (radius, height), the first and last on the axis, turned about z."""
    angles = 2 * np.pi * np.arange(around) / around
    rings = profile[1:-1]
    body = np.stack(
        [
            rings[:, :1] * np.cos(angles),
            rings[:, :1] * np.sin(angles),
            np.broadcast_to(rings[:, 1:], (len(rings), around)),
        ],
        -1,
    ).reshape(-1, 3)
    ends = np.array([[0, 0, profile[0, 1]], [0, 0, profile[-1, 1]]])
    vertices = np.concatenate([body, ends])
    faces = []
    for r in range(len(rings) - 1):
        for i in range(around):
            a, b = r * around + i, r * around + (i + 1) % around
            faces += [(a, b, b + around), (a, b + around, a + around)]
    last = (len(rings) - 1) * around
    for i in range(around):
        j = (i + 1) % around
        faces += [(len(body), j, i), (len(body) + 1, last + i, last + j)]
    return vertices.astype(np.float32), np.array(faces)


def tube(path: NDArray[np.float64], across: NDArray[np.float64], radius: float, around: int) -> Mesh:
    """A tube along a plane path (N, 3); `across` (3,) is the plane's normal. Its ends are closed."""
    along = np.gradient(path, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.cross(along, across)
    angles = 2 * np.pi * np.arange(around) / around
    ring = side[:, None] * np.cos(angles)[:, None] + across * np.sin(angles)[:, None]
    vertices = np.concatenate([(path[:, None] + radius * ring).reshape(-1, 3), path[[0, -1]]])
    faces = []
    for r in range(len(path) - 1):
        for i in range(around):
            a, b = r * around + i, r * around + (i + 1) % around
            faces += [(a, b + around, b), (a, a + around, b + around)]
    n = len(path) * around
    for i in range(around):
        j = (i + 1) % around
        faces += [(n, i, j), (n + 1, n - around + j, n - around + i)]
    return vertices.astype(np.float32), np.array(faces)


def joined(*meshes: Mesh) -> Mesh:
    """Several meshes as one."""
    offsets = np.cumsum([0] + [len(v) for v, _ in meshes[:-1]])
    return (
        np.concatenate([v for v, _ in meshes]),
        np.concatenate([f + o for (_, f), o in zip(meshes, offsets, strict=True)]),
    )


def jug(around: int = 40) -> Mesh:
    """A jug with a handle, some 30 cm high, standing on z = 0."""
    heights = np.linspace(0, 1, 22)
    radius = 0.075 + 0.045 * np.sin(np.pi * heights**0.8) - 0.030 * heights**3 + 0.018 * heights**12
    outside = np.stack([radius, 0.28 * heights], 1)
    inside = np.stack([radius - 0.006, 0.28 * heights], 1)[:3:-1]
    profile = np.concatenate([[[0, 0]], outside, inside, [[0, inside[-1, 1]]]])
    t = np.linspace(-0.62 * np.pi, 0.62 * np.pi, 24)
    handle = np.stack([0.085 + 0.075 * np.cos(t), np.zeros_like(t), 0.155 + 0.085 * np.sin(t)], 1)
    return joined(revolved(profile, around), tube(handle, np.array([0.0, 1.0, 0.0]), 0.011, 12))
