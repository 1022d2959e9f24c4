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
    from bodyfit.render.cuda_edges import CudaPieces, DeviceEdges, EdgeRoom, find_pieces, scatter_edges

    raster = raster_of(SCENES[name], 96, 72, projection)
    arrays, room = TorchArrays(torch.device("cuda")), EdgeRoom()
    edges = DeviceEdges.of(raster.mesh.topology, arrays)
    screen, areas = arrays.from_host(raster.screen), arrays.from_host(raster.areas)
    faces, seen = arrays.from_host(raster.mesh.faces), arrays.from_host(seen_by(raster))

    def find() -> CudaPieces:
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
    for found in (first, again):
        ints, floats, count = found
        n = int(count.item())
        # rounding may divide a piece at a pixel's corner
        assert n == pytest.approx(sum(len(raster.pieces(b, which).ints) for b in range(len(raster.points))), rel=0.01)
        jumps = np.zeros(len(ints), np.float32)
        jumps[:n] = jumps_of(ints.cpu().numpy()[:n], floats.cpu().numpy()[:n])
        v_screen = arrays.full(*screen.shape, value=0.0)
        scatter_edges(found, arrays.from_host(jumps), v_screen, arrays)
        assert np.abs(v_screen.cpu().numpy() - expected).max() <= 1e-4 * max(np.abs(expected).max(), 1e-9)


def images_of(name: str, device: str, samples: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Images of a batch of two, and the gradients of their sum, weighted by fixed random numbers, on the CPU."""
    import render_scenes as scenes
    from simulated_edges import SCENES, TURNS

    from bodyfit.render.camera import RenderCamera
    from bodyfit.render.render import RenderContext, render
    from bodyfit.render.scene import DirectionalLight, Lighting

    points = torch.stack([scenes.turned(SCENES[name], *turn).vertices for turn in TURNS]).float()
    view = scenes.camera(96, 72)
    inputs = {"vertices": points, "intrinsics": view.intrinsics.float(), "pose": view.pose.float()}
    inputs["attributes"] = torch.rand(points.shape[1], 3, generator=torch.Generator().manual_seed(1))
    inputs = {key: value.to(device).requires_grad_() for key, value in inputs.items()}
    sun = DirectionalLight(torch.tensor([0.2, -0.5, 1.0], device=device), torch.ones(3, device=device))
    lighting = Lighting(torch.linspace(0.8, -0.2, 27, device=device).reshape(9, 3), (sun,))
    camera = RenderCamera(96, 72, inputs["intrinsics"], inputs["pose"])
    context = RenderContext()
    for _ in range(2):  # the second time nothing is waited for
        drawn = render(
            inputs["vertices"], SCENES[name].faces, camera, vertex_attributes=inputs["attributes"], lighting=lighting,
            samples=samples, context=context,
        )  # fmt: skip
        wanted = ("alpha", "premultiplied_depth", "premultiplied_normals", "premultiplied_attributes")
        images = {key: getattr(drawn, key) for key in (*wanted, "premultiplied_color")}
        random = torch.Generator().manual_seed(2)
        parts = [(i * torch.randn(i.shape, generator=random).to(device)).sum() for i in images.values()]
        loss = torch.stack(parts).sum()
        gradients = dict(zip(inputs, torch.autograd.grad(loss, list(inputs.values())), strict=True))
    if device != "cpu":
        context.check()
    images["face_id"] = drawn.face_id
    return {k: v.detach().cpu() for k, v in images.items()}, {k: v.cpu() for k, v in gradients.items()}


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("name", ["square", "sphere", "boxes", "split boxes", "hand"])
def test_images_and_gradients_are_those_of_the_cpu(name: str, samples: int) -> None:
    found, v_found = images_of(name, "cuda", samples)
    expected, v_expected = images_of(name, "cpu", samples)
    same = found.pop("face_id") == expected.pop("face_id")
    assert same.float().mean() > 0.999
    for key, image in found.items():
        far = (image - expected[key]).abs()[same]
        # samples beside the one that names the face may see others
        assert (far > 1e-4).float().mean() <= (0 if samples == 1 else 1e-3), key
    for key, gradient in v_found.items():
        assert (gradient - v_expected[key]).norm() <= 1e-3 * v_expected[key].norm(), key


def test_render_and_its_gradient_are_captured_in_a_graph() -> None:
    import render_scenes as scenes
    from simulated_edges import SCENES

    from bodyfit.render.camera import RenderCamera
    from bodyfit.render.render import RenderContext, render

    mesh, view = SCENES["boxes"], scenes.camera(96, 72)
    camera = RenderCamera(96, 72, view.intrinsics.float().cuda(), view.pose.float().cuda())
    vertices = mesh.vertices.float().cuda()[None].repeat(2, 1, 1).requires_grad_()
    context = RenderContext()

    def step() -> torch.Tensor:
        drawn = render(vertices, mesh.faces, camera, context=context)
        loss = drawn.alpha.sum() + drawn.premultiplied_depth.square().sum() + drawn.premultiplied_normals[..., 2].sum()
        return torch.autograd.grad(loss, vertices)[0]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        gradient = step()
    with torch.no_grad():  # the graph sees what stands in its inputs when it is played
        vertices += torch.tensor([0.05, -0.02, 0.1], device="cuda")
    graph.replay()
    torch.cuda.synchronize()
    context.check()
    expected = step()
    assert (gradient - expected).norm() <= 1e-4 * expected.norm()


def test_double_precision_is_refused() -> None:
    import render_scenes as scenes

    from bodyfit.errors import InputError
    from bodyfit.render.render import render

    mesh, view = scenes.square(), scenes.camera(24, 18)
    with pytest.raises(InputError, match="vertices"):
        render(mesh.vertices.cuda(), mesh.faces, view)


def test_a_mesh_that_reaches_the_near_plane_is_cut_there() -> None:
    import render_scenes as scenes

    from bodyfit.render.camera import RenderCamera
    from bodyfit.render.render import render

    mesh, view = scenes.two_boxes(), scenes.camera(48, 36)
    images = []
    for device in ("cuda", "cpu"):
        camera = RenderCamera(48, 36, view.intrinsics.float().to(device), view.pose.float().to(device), near_m=2.4)
        drawn = render(mesh.vertices.float().to(device), mesh.faces, camera)
        images.append(drawn.premultiplied_depth)
    assert images[0].is_cuda
    assert (images[0].cpu() - images[1]).abs().max() <= 1e-5


def test_points_keep_their_bits_where_matrix_products_may_lose_them() -> None:
    import render_scenes as scenes

    from bodyfit.render.camera import RenderCamera
    from bodyfit.render.render import render

    mesh, view = scenes.two_boxes(), scenes.camera(48, 36)
    camera = RenderCamera(48, 36, view.intrinsics.float().cuda(), view.pose.float().cuda())
    before = torch.get_float32_matmul_precision()
    depths = []
    try:
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            depths.append(render(mesh.vertices.float().cuda(), mesh.faces, camera).premultiplied_depth)
    finally:
        torch.set_float32_matmul_precision(before)
    assert (depths[0] - depths[1]).abs().max() <= 1e-6
