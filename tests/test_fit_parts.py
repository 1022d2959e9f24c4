"""The fit's parts: rasteriser, nearest pixels, evidence, priors and solver, each against something slow and plain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from seen_body import CAMERA, on_the_floor, seen, standing, turned

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.camera import Camera
from bodyfit.errors import InputError
from bodyfit.fit.collide import spheres_of
from bodyfit.fit.config import FitConfig, Stage
from bodyfit.fit.learned_prior import learned_prior
from bodyfit.fit.mesh import mesh_for, sole_vertices
from bodyfit.fit.pose_prior import log_rotation, pose_prior, pose_prior_terms
from bodyfit.fit.problem import Linearization, Problem, ShapeGaussian, State
from bodyfit.fit.solver import StopReason, bad_alone, solve, step_of
from bodyfit.fit.view import View, Views, depth_noise, make_view
from bodyfit.kernels import evidence as E
from bodyfit.kernels.nearest import nearest_marked
from bodyfit.kernels.raster import rasterize as raster_kernel
from bodyfit.kernels.scalar_evidence import PERSON, UNKNOWN
from bodyfit.render.rasterize import rasterize
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle

STAGE = Stage("test", 2, 1500, 25, 4, 0.10, 0.15, max_turn_rad=0.3, damping=1e-2)


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


# --- the rasteriser -------------------------------------------------------------------------------------------------


def drawn_slowly(points: NDArray[np.float64], faces: NDArray[np.int32], camera: Camera) -> tuple[NDArray, NDArray]:
    """Every face at every pixel, in double precision: depth and the nearest face that turns towards the camera."""
    depth, face = np.full((camera.height, camera.width), np.inf), np.full((camera.height, camera.width), -1)
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], -1)
    for f, (a, b, c) in enumerate(points[faces]):
        if not (np.isfinite([a, b, c]).all() and min(a[2], b[2], c[2]) > 0.05):
            continue
        normal = np.cross(b - a, c - a)
        if not normal @ a < 0:
            continue  # the far side
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (normal @ a) / (rays @ normal)
        at = rays * z[..., None]
        inside = np.isfinite(z)
        for p, q in ((a, b), (b, c), (c, a)):
            inside &= np.cross(q - p, at - p) @ normal >= -1e-12
        nearer = inside & (z > 0) & (z < depth)
        depth[nearer], face[nearer] = z[nearer], f
    return np.where(np.isfinite(depth), depth, 0), face


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_rasteriser_equals_the_slow_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    camera = Camera(31, 23, 25.3, 26.1, 14.2, 11.7)
    points = rng.uniform((-1.5, -1.2, 0.3), (1.5, 1.2, 3.0), (24, 3))
    faces = rng.integers(0, 24, (30, 3)).astype(np.int32)
    depth, face = drawn_slowly(points.astype(np.float32).astype(np.float64), faces, camera)
    got = rasterize(points, faces, camera)
    # a pixel centre may lie on an edge, where single precision decides otherwise; a face may be there twice
    same = (got.face == face) | ((face >= 0) & np.isclose(got.depth, depth, rtol=1e-6))
    assert same.mean() > 0.985
    np.testing.assert_allclose(got.depth[same], depth[same], rtol=2e-4)
    v, u = np.nonzero(same & (face >= 0))
    bary = got.barycentrics[v, u]
    weights = np.concatenate([bary, 1 - bary.sum(1, keepdims=True)], 1)
    at = np.einsum("nk,nkc->nc", weights, points[faces[got.face[v, u]]])
    np.testing.assert_allclose(at[:, 0] / at[:, 2], (u - camera.cx) / camera.fx, atol=2e-3)
    np.testing.assert_allclose(at[:, 2], depth[v, u], rtol=2e-3)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 30])
def test_a_narrow_image_is_a_strip_of_a_wide_one(width: int) -> None:
    rng = np.random.default_rng(width)
    points = rng.uniform((-1.5, -1.2, 0.3), (1.5, 1.2, 3.0), (60, 3))
    faces = rng.integers(0, 60, (80, 3)).astype(np.int32)
    whole = rasterize(points, faces, Camera(64, 48, 50.0, 50.0, 32.0, 24.0))
    strip = rasterize(points, faces, Camera(width, 48, 50.0, 50.0, float(width // 2), 24.0))
    columns = slice(32 - width // 2, 32 - width // 2 + width)
    assert (strip.face >= 0).mean() > 0.2
    same = strip.face == whole.face[:, columns]
    assert same.mean() > 0.99
    np.testing.assert_allclose(strip.depth[same], whole.depth[:, columns][same], rtol=1e-5)


def test_faces_without_area_behind_the_camera_or_with_nan_are_left_out() -> None:
    nan = np.nan
    points = np.array([
        [-1, -1, 2], [-1, 1, 2], [1, -1, 2],  # 0-2 a face towards the camera
        [0, 0, -1], [0, 0, 0], [nan, 0, 1], [0, np.inf, 1], [3e8, 0, 0.06],  # 3-7 behind, in the lens, not numbers
    ], np.float32)  # fmt: skip
    good = [0, 1, 2]
    bad = [[0, 1, k] for k in (3, 4, 5, 6, 7)] + [[0, 0, 1], [1, 1, 1], [0, 2, 1]]
    size = (16, 16)
    for faces in ([good, *bad], [*bad, good]):
        depth, face, bary = np.empty(size, np.float32), np.empty(size, np.int32), np.empty((*size, 2), np.float32)
        raster_kernel(points, np.array(faces, np.int32), 8.0, 8.0, 7.5, 7.5, depth, face, bary)
        assert set(np.unique(face)) == {-1, faces.index(good)}
        np.testing.assert_allclose(depth[face >= 0], 2.0, rtol=1e-6)
        assert (depth[face < 0] == 0).all() and np.isfinite(bary).all()
    with pytest.raises(InputError, match="finite numbers"):
        rasterize(points, np.array([good]), CAMERA)
    with pytest.raises(InputError, match="vertex numbers"):
        rasterize(points[:3], np.array([[0, 1, 3]]), CAMERA)
    empty = rasterize(points[:3], np.empty((0, 3)), CAMERA)
    assert (empty.face == -1).all() and (empty.depth == 0).all()


# --- nearest pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.3, 1.0])
def test_nearest_pixels_equal_scipys_distances(share: float) -> None:
    from scipy.ndimage import distance_transform_edt

    rng = np.random.default_rng(int(share * 1e4))
    for shape in ((61, 83), (1, 40), (40, 1), (97, 30)):
        marked = rng.random(shape) < share
        marked.flat[rng.integers(marked.size)] = True
        near = np.where(marked, np.arange(marked.size).reshape(shape), -1).astype(np.int32)
        nearest_marked(near)
        assert marked.flat[near].all()
        r, c = np.indices(shape)
        got = np.hypot(near // shape[1] - r, near % shape[1] - c)
        np.testing.assert_allclose(got, np.asarray(distance_transform_edt(~marked)), atol=1e-9)


def test_of_equally_near_pixels_the_leftmost_and_then_the_upper_counts() -> None:
    rng = np.random.default_rng(3)
    for shape, share in (((9, 12), 0.3), ((12, 7), 0.1), ((6, 6), 0.6)):
        marked = rng.random(shape) < share
        rows, columns = np.nonzero(marked)
        r, c = np.indices(shape)
        square = (r[..., None] - rows) ** 2 + (c[..., None] - columns) ** 2
        chosen = ((square * 100 + columns) * 100 + rows).argmin(-1)
        near = np.where(marked, np.arange(marked.size).reshape(shape), -1).astype(np.int32)
        nearest_marked(near)
        np.testing.assert_array_equal(near, rows[chosen] * shape[1] + columns[chosen])


def test_nothing_marked_is_nowhere() -> None:
    near = np.full((7, 9), -1, np.int32)
    nearest_marked(near)
    assert (near == -1).all()


# --- what a view holds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sd", [0.0005, 0.002, 0.008])
def test_the_noise_of_a_sensor_is_read_from_its_depth(sd: float) -> None:
    v, u = np.mgrid[:80, :90]
    slanted = 2 + 0.004 * u - 0.002 * v
    noisy = (slanted + np.random.default_rng(1).normal(0, sd, slanted.shape)).astype(np.float32)
    person = (u - 45) ** 2 + (v - 40) ** 2 < 35**2
    noisy[::7, ::5] = 0  # no reading
    noisy[~person] += 1
    assert depth_noise(noisy, person) == pytest.approx(sd, rel=0.08)


def test_a_bodys_own_roundness_counts_as_millimetres_of_noise(model: BodyModel) -> None:
    pose = standing(model, "a_pose")
    betas = np.zeros(model.num_betas)
    view = seen(model, betas, pose, on_the_floor(model, betas, pose), camera=Camera(512, 424, 365, 365, 255, 211))
    assert depth_noise(view.depth, view.label == 1) < 0.006


def test_too_few_pixels_have_no_noise() -> None:
    assert depth_noise(np.ones((5, 12), np.float32), np.ones((5, 12), bool)) == 0.0


def test_soles_are_within_4_mm_of_each_foots_lowest_point(model: BodyModel) -> None:
    template = model.v_template
    soles = sole_vertices(template)
    assert len(soles) == len(set(soles.tolist())) == 16
    for side in (1, -1):
        foot = template[soles][template[soles, 0] * side > 0]
        lowest = template[template[:, 0] * side > 0][:, 1].min()
        assert len(foot) == 8
        assert foot[:, 1].max() - lowest < 0.004
        assert np.ptp(foot[:, 2]) > 0.12, "from heel to toes"


# --- priors ---------------------------------------------------------------------------------------------------------


def test_the_logarithm_of_a_rotation_and_its_derivative() -> None:
    rng = np.random.default_rng(5)
    theta = np.concatenate([rng.normal(0, 0.8, (20, 3)), rng.normal(0, 1e-6, (4, 3)), np.zeros((1, 3))])
    R = matrix_from_axis_angle(theta)
    found, D = log_rotation(R)
    np.testing.assert_allclose(found, theta, atol=1e-9)
    for axis in range(3):
        d = np.zeros(3)
        d[axis] = 1e-5
        plus = axis_angle_from_matrix(R @ matrix_from_axis_angle(d))
        minus = axis_angle_from_matrix(R @ matrix_from_axis_angle(-d))
        np.testing.assert_allclose(D[..., axis], (plus - minus) / 2e-5, atol=1e-6)


def test_pose_priors_gradient_equals_central_differences(model: BodyModel) -> None:
    """Beyond the ends of the joints' ranges too."""
    rng = np.random.default_rng(6)
    prior = pose_prior(model.joint_names)
    theta = prior.mean + rng.normal(0, 0.7, (3, model.num_joints, 3))
    assert (theta > prior.high).any() and (theta < prior.low).any()
    mean = np.broadcast_to(prior.mean, theta.shape)
    R = matrix_from_axis_angle(theta)
    _, gradient, hessian = pose_prior_terms(R, mean, prior, 0.8)
    assert (gradient[:, 0] == 0).all(), "the root has no prior"
    for j in range(1, model.num_joints):
        for axis in range(3):
            d = np.zeros((model.num_joints, 3))
            d[j, axis] = 1e-6
            plus = pose_prior_terms(R @ matrix_from_axis_angle(d), mean, prior, 0.8)[0]
            minus = pose_prior_terms(R @ matrix_from_axis_angle(-d), mean, prior, 0.8)[0]
            np.testing.assert_allclose(gradient[:, j, axis], (plus - minus) / 2e-6, rtol=2e-4, atol=2e-3)
    assert (np.linalg.eigvalsh(hessian[:, 1:]) > 0).all()


