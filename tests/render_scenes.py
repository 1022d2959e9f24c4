"""Scenes that the renderer's tests share, and the finely sampled image that they compare with."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from bodyfit.render.camera import RenderCamera
from bodyfit.render.rendered import Rendered


class Mesh(NamedTuple):
    """vertices (V, 3) float64 metres in the world, faces (F, 3)."""

    vertices: torch.Tensor
    faces: np.ndarray


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> Mesh:
    """A closed box, wound outwards, eight vertices."""
    corners = np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = [(q[0], q[k], q[k + 1]) for q in quads for k in (1, 2)]
    return Mesh(torch.tensor(corners, dtype=torch.float64), np.array(faces, np.int32))


def together(*meshes: Mesh) -> Mesh:
    """One mesh of several."""
    counts = np.cumsum([0] + [len(m.vertices) for m in meshes])
    faces = np.concatenate([m.faces + n for m, n in zip(meshes, counts[:-1], strict=True)])
    return Mesh(torch.cat([m.vertices for m in meshes]), faces.astype(np.int32))


def split(mesh: Mesh) -> Mesh:
    """The same surface with three vertices of its own for every face."""
    flat = mesh.faces.ravel()
    return Mesh(mesh.vertices[torch.from_numpy(flat).long()], np.arange(len(flat), dtype=np.int32).reshape(-1, 3))


def square() -> Mesh:
    """An open, tilted square about the origin."""
    corners = torch.tensor([[-0.5, -0.5, 0.1], [0.5, -0.45, -0.1], [0.55, 0.5, 0.0], [-0.5, 0.55, 0.2]])
    return Mesh(corners.double(), np.array([[0, 1, 2], [0, 2, 3]], np.int32))


def icosphere(radius: float = 0.6, rounds: int = 3) -> Mesh:
    """A sphere of 20 · 4^rounds triangles about the origin, wound outwards."""
    g = (1 + 5**0.5) / 2
    points = [
        (-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g),
        (0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1),
    ]  # fmt: skip
    faces = [
        (0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4), (11, 10, 2), (10, 7, 6),
        (7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5), (2, 4, 11), (6, 2, 10),
        (8, 6, 7), (9, 8, 1),
    ]  # fmt: skip
    places = [np.array(p, float) / np.linalg.norm(p) for p in points]
    for _ in range(rounds):
        middles: dict[tuple[int, int], int] = {}

        def middle(a: int, b: int, middles: dict[tuple[int, int], int] = middles) -> int:
            key = (min(a, b), max(a, b))
            if key not in middles:
                middles[key] = len(places)
                m = places[a] + places[b]
                places.append(m / np.linalg.norm(m))
            return middles[key]

        faces = [
            t
            for a, b, c in faces
            for ab, bc, ca in [(middle(a, b), middle(b, c), middle(c, a))]
            for t in ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))
        ]
    return Mesh(torch.tensor(radius * np.array(places)), np.array(faces, np.int32))


def two_boxes() -> Mesh:
    """A small box before part of a larger one, both seen askew."""
    return together(box((-0.6, -0.5, 0.0), (0.5, 0.55, 0.3)), box((-0.2, -0.25, -0.7), (0.25, 0.2, -0.4)))


def turned(mesh: Mesh, x: float, y: float, z: float) -> Mesh:
    """The mesh turned about the x, then the y, then the z axis (radians)."""
    R = torch.eye(3, dtype=torch.float64)
    for axis, angle in enumerate((x, y, z)):
        i, j = [k for k in range(3) if k != axis]
        step = torch.eye(3, dtype=torch.float64)
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        R = step @ R
    return Mesh(mesh.vertices @ R.T, mesh.faces)


def camera(width: int = 40, height: int = 32, distance: float = 2.5, **options: Any) -> RenderCamera:
    """A camera on the negative z axis that looks at the origin; the world's y points down, like the image's."""
    focal = 1.1 * width
    K = torch.tensor([focal, 1.05 * focal, width / 2 - 0.7, height / 2 - 0.3], dtype=torch.float64)
    T = torch.eye(4, dtype=torch.float64)
    T[2, 3] = distance
    if options.get("projection") == "orthographic":
        K[:2] /= distance
    return RenderCamera(width, height, K, T, **options)


def finer(view: RenderCamera, by: int, u: float = 0.0, v: float = 0.0) -> RenderCamera:
    """The same camera with by × by pixels in the place of each, its samples moved by (u, v) of these pixels."""
    scale = torch.tensor([by, by, by, by], dtype=view.intrinsics.dtype)
    shift = torch.tensor([0, 0, (by - 1) / 2 + u, (by - 1) / 2 + v], dtype=view.intrinsics.dtype)
    K = view.intrinsics * scale + shift
    return RenderCamera(view.width * by, view.height * by, K, view.pose, view.projection, view.near_m)


def box_filtered(image: torch.Tensor, by: int) -> torch.Tensor:
    """(B, H, W, C) from (B, H·by, W·by, C), the mean of each block."""
    batch, height, width, channels = image.shape
    return image.reshape(batch, height // by, by, width // by, by, channels).mean((2, 4))


def images(drawn: Rendered, names: tuple[str, ...]) -> torch.Tensor:
    """(B, H, W, C): the named images side by side."""
    parts = [getattr(drawn, name) for name in names]
    return torch.cat([p[..., None] if p.ndim == 3 else p for p in parts], dim=-1)
