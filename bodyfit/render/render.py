"""Images of a mesh that can be differentiated, edges included: `render`, on the CPU or a CUDA device.

The image is that of a box filter: each pixel the integral over its square. Its change has two parts (Li et al. 2018,
"Differentiable Monte Carlo Ray Tracing through Edge Sampling"): what changes inside of the visible faces, taken at
the samples, and what the edges sweep over, integrated along the visible edges of the mesh themselves. The second
does not depend on the samples, so a coverage of one sample per pixel has the right gradient too.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bodyfit.camera import Camera
from bodyfit.errors import DeviceError, InputError
from bodyfit.kernels.cpu_raster import all_below, all_equal, all_within
from bodyfit.kernels.cpu_shade import GLOSSY, LIT, PERSPECTIVE, REPEATED, TEXTURED
from bodyfit.render.camera import RenderCamera
from bodyfit.render.clip import Cut, cut_near
from bodyfit.render.cpu_raster import CpuRaster, Mesh, Scratch
from bodyfit.render.extra import Tensor, torch
from bodyfit.render.layers import (
    Cover,
    MovePoints,
    Paint,
    PaintColor,
    PaintNormals,
    VertexNormals,
    on_gpu,
    to_array,
    to_tensor,
)
from bodyfit.render.rendered import Rendered
from bodyfit.render.scene import Lighting, Material, Texture, check_shape
from bodyfit.render.topology import Topology, at_one_place, find_topology

MAX_SAMPLES = 16
MAX_COORDINATE = 1e6
GREY = 0.8


class RenderContext:
    """What calls with the same mesh share: the edges of its faces, buffers, threads. Make one per loop.

    On a CUDA device the first call with a mesh is waited for: its vertices are checked and it is seen how much room
    the edges need. Later calls with the same `faces` object are not, and can be captured in a CUDA graph; they take
    vertices to be finite, and those that lay at one place in the first call to stay together. `check` says whether
    something did not fit.

    Args:
        threads: how many images of a batch are drawn at once; the pictures do not depend on it. All cores by default.
    """

    def __init__(self, threads: int | None = None) -> None:
        n_threads = threads if threads is not None else (os.cpu_count() or 1)
        if n_threads < 1:
            raise InputError("threads", "at least 1", str(threads))
        self.scratch = Scratch()
        self.pool = ThreadPoolExecutor(n_threads) if n_threads > 1 else None
        self._faces: Any = None
        self._uv_faces: Any = None
        self._topology: Topology | None = None
        self._pairs = np.empty((0, 2), np.int64)
        self._together = np.empty(0, np.bool_)
        self._given: tuple[Any, Any, int] = (None, None, -1)
        self._gpus: dict[Any, Any] = {}

    def gpu(self, device: Any) -> Any:
        """The `CudaContext` of a CUDA device."""
        if device not in self._gpus:
            from bodyfit.render.cuda_context import CudaContext

            self._gpus[device] = CudaContext(device)
        return self._gpus[device]

    def check(self) -> None:
        """Waits for the CUDA devices in use.

        Raises:
            BodyfitError: edges did not fit into the room that there was, so that gradients since the last check miss
                some; from now on there is more. Graphs have to be captured anew.
        """
        for gpu in self._gpus.values():
            gpu.room.check()

    def triangles(self, faces: Any, n_points: int) -> Any:
        """Checked faces as an int32 array; the same object as in the last call is not looked at again."""
        if self._given[0] is not faces or self._given[2] != n_points:
            self._given = (faces, _check_faces("faces", faces, n_points), n_points)
        return self._given[1]

    @property
    def known_topology(self) -> Topology | None:
        """The edges of the last call's faces."""
        return self._topology

    def knows(self, faces: Any, uv_faces: Any) -> bool:
        """Whether these are the last call's faces."""
        return self._topology is not None and _same(self._faces, faces) and _same(self._uv_faces, uv_faces)

    def topology(self, faces: Any, uv_faces: Any, vertices: Any) -> Topology:
        """The edges of faces (F, 3), found anew where faces differ from the last call's, or vertices at one place part.

        Vertices that lay apart in the first call with these faces and lie at exactly one place later are not noticed.
        """
        same_mesh = self._topology is not None and _same(self._faces, faces) and _same(self._uv_faces, uv_faces)
        if not same_mesh:
            self._pairs = np.empty((0, 2), np.int64)
        together = at_one_place(vertices, self._pairs)
        if not same_mesh or self._topology is None or not np.array_equal(together, self._together):
            # copies: the caller may write new numbers into the same array
            self._faces, self._uv_faces = faces.copy(), None if uv_faces is None else uv_faces.copy()
            self._topology = find_topology(faces, vertices, uv_faces)
            # also those that came apart are watched: they may meet again
            self._pairs = np.unique(np.concatenate([self._pairs, self._topology.twins]), axis=0)
            self._together = at_one_place(vertices, self._pairs)
        return self._topology


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
    points_world = _check_vertices(vertices)
    given_context = context
    context = RenderContext(threads=1) if context is None else context
    n_points = points_world.shape[1]
    triangles = context.triangles(faces, n_points) if on_gpu(vertices) else _check_faces("faces", faces, n_points)
    n_batch = points_world.shape[0]
    view = camera if isinstance(camera, RenderCamera) else RenderCamera.from_camera(camera)
    if not isinstance(samples, int) or isinstance(samples, bool) or not 1 <= samples <= MAX_SAMPLES:
        raise InputError("samples", f"a whole number from 1 to {MAX_SAMPLES}", repr(samples))
    _check_devices(vertices.device, view, vertex_attributes, texture, material, lighting, background)
    n_batch = max(n_batch, _batch_of(view.intrinsics, 1), _batch_of(view.pose, 2))
    kind = points_world.dtype
    points_world = _batched("vertices", points_world, 2, n_batch)
    intrinsics = _batched("camera.intrinsics", view.intrinsics.to(kind), 1, n_batch)
    pose = _batched("camera.T_cam_world", view.pose.to(kind), 2, n_batch)
    points_cam = _moved(points_world, pose)
    attributes = None
    if vertex_attributes is not None:
        finite = not on_gpu(vertices)  # to look would be to wait
        check_shape("vertex_attributes", vertex_attributes, n_points, None, names="(V, C)", finite=finite)
        attributes = _batched("vertex_attributes", vertex_attributes.to(kind), 2, n_batch)
    behind = None
    if background is not None:
        behind = _check_background(background.to(kind), n_batch, view)
    uv_faces = None if texture is None else _check_uv_faces(texture, triangles)
    if given_context is None and n_batch > 1 and not on_gpu(vertices):
        context = RenderContext()
    scene = _Scene(view, points_world, points_cam, intrinsics, pose, attributes, texture, material, lighting)
    if on_gpu(vertices):
        if not context.gpu(vertices.device).must_look(context.knows(triangles, uv_faces)):
            return _draw(scene, triangles, uv_faces, samples, behind, context)
        _check_numbers(points_world)
    depths = points_cam.detach()[:, :, 2]
    if depths.numel() and float(depths.min()) < view.near_m:
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
            image = _batched("texture.image", texture.image.to(kind), 3, n_batch)
            uv = _batched("texture.uv", texture.uv.to(kind), 2, n_batch)
            self.flags |= TEXTURED | (REPEATED if texture.wrap == "repeat" else 0)
        elif attributes is not None and attributes.shape[-1] == 3:
            albedo = attributes
        elif material is not None and material.albedo is not None:
            one = _batched("material.albedo", material.albedo.to(kind), 1, n_batch)
            albedo = one[:, None].expand(-1, points_world.shape[1], -1)
        else:
            albedo = zeros(n_batch, points_world.shape[1], 3) + GREY
        self.surface = (albedo, image, uv)
        if self.lit:
            self.flags |= LIT
            if material is not None and material.specular is not None:
                self.flags |= GLOSSY
        R, t = pose[:, :3, :3], pose[:, :3, 3:]
        eye = -(R.transpose(1, 2) @ t)[..., 0] if self.perspective else -R[:, 2]
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
    alpha, depth = Cover.apply(points, intrinsics, raster)  # type: ignore[misc]
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
            sh = _batched("lighting.sh", lighting.sh.to(kind), 2, n_batch)
        for sun in lighting.directional:
            toward = -torch.nn.functional.normalize(sun.direction.to(kind), dim=-1)
            rows.append(_pair("light", toward, sun.irradiance.to(kind), n_batch))
        for lamp in lighting.points:
            rows.append(_pair("light", lamp.position.to(kind), lamp.intensity.to(kind), n_batch))
    lamps = torch.stack(rows, dim=1) if rows else like.new_zeros(n_batch, 0, 6)
    gloss = like.new_zeros(n_batch, 4)
    if material is not None and material.specular is not None and material.roughness is not None:
        specular = _batched("material.specular", material.specular.to(kind), 1, n_batch)
        roughness = _batched("material.roughness", material.roughness.to(kind), 0, n_batch)
        gloss = torch.cat([specular, (roughness * roughness)[:, None]], dim=1)
    # filled where it lies: a copy from the host would be waited for, and cannot be captured in a graph
    places = torch.zeros(len(rows), dtype=torch.bool, device=like.device)
    if lighting is not None:
        places[len(lighting.directional) :] = True
    return sh, lamps, places.expand(n_batch, -1), gloss


