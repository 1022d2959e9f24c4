"""What the renderer draws: against a slow twin, and what it makes of every odd mesh and of bad input."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from render_scenes import Mesh, box, camera, icosphere, split, square, together, turned, two_boxes  # noqa: E402

from bodyfit.camera import Camera, Distortion  # noqa: E402
from bodyfit.errors import CameraError, InputError  # noqa: E402
from bodyfit.render.camera import RenderCamera  # noqa: E402
from bodyfit.render.color import linear_to_srgb, srgb_to_linear  # noqa: E402
from bodyfit.render.render import NativeRenderer, RenderContext, render  # noqa: E402
from bodyfit.render.scene import DirectionalLight, Lighting, Material, PointLight, Texture  # noqa: E402
from bodyfit.render.topology import find_topology  # noqa: E402


def ray_traced(mesh: Mesh, view: RenderCamera, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """alpha, premultiplied depth, and face and barycentrics at the pixels' centres, a ray and a triangle at a time."""
    T, K = view.pose.numpy(), view.intrinsics.numpy()
    corners = (mesh.vertices.numpy() @ T[:3, :3].T + T[:3, 3])[mesh.faces]
    a, e1, e2 = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]

    def hit(u: float, v: float) -> tuple[float, int, np.ndarray]:
        x, y = (u - K[2]) / K[0], (v - K[3]) / K[1]
        if view.projection == "perspective":
            origin, ray = np.zeros(3), np.array([x, y, 1.0])
        else:
            origin, ray = np.array([x, y, 0.0]), np.array([0.0, 0.0, 1.0])
        p = np.cross(ray, e2)
        det = (e1 * p).sum(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            s = origin - a
            b = (s * p).sum(1) / det
            q = np.cross(s, e1)
            c = (q @ ray) / det
            z = (e2 * q).sum(1) / det
        z = np.where((b >= 0) & (c >= 0) & (b + c <= 1) & (z >= view.near_m), z, np.inf)
        f = int(np.argmin(z))
        return (
            (float(z[f]), f, np.array([1 - b[f] - c[f], b[f], c[f]])) if np.isfinite(z[f]) else (0.0, -1, np.zeros(3))
        )

    alpha, depth = np.zeros((view.height, view.width)), np.zeros((view.height, view.width))
    face, weights = np.full(alpha.shape, -1), np.zeros((*alpha.shape, 3))
    for r in range(view.height):
        for c in range(view.width):
            for i in range(samples):
                for j in range(samples):
                    z, f, _ = hit(c + (j + 0.5) / samples - 0.5, r + (i + 0.5) / samples - 0.5)
                    alpha[r, c] += (f >= 0) / samples**2
                    depth[r, c] += z / samples**2
            _, face[r, c], weights[r, c] = hit(c, r)
    return alpha, depth, face, weights


@pytest.mark.parametrize("projection", ["perspective", "orthographic"])
@pytest.mark.parametrize("samples", [1, 3])
def test_images_equal_the_ray_traced_twin(projection: Any, samples: int) -> None:
    mesh = turned(two_boxes(), 0.35, 0.45, 0.2)
    view = camera(24, 20, projection=projection)
    alpha, depth, face, weights = ray_traced(mesh, view, samples)
    drawn = render(mesh.vertices, mesh.faces, view, samples=samples, vertex_attributes=mesh.vertices)
    assert 0.2 < alpha.mean() < 0.8
    np.testing.assert_allclose(drawn.alpha[0].numpy(), alpha, atol=1e-6)
    np.testing.assert_allclose(drawn.premultiplied_depth[0].numpy(), depth, atol=1e-6)
    if samples % 2:  # the middle sample is the centre
        seen = (drawn.face_id[0].numpy() >= 0) & (face >= 0)
        assert (drawn.face_id[0].numpy()[seen] == face[seen]).all()
        np.testing.assert_allclose(drawn.barycentrics[0].numpy()[seen], weights[seen], atol=1e-6)
    # the surface's own places, interpolated, project to where they are seen
    at = (drawn.attributes[0] @ view.pose[:3, :3].T + view.pose[:3, 3]).numpy()  # type: ignore[index]
    np.testing.assert_allclose(at[alpha == 1, 2], drawn.depth[0].numpy()[alpha == 1], atol=1e-6)


def test_the_mean_and_the_premultiplied_images() -> None:
    mesh = turned(square(), 0.3, 0.4, 0.25)
    drawn = render(mesh.vertices, mesh.faces, camera(), samples=4)
    alpha, depth = drawn.alpha, drawn.depth
    assert ((alpha > 0) & (alpha < 1)).any()
    np.testing.assert_allclose((alpha * depth).numpy(), drawn.premultiplied_depth.numpy(), atol=1e-12)
    assert (depth[alpha == 0] == 0).all() and (depth[alpha > 0] > 2).all()
    assert set(render(mesh.vertices, mesh.faces, camera()).alpha.unique().tolist()) == {0.0, 1.0}


def test_normals_turn_to_the_side_that_is_seen() -> None:
    mesh = turned(square(), 0.3, 0.4, 0.25)
    view = camera()
    for faces in (mesh.faces, mesh.faces[:, ::-1].copy()):
        normals = render(mesh.vertices, faces, view).normals
        seen = normals.norm(dim=-1) > 0
        assert seen.any() and (normals[seen][:, 2] < 0).all()
        torch.testing.assert_close(normals[seen].norm(dim=-1), torch.ones_like(normals[seen][:, 0]))


def test_a_sphere_has_the_normals_of_a_sphere_and_the_light_on_them() -> None:
    mesh, view = icosphere(rounds=4), camera(30, 24)
    drawn = render(mesh.vertices, mesh.faces, view, vertex_attributes=mesh.vertices / 0.6)
    inside = drawn.alpha[0] == 1
    assert drawn.attributes is not None
    torch.testing.assert_close(drawn.normals[0][inside], drawn.attributes[0][inside], atol=1e-2, rtol=0)
    n, x = drawn.normals[0][inside], 0.6 * drawn.normals[0][inside]
    eye = torch.nn.functional.normalize(view.position - x, dim=-1)
    lamp = torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64)
    sun = torch.tensor([0.3, 0.1, 1.0], dtype=torch.float64)
    lighting = Lighting(
        None, (DirectionalLight(sun, torch.tensor([1.0, 2.0, 3.0])),), (PointLight(lamp, torch.full((3,), 5.0)),)
    )
    albedo = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    lit = render(mesh.vertices, mesh.faces, view, lighting=lighting, material=Material(albedo)).color
    assert lit is not None
    to_lamp = lamp - x
    expected = (n @ -torch.nn.functional.normalize(sun, dim=0)).clamp_min(0)[:, None] * torch.tensor([1.0, 2.0, 3.0])
    facing = (n * torch.nn.functional.normalize(to_lamp, dim=-1)).sum(-1).clamp_min(0)
    expected = (expected + 5.0 * (facing / (to_lamp**2).sum(-1))[:, None]) * albedo / np.pi
    torch.testing.assert_close(lit[0][inside], expected, atol=6e-3, rtol=0.01)
    gloss = Material(albedo, torch.full((3,), 0.04), torch.tensor(0.3))
    shiny = render(
        mesh.vertices, mesh.faces, view, lighting=Lighting(directional=lighting.directional), material=gloss
    ).color
    plain = render(
        mesh.vertices, mesh.faces, view, lighting=Lighting(directional=lighting.directional), material=Material(albedo)
    ).color
    assert shiny is not None and plain is not None
    extra = (shiny - plain)[0][inside].sum(-1)
    half = torch.nn.functional.normalize(eye - torch.nn.functional.normalize(sun, dim=0), dim=-1)
    assert (extra >= -1e-9).all()
    assert (n * half).sum(-1)[extra.argmax()] > 0.99  # the highlight lies where the half vector is the normal


