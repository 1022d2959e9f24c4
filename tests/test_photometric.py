"""The photometric term: its gradient against central differences, and what colours say that depth does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.camera import Camera
from bodyfit.fit.appearance import Appearance
from bodyfit.fit.color_refine import refine_pose
from bodyfit.fit.follow import Pose
from bodyfit.fit.mesh import Mesh, mesh_for
from bodyfit.fit.photometric import ColorConfig, ColorTerm, ColorView, make_color_view, photometric_equations
from bodyfit.fit.surface_points import point_cloud, spread_points
from bodyfit.fit.view import make_view
from bodyfit.frame import Frame
from bodyfit.kernels.body import joint_motions
from bodyfit.observe.observation import observe
from bodyfit.render.rasterize import rasterize
from bodyfit.rotation import matrix_from_axis_angle

CAMERA = Camera(480, 540, 460.0, 460.0, 240.0, 270.0)
T_WORLD = np.array([[1.0, 0, 0, 0], [0, 0, 1, -2.4], [0, -1, 0, 0.0], [0, 0, 0, 1]])
UPRIGHT = np.array([np.pi / 2, 0, 0])


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(scope="module")
def mesh(model: BodyModel) -> Mesh:
    return mesh_for(model, 1, 3, model.priors["neutral"].mean)


def _pose(model: BodyModel, **turns: float) -> np.ndarray:
    """Rotations of someone who stands before the camera with the arms a little down; turns: about the joint's x."""
    pose = np.zeros((model.num_joints, 3))
    pose[0] = UPRIGHT
    for name, side in (("left_shoulder", -1), ("right_shoulder", 1)):
        pose[model.joint_names.index(name)] = [0, 0, side * 0.9]
    for name, angle in turns.items():
        pose[model.joint_names.index(name), 0] += angle
    return matrix_from_axis_angle(pose)


def _texture(points: np.ndarray) -> np.ndarray:
    """Colours (..., 3) that stay with the resting body: waves of 7 to 15 cm."""
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    waves = np.stack([np.sin(60 * z + 30 * x), np.sin(70 * y + 40 * z + 1), np.sin(55 * x - 50 * z + 2)], -1)
    return 0.5 + 0.2 * waves


def _vertices(mesh: Mesh, R: np.ndarray, transl: np.ndarray) -> np.ndarray:
    from bodyfit.kernels.body import skin

    J = len(mesh.parents)
    G, posed, out = np.empty((J, 3, 3)), np.empty((J, 3)), np.empty_like(mesh.template)
    joint_motions(R, mesh.joint_template, mesh.parents, np.eye(3), np.zeros(3), transl, G, posed)
    skin(mesh.template, mesh.weight_joints, mesh.weights, G, posed, mesh.joint_template, out)
    return out


def _frame(mesh: Mesh, R: np.ndarray, transl: np.ndarray, gain: float = 1.0, lamp: float = 0.0) -> Frame:
    """Colour and depth of the textured body before a grey wall, under light from the camera and all round."""
    world = _vertices(mesh, R, transl)
    cam = (world - T_WORLD[:3, 3]) @ T_WORLD[:3, :3]
    raster = rasterize(cam, mesh.faces, CAMERA)
    on = raster.face >= 0
    corner = mesh.faces[raster.face[on]]
    b = raster.barycentrics[on]
    bary = np.concatenate([b, 1 - b.sum(1, keepdims=True)], 1)
    image = np.full((CAMERA.height, CAMERA.width, 3), 0.35)
    normal = np.cross(cam[corner[:, 1]] - cam[corner[:, 0]], cam[corner[:, 2]] - cam[corner[:, 0]])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    light = 1 + lamp * (normal @ np.array([0.6, -0.6, -0.5]))
    albedo = _texture(np.einsum("nk,nkc->nc", bary, mesh.template[corner])) ** 2.2
    image[on] = (albedo * light[:, None]) ** (1 / 2.2)
    color = np.rint(np.clip(image * gain ** (1 / 2.2), 0, 1) * 255).astype(np.uint8)
    return Frame(raster.depth, CAMERA, T_WORLD, color=color, color_camera=CAMERA, T_color_depth=np.eye(4))


