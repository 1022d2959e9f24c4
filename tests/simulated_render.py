"""`render` as on a CUDA device, kernels in numba's simulator; `test_cuda.py` runs this file in a process of its own.

Tensors lie on the CPU and take the way of those on a CUDA device: dispatch, contexts and autograd are the real ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import render_scenes as scenes
import torch
from simulated_edges import SCENES, TURNS

from bodyfit.camera import Camera
from bodyfit.errors import InputError
from bodyfit.render import checks, cuda_arrays, cuda_context, layers
from bodyfit.render import render as module
from bodyfit.render.camera import RenderCamera
from bodyfit.render.cuda_arrays import SimulatedArrays
from bodyfit.render.render import RenderContext, render
from bodyfit.render.scene import DirectionalLight, Lighting, Material, PointLight, Texture


class SharedArrays(cuda_arrays.TorchArrays):
    """Tensors on the CPU, whose memory the simulator's kernels write."""

    waited = 0

    def __init__(self, device: Any) -> None:
        self._device = device

    def to_host(self, array: Any) -> Any:
        SharedArrays.waited += 1
        return array.numpy().copy()

    def read_later(self, array: Any) -> Any:
        return SimulatedArrays().read_later(array.numpy())

    def capturing(self) -> bool:
        return False

    def launch(self, kernel: Any, items: int | None, *arguments: Any) -> None:
        assert all(a.is_contiguous() for a in arguments if isinstance(a, torch.Tensor))
        kernel.launch(2, 0, *(a.numpy() if isinstance(a, torch.Tensor) else a for a in arguments))


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for user in (layers, checks, module):
        monkeypatch.setattr(user, "on_gpu", lambda tensor: True)
    monkeypatch.setattr(cuda_context, "TorchArrays", SharedArrays)


IMAGES = ("alpha", "premultiplied_depth", "premultiplied_normals", "premultiplied_attributes", "premultiplied_color")


def images_of(context: RenderContext, name: str, textured: bool) -> dict[str, torch.Tensor]:
    """All images of a glossy mesh in three kinds of light, and the gradients of a number made of them."""
    mesh, view, random = SCENES[name], scenes.camera(16, 12), torch.Generator().manual_seed(4)
    n_vertices, n_faces = len(mesh.vertices), len(mesh.faces)
    given = {
        "points": torch.stack([scenes.turned(mesh, *turn).vertices for turn in TURNS]).float(),
        "intrinsics": view.intrinsics.float(),
        "pose": view.pose.float(),
        "attributes": torch.rand(n_vertices, 3, generator=random),
        "sh": torch.linspace(0.8, -0.2, 27).reshape(9, 3),
        "irradiance": torch.tensor([1.0, 0.8, 0.6]),
        "place": torch.tensor([0.5, -0.4, -2.0]),
        "specular": torch.tensor([0.04, 0.2, 0.5]),
        "picture": torch.rand(5, 4, 3, generator=random),
        "uv": torch.rand(3 * n_faces, 2, generator=random),
    }
    given = {key: value.requires_grad_() for key, value in given.items()}
    sun = DirectionalLight(torch.tensor([0.2, -0.5, 1.0]), given["irradiance"])
    lamp = PointLight(given["place"], torch.tensor([2.0, 3.0, 4.0]))
    drawn = render(
        given["points"],
        mesh.faces,
        RenderCamera(16, 12, given["intrinsics"], given["pose"]),
        vertex_attributes=given["attributes"],
        texture=Texture(given["picture"], given["uv"], UV_FACES[:n_faces]) if textured else None,
        material=Material(specular=given["specular"], roughness=torch.tensor(0.6)),
        lighting=Lighting(given["sh"], (sun,), (lamp,)),
        context=context,
    )
    images = {key: getattr(drawn, key) for key in IMAGES}
    loss = torch.stack([(i * torch.randn(i.shape, generator=random)).sum() for i in images.values()]).sum()
    # of a sum the cotangent is one number, repeated
    loss = loss + drawn.alpha.sum() + images["premultiplied_attributes"].sum()
    wanted = [key for key in given if textured or key not in ("picture", "uv")]
    gradients = torch.autograd.grad(loss, [given[key] for key in wanted])
    images |= {"face_id": drawn.face_id, "barycentrics": drawn.barycentrics}
    images |= {f"v_{key}": gradient for key, gradient in zip(wanted, gradients, strict=True)}
    return {key: image.detach().clone() for key, image in images.items()}


UV_FACES = torch.arange(300).reshape(100, 3)
"""Corners of their own for every face."""


@pytest.mark.parametrize("name,textured", [("boxes", False), ("split boxes", False), ("boxes", True)])
def test_images_and_gradients_are_those_of_the_cpu(name: str, textured: bool, request: pytest.FixtureRequest) -> None:
    expected = images_of(RenderContext(threads=1), name, textured)
    assert all(float(image.abs().max()) > 1e-3 for image in expected.values())
    request.getfixturevalue("on_device")
    context = RenderContext()
    first = images_of(context, name, textured)
    waited = SharedArrays.waited
    again = images_of(context, name, textured)
    assert SharedArrays.waited == waited, "a later call waits for nothing"
    context.check()
    for found in (first, again):
        for key, value in expected.items():
            assert (found[key] - value).abs().max() <= 1e-4 * max(float(value.abs().max()), 1.0), key


def test_double_precision_is_refused(on_device: None) -> None:
    with pytest.raises(InputError, match="float32 on a CUDA device"):
        render(scenes.square().vertices, scenes.square().faces, scenes.camera(16, 12))


def test_numbers_of_the_first_call_are_looked_at(on_device: None) -> None:
    mesh, view = scenes.square(), scenes.camera(16, 12)
    vertices = mesh.vertices.float()
    vertices[1, 2] = np.nan
    with pytest.raises(InputError, match="NaN"):
        render(vertices, mesh.faces, RenderCamera(16, 12, view.intrinsics.float(), view.pose.float()))


def test_what_is_the_same_for_all_images_is_not_copied_for_each(on_device: None) -> None:
    one = torch.rand(1, 4, 3)
    kept, whole = layers.to_array(one.expand(3, 4, 3)), layers.to_array(one.expand(3, 4, 3), whole=True)
    assert kept.stride(0) == 0
    assert kept.data_ptr() == one.data_ptr()
    assert whole.is_contiguous()
    assert torch.equal(whole, kept)


def test_what_lies_on_the_host_is_taken_once(on_device: None) -> None:
    context, camera, device = RenderContext(), Camera(16, 12, 20.0, 20.0, 7.5, 5.5), torch.device("cpu")
    assert context.view(camera, device) is context.view(camera, device)
    other = Camera(16, 12, 21.0, 20.0, 7.5, 5.5)
    assert context.view(other, device).intrinsics.tolist() == [21.0, 20.0, 7.5, 5.5]
    faces = SCENES["boxes"].faces
    texture = Texture(torch.rand(4, 4, 3), torch.rand(3 * len(faces), 2), UV_FACES[: len(faces)])
    rows = context.uv_triangles(texture, faces)
    assert rows.tolist() == UV_FACES[: len(faces)].tolist()
    assert context.uv_triangles(texture, faces) is rows
    fewer = Texture(texture.image, texture.uv[:5], texture.uv_faces)
    with pytest.raises(InputError, match="uv_faces"):
        context.uv_triangles(fewer, faces)