def test_the_right_sides_prior_mirrors_the_lefts(model: BodyModel) -> None:
    prior = pose_prior(model.joint_names)
    left, right = (model.joint_names.index(f"{s}_shoulder") for s in ("left", "right"))
    np.testing.assert_array_equal(prior.mean[right], prior.mean[left] * (1, -1, -1))
    np.testing.assert_array_equal(prior.low[right], [prior.low[left][0], -prior.high[left][1], -prior.high[left][2]])
    assert (prior.low[1:] <= prior.mean[1:]).all() and (prior.mean[1:] <= prior.high[1:]).all()


# --- one view's equations -------------------------------------------------------------------------------------------


def problem_for(
    model: BodyModel, views: list[View], *, stage: Stage = STAGE, config: FitConfig | None = None, floor: bool = True,
    shape_sd: float = 1.0,
) -> Problem:  # fmt: skip
    """One instant for each view, all in one group."""
    prior = pose_prior(model.joint_names)
    n = min(stage.num_betas, model.num_betas)
    mean = model.priors["neutral"].mean
    items = np.array([(i, i) for i in range(len(views))])
    poses = np.broadcast_to(prior.mean, (len(views), *prior.mean.shape))
    return Problem(
        mesh_for(model, stage.level, n, mean), views, items, stage, config or FitConfig(), prior, poses,
        ShapeGaussian(np.zeros(n), np.eye(n) / shape_sd**2), FitConfig().sigma_depth_m, use_floor=floor,
    )  # fmt: skip