def _pair(field: str, where: Tensor, color: Tensor, n_batch: int) -> Tensor:
    return torch.cat([_batched(field, where, 1, n_batch), _batched(field, color, 1, n_batch)], dim=1)


def _batch_of(tensor: Tensor, own_axes: int) -> int:
    return tensor.shape[0] if tensor.ndim > own_axes else 1


def _batched(field: str, tensor: Tensor, own_axes: int, n_batch: int) -> Tensor:
    """The tensor with a batch axis of n_batch before its own axes."""
    if tensor.ndim == own_axes:
        tensor = tensor[None]
    if tensor.shape[0] == n_batch:
        return tensor
    if tensor.shape[0] != 1:
        raise InputError(field, f"a batch of {n_batch} (or 1)", str(tensor.shape[0]))
    return tensor.expand(n_batch, *tensor.shape[1:])


def _moved(points: Tensor, pose: Tensor) -> Tensor:
    """Points (B, V, 3) in the frame of poses (B, 4, 4)."""
    if on_gpu(points):
        return _turned(points, pose) + pose[:, None, :3, 3]
    return MovePoints.apply(points, pose)  # type: ignore[return-value]


def _turned(vectors: Tensor, pose: Tensor) -> Tensor:
    """Vectors (B, V, 3) in the frame of poses (B, 4, 4)."""
    if on_gpu(vectors):
        # no matrix product: where a program allows TF32 for those, points would keep 10 bits, and depths millimetres
        return (vectors[:, :, None] * pose[:, None, :3, :3]).sum(-1)
    return vectors @ pose[:, :3, :3].transpose(1, 2)


