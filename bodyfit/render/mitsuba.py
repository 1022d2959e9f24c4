"""The physically based renderer: the call of `bodyfit.render`, made by Mitsuba 3 (extra `mitsuba`).

Shadows, indirect light, lights with a size and environment maps; gradients by projective sampling, which integrates
along silhouettes as the native renderer does (Zhang et al. 2023, "Projective Sampling for Differentiable Rendering of
Geometry"). Alpha, depth, normals and attributes are rendered as light that the surface gives off itself, so that the
same integrator differentiates them; colour is path traced.

The whole scene is given to Mitsuba in the camera's axes: a gradient with respect to the camera's pose then is one
with respect to vertices and lights, which the integrator knows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bodyfit.camera import Camera
from bodyfit.errors import InputError
from bodyfit.render.camera import RenderCamera
from bodyfit.render.extra import Tensor, torch
from bodyfit.render.mitsuba_image import MitsubaImage
from bodyfit.render.mitsuba_plugins import load_mitsuba
from bodyfit.render.mitsuba_scene import (
    Part,
    facing,
    lighting_of,
    material_of,
    part_of,
    rgb,
    sky_emitter,
    texture_of,
)
from bodyfit.render.rendered import Rendered
from bodyfit.render.scene import Lighting, Material, Texture
from bodyfit.render.surroundings import Surroundings
from bodyfit.render.torch_mesh import Welder, checked_mesh, of_batch

ANISOTROPY = 0.01
"""colour is drawn with square pixels: fx and fy may differ by this share, which its lights see as stretched surface"""
FAR_M = 1e4
MAX_SAMPLES = 16


class MitsubaRenderer:
    """Renders with Mitsuba 3.

    Where it differs from the native renderer: sample points are random in each cell of the n×n grid; colour has noise
    (`oversampling`), shadows and indirect light (`max_depth` 2 leaves direct light); spherical harmonics light the
    glossy part too, and count as black where they are negative; surface before `near_m` is cut off, but the cut has no
    gradient of its own. Orthographic cameras are refused, as are, for colour, gradients to the intrinsics.
    A gradient to a light's place does not follow the edges of shadows.

    Args:
        surroundings: environment, lights with a size, other surfaces.
        oversampling: each of the n×n points becomes this many squared.
        max_depth: path segments: 2 is direct light, more is indirect.
        shadow_edges: whether gradients follow the edges of shadows and reflections; takes minutes per image.
        seed: of the random numbers; each call takes further ones.
    """

    name = "mitsuba"

    def __init__(
        self,
        *,
        surroundings: Surroundings | None = None,
        oversampling: int = 2,
        max_depth: int = 4,
        shadow_edges: bool = False,
        seed: int = 0,
    ) -> None:
        load_mitsuba()
        if oversampling < 1:
            raise InputError("oversampling", "1 or more", str(oversampling))
        if max_depth < 1:
            raise InputError("max_depth", "1 or more", str(max_depth))
        self.surroundings = surroundings or Surroundings()
        self.oversampling, self.max_depth, self.shadow_edges = oversampling, max_depth, shadow_edges
        self.weld = Welder()
        self._seeds = np.random.default_rng(seed)

    def render(
        self,
        vertices: Tensor,
        faces: Any,
        camera: RenderCamera | Camera,
        *,
        vertex_attributes: Tensor | None = None,
        texture: Texture | None = None,
        material: Material | None = None,
        lighting: Lighting | None = None,
        background: Tensor | None = None,
        samples: int = 1,
    ) -> Rendered:
        """Draws a batch of meshes; see `bodyfit.render.render.render`.

        Raises:
            InputError: a mesh, camera or scene that is none, or that this renderer cannot draw.
        """
        camera = camera if isinstance(camera, RenderCamera) else RenderCamera.from_camera(camera)
        points, triangles = checked_mesh(vertices, faces)
        if camera.projection != "perspective":
            raise InputError(
                "camera.projection", "perspective, which is what Mitsuba differentiates", camera.projection
            )
        if not isinstance(samples, int) or not 1 <= samples <= MAX_SAMPLES:
            raise InputError("samples", f"1 to {MAX_SAMPLES}", repr(samples))
        corner_colors = None
        if vertex_attributes is not None:
            count = points.shape[1]
            if vertex_attributes.ndim not in (2, 3) or vertex_attributes.shape[-2] != count:
                raise InputError(
                    "vertex_attributes", f"(V, C) or (B, V, C) with V = {count}", str(tuple(vertex_attributes.shape))
                )
            corner_colors = vertex_attributes if vertex_attributes.shape[-1] == 3 else None
        one = _OneView(self, camera, samples)
        jobs = [
            one.images(
                points[b],
                triangles,
                of_batch(camera.intrinsics, 1, b),
                of_batch(camera.pose, 2, b),
                of_batch(vertex_attributes, 2, b),
                texture_of(texture, b),
                material_of(material, b),
                lighting_of(lighting, b),
                of_batch(corner_colors, 2, b),
            )
            for b in range(points.shape[0])
        ]

        def stacked(name: str) -> Callable[[], Tensor] | None:
            return None if jobs[0][name] is None else lambda: torch.stack([job[name]() for job in jobs])

        return Rendered(
            torch.stack([job["alpha"]() for job in jobs]),
            premultiplied_depth=stacked("depth"),
            premultiplied_normals=stacked("normals"),
            premultiplied_attributes=stacked("attributes"),
            premultiplied_color=stacked("color"),
            background=background,
            face_id=stacked("face_id"),
            barycentrics=stacked("barycentrics"),
        )

    def next_seed(self) -> int:
        """The next call's random numbers."""
        return int(self._seeds.integers(0, 2**31))