def inner_only(view: View, rim: int = 3) -> View:
    """The view without its outline, outer and inner: pixels near a leap of the depth say nothing."""
    from scipy.ndimage import binary_dilation, binary_erosion, maximum_filter, minimum_filter

    leaps = maximum_filter(view.depth, 3) - minimum_filter(view.depth, 3) > 0.04
    person = (view.label == 1) & ~leaps
    label = np.full_like(view.label, UNKNOWN)
    label[np.asarray(binary_erosion(person, iterations=rim), bool)] = PERSON
    assert not (label[~np.asarray(binary_dilation(person), bool)] == PERSON).any()
    return replace(view, label=label)


def test_the_gradient_equals_central_differences_of_the_cost(model: BodyModel) -> None:
    """Where no pixel changes what it is compared with: inside the outline, one surface, a body a few millimetres off.

    The normal's own turn is left out of the Jacobian, as in every projective point-to-plane fit; it weighs as much as
    the gap does against the lever arm, a few percent here.
    """
    mean = model.priors["neutral"].mean
    pose = standing(model, "t_pose", 2)
    transl = on_the_floor(model, mean, pose)
    view = inner_only(make_view(seen(model, mean, pose, transl), 100_000))
    stage = replace(STAGE, level=0, robust_depth_m=50.0, window_m=0.0)
    problem = problem_for(model, [view], stage=stage, floor=False)
    J, S = model.num_joints, stage.num_betas
    Q = 3 * J + 3
    shift = np.array([0.0, -0.006, 0.0])
    askew = matrix_from_axis_angle(np.random.default_rng(3).normal(0, 0.008, pose.shape))
    state = State((turned(pose) @ askew)[None], (transl + shift)[None], np.full((1, S), 0.05), np.zeros(1, np.int64))
    from bodyfit.fit.problem import Scratch

    scratch = Scratch(problem.mesh)

    def cost(d: NDArray[np.float64]) -> float:
        moved = State(
            state.rotations @ matrix_from_axis_angle(d[: 3 * J].reshape(1, J, 3)),
            state.transl + d[3 * J : Q], state.shape + d[Q:], state.group,
        )  # fmt: skip
        stats = np.empty(E.NUM_STATS)
        H, g = np.empty((1, 1)), np.empty(Q + S)
        problem.view_equations(moved, 0, view, scratch, H, g, stats, want_rows=False)
        assert stats[E.NUM_SPILLED] == stats[E.NUM_BARE] == 0
        return float(stats[E.COST_DEPTH])

    stats = np.empty(E.NUM_STATS)
    H, g = np.empty((Q + S, Q + S)), np.empty(Q + S)
    problem.view_equations(state, 0, view, scratch, H, g, stats, want_rows=True)
    assert stats[E.NUM_BOTH] > 500
    np.testing.assert_allclose(H, H.T)
    assert np.linalg.eigvalsh(H).min() > -1e-3 * np.abs(H).max()
    numeric = np.empty(Q + S)
    for i in range(Q + S):
        d = np.zeros(Q + S)
        d[i] = 4e-4 if i < Q else 4e-3
        numeric[i] = (cost(d) - cost(-d)) / (2 * d[i])
    for part in (slice(0, 3 * J), slice(3 * J, Q), slice(Q, Q + S)):
        off = np.linalg.norm(g[part] - numeric[part]) / np.linalg.norm(numeric[part])
        assert off < 0.06, (part, off)