def _term(mesh: Mesh, frame: Frame, R: np.ndarray, transl: np.ndarray, rng: np.random.Generator) -> ColorTerm:
    """A term of random wanted colours: what is tested is calculus, not sense."""
    config = ColorConfig()
    view = make_color_view(frame, _vertices(mesh, R, transl), config)
    assert view is not None
    cloud = point_cloud(spread_points(mesh, 400), mesh)
    targets = rng.uniform(0.3, 0.7, (len(cloud.template), 3)).astype(np.float32)
    spread = rng.uniform(0, 1e-3, len(targets)).astype(np.float32)
    return ColorTerm(view, cloud, targets, spread, 0.3, replace(config, least_gradient=0.0))


def _cost64(term: ColorTerm, mesh: Mesh, R: np.ndarray, transl: np.ndarray, shape: np.ndarray) -> float:
    """The term's cost in float64, written again with numpy."""
    cloud, view = term.cloud, term.view
    joints = mesh.joint_template + mesh.jointdirs @ shape
    rest = cloud.template.astype(float) + cloud.shapedirs.astype(float) @ shape
    J = len(joints)
    G, posed = np.empty((J, 3, 3)), np.empty((J, 3))
    joint_motions(R, joints, mesh.parents, view.R_cw, view.t_cw, transl, G, posed)
    j, w = cloud.weight_joints, cloud.weights.astype(float)
    at = np.einsum("nk,nkab,nkb->na", w, G[j], rest[:, None] - joints[j]) + np.einsum("nk,nka->na", w, posed[j])
    fx, fy, cx, cy = view.intrinsics.astype(float)
    u, v = fx * at[:, 0] / at[:, 2] + cx, fy * at[:, 1] / at[:, 2] + cy
    c, r = u.astype(int), v.astype(int)
    a, b = (u - c)[:, None], (v - r)[:, None]
    im = view.image.astype(float)
    seen = (1 - b) * ((1 - a) * im[r, c] + a * im[r, c + 1]) + b * ((1 - a) * im[r + 1, c] + a * im[r + 1, c + 1])
    far = ((seen - term.targets) ** 2).sum(1)
    k, s2 = term.config.robust**2, term.config.sigma**2
    return float((0.5 * term.weight / (s2 + term.spread) * far * k / (k + far)).sum())