def test_background_and_color() -> None:
    mesh, view = turned(square(), 0.3, 0.4, 0.25), camera()
    red = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).expand(4, 3)
    sky = torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64)
    drawn = render(mesh.vertices, mesh.faces, view, vertex_attributes=red, background=sky, samples=4)
    expected = drawn.alpha[..., None] * red[0] + (1 - drawn.alpha)[..., None] * sky
    torch.testing.assert_close(drawn.color, expected)
    assert render(mesh.vertices, mesh.faces, view).color is None
    assert render(mesh.vertices, mesh.faces, view).attributes is None
    values = torch.linspace(0, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(srgb_to_linear(linear_to_srgb(values)), values, atol=1e-7, rtol=0)
    assert float(srgb_to_linear(torch.tensor(0.5))) == pytest.approx(0.21404, abs=1e-5)


def test_texture_is_looked_up_where_its_coordinates_say() -> None:
    flat = Mesh(
        torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]).double(), np.array([[0, 1, 2], [0, 2, 3]])
    )
    K = torch.tensor([4.0, 4.0, 3.5, 3.5], dtype=torch.float64)
    view = RenderCamera(8, 8, K, camera().pose, "orthographic")
    picture = torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    uv = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64)
    color = render(flat.vertices, flat.faces, view, texture=Texture(picture, uv)).color
    torch.testing.assert_close(color, picture[None])
    own = Texture(picture, uv[[0, 1, 2, 0, 2, 3]], torch.arange(6).reshape(2, 3))
    torch.testing.assert_close(render(flat.vertices, flat.faces, view, texture=own).color, picture[None])


