"""Images of a mesh that can be differentiated, edges included: `render`, on the CPU or a CUDA device.

The image is that of a box filter: each pixel the integral over its square. Its change has two parts (Li et al. 2018,
"Differentiable Monte Carlo Ray Tracing through Edge Sampling"): what changes inside of the visible faces, taken at
the samples, and what the edges sweep over, integrated along the visible edges of the mesh themselves. The second
does not depend on the samples, so a coverage of one sample per pixel has the right gradient too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bodyfit.camera import Camera
from bodyfit.errors import InputError
from bodyfit.kernels.cpu_shade import GLOSSY, LIT, PERSPECTIVE, REPEATED, TEXTURED
from bodyfit.render.camera import RenderCamera
from bodyfit.render.checks import (
    MAX_COORDINATE,
    batch_of,
    batched,
    check_background,
    check_devices,
    check_numbers,
    check_uv_faces,
    check_vertices,
)
from bodyfit.render.clip import Cut, cut_near
from bodyfit.render.context import RenderContext
from bodyfit.render.cpu_raster import CpuRaster, Mesh
from bodyfit.render.extra import Tensor, torch
from bodyfit.render.layers import (
    Paint,
    PaintColor,
    PaintNormals,
    VertexNormals,
    cover,
    move_points,
    on_gpu,
    to_array,
    to_tensor,
)
from bodyfit.render.rendered import Rendered
from bodyfit.render.scene import Lighting, Material, Texture, check_shape

MAX_SAMPLES = 16
GREY = 0.8


class NativeRenderer:
    """`render` with a context of its own: the backend "native" of the `Renderer` protocol."""

    name = "native"

    def __init__(self, threads: int | None = None) -> None:
        self._context = RenderContext(threads)

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
        """See `render`."""
        return render(
            vertices,
            faces,
            camera,
            vertex_attributes=vertex_attributes,
            texture=texture,
            material=material,
            lighting=lighting,
            background=background,
            samples=samples,
            context=self._context,
        )


def render(
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
    context: RenderContext | None = None,
) -> Rendered:
    """Draws triangle meshes; gradients reach every float tensor given.

    Any mesh will do: open or closed, both sides of a face are seen, vertices at the same place count as one where
    the surface's edges are looked for. A normal is turned to the side from which its face is seen. Where triangles
    pass through each other, the curve in which they meet is no edge of the mesh: its part of the gradient is missing.
    Nothing casts a shadow.

    Args:
        vertices: (B, V, 3) or (V, 3) metres, world (or camera, with a plain `Camera`).
        faces: (F, 3) whole numbers, the same for all of the batch.
        camera: for perspective or parallel rays; its tensors may have the batch axis.
        vertex_attributes: (V, C) or (B, V, C), interpolated into `attributes`; three channels are the albedo too.
        texture: the albedo, before attributes and material.
        material: albedo where nothing else gives one, and gloss.
        lighting: without it `color` is the albedo itself.
        background: (3,), (H, W, 3) or (B, H, W, 3) linear; `color` is composited over it.
        samples: n for n × n samples per pixel, 1 to 16.
        context: keeps what calls with the same faces share.

    Returns:
        Rendered: its images are made when asked for.

    Raises:
        InputError: shapes, numbers or indices that are no mesh, camera or image; vertices that are not finite.
        DeviceError: tensors that are not on the vertices' device, or a device that is neither a CPU nor CUDA's.
        MissingExtraError: tensors of a CUDA device, and numba-cuda is not installed.
    """
    points_world = check_vertices(vertices)
    given_context = context
    context = RenderContext(threads=1) if context is None else context
    n_points = points_world.shape[1]
    triangles = (context.triangles if on_gpu(vertices) else context.checked_faces)(faces, n_points)
    n_batch = points_world.shape[0]
    view = camera if isinstance(camera, RenderCamera) else context.view(camera, vertices.device)
    if not isinstance(samples, int) or isinstance(samples, bool) or not 1 <= samples <= MAX_SAMPLES:
        raise InputError("samples", f"a whole number from 1 to {MAX_SAMPLES}", repr(samples))
    check_devices(vertices.device, view, vertex_attributes, texture, material, lighting, background)
    n_batch = max(n_batch, batch_of(view.intrinsics, 1), batch_of(view.pose, 2))
    kind = points_world.dtype
    points_world = batched("vertices", points_world, 2, n_batch)
    intrinsics = batched("camera.intrinsics", view.intrinsics.to(kind), 1, n_batch)
    pose = batched("camera.T_cam_world", view.pose.to(kind), 2, n_batch)
    nearest = np.inf
    if on_gpu(vertices):
        points_cam = _turned(points_world, pose) + pose[:, None, :3, 3]
    else:
        points_cam, nearest, fine = move_points(points_world, pose, MAX_COORDINATE)
        if not fine:
            check_numbers(points_world)
    attributes = None
    if vertex_attributes is not None:
        finite = not on_gpu(vertices)  # to look would be to wait
        check_shape("vertex_attributes", vertex_attributes, n_points, None, names="(V, C)", finite=finite)
        attributes = batched("vertex_attributes", vertex_attributes.to(kind), 2, n_batch)
    behind = None
    if background is not None:
        behind = check_background(background.to(kind), n_batch, view)
    uv_faces = None
    if texture is not None:
        uv_faces = (context.uv_triangles if on_gpu(vertices) else check_uv_faces)(texture, triangles)
    if given_context is None and n_batch > 1 and not on_gpu(vertices):
        context = RenderContext()
    scene = _Scene(view, points_world, points_cam, intrinsics, pose, attributes, texture, material, lighting)
    if on_gpu(vertices):
        if not context.gpu(vertices.device).must_look(context.knows(triangles, uv_faces)):
            return _draw(scene, triangles, uv_faces, samples, behind, context)
        check_numbers(points_world)
        nearest = float(points_cam.detach()[:, :, 2].min()) if points_cam.numel() else np.inf
    if nearest < view.near_m:
        if on_gpu(vertices):
            context.gpu(vertices.device).look_again()
        scene = scene.on("cpu")
        items = [_draw_cut(scene.item(b), triangles, uv_faces, samples) for b in range(n_batch)]
        return _joined(items, behind, vertices.device)
    return _draw(scene, triangles, uv_faces, samples, behind, context)


class _Scene:
    """A checked call: tensors with their batch axis; texture, material and lights as they came."""

    def __init__(
        self,
        view: RenderCamera,
        points_world: Tensor,
        points_cam: Tensor,
        intrinsics: Tensor,
        pose: Tensor,
        attributes: Tensor | None,
        texture: Texture | None,
        material: Material | None,
        lighting: Lighting | None,
    ) -> None:
        self.view, self.points_world, self.points_cam = view, points_world, points_cam
        self.intrinsics, self.pose, self.attributes = intrinsics, pose, attributes
        self.lit = lighting is not None
        n_batch, kind = points_world.shape[0], points_world.dtype
        self.perspective = view.projection == "perspective"
        self.flags = PERSPECTIVE if self.perspective else 0
        flat = material is not None and material.albedo is not None
        self.colored = self.lit or texture is not None or flat or (attributes is not None and attributes.shape[-1] == 3)
        self.surface: tuple[Tensor, ...] = ()
        self.lights: tuple[Tensor, ...] = ()
        if not self.colored:
            return
        zeros = points_world.new_zeros
        albedo, image, uv = zeros(n_batch, 0, 3), zeros(n_batch, 0, 0, 3), zeros(n_batch, 0, 2)
        if texture is not None:
            image = batched("texture.image", texture.image.to(kind), 3, n_batch)
            uv = batched("texture.uv", texture.uv.to(kind), 2, n_batch)
            self.flags |= TEXTURED | (REPEATED if texture.wrap == "repeat" else 0)
        elif attributes is not None and attributes.shape[-1] == 3:
            albedo = attributes
        elif material is not None and material.albedo is not None:
            one = batched("material.albedo", material.albedo.to(kind), 1, n_batch)
            albedo = one[:, None].expand(-1, points_world.shape[1], -1)
        else:
            albedo = zeros(n_batch, points_world.shape[1], 3) + GREY
        self.surface = (albedo, image, uv)
        if self.lit:
            self.flags |= LIT
            if material is not None and material.specular is not None:
                self.flags |= GLOSSY
        R, t = pose[:, :3, :3], pose[:, :3, 3:]
        eye = -(R * t).sum(1) if self.perspective else -R[:, 2]
        self.lights = (*_pack_lights(lighting, material, n_batch, points_world), eye)

    def on(self, device: Any) -> _Scene:
        """The same scene on another device."""
        other = object.__new__(_Scene)
        other.__dict__.update(self.__dict__)
        for name in ("points_world", "points_cam", "intrinsics", "pose"):
            setattr(other, name, getattr(self, name).to(device))
        other.attributes = None if self.attributes is None else self.attributes.to(device)
        other.surface = tuple(t.to(device) for t in self.surface)
        other.lights = tuple(t.to(device) for t in self.lights)
        return other

    def item(self, b: int) -> _Scene:
        """Image b alone, with a batch axis of 1."""
        one = object.__new__(_Scene)
        one.__dict__.update(self.__dict__)
        for name in ("points_world", "points_cam", "intrinsics", "pose"):
            setattr(one, name, getattr(self, name)[b : b + 1])
        one.attributes = None if self.attributes is None else self.attributes[b : b + 1]
        one.surface = tuple(t[b : b + 1] for t in self.surface)
        one.lights = tuple(t[b : b + 1] for t in self.lights)
        return one


def _draw(
    scene: _Scene,
    faces: Any,
    uv_faces: Any,
    samples: int,
    background: Tensor | None,
    context: RenderContext,
    normals_world: Tensor | None = None,
) -> Rendered:
    """All images of a scene in front of the near plane."""
    points, intrinsics = scene.points_cam.contiguous(), scene.intrinsics.contiguous()
    size = (scene.view.height, scene.view.width)
    raster: Any
    device: Any = None
    if on_gpu(points):
        gpu = context.gpu(points.device)
        device = gpu.arrays
        topology = context.known_topology
        if topology is None or not context.knows(faces, uv_faces):
            topology = context.topology(faces, uv_faces, scene.points_world.detach().cpu().numpy())
        mesh = gpu.mesh(faces, uv_faces, topology)
        raster = gpu.draw(
            to_array(points), to_array(intrinsics), mesh, size, samples, scene.perspective, scene.view.near_m
        )
    else:
        topology = context.topology(faces, uv_faces, to_array(scene.points_world))
        mesh = Mesh(faces, faces if uv_faces is None else uv_faces, topology)
        arrays = (to_array(points), to_array(intrinsics))
        raster = CpuRaster(*arrays, mesh, size, samples, scene.perspective, context.scratch, context.pool)
    alpha, depth = cover(points, intrinsics, raster)
    named: list[tuple[Tensor, Tensor]] = []
    vertex_normals: list[Tensor] = [] if normals_world is None else [normals_world]

    def names(which: int) -> Tensor:
        if not named:
            face_id, weights = raster.names()
            named.append((to_tensor(face_id), to_tensor(weights)))
        return named[0][which]

    def world_normals() -> Tensor:
        if not vertex_normals:
            vertex_normals.append(VertexNormals.apply(scene.points_world, mesh.faces, device))  # type: ignore[arg-type]
        return vertex_normals[0]

    def normals() -> Tensor:
        in_camera = _turned(world_normals(), scene.pose)
        return PaintNormals.apply(in_camera, points, intrinsics, raster)  # type: ignore[return-value]

    def attributes() -> Tensor | None:
        if scene.attributes is None:
            return None
        return Paint.apply(scene.attributes, points, intrinsics, raster)  # type: ignore[return-value]

    def color() -> Tensor | None:
        if not scene.colored:
            return None
        shading = world_normals() if scene.lit else torch.zeros_like(scene.points_world)
        tensors = (scene.points_world, shading, *scene.surface, *scene.lights)
        return PaintColor.apply(points, intrinsics, raster, scene.flags, *tensors)  # type: ignore[return-value]

    return Rendered(
        alpha,
        premultiplied_depth=depth,
        premultiplied_normals=normals,
        premultiplied_attributes=attributes,
        premultiplied_color=color,
        background=background,
        face_id=lambda: names(0),
        barycentrics=lambda: names(1),
    )


def _draw_cut(scene: _Scene, faces: Any, uv_faces: Any, samples: int) -> Rendered:
    """The images of one mesh that reaches to the camera or behind it."""
    cut = cut_near(scene.points_cam[0], faces, scene.view.near_m)
    normals = cut.carry(VertexNormals.apply(scene.points_world, faces, None)[0])[None]  # type: ignore[index,arg-type]
    part = scene.item(0)
    part.points_cam, part.points_world = cut.carry(scene.points_cam[0])[None], cut.carry(scene.points_world[0])[None]
    if scene.attributes is not None:
        part.attributes = cut.carry(scene.attributes[0])[None]
    new_uv_faces = None
    if scene.colored:
        albedo, image, uv = scene.surface
        if albedo.shape[1]:
            albedo = cut.carry(albedo[0])[None]
        if uv_faces is not None:
            at_corners = uv[0][torch.from_numpy(uv_faces[cut.parent]).long()]
            uv = (cut.weights() @ at_corners).reshape(1, -1, 2)
            new_uv_faces = np.arange(3 * len(cut.faces), dtype=np.int32).reshape(-1, 3)
        part.surface = (albedo, image, uv)
    drawn = _draw(part, cut.faces, new_uv_faces, samples, None, RenderContext(threads=1), normals)
    return Rendered(
        drawn.alpha,
        premultiplied_depth=drawn.premultiplied_depth,
        premultiplied_normals=lambda: drawn.premultiplied_normals,
        premultiplied_attributes=None if scene.attributes is None else lambda: drawn.premultiplied_attributes,
        premultiplied_color=(lambda: drawn.premultiplied_color) if scene.colored else None,
        face_id=lambda: _parents(drawn.face_id, cut),
        barycentrics=lambda: _weights_of_parents(drawn, cut),
    )


def _parents(face_id: Tensor, cut: Cut) -> Tensor:
    table = torch.from_numpy(np.append(cut.parent, -1).astype(np.int32))
    return table[face_id.long()]


def _weights_of_parents(drawn: Rendered, cut: Cut) -> Tensor:
    table = torch.cat([cut.weights().detach(), torch.zeros(1, 3, 3, dtype=drawn.barycentrics.dtype)])
    return (drawn.barycentrics[..., None, :] @ table[drawn.face_id.long()])[..., 0, :]


def _joined(items: list[Rendered], background: Tensor | None, device: Any) -> Rendered:
    """One result of several with a batch of one each."""

    def together(name: str) -> Tensor | None:
        parts = [item._image(name) for item in items]
        return None if any(p is None for p in parts) else torch.cat([p for p in parts if p is not None]).to(device)

    return Rendered(
        torch.cat([item.alpha for item in items]).to(device),
        premultiplied_depth=together("premultiplied_depth"),
        premultiplied_normals=lambda: together("premultiplied_normals"),
        premultiplied_attributes=lambda: together("premultiplied_attributes"),
        premultiplied_color=lambda: together("premultiplied_color"),
        background=background,
        face_id=lambda: together("face_id"),
        barycentrics=lambda: together("barycentrics"),
    )


def _pack_lights(
    lighting: Lighting | None, material: Material | None, n_batch: int, like: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """sh (B, 9, 3), lamps (B, L, 6), places (B, L) bool, gloss (B, 4)."""
    kind = like.dtype
    sh = like.new_zeros(n_batch, 9, 3)
    rows: list[Tensor] = []
    if lighting is not None:
        if lighting.sh is not None:
            sh = batched("lighting.sh", lighting.sh.to(kind), 2, n_batch)
        for sun in lighting.directional:
            toward = -torch.nn.functional.normalize(sun.direction.to(kind), dim=-1)
            rows.append(_pair("light", toward, sun.irradiance.to(kind), n_batch))
        for lamp in lighting.points:
            rows.append(_pair("light", lamp.position.to(kind), lamp.intensity.to(kind), n_batch))
    lamps = torch.stack(rows, dim=1) if rows else like.new_zeros(n_batch, 0, 6)
    gloss = like.new_zeros(n_batch, 4)
    if material is not None and material.specular is not None and material.roughness is not None:
        specular = batched("material.specular", material.specular.to(kind), 1, n_batch)
        roughness = batched("material.roughness", material.roughness.to(kind), 0, n_batch)
        gloss = torch.cat([specular, (roughness * roughness)[:, None]], dim=1)
    # filled where it lies: a copy from the host would be waited for, and cannot be captured in a graph
    places = torch.zeros(len(rows), dtype=torch.bool, device=like.device)
    if lighting is not None:
        places[len(lighting.directional) :].fill_(True)
    return sh, lamps, places.expand(n_batch, -1), gloss


def _pair(field: str, where: Tensor, color: Tensor, n_batch: int) -> Tensor:
    return torch.cat([batched(field, where, 1, n_batch), batched(field, color, 1, n_batch)], dim=1)


def _turned(vectors: Tensor, pose: Tensor) -> Tensor:
    """Vectors (B, V, 3) in the frame of poses (B, 4, 4)."""
    if on_gpu(vectors):
        # no matrix product: where a program allows TF32 for those, points would keep 10 bits, and depths millimetres
        return (vectors[:, :, None] * pose[:, None, :3, :3]).sum(-1)
    return vectors @ pose[:, :3, :3].transpose(1, 2)
