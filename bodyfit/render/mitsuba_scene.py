"""A scene in the camera's axes as Mitsuba takes it: welded meshes with values per corner, and the sky."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError
from bodyfit.render.extra import Tensor, torch
from bodyfit.render.scene import DirectionalLight, Lighting, Material, PointLight, Texture
from bodyfit.render.surroundings import Environment
from bodyfit.render.torch_mesh import Welder, of_batch, smooth_normals

GREY = 0.8
SKY_ROWS, SKY_COLUMNS = 64, 128
Z_UP = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""Mitsuba's environment has y up and +z in the middle column; ours z up and x there"""


@dataclass(frozen=True)
class Part:
    """A welded mesh in the camera's axes.

    Attributes:
        vertices: (Vw, 3) metres, one for each place.
        faces: (F, 3) rows of vertices.
        corners: (3F, 3) metres, the places of the faces' corners, each with the gradient of the vertex it came from.
        points, triangles: (V, 3) and (F, 3), the mesh before it was welded.
        look: how it reflects, as settings of the plugins: kind, repeat, glossy.
        tensors: the numbers of that, by the plugins' names.
        radiance: (3,) what it gives off, where it is a light.
    """

    vertices: Tensor
    faces: NDArray[np.int64]
    corners: Tensor
    points: Tensor
    triangles: Tensor
    look: dict[str, Any]
    tensors: dict[str, Tensor]
    radiance: Tensor | None = None

    @cached_property
    def normals(self) -> Tensor:
        """(3F, 3) smooth normals of the faces' corners."""
        return smooth_normals(self.points, self.triangles)[self.triangles.reshape(-1)]


def part_of(
    weld: Welder,
    vertices: Tensor,
    triangles: Tensor,
    T: Tensor,
    material: Material | None = None,
    texture: Texture | None = None,
    colors: Tensor | None = None,
    radiance: Tensor | None = None,
) -> Part:
    """A mesh of the world in the axes of the camera T (4, 4); texture goes before vertex colours before albedo."""
    points = vertices @ T[:3, :3].mT.to(vertices.dtype) + T[:3, 3].to(vertices.dtype)
    flat = triangles.reshape(-1)
    look: dict[str, Any] = {"kind": "constant", "repeat": False, "glossy": False}
    tensors: dict[str, Tensor] = {}
    if texture is not None:
        uv_faces = triangles if texture.uv_faces is None else texture.uv_faces.long()
        if uv_faces.shape != triangles.shape or int(uv_faces.max()) >= len(texture.uv) or int(uv_faces.min()) < 0:
            expected = f"(F, 3) with F = {len(triangles)}, rows of uv 0 to {len(texture.uv) - 1}"
            raise InputError("texture.uv_faces", expected, f"{tuple(uv_faces.shape)}, up to {int(uv_faces.max())}")
        look.update(kind="image", repeat=texture.wrap == "repeat")
        tensors.update(data=texture.uv[uv_faces.reshape(-1)], image=texture.image)
    elif colors is not None:
        look["kind"] = "corner"
        tensors["data"] = colors[flat]
    elif material is not None and material.albedo is not None:
        tensors["data"] = material.albedo
    else:
        tensors["data"] = torch.full((3,), GREY, dtype=points.dtype)
    if material is not None and material.specular is not None and material.roughness is not None:
        look["glossy"] = True
        tensors.update(specular=material.specular, roughness=material.roughness)
    places, faces = weld(points, triangles)
    return Part(places, faces, points[flat], points, triangles, look, tensors, radiance)


def facing(part: Part) -> Tensor:
    """The corners' normals (3F, 3), turned to the side of each face that the camera sees."""
    a, b, c = part.corners.detach().reshape(-1, 3, 3).unbind(1)
    away = (torch.linalg.cross(b - a, c - a) * a).sum(1) > 0
    sign = torch.where(away, -1.0, 1.0).to(part.normals.dtype)
    return part.normals * sign.repeat_interleave(3)[:, None]


def spherical_harmonics(directions: Tensor) -> Tensor:
    """(..., 9) real spherical harmonics of order 0 to 2 of unit directions (..., 3)."""
    x, y, z = directions.unbind(-1)
    return torch.stack([
        torch.full_like(x, 0.282095), 0.488603 * y, 0.488603 * z, 0.488603 * x,
        1.092548 * x * y, 1.092548 * y * z, 0.315392 * (3 * z * z - 1), 1.092548 * x * z, 0.546274 * (x * x - y * y),
    ], -1)  # fmt: skip