def gradient(mesh: Mesh, view: RenderCamera, faces: Any = None, **options: Any) -> Any:
    """Of a generic loss on alpha and depth, (V, 3)."""
    v = mesh.vertices.clone().requires_grad_()
    drawn = render(v, mesh.faces if faces is None else faces, view, **options)
    ramp = torch.linspace(0.3, 1.7, view.width, dtype=v.dtype)
    ((drawn.alpha + drawn.premultiplied_depth) * ramp).sum().backward()
    assert v.grad is not None and bool(torch.isfinite(v.grad).all())
    return v.grad


def test_seams_do_not_count_twice() -> None:
    mesh, view = turned(two_boxes(), 0.35, 0.45, 0.2), camera()
    whole, parts = gradient(mesh, view), gradient(split(mesh), view)
    back = torch.zeros_like(whole).index_add(0, torch.from_numpy(mesh.faces.ravel()).long(), parts)
    torch.testing.assert_close(back, whole, atol=1e-8, rtol=1e-8)


def test_the_order_and_winding_of_faces_do_not_matter() -> None:
    mesh, view = turned(two_boxes(), 0.35, 0.45, 0.2), camera()
    whole = gradient(mesh, view)
    rng = np.random.default_rng(0)
    for faces in (mesh.faces[::-1].copy(), mesh.faces[:, ::-1].copy(), np.roll(mesh.faces, 1, axis=1)):
        torch.testing.assert_close(gradient(mesh, view, faces), whole, atol=1e-8, rtol=1e-8)
    mixed = mesh.faces.copy()
    turn = rng.random(len(mixed)) < 0.5
    mixed[turn] = mixed[turn][:, ::-1]
    torch.testing.assert_close(gradient(mesh, view, mixed), whole, atol=1e-6, rtol=1e-5)


def test_hidden_geometry_has_no_gradient() -> None:
    front, behind = box((-0.6, -0.6, -0.5), (0.6, 0.6, -0.3)), box((-0.2, -0.2, 0.2), (0.2, 0.2, 0.4))
    mesh = together(front, behind)
    grad = gradient(mesh, camera())
    assert (grad[8:] == 0).all() and (grad[:8] != 0).any()
    torch.testing.assert_close(grad[:8], gradient(front, camera()), atol=1e-9, rtol=1e-9)


def test_degenerate_triangles_change_nothing() -> None:
    mesh, view = turned(two_boxes(), 0.35, 0.45, 0.2), camera()
    more = np.concatenate([mesh.faces, [[0, 0, 1], [2, 2, 2], [5, 3, 5]]]).astype(np.int32)
    torch.testing.assert_close(gradient(mesh, view, more), gradient(mesh, view), atol=1e-6, rtol=1e-5)
    assert render(mesh.vertices, np.zeros((0, 3), np.int32), view).alpha.sum() == 0