def test_gradient_matches_central_differences(model: BodyModel, mesh: Mesh) -> None:
    """Every joint's turn, the translation and the shape, against differences of the cost in float64."""
    rng = np.random.default_rng(3)
    R, transl = _pose(model), np.zeros(3)
    term = _term(mesh, _frame(mesh, R, transl), R, transl, rng)
    J, S = model.num_joints, mesh.num_shape
    shape = np.array([0.3, -0.2, 0.1])
    P = 3 * J + 3 + S
    H, g = np.zeros((P, P)), np.zeros(P)
    cost = photometric_equations(term, mesh, R, transl, shape, H, g)
    assert cost == pytest.approx(_cost64(term, mesh, R, transl, shape), rel=1e-4)
    # a bilinear image has kinks between its pixels: steps are small, and few points cross a border
    h, found = 2e-6, np.empty(P)
    for i in range(P):
        two = []
        for sign in (1, -1):
            Ri, ti, si = R.copy(), transl.copy(), shape.copy()
            if i < 3 * J:
                turn = np.zeros(3)
                turn[i % 3] = sign * h
                Ri[i // 3] = Ri[i // 3] @ matrix_from_axis_angle(turn)
            elif i < 3 * J + 3:
                ti[i - 3 * J] += sign * h
            else:
                si[i - 3 * J - 3] += sign * h
            two.append(_cost64(term, mesh, Ri, ti, si))
        found[i] = (two[0] - two[1]) / (2 * h)
    assert np.abs(found).max() > 1
    np.testing.assert_allclose(g, found, atol=2e-3 * np.abs(found).max(), rtol=5e-3)
    assert np.allclose(H, H.T)
    assert np.linalg.eigvalsh(H).min() > -1e-4 * np.linalg.eigvalsh(H).max()


def _learnt(model: BodyModel, mesh: Mesh, lamp: float = 0.0) -> Appearance:
    app = Appearance.begin(model, mesh)
    for k in range(12):
        R, t = _pose(model, left_elbow=0.02 * k, right_hip=-0.01 * k), np.array([0.004 * k, 0, 0])
        sight = app.look(_frame(mesh, R, t, lamp=lamp), R, t)
        assert sight is not None
        app.update(sight)
    return app


def _solved(app: Appearance, mesh: Mesh, frame: Frame, R: np.ndarray, t: np.ndarray, free: list[int]) -> np.ndarray:
    """Gauss-Newton on some parameters (numbers of rotations' coordinates) by the colours alone."""
    R = R.copy()
    for _ in range(3):
        sight = app.look(frame, R, t)
        assert sight is not None
        term = app.term(sight)
        assert term is not None
        for _ in range(3):
            P = 3 * len(R) + 3 + mesh.num_shape
            H, g = np.zeros((P, P)), np.zeros(P)
            photometric_equations(term, mesh, R, t, np.zeros(mesh.num_shape), H, g)
            step = -np.linalg.solve(H[np.ix_(free, free)] + 1e-6 * np.eye(len(free)), g[free])
            for i, s in zip(free, step, strict=True):
                turn = np.zeros(3)
                turn[i % 3] = np.clip(s, -0.2, 0.2)
                R[i // 3] = R[i // 3] @ matrix_from_axis_angle(turn)
    return R


def _angle(A: np.ndarray, B: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(A.T @ B) - 1) / 2, -1, 1))))


@pytest.mark.parametrize("gain", [0.7, 1.0, 1.3])
def test_twist_is_found_from_colours_alone(model: BodyModel, mesh: Mesh, gain: float) -> None:
    """A forearm and a thigh that are turned about themselves come back to 2 degrees, whatever the exposure."""
    app = _learnt(model, mesh, lamp=0.3)
    elbow, hip = model.joint_names.index("right_elbow"), model.joint_names.index("left_hip")
    R, t = _pose(model), np.zeros(3)
    frame = _frame(mesh, R, t, gain=gain, lamp=0.3)
    start = R.copy()
    start[elbow] = start[elbow] @ matrix_from_axis_angle(np.array([np.radians(14), 0, 0]))
    start[hip] = start[hip] @ matrix_from_axis_angle(np.array([0, np.radians(10), 0]))
    end = _solved(app, mesh, frame, start, t, [3 * elbow, 3 * hip + 1])
    assert _angle(end[elbow], R[elbow]) < 2.0
    assert _angle(end[hip], R[hip]) < 2.0


def test_albedo_and_gain_are_recovered(model: BodyModel, mesh: Mesh) -> None:
    """Colours of points come back up to one factor, and the gain of a darker frame."""
    app = _learnt(model, mesh, lamp=0.3)
    known = app.weight > 1.5
    assert known.mean() > 0.12
    true = _texture(app.cloud.template)[known]
    ratio = app.albedo[known] / true
    assert np.abs(ratio / np.median(ratio, axis=0) - 1).mean() < 0.08
    R, t = _pose(model), np.zeros(3)
    sight = app.look(_frame(mesh, R, t, gain=0.7, lamp=0.3), R, t)
    assert sight is not None
    app.term(sight)
    assert app.lights["sensor"].gain ** 2.2 == pytest.approx(0.7, rel=0.06)