def sky_directions(rows: int, columns: int) -> Tensor:
    """(rows, columns, 3) where the texels of Mitsuba's environment lie, in its own axes: its first and last rows are
    the poles."""
    theta = torch.linspace(0, math.pi, rows)[:, None].expand(rows, columns)
    phi = (2 * math.pi * (torch.arange(columns) + 0.5) / columns)[None].expand(rows, columns)
    return torch.stack([phi.sin() * theta.sin(), theta.cos(), -phi.cos() * theta.sin()], -1)


def sky_emitter(
    mi: Any, sh: Tensor | None, environment: Environment | None, T: Tensor
) -> tuple[dict[str, Any], Tensor] | None:
    """Mitsuba's environment emitter and its image (H, W + 2, 3), or None where the sky is black.

    Where the camera's pose takes a gradient the image is made in the camera's axes: an image file is then looked up
    bilinearly once more.
    """
    if sh is None and environment is None:
        return None
    R_world_env = Z_UP.to(T.dtype)
    if environment is not None and environment.R_world_env is not None:
        R_world_env = environment.R_world_env.to(T.dtype) @ R_world_env
    rows, columns = (SKY_ROWS, SKY_COLUMNS) if environment is None else environment.radiance.shape[:2]
    R_cam_world = T[:3, :3]
    turn = torch.eye(3, dtype=T.dtype) if T.requires_grad else (R_cam_world @ R_world_env).detach()
    # directions in the world of the texels of an emitter that is turned by `turn` in the camera's axes
    world = sky_directions(rows, columns).to(T.dtype) @ turn.mT @ R_cam_world
    image = torch.zeros(rows, columns, 3, dtype=T.dtype)
    if sh is not None:
        image = image + (spherical_harmonics(world) @ sh.to(T.dtype)).clamp_min(0)
    if environment is not None:
        given = environment.radiance.to(T.dtype)
        image = image + (looked_up(given, world @ R_world_env) if T.requires_grad else given)
    matrix = np.eye(4)
    matrix[:3, :3] = turn.detach().numpy()
    flat = torch.cat([image, image[:, :2]], 1)
    start = mi.Bitmap(np.ones((rows, columns, 3), np.float32))
    return {"type": "envmap", "bitmap": start, "to_world": mi.ScalarTransform4f(matrix)}, flat


def looked_up(image: Tensor, directions: Tensor) -> Tensor:
    """A latitude-longitude image (H, W, 3) at unit directions (h, w, 3) in Mitsuba's axes, bilinearly."""
    x, y, z = directions.unbind(-1)
    u = torch.atan2(x, -z) / (2 * math.pi) % 1.0
    v = torch.acos(y.clamp(-1 + 1e-6, 1 - 1e-6)) / math.pi
    around = torch.cat([image[:, -1:], image, image[:, :1]], 1)
    columns = image.shape[1]
    # columns are centred at (j + 0.5) / W, rows reach from pole to pole
    grid = torch.stack([2 * (u * columns + 0.5) / (columns + 1) - 1, 2 * v - 1], -1)
    out = torch.nn.functional.grid_sample(around.permute(2, 0, 1)[None], grid[None], align_corners=True)
    return out[0].permute(1, 2, 0)


def texture_of(texture: Texture | None, b: int) -> Texture | None:
    """One mesh's texture."""
    if texture is None:
        return None
    return Texture(of_batch(texture.image, 3, b), of_batch(texture.uv, 2, b), texture.uv_faces, texture.wrap)


def material_of(material: Material | None, b: int) -> Material | None:
    """One mesh's material."""
    if material is None:
        return None
    return Material(
        of_batch(material.albedo, 1, b), of_batch(material.specular, 1, b), of_batch(material.roughness, 0, b)
    )


def lighting_of(lighting: Lighting | None, b: int) -> Lighting | None:
    """One mesh's lights."""
    if lighting is None:
        return None
    return Lighting(
        of_batch(lighting.sh, 2, b),
        tuple(
            DirectionalLight(of_batch(d.direction, 1, b), of_batch(d.irradiance, 1, b)) for d in lighting.directional
        ),
        tuple(PointLight(of_batch(p.position, 1, b), of_batch(p.intensity, 1, b)) for p in lighting.points),
    )


def rgb(color: Tensor) -> dict[str, Any]:
    """A colour as Mitsuba's dictionaries take it."""
    return {"type": "rgb", "value": color.detach().tolist()}
