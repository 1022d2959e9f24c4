"""The edges of the GPU's renderer in numba's simulator; `test_cuda.py` runs this file in a process of its own.

Everything runs in Python there, the CPU's kernels too, so images are small.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import render_scenes as scenes
import torch
from bodyfit.errors import BodyfitError
from bodyfit.kernels import cpu_edges, cuda_jit
from bodyfit.render import cuda_edges as room
from bodyfit.render.cpu_raster import OUTLINES, SEAMS, CpuRaster, Mesh, Scratch
from bodyfit.render.cuda_arrays import SimulatedArrays
from bodyfit.render.cuda_edges import DeviceEdges, EdgeRoom, find_pieces, scatter_edges
from bodyfit.render.topology import find_topology

TURNS = ((0.3, 0.5, 0.2), (0.9, -0.2, 0.4))
"""Each batch is the scene turned in these two ways (radians)."""
SCENES = {
    "square": scenes.square(),
    "sphere": scenes.icosphere(rounds=1),
    "boxes": scenes.two_boxes(),
    "split boxes": scenes.split(scenes.two_boxes()),
}


def raster_of(mesh: scenes.Mesh, width: int = 24, height: int = 18, projection: str = "perspective") -> CpuRaster:
    """The scene, drawn twice on the CPU."""
    view = scenes.camera(width, height, projection=projection)
    R, t = view.pose[:3, :3], view.pose[:3, 3]
    points = np.stack([(scenes.turned(mesh, *turn).vertices @ R.T + t).float().numpy() for turn in TURNS])
    intrinsics = np.tile(view.intrinsics.float().numpy(), (len(points), 1))
    topology = find_topology(mesh.faces, points)
    shared = Mesh(mesh.faces, mesh.faces, topology)
    return CpuRaster(points, intrinsics, shared, (height, width), 1, projection == "perspective", Scratch(), None)


def pieces_of(raster: CpuRaster, which: int, kept: EdgeRoom | None = None) -> room.CudaPieces:
    """The same images' pieces from the GPU's kernels."""
    arrays = SimulatedArrays()
    edges = DeviceEdges.of(raster.mesh.topology, arrays)
    seen = np.array([{1: 1, -1: 2, 0: 3}[int(s)] for s in raster._sign_seen], np.int32)
    return find_pieces(
        raster.screen, raster.mesh.faces, raster.areas, edges, seen, which, raster.size, raster.perspective,
        EdgeRoom() if kept is None else kept, arrays,
    )  # fmt: skip


def in_order(ints: np.ndarray, floats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pieces by image, pixel, the edge's ends, face in front and place on the edge."""
    order = np.lexsort((floats[:, 0], ints[:, 1], ints[:, 4], ints[:, 3], ints[:, 0], ints[:, 5]))
    return ints[order], floats[order]


@pytest.mark.parametrize("projection", ["perspective", "orthographic"])
@pytest.mark.parametrize("which", [OUTLINES, SEAMS])
@pytest.mark.parametrize("name", SCENES)
def test_pieces_are_those_of_the_cpu(name: str, which: int, projection: str) -> None:
    raster = raster_of(SCENES[name], projection=projection)
    found = pieces_of(raster, which)
    n = int(found.count[0])
    here = [raster.pieces(b, which) for b in range(len(TURNS))]
    assert n == sum(len(p.ints) for p in here)
    assert n > 50 or which == SEAMS
    assert n > 100 or name != "split boxes"
    if n == 0:
        return
    ints = np.concatenate([np.column_stack([p.ints, np.full(len(p.ints), b)]) for b, p in enumerate(here)])
    expected_ints, expected = in_order(ints, np.concatenate([p.floats for p in here]))
    found_ints, floats = in_order(found.ints[:n], found.floats[:n])
    np.testing.assert_array_equal(found_ints, expected_ints)
    np.testing.assert_allclose(floats, expected, atol=1e-3)


@pytest.mark.parametrize("which", [OUTLINES, SEAMS])
@pytest.mark.parametrize("name", SCENES)
def test_the_ends_of_edges_move_as_on_the_cpu(name: str, which: int) -> None:
    raster = raster_of(SCENES[name])
    found = pieces_of(raster, which)
    n = int(found.count[0])
    # what a jump would be: something that differs from pixel to pixel and from face to face
    ints, floats = found.ints[:n], found.floats[:n]
    jumps = np.full(len(found.ints), np.nan, np.float32)
    jumps[:n] = np.sin(ints[:, 0] + 3 * ints[:, 1] + 5 * ints[:, 2]) + floats[:, 8] - floats[:, 12]
    v_screen = np.zeros(raster.screen.shape, np.float32)
    scatter_edges(found, jumps, v_screen, SimulatedArrays())
    expected = np.zeros(raster.screen.shape, np.float64)
    for b in range(len(TURNS)):
        here = raster.pieces(b, which)
        jumps = np.sin(here.ints[:, 0] + 3 * here.ints[:, 1] + 5 * here.ints[:, 2]) + here.floats[:, 8]
        jumps = (jumps - here.floats[:, 12]).astype(np.float32)
        cpu_edges.scatter_edges(here.ints, here.floats, jumps, expected[b])
    assert np.abs(v_screen - expected).max() <= 1e-4 * np.abs(expected).max()
