"""The call of `bodyfit.render` made by the real redner, where a user has built it (module `pyredner`, 0.4.28).

Li et al. 2018, "Differentiable Monte Carlo Ray Tracing through Edge Sampling". Its wheels end with Python 3.8; it can
be built from source for later ones. What is used is its G-buffer: `render_generic` with the independent sampler (its
default one gives biased gradients per vertex, since its offsets within a pixel are the same in x and y).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from bodyfit.camera import Camera
from bodyfit.errors import InputError, MissingExtraError
from bodyfit.render.camera import RenderCamera
from bodyfit.render.extra import Tensor, torch
from bodyfit.render.rendered import Rendered
from bodyfit.render.scene import Lighting, Material, Texture
from bodyfit.render.torch_mesh import Welder, checked_mesh, of_batch, smooth_normals

MAX_SAMPLES = 16


def load_redner() -> Any:
    """The module `pyredner`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return import_module("pyredner")
    except ModuleNotFoundError:
        raise MissingRednerError() from None


class MissingRednerError(MissingExtraError):
    """Redner is no extra of ours: nothing that pip could install runs on a current Python."""

    def __init__(self) -> None:
        Exception.__init__(
            self,
            "the renderer redner needs the module pyredner, which is not installed: build redner 0.4.28 from source "
            "(https://github.com/BachiLi/redner; its wheels end with Python 3.8), or take the renderer native",
        )
        self.package, self.extra = "pyredner", ""


class RednerRenderer:
    """Renders with redner: coverage, depth, normals, attributes and unlit colour.

    Lights and textures are refused, as are orthographic cameras. Samples are random in the pixel.

    Args:
        seed: of the random numbers; each call takes further ones.
        oversampling: each of the n×n points becomes this many squared.
    """

    name = "redner"

    def __init__(self, *, seed: int = 0, oversampling: int = 1) -> None:
        self.pyredner = load_redner()
        if oversampling < 1:
            raise InputError("oversampling", "1 or more", str(oversampling))
        self.pyredner.set_print_timing(False)
        self.oversampling = oversampling
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
            InputError: a mesh or camera that is none, or what redner's G-buffer cannot draw.
        """
        camera = camera if isinstance(camera, RenderCamera) else RenderCamera.from_camera(camera)
        points, triangles = checked_mesh(vertices, faces)
        if camera.projection != "perspective":
            raise InputError("camera.projection", "perspective, for redner", camera.projection)
        if texture is not None:
            raise InputError("texture", "none: redner is used for its G-buffer", "a texture")
        if lighting is not None:
            raise InputError("lighting", "none: redner is used for its G-buffer", "lights")
        if not isinstance(samples, int) or not 1 <= samples <= MAX_SAMPLES:
            raise InputError("samples", f"1 to {MAX_SAMPLES}", repr(samples))
        num = (samples * self.oversampling) ** 2
        views = [
            _View(self, points[b], triangles, camera, b, of_batch(vertex_attributes, 2, b), num)
            for b in range(points.shape[0])
        ]
        alpha = torch.stack([v.shape_buffer()[..., 0] for v in views])
        albedo = None if material is None else material.albedo
        colored = vertex_attributes is not None and vertex_attributes.shape[-1] == 3

        def stacked(make: Callable[[_View], Tensor]) -> Callable[[], Tensor]:
            return lambda: torch.stack([make(v) for v in views])

        color = None
        if colored:
            color = stacked(_View.attributes)
        elif albedo is not None:
            color = stacked(lambda v: v.shape_buffer()[..., :1] * of_batch(albedo, 1, v.number))
        return Rendered(
            alpha,
            premultiplied_depth=stacked(lambda v: v.shape_buffer()[..., 3]),
            premultiplied_normals=stacked(_View.normals),
            premultiplied_attributes=None if vertex_attributes is None else stacked(_View.attributes),
            premultiplied_color=color,
            background=background,
            face_id=stacked(lambda v: v.hits()[0]),
            barycentrics=stacked(lambda v: v.hits()[1]),
        )

    def next_seed(self) -> int:
        """The next image's random numbers."""
        return int(self._seeds.integers(0, 2**24))