def test_nothing_behind_the_camera_is_seen() -> None:
    mesh = turned(two_boxes(), 0.35, 0.45, 0.2)
    behind = Mesh(mesh.vertices - torch.tensor([0.0, 0, 10], dtype=torch.float64), mesh.faces)
    assert render(behind.vertices, behind.faces, camera()).alpha.sum() == 0
    both = together(mesh, behind)
    grad = gradient(both, camera())
    assert (grad[len(mesh.vertices) :] == 0).all()
    torch.testing.assert_close(grad[: len(mesh.vertices)], gradient(mesh, camera()), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("projection", ["perspective", "orthographic"])
def test_near_plane_cuts_as_the_twin_does(projection: Any) -> None:
    mesh = turned(box((-0.4, -0.3, -3.0), (0.4, 0.35, 0.5)), 0.3, 0.2, 0.1)
    view = camera(24, 20, projection=projection, near_m=0.4)
    alpha, depth, face, weights = ray_traced(mesh, view, 1)
    drawn = render(mesh.vertices, mesh.faces, view, vertex_attributes=mesh.vertices, samples=1)
    differs = drawn.alpha[0].numpy() != alpha
    assert differs.sum() <= 1  # a sample on the cut itself
    same = ~differs
    np.testing.assert_allclose(drawn.premultiplied_depth[0].numpy()[same], depth[same], atol=1e-6)
    assert (drawn.face_id[0].numpy()[same] == face[same]).mean() > 0.99
    agree = same & (drawn.face_id[0].numpy() == face)
    np.testing.assert_allclose(drawn.barycentrics[0].numpy()[agree], weights[agree], atol=1e-6)
    assert drawn.attributes is not None
    at = (drawn.attributes[0] @ view.pose[:3, :3].T + view.pose[:3, 3]).numpy()
    np.testing.assert_allclose(at[agree & (alpha > 0), 2], depth[agree & (alpha > 0)], atol=1e-6)


def test_a_triangle_far_larger_than_the_image() -> None:
    view = RenderCamera(40, 32, camera().intrinsics.float(), camera().pose.float())
    v = torch.tensor([[-1e5, 0.1, 5.0], [1e5, 0.1, 5], [0, 1e6, 5]]).requires_grad_()
    drawn = render(v, [[0, 1, 2]], view)
    drawn.alpha.sum().backward()
    assert 0.3 < float(drawn.alpha.detach().mean()) < 0.5
    assert v.grad is not None and bool(torch.isfinite(v.grad).all())
    # its upper edge, moved down by a metre, uncovers fy / z rows of the whole image
    rows = float(view.intrinsics[1]) / 7.5
    assert float(v.grad[:2, 1].sum()) == pytest.approx(-40 * rows, rel=0.02)


def test_sub_pixel_triangles_add_up() -> None:
    mesh, view = icosphere(rounds=4), camera(12, 10)
    coarse = render(mesh.vertices, mesh.faces, view, samples=16).alpha
    K = view.intrinsics * 16 + torch.tensor([0, 0, 7.5, 7.5])
    fine = render(mesh.vertices, mesh.faces, RenderCamera(192, 160, K, view.pose)).alpha
    torch.testing.assert_close(coarse, fine.reshape(1, 10, 16, 12, 16).mean((2, 4)), atol=1e-6, rtol=0)
    # growing by a share s moves the outline of a disc of area A by 2 A s, whatever the triangles
    v = mesh.vertices.clone().requires_grad_()
    drawn = render(v, mesh.faces, view)
    drawn.alpha.sum().backward()
    assert v.grad is not None
    distance, focal = 2.5, float(view.intrinsics[0] * view.intrinsics[1]) ** 0.5
    area = np.pi * focal**2 * 0.36 / (distance**2 - 0.36)
    growth = area * 2 * distance**2 / (distance**2 - 0.36)
    assert float((v.grad * mesh.vertices).sum()) == pytest.approx(growth, rel=0.01)


def test_a_batch_equals_its_images_and_threads_change_nothing() -> None:
    mesh = turned(two_boxes(), 0.35, 0.45, 0.2)
    batch = torch.stack([mesh.vertices + 0.1 * k for k in range(3)]).requires_grad_()
    poses = camera().pose.repeat(3, 1, 1)
    poses[:, 0, 3] += torch.tensor([0.0, 0.1, -0.2])
    view = RenderCamera(40, 32, camera().intrinsics, poses)
    grads, alphas = [], []
    for threads in (1, 4):
        drawn = render(batch, mesh.faces, view, samples=2, context=RenderContext(threads))
        (drawn.alpha + drawn.premultiplied_depth).square().sum().backward()
        assert batch.grad is not None
        grads.append(batch.grad.clone())
        alphas.append(drawn.alpha.detach())
        batch.grad = None
    assert torch.equal(grads[0], grads[1]) and torch.equal(alphas[0], alphas[1])
    for k in range(3):
        one = batch[k].detach().clone().requires_grad_()
        drawn = render(one, mesh.faces, RenderCamera(40, 32, camera().intrinsics, poses[k]), samples=2)
        (drawn.alpha + drawn.premultiplied_depth).square().sum().backward()
        assert torch.equal(drawn.alpha.detach()[0], alphas[0][k])
        assert one.grad is not None and torch.equal(one.grad, grads[0][k])


def test_float32_agrees_with_float64() -> None:
    mesh, view = turned(two_boxes(), 0.35, 0.45, 0.2), camera()
    small = RenderCamera(view.width, view.height, view.intrinsics.float(), view.pose.float())
    exact = gradient(mesh, view)
    close = gradient(Mesh(mesh.vertices.float(), mesh.faces), small)
    assert float((close - exact).norm() / exact.norm()) < 2e-3


def test_a_renderer_finds_out_that_its_mesh_has_changed() -> None:
    renderer, view = NativeRenderer(threads=1), camera()
    meshes = [turned(two_boxes(), 0.35, 0.45, 0.2), split(turned(square(), 0.1, 0.2, 0.3)), icosphere(rounds=1)]
    apart = Mesh(meshes[1].vertices + torch.tensor([[0.0], [0], [0], [0.1], [0.1], [0.1]]), meshes[1].faces)
    for mesh in (*meshes, meshes[1], apart, meshes[1], meshes[0]):
        v = mesh.vertices.clone().requires_grad_()
        drawn = renderer.render(v, mesh.faces, view)
        ramp = torch.linspace(0.3, 1.7, view.width, dtype=v.dtype)
        ((drawn.alpha + drawn.premultiplied_depth) * ramp).sum().backward()
        torch.testing.assert_close(v.grad, gradient(mesh, view), atol=1e-12, rtol=0)


def test_faces_written_anew_into_the_same_array_are_noticed() -> None:
    mesh, view, context = turned(two_boxes(), 0.35, 0.45, 0.2), camera(), RenderContext(threads=1)
    faces = mesh.faces.copy()
    for other in (mesh.faces, mesh.faces[: len(faces) // 2].repeat(2, axis=0)):
        faces[:] = other
        torch.testing.assert_close(gradient(mesh, view, faces, context=context), gradient(mesh, view, other.copy()))


def test_a_box_between_the_samples_has_its_edges_whichever_way_it_is_wound() -> None:
    view = camera()
    middle = torch.tensor([0.4, 0.3, 0.0], dtype=torch.float64) / view.intrinsics[:2].mean() * 2.5
    small = turned(box((-0.004, -0.004, -0.004), (0.004, 0.004, 0.004)), 0.35, 0.45, 0.2)
    mesh = Mesh(small.vertices + middle, small.faces)
    assert render(mesh.vertices, mesh.faces, view).alpha.sum() == 0
    outwards, inwards = gradient(mesh, view), gradient(mesh, view, mesh.faces[:, ::-1].copy())
    assert float(outwards.abs().max()) > 0
    torch.testing.assert_close(inwards, outwards, atol=1e-8, rtol=1e-8)


def test_topology() -> None:
    whole, parts = two_boxes(), split(two_boxes())
    one, other = (find_topology(m.faces, m.vertices.numpy()[None]) for m in (whole, parts))
    assert one.closed and other.closed and len(one.starts) == len(other.starts) == 37
    assert not one.seams.any() and other.seams.all() and len(one.twins) == 0 and len(other.twins) == 72 - 16
    assert not find_topology(square().faces, square().vertices.numpy()[None]).closed


coordinates = st.floats(-1.5, 1.5, width=32)
points = st.lists(st.tuples(coordinates, coordinates, st.floats(-3.5, 1.5, width=32)), min_size=3, max_size=9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(points=points, data=st.data(), samples=st.integers(1, 3))
def test_any_soup_of_triangles(points: Any, data: Any, samples: int) -> None:
    number = st.integers(0, len(points) - 1)
    faces = np.array(data.draw(st.lists(st.tuples(number, number, number), max_size=8)), np.int32).reshape(-1, 3)
    vertices = torch.tensor(points, dtype=torch.float64).requires_grad_()
    view = camera(14, 11, near_m=0.05)
    drawn = render(vertices, faces, view, samples=samples, vertex_attributes=vertices, lighting=Lighting())
    alpha, depth = drawn.alpha.detach(), drawn.depth.detach()
    assert ((alpha >= 0) & (alpha <= 1 + 1e-9)).all()
    assert (depth[alpha > 0] >= 0.05 * (1 - 1e-6)).all() and (depth[alpha == 0] == 0).all()
    assert drawn.color is not None and bool(torch.isfinite(drawn.color).all())
    face = drawn.face_id.numpy()
    assert ((face >= 0) == (alpha.numpy() > 0)).all() and face.max() < max(len(faces), 1)
    loss = (drawn.alpha * 1.3 + drawn.premultiplied_depth).sum() + drawn.color.sum() + drawn.normals.sum()
    loss.backward()
    assert vertices.grad is not None and bool(torch.isfinite(vertices.grad).all())
    # what is moved across the image as a whole, inside of it, covers what it covered: no gradient of the sum
    if alpha[0, [0, -1]].sum() == 0 and alpha[0, :, [0, -1]].sum() == 0 and (vertices[:, 2] > -2.4).all():
        moving = vertices.detach().clone().requires_grad_()
        flat = RenderCamera(14, 11, view.intrinsics / torch.tensor([2.5, 2.5, 1, 1]), view.pose, "orthographic")
        seen = render(moving, faces, flat)
        edge = seen.alpha[0, [0, -1]].sum() + seen.alpha[0, :, [0, -1]].sum()
        if edge == 0:
            seen.alpha.sum().backward()
            assert moving.grad is not None
            assert float(moving.grad[:, :2].sum(0).abs().max()) < 0.05 * (1 + float(moving.grad.abs().sum()))


@pytest.mark.parametrize("change,field", [
    ({"vertices": torch.full((4, 3), float("nan"))}, "vertices"),
    ({"vertices": torch.zeros(4, 2)}, "vertices"),
    ({"vertices": torch.full((4, 3), 1e9)}, "vertices"),
    ({"vertices": torch.zeros(4, 3, dtype=torch.int32)}, "vertices"),
    ({"faces": np.array([[0, 1, 4]])}, "faces"),
    ({"faces": np.array([[0, 1, -1]])}, "faces"),
    ({"faces": np.array([[0.0, 1.0, 2.0]])}, "faces"),
    ({"samples": 0}, "samples"),
    ({"samples": 17}, "samples"),
    ({"samples": 2.0}, "samples"),
    ({"vertex_attributes": torch.zeros(5, 3)}, "vertex_attributes"),
    ({"vertex_attributes": torch.full((4, 3), float("inf"))}, "vertex_attributes"),
    ({"background": torch.zeros(4)}, "background"),
    ({"texture": Texture(torch.zeros(2, 2, 3), torch.zeros(3, 2))}, "texture"),
])  # fmt: skip
def test_bad_input_is_named(change: dict[str, Any], field: str) -> None:
    call: dict[str, Any] = {"vertices": torch.rand(4, 3), "faces": np.array([[0, 1, 2], [1, 2, 3]]), **change}
    with pytest.raises(InputError) as refused:
        render(call.pop("vertices"), call.pop("faces"), camera(), **call)
    assert refused.value.field.startswith(field)


def test_bad_parts_are_named() -> None:
    with pytest.raises(InputError, match=r"material\.roughness"):
        Material(None, torch.zeros(3), torch.tensor(0.0))
    with pytest.raises(InputError, match=r"light\.direction"):
        DirectionalLight(torch.zeros(3), torch.zeros(3))
    with pytest.raises(CameraError, match=r"camera\.intrinsics"):
        RenderCamera(4, 4, torch.tensor([0.0, 1, 1, 1]))
    with pytest.raises(CameraError, match="distortion"):
        RenderCamera.from_camera(Camera(64, 48, 50, 50, 32, 24, Distortion("brown_conrady", (0.1, 0, 0, 0, 0))))
    plain = Camera(64, 48, 50, 50, 32, 24)
    drawn = render(torch.tensor([[-1.0, -1, 3], [1, -1, 3], [0, 1, 3]]), [[0, 1, 2]], plain)
    assert drawn.alpha.shape == (1, 48, 64) and float(drawn.depth.max()) == pytest.approx(3.0)


def test_look_at_sees_its_target_upright() -> None:
    view = RenderCamera.look_at([1.0, 2.0, 3.0], [0.2, 0.1, 0.4], [0.0, 0.0, 1.0], width=33, height=25, vfov_deg=40.0)
    target = view.pose[:3, :3] @ torch.tensor([0.2, 0.1, 0.4]) + view.pose[:3, 3]
    torch.testing.assert_close(target[:2], torch.zeros(2), atol=1e-6, rtol=0)
    assert float(target[2]) > 0 and float((view.pose[:3, :3] @ torch.tensor([0.0, 0, 1]))[1]) < 0
    torch.testing.assert_close(view.position, torch.tensor([1.0, 2.0, 3.0]), atol=1e-6, rtol=1e-6)


def test_torch_is_an_extra_and_the_error_says_which() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import bodyfit, bodyfit.render\n"
        "from bodyfit.errors import MissingExtraError\n"
        "try:\n    import bodyfit.render.render\n"
        "except MissingExtraError as e:\n    print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "bodyfit[render]" in done.stdout


def test_faces_kept_for_a_device_are_looked_at_again_when_they_change() -> None:
    context, faces = RenderContext(threads=1), np.array([[0, 1, 2]], np.int32)
    kept = context.triangles(faces, 3)
    assert context.triangles(faces.tolist(), 3) is kept, "one copy for a device, whatever object holds the numbers"
    faces[0] = 0, 2, 1
    np.testing.assert_array_equal(context.triangles(faces, 3), [[0, 2, 1]])
    faces[0, 0] = 7
    with pytest.raises(InputError, match="faces"):
        context.triangles(faces, 3)


def test_faces_that_were_checked_are_checked_again_where_points_or_numbers_differ() -> None:
    camera = RenderCamera(16, 12, torch.tensor([10.0, 10.0, 7.5, 5.5]))
    vertices = torch.tensor([[-0.5, -0.5, 2.0], [0.5, -0.5, 2.0], [0.0, 0.5, 2.0], [1.0, 1.0, 2.0]])
    faces, context = np.array([[0, 1, 3]], np.int32), RenderContext(threads=1)
    larger = render(vertices, faces, camera, context=context).alpha.sum()
    with pytest.raises(InputError, match="faces"):
        render(vertices[:3], faces, camera, context=context)
    faces[0, 2] = 2
    assert render(vertices[:3], faces, camera, context=context).alpha.sum() < larger
    faces[0, 2] = 9
    for _ in range(2):
        with pytest.raises(InputError, match="faces"):
            render(vertices, faces, camera, context=context)


def test_a_body_in_a_handful_of_pixels_has_the_gradient_of_its_motion() -> None:
    # more faces to a pixel than room is made for at first
    from bodyfit.body.model import load_body_model

    model = load_body_model()
    vertices, _ = model.forward(np.zeros(model.num_betas), np.zeros((model.num_joints, 3)))
    vertices = torch.tensor(vertices - (vertices.max(0) + vertices.min(0)) / 2, dtype=torch.float32)
    camera = RenderCamera(4, 4, torch.tensor([2.0, 2.0, 1.5, 1.5]))
    shift = torch.tensor([0.0, 0.0, 2.5], requires_grad=True)
    render(vertices + shift, model.faces, camera).alpha.sum().backward()
    size = 400
    fine = RenderCamera(4 * size, 4 * size, torch.tensor([2.0 * size, 2.0 * size, 2.0 * size - 0.5, 2.0 * size - 0.5]))
    step = 0.01
    with torch.no_grad():
        ahead, back = (
            render(vertices + torch.tensor([0.0, 0.0, 2.5 + k * step]), model.faces, fine).alpha.sum() for k in (1, -1)
        )
    assert shift.grad is not None
    assert float(shift.grad[2]) == pytest.approx(float(ahead - back) / (2 * step) / size**2, rel=0.02)