def test_an_outline_pulls_the_body_back(model: BodyModel) -> None:
    """With the outline alone, the descent direction points to where the person stands."""
    mean = model.priors["neutral"].mean
    pose = standing(model, "a_pose", 3)
    transl = on_the_floor(model, mean, pose)
    observation = seen(model, mean, pose, transl)
    view = make_view(replace(observation, depth=np.zeros_like(observation.depth)), 3000)
    problem = problem_for(model, [view], floor=False)
    for shift in (np.array([0.06, 0, 0]), np.array([-0.06, 0, 0]), np.array([0, 0, 0.06]), np.array([0, 0, -0.06])):
        state = State(turned(pose)[None], (transl + shift)[None], np.zeros((1, 4)), np.zeros(1, np.int64))
        eq = problem.linearize(state)
        assert eq.stats[0, E.NUM_SPILLED] > 20 and eq.stats[0, E.NUM_BARE] > 20 and eq.stats[0, E.NUM_BOTH] == 0
        gradient = eq.pose_gradient[0, -3:]
        assert gradient @ shift > 0.7 * np.linalg.norm(gradient) * np.linalg.norm(shift)


def test_views_are_made_once_and_are_those_of_the_observation(model: BodyModel) -> None:
    mean = model.priors["neutral"].mean
    pose = standing(model, "a_pose", 4)
    place = on_the_floor(model, mean, pose)
    observations = [seen(model, mean, pose, place + x) for x in (0.0, np.array([0.1, 0, 0.3]))]
    views = Views(observations)
    for pixels in (300, 2000, 300, 10_000):
        for view, observation in zip(views.at(pixels), observations, strict=True):
            alone = make_view(observation, pixels)
            for name in alone.__dataclass_fields__:
                np.testing.assert_array_equal(getattr(view, name), getattr(alone, name), err_msg=name)
    assert all(a is b for a, b in zip(views.at(300), views.at(300), strict=True))
    assert views.at(300)[0].stride > views.at(2000)[0].stride


