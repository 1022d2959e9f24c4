"""The edges of the GPU's renderer in numba's simulator; `test_cuda.py` runs this file in a process of its own.

Everything runs in Python there, the CPU's kernels too, so images are small.
"""

from __future__ import annotations

import numpy as np
import pytest
import render_scenes as scenes
import torch

from bodyfit.body.model import load_body_model
from bodyfit.errors import BodyfitError
from bodyfit.kernels import cpu_edges, cuda_visible
from bodyfit.kernels.cuda_edges import CUTS, LARGE, LINKS, PIECES
from bodyfit.render import cuda_edges as room
from bodyfit.render.cpu_raster import OUTLINES, SEAMS, CpuRaster, Mesh, Scratch
from bodyfit.render.cuda_arrays import SimulatedArrays
from bodyfit.render.cuda_edges import DeviceEdges, EdgeRoom, find_pieces, scatter_edges
from bodyfit.render.topology import find_topology

TURNS = ((0.3, 0.5, 0.2), (0.9, -0.2, 0.4))
"""Each batch is the scene turned in these two ways (radians)."""


SLIVER_PX = 1e-4
"""Rounding decides whether there is a piece shorter than this."""


def sheets(n: int = 7) -> scenes.Mesh:
    """Squares one behind the other, each a little larger than the one before it."""
    one = scenes.square()
    return scenes.together(*(scenes.Mesh(one.vertices * (0.5 + 0.03 * k) + 0.05 * k, one.faces) for k in range(n)))


def body_part() -> scenes.Mesh:
    """The faces of the coarsest body about one hand, a surface with a hole, as large as the other scenes."""
    model = load_body_model()
    coarse = model.levels[-1]
    points = model.v_template[coarse.vertex_ids]
    near = points[:, 0] > np.quantile(points[:, 0], 0.93)
    faces = coarse.faces[near[coarse.faces].all(axis=1)]
    used, numbers = np.unique(faces, return_inverse=True)
    hand = torch.tensor(points[used], dtype=torch.float64)
    hand = hand - hand.mean(0)
    return scenes.Mesh(hand * (0.8 / hand.abs().max()), numbers.reshape(-1, 3).astype(np.int32))


SCENES = {
    "square": scenes.square(),
    "sphere": scenes.icosphere(rounds=1),
    "boxes": scenes.two_boxes(),
    "split boxes": scenes.split(scenes.two_boxes()),
    "sheets": sheets(),
    "hand": body_part(),
}


def raster_of(
    mesh: scenes.Mesh, width: int = 24, height: int = 18, projection: str = "perspective", samples: int = 1
) -> CpuRaster:
    """The scene, drawn twice on the CPU."""
    view = scenes.camera(width, height, projection=projection)
    R, t = view.pose[:3, :3], view.pose[:3, 3]
    points = np.stack([(scenes.turned(mesh, *turn).vertices @ R.T + t).float().numpy() for turn in TURNS])
    intrinsics = np.tile(view.intrinsics.float().numpy(), (len(points), 1))
    topology = find_topology(mesh.faces, points)
    shared = Mesh(mesh.faces, mesh.faces, topology)
    size = (height, width)
    return CpuRaster(points, intrinsics, shared, size, samples, projection == "perspective", Scratch(), None)


def seen_by(raster: CpuRaster) -> np.ndarray:
    """What `find_pieces` wants to know of an image: 1 for one sign of faces seen, 2 for the other, 3 for both."""
    return np.array([{1: 1, -1: 2, 0: 3}[int(s)] for s in raster._sign_seen], np.int32)


def jumps_of(ints: np.ndarray, floats: np.ndarray) -> np.ndarray:
    """What a jump might be: something that differs from pixel to pixel and from face to face."""
    return (np.sin(ints[:, 0] + 3 * ints[:, 1] + 5 * ints[:, 2]) + floats[:, 8] - floats[:, 12]).astype(np.float32)


def moved_on_cpu(raster: CpuRaster, which: int) -> np.ndarray:
    """The cotangent of the screen (B, V, 3) for these jumps."""
    v_screen = np.zeros(raster.screen.shape, np.float64)
    for b in range(len(TURNS)):
        here = raster.pieces(b, which)
        cpu_edges.scatter_edges(here.ints, here.floats, jumps_of(here.ints, here.floats), v_screen[b])
    return v_screen


def pieces_of(raster: CpuRaster, which: int, kept: EdgeRoom | None = None) -> room.CudaPieces:
    """The same images' pieces from the GPU's kernels."""
    arrays = SimulatedArrays()
    edges = DeviceEdges.of(raster.mesh.topology, arrays)
    seen = seen_by(raster)
    return find_pieces(
        raster.screen, raster.mesh.faces, raster.areas, edges, seen, which, raster.size, raster.perspective,
        EdgeRoom() if kept is None else kept, arrays,
    )  # fmt: skip