def _check_vertices(vertices: Tensor) -> Tensor:
    """Vertices (B, V, 3)."""
    if not isinstance(vertices, torch.Tensor) or vertices.dtype not in (torch.float32, torch.float64):
        found = str(vertices.dtype) if isinstance(vertices, torch.Tensor) else type(vertices).__name__
        raise InputError("vertices", "a tensor of float32 or float64", found)
    if vertices.ndim not in (2, 3) or vertices.shape[-1] != 3:
        raise InputError("vertices", "shape (B, V, 3) or (V, 3)", str(tuple(vertices.shape)))
    if vertices.device.type not in ("cpu", "cuda"):
        raise DeviceError("vertices", "a tensor on the CPU or a CUDA device", str(vertices.device))
    points = vertices if vertices.ndim == 3 else vertices[None]
    if not on_gpu(vertices):
        _check_numbers(points)
    elif vertices.dtype != torch.float32:
        raise InputError("vertices", "float32 on a CUDA device", str(vertices.dtype))
    return points


def _check_devices(
    device: Any,
    view: RenderCamera,
    attributes: Tensor | None,
    texture: Texture | None,
    material: Material | None,
    lighting: Lighting | None,
    background: Tensor | None,
) -> None:
    """Refuses tensors that are not where the vertices are."""
    given: dict[str, Tensor | None] = {
        "camera.intrinsics": view.intrinsics,
        "camera.T_cam_world": view.pose,
        "vertex_attributes": attributes,
        "background": background,
    }
    if texture is not None:
        given |= {"texture.image": texture.image, "texture.uv": texture.uv}
    if material is not None:
        given |= {f"material.{k}": getattr(material, k) for k in ("albedo", "specular", "roughness")}
    if lighting is not None:
        given["lighting.sh"] = lighting.sh
        for k, sun in enumerate(lighting.directional):
            given |= {f"lighting.directional[{k}].{n}": getattr(sun, n) for n in ("direction", "irradiance")}
        for k, lamp in enumerate(lighting.points):
            given |= {f"lighting.points[{k}].{n}": getattr(lamp, n) for n in ("position", "intensity")}
    for name, tensor in given.items():
        if tensor is not None and tensor.device != device:
            raise DeviceError(name, f"a tensor on {device}, as the vertices", str(tensor.device))


