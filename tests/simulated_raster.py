"""The GPU's rasteriser in numba's simulator; `test_cuda.py` runs this file in a process of its own."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_edges import SCENES, raster_of

from bodyfit.kernels import cuda_raster as kernels
from bodyfit.render import cuda_raster
from bodyfit.render.cpu_raster import CpuRaster
from bodyfit.render.cuda_arrays import SimulatedArrays
from bodyfit.render.cuda_edges import DeviceEdges, EdgeRoom
from bodyfit.render.cuda_raster import CudaRaster, DeviceMesh


def twin(raster: CpuRaster, near_m: float = 0.01) -> CudaRaster:
    """The same batch, drawn by the GPU's kernels."""
    arrays = SimulatedArrays()
    faces = raster.mesh.faces
    mesh = DeviceMesh(faces, faces, DeviceEdges.of(raster.mesh.topology, arrays))
    near = np.array([near_m], np.float32)
    return CudaRaster(
        raster.points, raster.intrinsics, mesh, raster.size, raster.samples, raster.perspective, near, EdgeRoom(),
        arrays,
    )  # fmt: skip


@pytest.mark.parametrize("projection, samples", [("perspective", 1), ("orthographic", 2)])
@pytest.mark.parametrize("name", SCENES)
def test_images_names_and_gradients_are_those_of_the_cpu(name: str, projection: str, samples: int) -> None:
    expected = raster_of(SCENES[name], 16, 12, projection, samples)
    found = twin(expected)
    assert (expected.alpha > 0).sum() > 30
    np.testing.assert_array_equal(found.alpha, expected.alpha)
    np.testing.assert_allclose(found.depth, expected.depth, atol=1e-4)
    for ours, theirs in zip(found.names(), expected.names(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    seen = [{1: 1, 2: -1, 3: 0}[int(s)] for s in found.seen]
    assert seen == list(expected._sign_seen)
    numbers = np.random.default_rng(1)
    cotangents = numbers.normal(size=(2, *expected.alpha.shape)).astype(np.float32)
    for ours, theirs in zip(found.cover_vjp(*cotangents), expected.cover_vjp(*cotangents), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("room", [1, 64])
def test_large_faces_are_drawn_by_blocks(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those for which the list of large ones has no room."""
    monkeypatch.setattr(cuda_raster, "ROOM_FOR_LARGE", room)
    monkeypatch.setattr(kernels, "LARGE_SAMPLES", 8)
    expected = raster_of(SCENES["boxes"])
    np.testing.assert_array_equal(twin(expected).alpha, expected.alpha)


def test_faces_with_a_vertex_before_the_near_plane_are_left_out_and_counted() -> None:
    expected = raster_of(SCENES["boxes"], 16, 12)
    depths = expected.points[..., 2]
    near_m = float(np.median(depths))
    before = np.less(depths, np.float32(near_m))
    found = twin(expected, near_m)
    assert int(found.too_near[0]) == np.count_nonzero(before) > 0
    reached = np.any(before[:, expected.mesh.faces], axis=2)
    np.testing.assert_array_equal(found.areas == 0, reached)
    assert not any(f in np.flatnonzero(reached[b]) for b in range(2) for f in np.unique(found.ids[b]))
    assert np.isfinite(found.cover_vjp(expected.alpha, expected.alpha)[0]).all()
