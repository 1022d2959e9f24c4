"""Mitsuba behind the same call: the native renderer's images, an edge's exact gradient, lights and surroundings."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bodyfit.errors import ImageError, InputError
from bodyfit.render.camera import RenderCamera
from bodyfit.render.mitsuba import MitsubaRenderer
from bodyfit.render.mitsuba_plugins import load_mitsuba
from bodyfit.render.render import NativeRenderer
from bodyfit.render.scene import DirectionalLight, Lighting, Material, PointLight, Texture
from bodyfit.render.surroundings import AreaLight, Environment, OtherSurface, Surroundings
from bodyfit.render.torch_mesh import Welder

# slow: each compiles kernels of its own
pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("mitsuba") is None, reason="mitsuba is not installed")]

SEAMED = torch.tensor([
    [-1, -1, 3], [0, -1, 3], [0, 1, 3], [-1, 1, 3], [0, -1, 3], [1, -1, 3.5], [1, 1, 3.5], [0, 1, 3],
], dtype=torch.float32)  # fmt: skip
"""two squares that share an edge by place only: a seam, and a crease"""
FACES = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
UV = torch.tensor([[0, 0], [0.5, 0], [0.5, 1], [0, 1], [0.5, 0], [1.3, 0], [1.3, 1], [0.5, 1]])
CAMERA = RenderCamera(32, 24, torch.tensor([27.0, 27.0, 14.5, 12.8]))


def rms(a: Any, b: Any) -> float:
    return float(((a - b) ** 2).mean().sqrt())


@pytest.mark.parametrize("wrap", ["clamp", "repeat"])
def test_its_images_are_the_native_ones(wrap: Any) -> None:
    rng = np.random.default_rng(0)
    given = {
        "texture": Texture(torch.tensor(rng.random((5, 7, 3)), dtype=torch.float32), UV, None, wrap),
        "vertex_attributes": torch.tensor(rng.random((8, 5)), dtype=torch.float32),
        "samples": 16,
    }
    camera = RenderCamera(32, 24, torch.tensor([27.0, 29.0, 14.5, 12.8]))
    mine, theirs = NativeRenderer().render(SEAMED, FACES, camera, **given), None
    theirs = MitsubaRenderer(oversampling=1).render(SEAMED, FACES, camera, **given)
    inside = mine.alpha == 1
    for name in ("alpha", "premultiplied_depth", "premultiplied_normals", "premultiplied_attributes"):
        a, b = getattr(mine, name), getattr(theirs, name)
        assert rms(a, b) < 0.02
        assert float((a - b).abs()[inside].max()) < 1e-3, name
    assert rms(mine.premultiplied_color, theirs.premultiplied_color) < 0.01
    # at the border the native one names the covered sample that is nearest to the centre, this one the centre's own
    assert float((mine.face_id != theirs.face_id)[inside].float().mean()) < 0.1  # those on a diagonal may be either's
    same = (mine.face_id == theirs.face_id) & inside
    assert float((mine.barycentrics - theirs.barycentrics)[same].abs().max()) < 0.05


def test_it_is_lit_as_the_native_one_is_where_nothing_casts_a_shadow() -> None:
    sh = torch.zeros(9, 3)
    sh[0], sh[2], sh[3] = 1.0, -0.3, 0.2
    lighting = Lighting(
        sh,
        (DirectionalLight(torch.tensor([0.2, 0.1, 1.0]), torch.tensor([3.0, 2.0, 1.0])),),
        (PointLight(torch.tensor([0.0, -0.5, 1.0]), torch.tensor([5.0, 5.0, 5.0])),),
    )
    material = Material(torch.tensor([0.7, 0.4, 0.2]))
    given = {"material": material, "lighting": lighting, "background": torch.tensor([0.1, 0.2, 0.3]), "samples": 8}
    for faces in (FACES, FACES.flip(1)):
        mine = NativeRenderer().render(SEAMED, faces, CAMERA, **given)
        theirs = MitsubaRenderer(oversampling=4, max_depth=2).render(SEAMED, faces, CAMERA, **given)
        inside = mine.alpha[0] == 1
        assert mine.color is not None and theirs.color is not None
        a, b = mine.color[0][inside], theirs.color[0][inside]
        assert float((a - b).abs().max()) < 0.05 and abs(float((a - b).mean())) < 2e-3


def test_an_edge_has_its_exact_gradient() -> None:
    # the image of a square of side s at depth z covers f² s² / z² pixels
    focal, side, z = 20.0, 1.0, 3.0
    camera = RenderCamera(24, 24, torch.tensor([focal, focal, 11.3, 11.9]))
    corners = torch.tensor([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]])
    size, depth = torch.tensor(side, requires_grad=True), torch.tensor(z, requires_grad=True)
    vertices = corners * size + torch.stack([torch.zeros(()), torch.zeros(()), depth])
    image = MitsubaRenderer(oversampling=16).render(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]), camera)
    area = (focal * side / z) ** 2
    for total, by_size, by_depth in (
        (image.alpha.sum(), 2 * area / side, -2 * area / z),
        (image.premultiplied_depth.sum(), 2 * area / side * z, -2 * area + area),
    ):
        got = torch.autograd.grad(total, [size, depth], retain_graph=True)
        assert float(got[0]) == pytest.approx(by_size, rel=0.01)
        assert float(got[1]) == pytest.approx(by_depth, rel=0.01)


def test_gradients_reach_lights_material_and_pose() -> None:
    # smooth weights over the image, a scene without edges of shadows; differences with the same random numbers
    weights = torch.linspace(0.2, 1, 32)[None, None, :, None] * torch.tensor([1.0, 0.7, 0.4])
    truth = {
        "albedo": torch.tensor([0.6, 0.4, 0.3]), "specular": torch.tensor([0.3, 0.3, 0.4]),
        "roughness": torch.tensor(0.6), "place": torch.tensor([0.3, -0.5, 1.0]),
        "intensity": torch.tensor([3.0, 4.0, 5.0]), "toward": torch.tensor([0.3, 0.2, 1.0]),
        "irradiance": torch.tensor([1.0, 0.8, 0.5]), "sky": torch.tensor([[1.0, 1.0, 1.0]] + [[0.02, 0.04, 0.03]] * 8),
    }  # fmt: skip
    steps = {"albedo": 0.05, "specular": 0.05, "roughness": 0.02, "place": 0.03, "intensity": 0.3, "toward": 0.03,
             "irradiance": 0.1, "sky": 0.02}  # fmt: skip

    def total(p: dict[str, Any]) -> Any:
        image = MitsubaRenderer(oversampling=8, max_depth=2, seed=3).render(
            SEAMED, FACES, CAMERA, material=Material(p["albedo"], p["specular"], p["roughness"]),
            lighting=Lighting(p["sky"], (DirectionalLight(p["toward"], p["irradiance"]),),
                              (PointLight(p["place"], p["intensity"]),)),
        )  # fmt: skip
        return (image.premultiplied_color * weights).sum()

    leaves = {k: v.clone().requires_grad_(True) for k, v in truth.items()}
    gradients = dict(zip(leaves, torch.autograd.grad(total(leaves), list(leaves.values())), strict=True))
    generator = torch.Generator().manual_seed(0)
    for name, step in steps.items():
        way = torch.randn(truth[name].shape, generator=generator).abs() + 0.2
        with torch.no_grad():
            up, down = (total({**truth, name: truth[name] + s * step * way}) for s in (1, -1))
        expected = float(up - down) / (2 * step)
        assert float((gradients[name] * way).sum()) == pytest.approx(expected, rel=0.04), name


def test_a_gradient_turns_the_camera() -> None:
    pose = torch.eye(4, requires_grad=True)
    camera = RenderCamera(32, 24, torch.tensor([27.0, 27.0, 14.5, 12.8], requires_grad=True), pose)
    image = MitsubaRenderer(oversampling=8).render(SEAMED, FACES, camera)
    by_pose, by_intrinsics = torch.autograd.grad(image.premultiplied_depth.sum(), [pose, camera.intrinsics])
    mine = NativeRenderer().render(SEAMED, FACES, camera, samples=8)
    same = torch.autograd.grad(mine.premultiplied_depth.sum(), [pose, camera.intrinsics])
    assert float((by_pose - same[0]).norm() / same[0].norm()) < 0.02
    assert float((by_intrinsics - same[1]).norm() / same[1].norm()) < 0.02


def test_surroundings_shade_reflect_and_light(tmp_path: Path) -> None:
    floor_albedo = torch.tensor([0.5, 0.5, 0.5], requires_grad=True)
    floor = OtherSurface(
        torch.tensor([[-4.0, 1.2, 0], [4.0, 1.2, 0], [4.0, 1.2, 8], [-4.0, 1.2, 8]]), FACES[:2].flip(1),
        Material(albedo=floor_albedo),
    )  # fmt: skip
    lamp = AreaLight(
        torch.tensor([[-0.5, -2.0, 2.0], [0.5, -2, 2], [0.5, -2, 3], [-0.5, -2, 3]]), FACES[:2].flip(1),
        torch.tensor([10.0, 10.0, 10.0], requires_grad=True),
    )  # fmt: skip
    sky = np.full((8, 16, 3), 0.3, np.float32)
    load_mitsuba().Bitmap(sky).write(str(tmp_path / "sky.exr"))
    read = Environment.from_exr(tmp_path / "sky.exr")
    assert read.radiance.shape == (8, 16, 3) and float((read.radiance - 0.3).abs().max()) < 1e-3
    sky_light = Environment(read.radiance.requires_grad_(True))

    def lit(around: Surroundings, depth: int) -> Any:
        renderer = MitsubaRenderer(surroundings=around, oversampling=6, max_depth=depth)
        return renderer.render(SEAMED, FACES, CAMERA, material=Material(torch.ones(3)), lighting=Lighting())

    open_sky = lit(Surroundings(sky_light), 2)
    with_floor = lit(Surroundings(sky_light, (), (floor,)), 2)
    row = with_floor.alpha[0, -1]
    assert float(row.min()) > 0.9 and float(open_sky.alpha[0, -1].max()) == 0
    assert (with_floor.face_id[0, -1] == -1).all() and float(with_floor.depth[0, -1, 16]) > 1.0
    centre = (0, 12, 12)
    assert float(open_sky.color[centre].detach().mean()) == pytest.approx(0.3, rel=0.08)
    # the floor takes sky from the wall, and gives some back by reflection
    assert float(with_floor.color[centre].detach().mean()) < 0.28
    bounced = lit(Surroundings(sky_light, (), (floor,)), 4)
    assert float(bounced.color[centre].detach().mean()) > float(with_floor.color[centre].detach().mean()) + 0.01
    both = lit(Surroundings(sky_light, (lamp,), (floor,)), 3)
    gradients = torch.autograd.grad(both.premultiplied_color.sum(), [sky_light.radiance, lamp.radiance, floor_albedo])
    assert all(float(g.min()) >= 0 and float(g.sum()) > 0.1 for g in gradients)


def test_a_batch_is_its_members_and_random_numbers_repeat() -> None:
    both = torch.stack([SEAMED, SEAMED + torch.tensor([0.2, 0.1, 0.4])])
    image = MitsubaRenderer(seed=5).render(both, FACES, CAMERA, samples=4)
    again = MitsubaRenderer(seed=5).render(both, FACES, CAMERA, samples=4)
    assert image.alpha.shape == (2, 24, 32) and torch.equal(image.alpha, again.alpha)
    alone = MitsubaRenderer(seed=6).render(both[1], FACES, CAMERA, samples=4)
    assert rms(image.premultiplied_depth[1], alone.premultiplied_depth[0]) < 0.1
    assert not torch.equal(image.alpha[1], alone.alpha[0])


def test_seams_are_welded_and_share_the_gradient() -> None:
    points = SEAMED.clone().requires_grad_(True)
    weld = Welder()
    weld(SEAMED, FACES)
    places, faces = weld(points, FACES)
    assert len(places) == 6 and torch.equal(places[torch.from_numpy(faces)], SEAMED[FACES])
    (gradient,) = torch.autograd.grad(places[int(faces[0, 1])].sum(), points)
    assert gradient[1].tolist() == [0.5] * 3 and gradient[4].tolist() == [0.5] * 3
    apart = SEAMED.clone()
    apart[4:, 0] += 0.1
    assert len(weld(apart, FACES)[0]) == 8


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    draw = MitsubaRenderer().render
    with pytest.raises(InputError, match=r"camera\.projection"):
        draw(SEAMED, FACES, RenderCamera(8, 8, torch.ones(4), projection="orthographic"))
    with pytest.raises(InputError, match=r"vertices.*finite"):
        draw(SEAMED * math.nan, FACES, CAMERA)
    with pytest.raises(InputError, match=r"faces.*0 to 7"):
        draw(SEAMED, FACES + 5, CAMERA)
    with pytest.raises(InputError, match="samples"):
        draw(SEAMED, FACES, CAMERA, samples=0)
    wide = RenderCamera(8, 8, torch.tensor([8.0, 9.0, 4, 4]))
    with pytest.raises(InputError, match="fx = fy"):
        assert draw(SEAMED, FACES, wide, lighting=Lighting()).color is not None
    free = RenderCamera(8, 8, torch.tensor([8.0, 8, 4, 4], requires_grad=True))
    with pytest.raises(InputError, match="no gradient"):
        assert draw(SEAMED, FACES, free, lighting=Lighting()).color is not None
    with pytest.raises(ImageError, match="no such file"):
        Environment.from_exr(tmp_path / "none.exr")
    (tmp_path / "bad.exr").write_text("no image")
    with pytest.raises(ImageError):
        Environment.from_exr(tmp_path / "bad.exr")