class _OneView:
    """What a call shares over its batch."""

    def __init__(self, renderer: MitsubaRenderer, camera: RenderCamera, samples: int) -> None:
        self.renderer, self.camera = renderer, camera
        self.spp = (samples * renderer.oversampling) ** 2
        self.mi = load_mitsuba()

    def images(
        self,
        vertices: Tensor,
        triangles: Tensor,
        K: Tensor,
        T: Tensor,
        attributes: Tensor | None,
        texture: Texture | None,
        material: Material | None,
        lighting: Lighting | None,
        corner_colors: Tensor | None,
    ) -> dict[str, Any]:
        """The images of one mesh, each to be made when it is asked for."""
        colored = lighting is not None or texture is not None or corner_colors is not None
        colored = colored or (material is not None and material.albedo is not None)
        weld = self.renderer.weld
        body = part_of(weld, vertices, triangles, T, material, texture, corner_colors)
        around = self.renderer.surroundings
        others = [
            part_of(weld, s.vertices, checked_mesh(s.vertices, s.faces)[1], T, s.material) for s in around.surfaces
        ]
        lamps = [
            part_of(weld, a.vertices, checked_mesh(a.vertices, a.faces)[1], T, None, radiance=a.radiance)
            for a in around.area_lights
        ]
        parts = [body, *others, *lamps]
        made: dict[str, Tensor] = {}

        def once(key: str, make: Callable[[], Tensor]) -> Tensor:
            if key not in made:
                made[key] = make()
            return made[key]

        def corners_z(part: Part) -> Tensor:
            z = part.corners[:, 2]
            return torch.stack([torch.ones_like(z), z, torch.zeros_like(z)], 1)

        def coverage() -> Tensor:
            return once("coverage", lambda: self.signal(K, parts, [corners_z(p) for p in parts]))

        def interpolated() -> Tensor:
            assert attributes is not None
            per_corner = attributes[triangles.reshape(-1).long()]
            images = []
            for first in range(0, per_corner.shape[1], 3):
                three = per_corner[:, first : first + 3]
                padded = torch.nn.functional.pad(three, (0, 3 - three.shape[1]))
                black = [torch.zeros_like(p.corners) for p in parts[1:]]
                images.append(self.signal(K, parts, [padded, *black])[..., : three.shape[1]])
            return torch.cat(images, -1)

        def unlit() -> Tensor:
            return self.signal(K, parts, [None, *(torch.zeros_like(p.corners) for p in parts[1:])])

        def hit() -> tuple[Tensor, Tensor]:
            return self.hits(K, parts)

        return {
            "alpha": lambda: coverage()[..., 0],
            "depth": lambda: coverage()[..., 1],
            "normals": lambda: self.signal(K, parts, [facing(p) for p in parts]),
            "attributes": None if attributes is None else interpolated,
            "color": None if not colored else (unlit if lighting is None else lambda: self.lit(K, T, parts, lighting)),
            "face_id": lambda: hit()[0],
            "barycentrics": lambda: hit()[1],
        }

    def signal(self, K: Tensor, parts: Sequence[Part], signals: Sequence[Tensor | None]) -> Tensor:
        """An image (H, W, 3) of numbers per corner (3F, 3); for None, of the part's own albedo, unlit.

        The map (x, y, z) -> ((fx x + (cx - c0) z) / f, …, z) turns any skew-free camera into one with square pixels
        and its principal point in the middle without changing the image: gradients reach the intrinsics through it.
        """
        focal = float(K[0].detach())
        middle = ((self.camera.width - 1) / 2, (self.camera.height - 1) / 2)
        scene: dict[str, Any] = {"type": "scene"}
        tensors: dict[str, Tensor] = {}
        for i, (part, signal) in enumerate(zip(parts, signals, strict=True)):
            x, y, z = part.vertices.unbind(-1)
            moved = torch.stack(
                [(K[0] * x + (K[2] - middle[0]) * z) / focal, (K[1] * y + (K[3] - middle[1]) * z) / focal, z], -1
            )
            look, given = ({"kind": "corner"}, {"data": signal}) if signal is not None else (part.look, part.tensors)
            radiance = {"type": "bodyfit_values", **{k: v for k, v in look.items() if k in ("kind", "repeat")}}
            scene[f"part{i}"] = self.mesh(part, moved, emitter={"type": "bodyfit_glow", "radiance": radiance})
            tensors[f"part{i}.vertex_positions"] = moved
            for name in ("data", "image"):
                if given.get(name) is not None:
                    tensors[f"part{i}.emitter.radiance.{name}"] = given[name]
        scene["sensor"] = self.sensor(focal, middle)
        scene["integrator"] = {"type": "prb_projective", "max_depth": 1, "sppi": 0}
        return self.run(scene, tensors)

    def lit(self, K: Tensor, T: Tensor, parts: Sequence[Part], lighting: Lighting) -> Tensor:
        """The path traced image (H, W, 3)."""
        fx, fy, cx, cy = (float(k) for k in K.detach())
        if K.requires_grad:
            expected = "no gradient (Mitsuba's colour has none with respect to the intrinsics)"
            raise InputError("camera.intrinsics", expected, "a tensor that requires one")
        if abs(fx / fy - 1) > ANISOTROPY:
            raise InputError("camera.intrinsics", "fx = fy within 1 % for Mitsuba's colour", f"{fx:g}, {fy:g}")
        toward = [-(T[:3, :3] @ torch.nn.functional.normalize(d.direction, dim=0)) for d in lighting.directional]
        points = [T[:3, :3] @ p.position + T[:3, 3] for p in lighting.points]
        scene: dict[str, Any] = {"type": "scene"}
        tensors: dict[str, Tensor] = {}
        for k, (light, way) in enumerate(zip(lighting.directional, toward, strict=True)):
            scene[f"sun{k}"] = {
                "type": "directional",
                "direction": (-way).tolist(),
                "irradiance": rgb(light.irradiance),
            }
            tensors[f"sun{k}.irradiance.value"] = light.irradiance
        for k, (light, place) in enumerate(zip(lighting.points, points, strict=True)):
            scene[f"lamp{k}"] = {"type": "point", "position": place.tolist(), "intensity": rgb(light.intensity)}
            tensors[f"lamp{k}.intensity.value"] = light.intensity
        sky = sky_emitter(self.mi, lighting.sh, self.renderer.surroundings.environment, T)
        if sky is not None:
            scene["sky"], tensors["sky.data"] = sky
        for i, part in enumerate(parts):
            moved = part.vertices * torch.tensor([1.0, fy / fx, 1.0], dtype=part.vertices.dtype)
            key = f"part{i}"
            tensors[f"{key}.vertex_positions"] = moved
            if part.radiance is not None:
                scene[key] = self.mesh(part, moved, emitter={"type": "area", "radiance": rgb(part.radiance)})
                tensors[f"{key}.emitter.radiance.value"] = part.radiance
                continue
            look = {k: v for k, v in part.look.items() if k in ("kind", "repeat")}
            scene[key] = self.mesh(part, moved, bsdf={
                "type": "bodyfit_surface", "glossy": part.look["glossy"], "num_toward": len(toward),
                "num_points": len(points), "albedo": {"type": "bodyfit_values", **look},
            })  # fmt: skip
            for name, value in part.tensors.items():
                tensors[f"{key}.bsdf.{'albedo.' if name in ('data', 'image') else ''}{name}"] = value
            tensors[f"{key}.bsdf.normals"] = part.normals
            if toward:
                tensors[f"{key}.bsdf.toward"] = torch.stack(toward)
            if points:
                tensors[f"{key}.bsdf.points"] = torch.stack(points)
        scene["sensor"] = self.sensor(fx, (cx, cy))
        integrator = {"type": "prb_projective", "max_depth": self.renderer.max_depth, "hide_emitters": True}
        scene["integrator"] = integrator if self.renderer.shadow_edges else {**integrator, "sppi": 0}
        return self.run(scene, tensors)

    def mesh(self, part: Part, moved: Tensor, **children: dict[str, Any]) -> Any:
        """A Mitsuba mesh with its emitter or BSDF."""
        mi = self.mi
        props = mi.Properties()
        for name, child in children.items():
            props[name] = mi.load_dict(child)
        mesh = mi.Mesh("", len(moved), len(part.faces), props=props)
        params = mi.traverse(mesh)
        params["vertex_positions"] = mi.Float(moved.detach().float().reshape(-1).contiguous())
        params["faces"] = mi.UInt32(part.faces.reshape(-1).astype(np.uint32))
        params.update()
        return mesh

    def sensor(self, focal: float, center: tuple[float, float]) -> dict[str, Any]:
        """Mitsuba's camera looks along +z with x to the left and y up: turned about z it is OpenCV's."""
        width, height = self.camera.width, self.camera.height
        return {
            "type": "perspective",
            "fov": math.degrees(2 * math.atan(width / 2 / focal)),
            "fov_axis": "x",
            "near_clip": self.camera.near_m,
            "far_clip": FAR_M,
            "principal_point_offset_x": ((width - 1) / 2 - center[0]) / width,
            "principal_point_offset_y": ((height - 1) / 2 - center[1]) / height,
            "to_world": self.mi.ScalarTransform4f(np.diag([-1.0, -1.0, 1.0, 1.0])),
            "film": {
                "type": "hdrfilm", "width": width, "height": height, "pixel_format": "rgb",
                "component_format": "float32", "rfilter": {"type": "box"}, "sample_border": True,
            },
            "sampler": {"type": "stratified", "sample_count": self.spp},
        }  # fmt: skip

    def run(self, scene: dict[str, Any], tensors: dict[str, Tensor]) -> Tensor:
        """The scene's image (H, W, 3) as a function of its tensors."""
        return MitsubaImage.apply(scene, list(tensors), self.renderer.next_seed(), self.spp, *tensors.values())

    def hits(self, K: Tensor, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
        """Face (H, W) and barycentrics (H, W, 3) at the pixels' centres."""
        mi = self.mi
        width, height = self.camera.width, self.camera.height
        scene = mi.load_dict({"type": "scene", **{f"part{i}": self.mesh(p, p.vertices) for i, p in enumerate(parts)}})
        v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        fx, fy, cx, cy = K.detach().float()
        d = torch.stack([(u - cx) / fx, (v - cy) / fy, torch.ones_like(u)], 0).reshape(3, -1)
        length = d.norm(dim=0)
        ray = mi.Ray3f(mi.Point3f(0), mi.Vector3f((d / length).contiguous()))
        # what lies before the near plane is passed by
        near = mi.Float((self.camera.near_m * length).contiguous())
        ray.o = ray.o + ray.d * near
        hit = scene.ray_intersect_preliminary(ray)
        mine = torch.from_numpy(np.array(hit.is_valid() & (hit.shape == mi.ShapePtr(scene.shapes()[0]))))
        face = torch.from_numpy(np.array(hit.prim_index).astype(np.int32))
        uv = torch.from_numpy(np.array(hit.prim_uv, dtype=np.float32)).reshape(2, -1)
        weights = torch.stack([1 - uv[0] - uv[1], uv[0], uv[1]], -1) * mine[:, None]
        return torch.where(mine, face, -1).reshape(height, width), weights.reshape(height, width, 3)