def test_groups_that_rest_change_no_other_and_costs_need_no_rows(model: BodyModel) -> None:
    """With every prior that there is: those of the active groups are added to a copy of their part alone."""
    mean = model.priors["neutral"].mean
    pose = standing(model, "a_pose", 4)
    view = make_view(seen(model, mean, pose, on_the_floor(model, mean, pose)), 500)
    n = 5
    rng = np.random.default_rng(6)
    state = State(
        turned(pose)[None] @ matrix_from_axis_angle(rng.normal(0, 0.1, (n, *pose.shape))),
        np.repeat(on_the_floor(model, mean, pose)[None], n, 0), rng.normal(0, 0.3, (n, 4)), np.arange(n),
    )  # fmt: skip
    problem = replace(
        problem_for(model, [view]), items=np.array([(i, 0) for i in range(n)]), spheres=spheres_of(model, mean),
        pose_mean=np.repeat(pose_prior(model.joint_names).mean[None], n, 0),
        learned_prior=learned_prior(model.joint_names),
    )  # fmt: skip
    whole = problem.linearize(state)
    active = np.array([True, False, True, True, False])
    part = problem.linearize(state, active)
    for name in ("A", "B", "C", "pose_gradient", "shape_gradient", "cost", "instant_cost"):
        np.testing.assert_array_equal(getattr(part, name)[active], getattr(whole, name)[active], err_msg=name)
        assert not getattr(part, name)[~active].any(), name
    alone = problem.linearize(state, want_rows=False)
    np.testing.assert_array_equal(alone.cost, whole.cost)
    np.testing.assert_array_equal(alone.instant_cost, whole.instant_cost)
    some = problem.linearize(state, active, want_rows=False)
    np.testing.assert_array_equal(some.cost, np.where(active, whole.cost, 0.0))


