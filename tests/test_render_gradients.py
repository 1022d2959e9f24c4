"""Gradients of images equal central differences of the finely sampled image, edges included."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from gradient_check import Check, check  # noqa: E402
from render_scenes import Mesh, camera, icosphere, split, square, turned, two_boxes  # noqa: E402

from bodyfit.render.camera import RenderCamera  # noqa: E402
from bodyfit.render.scene import DirectionalLight, Lighting, Material, PointLight, Texture  # noqa: E402

MESHES = {
    "square": turned(square(), 0.3, 0.4, 0.25),
    "icosphere": turned(icosphere(rounds=2), 0.1, 0.2, 0.3),
    "boxes": turned(two_boxes(), 0.35, 0.45, 0.2),
    "split boxes": split(turned(two_boxes(), 0.35, 0.45, 0.2)),
}
BOUNDARY = ("alpha", "premultiplied_depth")


def moved(mesh: Mesh, p: Any) -> Any:
    """Vertices under three translations, a scale, a rotation and a wave."""
    x = mesh.vertices
    axis = torch.tensor([0.6, -0.3, 0.7], dtype=x.dtype).expand_as(x)
    wave = torch.stack([torch.sin(3 * x[:, 1] + 1), torch.cos(3 * x[:, 0]), torch.sin(2 * x[:, 0] + 2 * x[:, 1])], 1)
    return x + p[:3] + p[3] * x + p[4] * torch.linalg.cross(axis, x) + p[5] * wave


def assert_close(results: dict[str, Check], most: float = 0.02, floor: float = 0.1) -> None:
    """The differences have converged, and ours agree with them."""
    for name, result in results.items():
        assert result.unconverged(floor) < most, (name, result.difference, result.halved)
        assert result.error(floor) < most, (name, result.ours, result.halved)


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize("projection", ["perspective", "orthographic"])
def test_motions_of_a_mesh(name: str, projection: Any) -> None:
    mesh = MESHES[name]
    # The outline of a sphere of triangles changes from edge to edge: the difference has to be small against a facet.
    # Its depth falls away ever faster towards it: that takes more pixels than flat faces do.
    sphere = name == "icosphere"
    view = camera(80, 64, projection=projection) if sphere else camera(48, 40, projection=projection)
    by, step = (18, 6e-3) if sphere else (20, 1.2e-2)
    assert_close(check(lambda p: (moved(mesh, p), mesh.faces, view, {}), BOUNDARY, 6, by=by, step=step))


@pytest.mark.parametrize("samples", [1, 2])
def test_edges_do_not_wait_for_samples(samples: int) -> None:
    mesh, view = MESHES["boxes"], camera(48, 40)
    results = check(
        lambda p: (moved(mesh, p), mesh.faces, view, {}), ("alpha",), 6, samples=samples, by=22, step=1.2e-2
    )
    assert_close(results)


@pytest.mark.parametrize("projection", ["perspective", "orthographic"])
def test_camera(projection: Any) -> None:
    mesh, view = MESHES["boxes"], camera(48, 40, projection=projection)

    def scene(p: Any) -> Any:
        shift = torch.stack([10 * p[0], 10 * p[1], 20 * p[2], 20 * p[3]]) * (
            1.0 if projection == "perspective" else 0.4
        )
        zero = torch.zeros((), dtype=p.dtype)
        turn = torch.stack([
            torch.stack([zero, -p[4], p[5]]), torch.stack([p[4], zero, -p[6]]), torch.stack([-p[5], p[6], zero])
        ])  # fmt: skip
        R = torch.linalg.matrix_exp(turn) @ view.pose[:3, :3]
        pose = torch.cat([torch.cat([R, (view.pose[:3, 3] + p[7:])[:, None]], 1), view.pose[3:]])
        moved_view = RenderCamera(view.width, view.height, view.intrinsics + shift, pose, projection)
        return mesh.vertices, mesh.faces, moved_view, {}

    assert_close(check(scene, BOUNDARY, 10, by=22, step=1.2e-2))


def test_normals_and_attributes_across_edges() -> None:
    mesh, view = MESHES["split boxes"], camera(48, 40)
    values = torch.stack([torch.sin(2 * mesh.vertices[:, 0]), 1 + mesh.vertices[:, 1] * mesh.vertices[:, 2]], 1)
    values = values + torch.arange(len(values))[:, None].div(6, rounding_mode="floor") * 0.1  # jumps at every seam

    def scene(p: Any) -> Any:
        return (
            moved(mesh, p),
            mesh.faces,
            view,
            {"vertex_attributes": values * (1 + p[6]) + p[7] * mesh.vertices[:, :1]},
        )

    assert_close(check(scene, ("premultiplied_normals", "premultiplied_attributes"), 8, by=14, step=1.2e-2))


def lit(p: Any) -> tuple[Lighting, Material]:
    """Every kind of light on a glossy material, each moved by some parameter."""
    dtype = p.dtype
    sh = (
        torch.linspace(0.9, -0.4, 27, dtype=dtype).reshape(9, 3)
        * torch.tensor([1.0, 0.3, 0.3, 0.3] + [0.1] * 5)[:, None]
    )
    sun = DirectionalLight(
        torch.tensor([0.2, 0.3, 1.0], dtype=dtype) + p[0], torch.tensor([1.0, 0.8, 0.5]) * (1 + p[1])
    )
    lamp = PointLight(
        torch.tensor([-0.8, -0.6, -1.5], dtype=dtype) + p[2], torch.tensor([2.0, 1.0, 2.5], dtype=dtype) + p[3]
    )
    material = Material(torch.tensor([0.7, 0.5, 0.3]) + p[6], torch.tensor([0.3, 0.2, 0.1]) + p[4], 0.5 + p[5])
    return Lighting(sh * (1 + p[7]), (sun,), (lamp,)), material


@pytest.mark.parametrize("projection", ["perspective", "orthographic"])
def test_lights_and_material(projection: Any) -> None:
    mesh, view = MESHES["icosphere"], camera(40, 34, projection=projection)

    def scene(p: Any) -> Any:
        lighting, material = lit(p)
        return mesh.vertices, mesh.faces, view, {"lighting": lighting, "material": material}

    assert_close(check(scene, ("premultiplied_color",), 8, by=6, step=1e-3))


def test_color_of_a_moving_lit_mesh_over_a_background() -> None:
    mesh, view = MESHES["split boxes"], camera(48, 40)
    sky = torch.tensor([0.2, 0.4, 0.9], dtype=torch.float64)

    def scene(p: Any) -> Any:
        lighting, material = lit(torch.zeros(8, dtype=p.dtype))
        return moved(mesh, p), mesh.faces, view, {"lighting": lighting, "material": material, "background": sky}

    assert_close(check(scene, ("color",), 6, by=12, step=1.2e-2))


@pytest.mark.parametrize("wrap", ["clamp", "repeat"])
def test_texture(wrap: Any) -> None:
    mesh, view = MESHES["square"], camera(48, 40)
    j, i, c = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), torch.arange(3.0), indexing="ij")
    picture = (0.5 + 0.3 * torch.sin(i + 2 * j + c)).double()
    uv = torch.tensor([[0.0, 0.0], [1.1, 0.0], [1.0, 1.05], [-0.1, 1.0]], dtype=torch.float64)

    def scene(p: Any) -> Any:
        texture = Texture(picture * (1 + p[6]) + p[7] * picture.flip(0), uv + 0.3 * p[8] * uv.flip(1), wrap=wrap)
        return moved(mesh, p), mesh.faces, view, {"texture": texture}

    assert_close(check(scene, ("premultiplied_color",), 9, by=13, step=3e-2))


def test_the_default_body() -> None:
    from bodyfit.body.model import load_body_model

    model = load_body_model()
    rest = torch.tensor(model.rest_vertices(torch.zeros(model.num_betas).numpy()))
    rest = rest - rest.mean(0)
    taller, wider = (torch.tensor(model.shapedirs[:, :, k], dtype=torch.float64) for k in (0, 1))
    flip = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)  # upright, facing the camera
    # Its triangles are smaller than the pixels here, so that the depth's slopes inside are sampled, not followed, and
    # motions that nearly cancel (a turn) are held to the size of the others.
    mesh, view = Mesh(rest * flip, model.faces), camera(240, 200, distance=2.2)

    def scene(p: Any) -> Any:
        return moved(mesh, p) + (4.0 * p[6] * taller + 4.0 * p[7] * wider) * flip, mesh.faces, view, {}

    assert_close(check(scene, BOUNDARY, 8, by=6, step=1e-2), floor=0.3)
