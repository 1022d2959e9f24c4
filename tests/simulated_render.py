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

from bodyfit.errors import InputError
from bodyfit.render import cuda_arrays, cuda_context, layers
from bodyfit.render import render as module
from bodyfit.render.camera import RenderCamera
from bodyfit.render.cuda_arrays import SimulatedArrays
from bodyfit.render.render import RenderContext, render


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
    monkeypatch.setattr(layers, "on_gpu", lambda tensor: True)
    monkeypatch.setattr(module, "on_gpu", lambda tensor: True)
    monkeypatch.setattr(cuda_context, "TorchArrays", SharedArrays)


def images_of(context: RenderContext, name: str) -> dict[str, torch.Tensor]:
    """Images, and the gradients of a number made of them."""
    points = torch.stack([scenes.turned(SCENES[name], *turn).vertices for turn in TURNS]).float().requires_grad_()
    view = scenes.camera(16, 12)
    K, T = view.intrinsics.float().requires_grad_(), view.pose.float().requires_grad_()
    drawn = render(points, SCENES[name].faces, RenderCamera(16, 12, K, T), context=context)
    loss = (drawn.alpha * torch.linspace(-1, 2, 16)).sum() + drawn.premultiplied_depth.square().sum()
    v_points, v_K, v_T = torch.autograd.grad(loss, (points, K, T))
    images = {"alpha": drawn.alpha, "depth": drawn.premultiplied_depth, "face_id": drawn.face_id}
    gradients = {"v_points": v_points, "v_intrinsics": v_K, "v_pose": v_T}
    return {k: v.detach().clone() for k, v in (images | {"barycentrics": drawn.barycentrics} | gradients).items()}


@pytest.mark.parametrize("name", ["boxes", "split boxes"])
def test_images_and_gradients_are_those_of_the_cpu(name: str, request: pytest.FixtureRequest) -> None:
    expected = images_of(RenderContext(threads=1), name)
    request.getfixturevalue("on_device")
    context = RenderContext()
    first = images_of(context, name)
    waited = SharedArrays.waited
    again = images_of(context, name)
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