def test_colours_enter_the_solver(model: BodyModel, mesh: Mesh) -> None:
    """A thigh 8 degrees off about itself comes back by depth and colour, and by colours and the priors alone."""
    app = _learnt(model, mesh, lamp=0.3)
    hip = model.joint_names.index("left_hip")
    R, t = _pose(model), np.zeros(3)
    frame = _frame(mesh, R, t, gain=0.8, lamp=0.3)
    view = make_view(observe(replace(frame, mask=frame.depth > 0), gravity_world=np.array([0.0, 0, -1])), 1300)
    start = R.copy()
    start[hip] = start[hip] @ matrix_from_axis_angle(np.array([0, np.radians(8), 0]))
    held = replace(mesh, shapedirs=mesh.shapedirs[:, :, :1].copy(), jointdirs=mesh.jointdirs[:, :, :1].copy())
    app.reshape(held)
    off = {}
    for name, seen, views in (("both", app, [view]), ("colour", app, []), ("neither", None, [])):
        found = refine_pose(model, seen, [frame], views, Pose(start, t), held, 0.010)
        off[name] = _angle(found.pose.rotations[hip], R[hip])
    assert off["both"] < 1.5
    assert off["colour"] < 3.0
    assert off["neither"] > 5.0


def test_body_beside_the_picture_has_no_view(model: BodyModel, mesh: Mesh) -> None:
    R = _pose(model)
    frame = _frame(mesh, R, np.zeros(3))
    app = Appearance.begin(model, mesh)
    assert app.look(frame, R, np.array([9.0, 0, 0])) is None
    assert app.look(replace(frame, color=None, color_camera=None), R, np.zeros(3)) is None
    sight = app.look(frame, R, np.zeros(3))
    assert sight is not None and isinstance(sight.view, ColorView)
    assert app.term(sight) is None  # nothing is known of this person yet


def test_a_limb_that_is_elsewhere_is_not_learnt(model: BodyModel, mesh: Mesh) -> None:
    """Points where the depth sensor reads another distance are out of sight: their colours are the room's."""
    R, t = _pose(model), np.zeros(3)
    frame = _frame(mesh, R, t)
    raised = R.copy()
    k = model.joint_names.index("left_shoulder")
    raised[k] = matrix_from_axis_angle(np.array([0, 0, 0.6]))
    app = Appearance.begin(model, mesh)
    right, wrong = app.look(frame, R, t), app.look(frame, raised, t)
    assert right is not None and wrong is not None
    arm = app.parts == list(model.part_names).index("left_forearm")
    assert (right.facing[arm] > 0).sum() > 30
    assert (wrong.facing[arm] > 0).sum() < 0.1 * (right.facing[arm] > 0).sum()


def test_texture_and_vertex_colours_are_the_persons(model: BodyModel, mesh: Mesh) -> None:
    """What is written out has the colours of the surface, where it was seen, and no chart lies over another."""
    from bodyfit.export.texture import body_atlas, person_texture, vertex_colors

    app = _learnt(model, mesh)
    atlas = body_atlas(model, 512)
    assert atlas.uv.min() > 0 and atlas.uv.max() < 1
    flat = atlas.uv[atlas.faces].astype(float) * atlas.size
    e, f = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    assert 0.5 * np.abs(e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]).sum() > 0.25 * atlas.size**2
    texture = person_texture(app, model, atlas)
    assert 0.05 < texture.known.mean() < 0.9
    assert texture.png()[:8] == b"\x89PNG\r\n\x1a\n"
    # the picture at the corners' places says the same as the vertices' colours
    colors = vertex_colors(app, model).astype(float)
    at = np.rint(atlas.uv * atlas.size - 0.5).astype(int)
    inside = np.zeros(len(atlas.uv), bool)
    inside[atlas.faces.ravel()] = True
    vertex = np.zeros(len(atlas.uv), int)
    vertex[atlas.faces.ravel()] = model.faces.ravel()
    picture = texture.image[at[:, 1], at[:, 0]].astype(float)
    assert np.median(np.abs(picture - colors[vertex])[inside]) < 6
    # and both what the surface has, up to the light's unit
    seen = texture.known[at[:, 1], at[:, 0]]
    sharp = _texture(model.rest_vertices(model.priors["neutral"].mean))[vertex][seen] * 255
    assert np.corrcoef(picture[seen].ravel(), sharp.ravel())[0, 1] > 0.8
