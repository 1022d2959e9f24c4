"""Vertex normals as on a CUDA device, in numba's simulator; `test_cuda.py` runs this file in a process of its own."""

from __future__ import annotations

import numpy as np
import pytest
import render_scenes as scenes
import torch
from simulated_edges import SCENES, TURNS
from simulated_render import SharedArrays

from bodyfit.render import layers
from bodyfit.render.layers import VertexNormals
from bodyfit.render.render import _pack_lights
from bodyfit.render.scene import DirectionalLight, Lighting, PointLight


@pytest.mark.parametrize("name", SCENES)
def test_normals_and_their_gradient_are_those_of_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.stack([scenes.turned(SCENES[name], *turn).vertices for turn in TURNS]).float().requires_grad_()
    faces = np.ascontiguousarray(SCENES[name].faces, dtype=np.int32)
    v_normals = torch.randn(points.shape, generator=torch.Generator().manual_seed(3))
    expected = VertexNormals.apply(points, faces, None)
    v_expected = torch.autograd.grad(expected, points, v_normals)[0]
    monkeypatch.setattr(layers, "on_gpu", lambda tensor: True)
    found = VertexNormals.apply(points, torch.from_numpy(faces), SharedArrays(points.device))
    v_found = torch.autograd.grad(found, points, v_normals)[0]
    pairs = (("normals", found.detach(), expected.detach()), ("gradient", v_found, v_expected))
    for what, ours, theirs in pairs:
        assert float(theirs.abs().max()) > 0, what
        assert (ours - theirs).abs().max() <= 1e-6 * float(theirs.abs().max()), what


@pytest.mark.parametrize("n_suns, n_lamps", [(0, 0), (2, 0), (0, 1), (1, 2)])
def test_lamps_at_a_place_are_told_from_suns(n_suns: int, n_lamps: int) -> None:
    suns = tuple(DirectionalLight(torch.tensor([0.0, 0.0, 1.0]), torch.ones(3)) for _ in range(n_suns))
    lamps = tuple(PointLight(torch.tensor([0.0, 1.0, 0.0]), torch.ones(3)) for _ in range(n_lamps))
    places = _pack_lights(Lighting(None, suns, lamps), None, 2, torch.zeros(2, 3, 3))[2]
    assert places.tolist() == [[False] * n_suns + [True] * n_lamps] * 2