class _View:
    """One mesh of a batch, in redner's own axes: x right, y up, z forward, so that its `position` holds the depth."""

    def __init__(
        self,
        renderer: RednerRenderer,
        vertices: Tensor,
        triangles: Tensor,
        camera: RenderCamera,
        number: int,
        attributes: Tensor | None,
        num_samples: int,
    ) -> None:
        self.renderer, self.camera, self.number, self.num_samples = renderer, camera, number, num_samples
        T, self.K = of_batch(camera.pose, 2, number), of_batch(camera.intrinsics, 1, number)
        points = vertices @ T[:3, :3].mT.to(vertices.dtype) + T[:3, 3].to(vertices.dtype)
        points = points * torch.tensor([1.0, -1.0, 1.0], dtype=points.dtype)
        self.corners, self.triangles = points, triangles
        self.places, self.faces = renderer.weld(points, triangles)
        self.values = attributes
        self._made: dict[str, Tensor] = {}

    def once(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        """Each image is made once."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def shape_buffer(self) -> Tensor:
        """(H, W, 7): alpha, position and normal, each times coverage."""
        channels = self.renderer.pyredner.channels
        wanted = [channels.alpha, channels.position, channels.shading_normal]
        return self.once("shape", lambda: self.draw(wanted, self.num_samples, normals=True))

    def normals(self) -> Tensor:
        """(H, W, 3) in OpenCV's axes, turned to the side that is seen."""
        buffer = self.shape_buffer()
        position, normal = buffer[..., 1:4], buffer[..., 4:7]
        away = (position.detach() * normal.detach()).sum(-1, keepdim=True) > 0
        return torch.where(away, -normal, normal) * torch.tensor([1.0, -1.0, 1.0], dtype=normal.dtype)

    def attributes(self) -> Tensor:
        """(H, W, C), three at a time as vertex colours."""
        assert self.values is not None
        channels, images = self.renderer.pyredner.channels, []
        for first in range(0, self.values.shape[1], 3):
            three = self.values[:, first : first + 3]
            padded = torch.nn.functional.pad(three, (0, 3 - three.shape[1]))
            image = self.draw([channels.vertex_color], self.num_samples, colors=padded)
            images.append(image[..., : three.shape[1]])
        return self.once("attributes", lambda: torch.cat(images, -1))

    def hits(self) -> tuple[Tensor, Tensor]:
        """Face (H, W) and barycentrics (H, W, 3) at the pixels' centres."""
        channels = self.renderer.pyredner.channels
        wanted = [channels.alpha, channels.triangle_id, channels.barycentric_coordinates]
        with torch.no_grad():
            image = self.once("hits", lambda: self.draw(wanted, 1, centre=True))
        hit = image[..., 0] > 0.5
        face = torch.where(hit, image[..., 1].round().to(torch.int32), -1)
        u, v = image[..., 2], image[..., 3]
        return face, torch.stack([1 - u - v, u, v], -1) * hit[..., None]

    def draw(
        self,
        channels: list[Any],
        num_samples: int,
        *,
        colors: Tensor | None = None,
        normals: bool = False,
        centre: bool = False,
    ) -> Tensor:
        """One image (H, W, all channels) by `render_generic`.

        Vertex colours belong to vertices: a mesh with attributes is not welded, and the edges of its seams are
        sampled for nothing.
        """
        pyredner = self.renderer.pyredner
        kind, cpu = torch.float32, torch.device("cpu")
        split = colors is not None
        points = self.corners if split else self.places
        faces = self.triangles if split else torch.from_numpy(self.faces)
        corner_normals = smooth_normals(self.corners, self.triangles).to(kind).contiguous() if normals else None
        grey = pyredner.Material(
            diffuse_reflectance=pyredner.Texture(torch.full((3,), 0.5), uv_scale=torch.ones(2)),
            specular_reflectance=pyredner.Texture(torch.zeros(3), uv_scale=torch.ones(2)),
            roughness=pyredner.Texture(torch.ones(1), uv_scale=torch.ones(2)),
            two_sided=True,
        )
        mesh = pyredner.Object(
            vertices=points.to(kind).contiguous(),
            indices=faces.to(torch.int32).contiguous(),
            material=grey,
            normals=corner_normals,
            normal_indices=self.triangles.to(torch.int32).contiguous() if normals else None,
            colors=None if colors is None else colors.to(kind).contiguous(),
        )
        scene = pyredner.Scene(camera=self._camera(), objects=[mesh])
        return pyredner.render_generic(
            scene,
            channels,
            max_bounces=0,
            sampler_type=pyredner.sampler_type.independent,
            num_samples=(num_samples, num_samples),
            seed=self.renderer.next_seed(),
            sample_pixel_center=centre,
            use_secondary_edge_sampling=False,
            device=cpu,
        )

    def _camera(self) -> Any:
        """At the origin; the matrix takes x / z and y / z to [-1, 1] across the image's width."""
        width, height = self.camera.width, self.camera.height
        fx, fy, cx, cy = self.K.to(torch.float32).unbind()
        zero, one = torch.zeros(()), torch.ones(())
        matrix = torch.stack([
            torch.stack([2 * fx / width, zero, (2 * cx + 1) / width - 1]),
            torch.stack([zero, 2 * fy / width, (height - 1 - 2 * cy) / width]),
            torch.stack([zero, zero, one]),
        ])  # fmt: skip
        pyredner = self.renderer.pyredner
        return pyredner.Camera(
            cam_to_world=torch.eye(4),
            intrinsic_mat=matrix.contiguous(),
            clip_near=float(self.camera.near_m),
            resolution=(height, width),
            camera_type=pyredner.camera_type.perspective,
        )