def _check_numbers(points: Tensor) -> None:
    """Refuses vertices (B, V, 3) that are not finite, or absurd; waits for a CUDA device."""
    plain = points.detach().cpu().numpy()
    if not all_within(plain.reshape(-1), MAX_COORDINATE):
        finite = np.isfinite(plain)
        if not finite.all():
            wrong = int((~finite).any(-1).sum())
            raise InputError("vertices", "finite numbers", f"{wrong} vertices with NaN or infinity")
        raise InputError("vertices", f"coordinates up to {MAX_COORDINATE:g} m", f"{np.abs(plain).max():g}")


def _check_faces(field: str, faces: Any, n_rows: int, n_faces: int | None = None) -> Any:
    array = np.asarray(faces.detach().cpu().numpy() if isinstance(faces, torch.Tensor) else faces)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "iu":
        raise InputError(field, "whole numbers of shape (F, 3)", f"{array.dtype} {array.shape}")
    if n_faces is not None and len(array) != n_faces:
        raise InputError(field, f"{n_faces} rows, one per face", str(len(array)))
    plain = np.ascontiguousarray(array, dtype=np.int32)
    # numbers that do not fit in 32 bits are looked at before they are cut off
    if array.size and not (all_below(plain.reshape(-1), n_rows) and (array is plain or (array == plain).all())):
        raise InputError(field, f"numbers from 0 to {n_rows - 1}", f"{array.min()} to {array.max()}")
    return plain


def _check_uv_faces(texture: Texture, faces: Any) -> Any:
    n_rows = texture.uv.shape[-2]
    if texture.uv_faces is None:
        return _check_faces("texture.uv (without uv_faces)", faces, n_rows)
    return _check_faces("texture.uv_faces", texture.uv_faces, n_rows, len(faces))


def _check_background(background: Tensor, n_batch: int, view: RenderCamera) -> Tensor:
    shape = tuple(background.shape)
    size = (view.height, view.width, 3)
    if shape not in ((3,), size, (1, *size), (n_batch, *size)):
        raise InputError("background", f"shape (3,), {size} or {(n_batch, *size)}", str(shape))
    if not on_gpu(background) and not bool(torch.isfinite(background.detach()).all()):
        raise InputError("background", "finite numbers", "NaN or infinity")
    return background


def _same(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and all_equal(a.reshape(-1), b.reshape(-1))
