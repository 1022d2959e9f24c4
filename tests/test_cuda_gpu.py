"""The renderer's launches on a real GPU, against the CPU's."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
    pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda (extra [cuda]) is missing"),
]


@pytest.mark.parametrize("projection", ["perspective", "orthographic"])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", ["square", "sphere", "boxes", "split boxes", "sheets", "hand"])
def test_the_ends_of_edges_move_as_on_the_cpu(name: str, which: int, projection: str) -> None:
    from simulated_edges import SCENES, jumps_of, moved_on_cpu, raster_of, seen_by

    from bodyfit.render.cuda_arrays import TorchArrays
    from bodyfit.render.cuda_edges import DeviceEdges, EdgeRoom, find_pieces, scatter_edges

    raster = raster_of(SCENES[name], 96, 72, projection)
    arrays, room = TorchArrays(torch.device("cuda")), EdgeRoom()
    edges = DeviceEdges.of(raster.mesh.topology, arrays)
    screen, areas = arrays.from_host(raster.screen), arrays.from_host(raster.areas)
    faces, seen = arrays.from_host(raster.mesh.faces), arrays.from_host(seen_by(raster))

    def find() -> tuple[torch.Tensor, ...]:
        return find_pieces(screen, faces, areas, edges, seen, which, raster.size, raster.perspective, room, arrays)

    first = find()
    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        find()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        again = find()
    graph.replay()
    torch.cuda.synchronize()
    room.check()
    expected = moved_on_cpu(raster, which)
    for ints, floats, count in (first, again):
        n = int(count.item())
        # rounding may divide a piece at a pixel's corner
        assert n == pytest.approx(sum(len(raster.pieces(b, which).ints) for b in range(len(raster.points))), rel=0.01)
        jumps = np.zeros(len(ints), np.float32)
        jumps[:n] = jumps_of(ints.cpu().numpy()[:n], floats.cpu().numpy()[:n])
        v_screen = arrays.full(*screen.shape, value=0.0)
        scatter_edges(type(first)(ints, floats, count), arrays.from_host(jumps), v_screen, arrays)
        assert np.abs(v_screen.cpu().numpy() - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1e-9)