def in_order(ints: np.ndarray, floats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pieces by image, pixel, the edge's ends, face in front and place on the edge; without slivers."""
    there = np.hypot(floats[:, 1], floats[:, 2]) > SLIVER_PX
    ints, floats = ints[there], floats[there]
    order = np.lexsort((floats[:, 0], ints[:, 1], ints[:, 4], ints[:, 3], ints[:, 0], ints[:, 5]))
    return ints[order], floats[order]


def assert_same_pieces(found: room.CudaPieces, raster: CpuRaster, which: int) -> int:
    """Compares with the CPU's, and returns how many there are."""
    n = int(found.count[0])
    here = [raster.pieces(b, which) for b in range(len(TURNS))]
    ints = np.concatenate([np.column_stack([p.ints, np.full(len(p.ints), b)]) for b, p in enumerate(here)])
    expected_ints, expected = in_order(ints, np.concatenate([p.floats for p in here]))
    found_ints, floats = in_order(found.ints[:n], found.floats[:n])
    np.testing.assert_array_equal(found_ints, expected_ints)
    np.testing.assert_allclose(floats, expected, atol=1e-3)
    return n


@pytest.mark.parametrize("projection", ["perspective", "orthographic"])
@pytest.mark.parametrize("which", [OUTLINES, SEAMS])
@pytest.mark.parametrize("name", SCENES)
def test_pieces_are_those_of_the_cpu(name: str, which: int, projection: str) -> None:
    raster = raster_of(SCENES[name], projection=projection)
    n = assert_same_pieces(pieces_of(raster, which), raster, which)
    assert n > 100 if which == OUTLINES or name == "split boxes" else n == 0


@pytest.mark.parametrize("spare", [0, 64])
def test_large_faces_are_left_to_a_block_of_threads(spare: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those for which the list of large ones has no room."""
    monkeypatch.setitem(room.FIRST_ROOM, LARGE, spare)
    raster, kept = raster_of(scenes.square(), 48, 40), EdgeRoom()
    assert_same_pieces(pieces_of(raster, OUTLINES, kept), raster, OUTLINES)
    (lengths,) = kept._lists.values()
    assert lengths.most[LARGE] >= 2


@pytest.mark.parametrize("name", ["sheets", "boxes"])
def test_more_faces_over_a_cut_than_are_remembered(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_visible, "MINE", 1)
    raster = raster_of(SCENES[name])
    assert_same_pieces(pieces_of(raster, OUTLINES), raster, OUTLINES)


def test_the_first_batch_finds_how_much_room_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    for k in room.FIRST_ROOM:
        monkeypatch.setitem(room.FIRST_ROOM, k, 1)
    raster, kept = raster_of(SCENES["boxes"]), EdgeRoom()
    assert_same_pieces(pieces_of(raster, OUTLINES, kept), raster, OUTLINES)
    kept.check()


def test_what_does_not_fit_is_counted_never_written_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for k in room.FIRST_ROOM:
        monkeypatch.setitem(room.FIRST_ROOM, k, 40)
    raster, kept = raster_of(SCENES["boxes"]), EdgeRoom()
    monkeypatch.setattr(SimulatedArrays, "capturing", lambda self: True)
    found = pieces_of(raster, OUTLINES, kept)  # as in a graph: nobody may look how many there are
    assert found.count[0] > 0
    (lengths,) = kept._lists.values()
    assert lengths.most[LINKS] > lengths.rows[LINKS] == 40 * len(TURNS)
    monkeypatch.undo()
    with pytest.raises(BodyfitError, match="did not fit into 80"):
        kept.check()
    assert_same_pieces(pieces_of(raster, OUTLINES, kept), raster, OUTLINES)


def test_a_batch_that_needs_more_than_the_first_is_noticed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LEAST_ROOM", 0)
    mesh = scenes.two_boxes()
    few, many = raster_of(scenes.Mesh(0.1 * mesh.vertices, mesh.faces)), raster_of(mesh)
    kept = EdgeRoom()
    assert_same_pieces(pieces_of(few, OUTLINES, kept), few, OUTLINES)
    short = pieces_of(many, OUTLINES, kept)
    (lengths,) = kept._lists.values()
    assert lengths.most[CUTS] > lengths.rows[CUTS]
    assert len(short.ints) == lengths.rows[PIECES]
    with pytest.warns(RuntimeWarning, match="in an earlier call"):
        found = pieces_of(many, OUTLINES, kept)
    assert_same_pieces(found, many, OUTLINES)


def test_a_mesh_without_edges_has_no_pieces() -> None:
    raster = raster_of(scenes.Mesh(scenes.square().vertices, np.array([[0, 1, 1]], np.int32)))
    assert pieces_of(raster, OUTLINES).count[0] == 0


@pytest.mark.parametrize("which", [OUTLINES, SEAMS])
@pytest.mark.parametrize("name", SCENES)
def test_the_ends_of_edges_move_as_on_the_cpu(name: str, which: int) -> None:
    raster = raster_of(SCENES[name])
    found = pieces_of(raster, which)
    n = int(found.count[0])
    jumps = np.full(len(found.ints), np.nan, np.float32)
    jumps[:n] = jumps_of(found.ints[:n], found.floats[:n])
    v_screen = np.zeros(raster.screen.shape, np.float32)
    scatter_edges(found, jumps, v_screen, SimulatedArrays())
    expected = moved_on_cpu(raster, which)
    assert np.abs(v_screen - expected).max() <= 1e-4 * np.abs(expected).max()