def test_threads_do_not_change_the_equations(model: BodyModel) -> None:
    mean = model.priors["neutral"].mean
    poses = [standing(model, name, 4) for name in ("a_pose", "mid_walk", "arms_down")]
    views = [make_view(seen(model, mean, p, on_the_floor(model, mean, p)), 800) for p in poses]
    start = State(
        np.stack([turned(p) for p in poses]), np.stack([on_the_floor(model, mean, p) + 0.02 for p in poses]),
        np.zeros((1, 4)), np.zeros(3, np.int64),
    )  # fmt: skip
    found = [problem_for(model, views, config=FitConfig(threads=n)).linearize(start) for n in (1, 2, 3)]
    for other in found[1:]:
        for name in ("A", "B", "C", "pose_gradient", "shape_gradient", "cost", "instant_cost"):
            np.testing.assert_array_equal(getattr(found[0], name), getattr(other, name))


# --- the solver -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_the_schur_step_equals_the_dense_solution(damping: float) -> None:
    """Two groups of two and one instants, random positive definite equations, against one matrix of everything."""
    rng = np.random.default_rng(8)
    Q, S, group = 9, 4, np.array([0, 1, 0])
    A, B, C = np.empty((3, Q, Q)), np.empty((3, Q, S)), np.zeros((2, S, S))
    for n in range(3):
        J = rng.normal(size=(40, Q + S))
        H = J.T @ J
        A[n], B[n] = H[:Q, :Q], H[:Q, Q:]
        C[group[n]] += H[Q:, Q:]
    g, h = rng.normal(size=(3, Q)), rng.normal(size=(2, S))
    eq = Linearization(A, B, C, g, h, np.zeros(2), np.zeros(3), np.zeros((3, E.NUM_STATS)))
    lam, shape_lam = damping * np.array([1.0, 2.0, 0.5]), damping * np.array([1.0, 3.0])
    state = State(np.zeros((3, 2, 3, 3)), np.zeros((3, 3)), np.zeros((2, S)), group)
    pose_step, shape_step = step_of(eq, state, lam, shape_lam)
    dense, right = np.zeros((3 * Q + 2 * S, 3 * Q + 2 * S)), np.concatenate([g.ravel(), h.ravel()])
    for n in range(3):
        p, s = slice(n * Q, (n + 1) * Q), slice(3 * Q + group[n] * S, 3 * Q + (group[n] + 1) * S)
        dense[p, p] = A[n] + lam[n] * np.diag(np.diag(A[n]))
        dense[p, s], dense[s, p] = B[n], B[n].T
    for k in range(2):
        s = slice(3 * Q + k * S, 3 * Q + (k + 1) * S)
        dense[s, s] = C[k] + shape_lam[k] * np.diag(np.diag(C[k]))
    want = -np.linalg.solve(dense, right)
    np.testing.assert_allclose(pose_step.ravel(), want[: 3 * Q], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(shape_step.ravel(), want[3 * Q :], rtol=1e-6, atol=1e-9)


def joints_apart(model: BodyModel, a: State, n: int, pose: NDArray[np.float64], transl: NDArray[np.float64]) -> float:
    """Largest distance of a joint from where it should be, metres, hands and feet's tips left out."""
    mean = model.priors["neutral"].mean
    betas = mean.copy()
    betas[: a.shape.shape[1]] += a.shape[a.group[n]]
    got = model.forward(betas, axis_angle_from_matrix(a.rotations[n]), a.transl[n])[1]
    apart = np.linalg.norm(got - model.forward(mean, pose, transl)[1], axis=1)
    return float(max(d for d, name in zip(apart, model.joint_names, strict=True) if not name.endswith("_hand")))


def test_a_start_near_the_truth_finds_it(model: BodyModel) -> None:
    rng = np.random.default_rng(9)
    mean = model.priors["neutral"].mean
    pose = standing(model, "a_pose", 9)
    transl = on_the_floor(model, mean, pose)
    problem = problem_for(model, [make_view(seen(model, mean, pose, transl), 1500)])
    start = State(
        (turned(pose) @ matrix_from_axis_angle(rng.normal(0, 0.08, pose.shape)))[None],
        (transl + np.array([0.03, -0.04, 0.02]))[None], np.full((1, 4), 0.3), np.zeros(1, np.int64),
    )  # fmt: skip
    before = problem.linearize(start, want_rows=False).cost[0]
    asked = start.copy()
    found = solve(problem, start)
    np.testing.assert_array_equal(start.rotations, asked.rotations)
    assert found.cost[0] < 0.2 * before
    assert found.cost[0] == pytest.approx(problem.linearize(found.state, want_rows=False).cost[0], rel=1e-3)
    assert found.steps[0] >= 3 and found.reasons[0] in (StopReason.CONVERGED, StopReason.STEPS_USED)
    assert joints_apart(model, start, 0, pose, transl) > 0.06
    assert joints_apart(model, found.state, 0, pose, transl) < 0.03
    np.testing.assert_allclose(np.linalg.det(found.state.rotations), 1, atol=1e-12)


def test_an_instant_that_goes_astray_does_not_hold_up_the_others(model: BodyModel) -> None:
    """Two instants share a shape, which holds still here; one starts hopeless, the other gets home all the same."""
    mean = model.priors["neutral"].mean
    poses = [standing(model, "a_pose", seed) for seed in (9, 10)]
    places = [on_the_floor(model, mean, p) for p in poses]
    views = [make_view(seen(model, mean, p, t), 1500) for p, t in zip(poses, places, strict=True)]
    R = np.stack([turned(p) for p in poses])
    rng = np.random.default_rng(1)
    R[0] = R[0] @ matrix_from_axis_angle(rng.normal(0, 0.08, poses[0].shape))
    R[1] = R[1] @ matrix_from_axis_angle(rng.normal(0, 0.9, poses[0].shape))
    problem = problem_for(model, views, stage=replace(STAGE, iterations=12), shape_sd=0.01)
    start = State(
        R, np.stack([places[0] + 0.03, places[1] + np.array([0.3, 0.3, 0.1])]), np.zeros((1, 4)), np.zeros(2, np.int64)
    )
    together = solve(problem, start)
    assert joints_apart(model, start, 0, poses[0], places[0]) > 0.06
    assert joints_apart(model, together.state, 0, poses[0], places[0]) < 0.035


def test_who_is_blamed_for_a_step_that_only_the_shapes_prior_dislikes() -> None:
    group = np.array([0, 0, 1, 1])
    blamed = bad_alone(np.array([True, True]), np.array([False, False, True, False]), group)
    assert blamed.tolist() == [True, True, False, False]


def test_a_cancelled_solution_is_the_start(model: BodyModel) -> None:
    mean = model.priors["neutral"].mean
    pose = standing(model, "a_pose", 9)
    transl = on_the_floor(model, mean, pose)
    problem = problem_for(model, [make_view(seen(model, mean, pose, transl), 400)])
    start = State(turned(pose)[None], transl[None] + 0.05, np.zeros((1, 4)), np.zeros(1, np.int64))
    found = solve(problem, start, cancelled=lambda: True)
    assert found.reasons == [StopReason.CANCELLED] and found.steps[0] == 0
    np.testing.assert_array_equal(found.state.transl, start.transl)
