"""Poses of a moving person solved together: terms' derivatives, feet that stand, gaps in time, limbs that leap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from seen_body import on_the_floor, seen, standing

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.errors import InputError
from bodyfit.fit.banded import Band, band_cholesky
from bodyfit.fit.config import CLOTHING, FitConfig, SequenceConfig
from bodyfit.fit.joint import FitSetup, Instant, held_body, prior_shape, refine, together
from bodyfit.fit.mesh import GARMENTS, Mesh
from bodyfit.fit.motion_scale import MOST, Evidence, learnt_scales, moved_news, variances
from bodyfit.fit.pose_prior import pose_prior
from bodyfit.fit.problem import State
from bodyfit.fit.sequence import Chain, Poses, is_sequence, linked_instants, refine_sequence, solve_chain
from bodyfit.fit.smooth import (
    LEAST_FLICKER,
    REACH,
    USUAL_FLICKER,
    acceleration_sigmas,
    flicker,
    news_of,
    smooth_terms,
)
from bodyfit.fit.solver import StopReason
from bodyfit.fit.standing_feet import SIGMA_M_S, Soles, sole_places, soles_of, standing_terms
from bodyfit.fit.standing_feet import standing as judge_standing
from bodyfit.fit.view import make_view
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle

Poses3 = tuple[NDArray[np.float64], NDArray[np.float64]]
FRAMES = 9


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(scope="module")
def setup(model: BodyModel) -> FitSetup:
    return FitSetup(model, "neutral", "tight", FitConfig(threads=1))


@pytest.fixture(scope="module")
def mesh(setup: FitSetup) -> Mesh:
    """The body that is filmed and fitted: the mean one, without clothes."""
    return held_body(setup, 2, np.zeros(setup.model.num_betas + len(GARMENTS)))


@pytest.fixture(scope="module")
def soles(mesh: Mesh) -> Soles:
    return soles_of(mesh)


@pytest.fixture(scope="module")
def truth(model: BodyModel, setup: FitSetup) -> Poses3:
    """Someone who stands and swings an arm, facing the sensor."""
    pose = standing(model, "a_pose")
    betas = prior_shape(setup).mean
    place = on_the_floor(model, betas, pose)
    arm, elbow = model.joint_names.index("left_shoulder"), model.joint_names.index("left_elbow")
    poses = np.repeat(pose[None], FRAMES, 0)
    poses[:, arm, 0] += 0.5 * np.sin(np.arange(FRAMES) / 4.0)
    poses[:, elbow, 1] -= 0.3 * np.sin(np.arange(FRAMES) / 4.0)
    return matrix_from_axis_angle(poses), np.repeat(place[None], FRAMES, 0)


@pytest.fixture(scope="module")
def chain(model: BodyModel, setup: FitSetup, mesh: Mesh, truth: Poses3) -> Chain:
    betas = prior_shape(setup).mean
    poses = axis_angle_from_matrix(truth[0])
    views = [[make_view(seen(model, betas, p, x), 400)] for p, x in zip(poses, truth[1], strict=True)]
    return Chain(
        views, np.arange(FRAMES) / 30.0, mesh, pose_prior(model.joint_names), CLOTHING["tight"].sigma_behind_m,
        setup.config,
    )  # fmt: skip


@pytest.fixture(scope="module")
def shaken(truth: Poses3) -> Poses3:
    """The truth with each instant's own errors."""
    rng = np.random.default_rng(1)
    return (
        truth[0] @ matrix_from_axis_angle(rng.normal(0, 0.04, (*truth[0].shape[:2], 3))),
        truth[1] + rng.normal(0, 0.01, truth[1].shape),
    )


TERMS = SequenceConfig(level=2, pixels=400)


@pytest.fixture(scope="module")
def solved(chain: Chain, shaken: Poses3) -> Poses:
    return solve_chain(chain, *shaken, TERMS)


def a_walk(joints: int, instants: int, rng: np.random.Generator, noise: float) -> Poses3:
    """Turns and moves at a constant speed, and noise on both."""
    speed = rng.normal(0, 1.5, (joints, 3))
    start = matrix_from_axis_angle(rng.normal(0, 0.5, (joints, 3)))
    times = np.arange(instants)[:, None, None] / 30.0
    R = start @ matrix_from_axis_angle(times * speed + rng.normal(0, noise, (instants, joints, 3)))
    return R, times[:, 0] * rng.normal(0, 1, 3) + rng.normal(0, noise, (instants, 3))


def perturbed(poses: Poses3, step: NDArray[np.float64]) -> Poses3:
    """Poses after a step (T, 3J + 3): right perturbations, then translations."""
    T, J = poses[0].shape[:2]
    return poses[0] @ matrix_from_axis_angle(step[:, : 3 * J].reshape(T, J, 3)), poses[1] + step[:, 3 * J :]


def slope(
    cost_of: Callable[..., float], poses: Poses3, entries: list[tuple[int, int]], h: float = 1e-6
) -> NDArray[np.float64]:
    """Central differences of a cost by some entries (instant, parameter)."""
    T, J = poses[0].shape[:2]
    out = []
    for entry in entries:
        step = np.zeros((T, 3 * J + 3))
        step[entry] = h
        out.append((cost_of(*perturbed(poses, step)) - cost_of(*perturbed(poses, -step))) / (2 * h))
    return np.array(out)


def random_band(instants: int, size: int, reach: int, rng: np.random.Generator) -> Band:
    band = Band.zeros(instants, size, reach)
    band.diagonal[:] = np.eye(size)
    for t in range(instants):
        rows = [rng.normal(size=size) for _ in range(min(t, reach) + 1)]
        for a in range(len(rows)):
            for b in range(a, len(rows)):
                band.block(t - a, t - b)[:] += np.outer(rows[a], rows[b])
    return band


def test_a_band_is_solved_and_inverted_like_a_dense_matrix() -> None:
    rng = np.random.default_rng(0)
    band = random_band(8, 4, 3, rng)
    right = rng.normal(size=(8, 4))
    factor, dense = band_cholesky(band), band.dense()
    np.testing.assert_allclose(factor.solve(right).ravel(), np.linalg.solve(dense, right.ravel()), atol=1e-12)
    inverse = np.linalg.inv(dense).reshape(8, 4, 8, 4)
    np.testing.assert_allclose(factor.marginals(), [inverse[t, :, t] for t in range(8)], atol=1e-12)
    band.diagonal[3] = -np.eye(4)
    with pytest.raises(np.linalg.LinAlgError):
        band_cholesky(band)


def test_derivatives_of_accelerations() -> None:
    rng = np.random.default_rng(2)
    T, J = 6, 3
    poses = a_walk(J, T, rng, 0.02)
    times = np.array([0, 1, 2, 4, 5, 6]) / 30.0
    linked = linked_instants(times, 0.2)
    sigma = acceleration_sigmas(("pelvis", "left_knee", "jaw"))

    def cost(rotations: NDArray[np.float64], transl: NDArray[np.float64]) -> float:
        return float(smooth_terms(rotations, transl, times, linked, sigma)[0].sum())

    gradient = smooth_terms(*poses, times, linked, sigma)[1]
    entries = [(t, a) for t in range(T) for a in range(3 * J + 3)]
    np.testing.assert_allclose(slope(cost, poses, entries), gradient.ravel(), rtol=1e-4, atol=1e-4)


def test_stiffness_of_accelerations_at_a_constant_speed() -> None:
    """Where nothing accelerates, Gauss and Newton's Hessian is the Hessian."""
    T, J = 5, 2
    poses = a_walk(J, T, np.random.default_rng(3), 0.0)
    times, linked = np.arange(T) / 30.0, np.arange(T) > 0
    sigma = acceleration_sigmas(("pelvis", "neck"))
    band = Band.zeros(T, 3 * J + 3, REACH)
    cost, gradient = smooth_terms(*poses, times, linked, sigma, band)
    assert cost.sum() < 1e-12 and np.abs(gradient).max() < 1e-6
    size = T * (3 * J + 3)
    numeric = np.empty((size, size))
    for k in range(size):
        step = np.zeros(size)
        step[k] = 1e-6
        up, down = (
            smooth_terms(*perturbed(poses, s.reshape(T, -1)), times, linked, sigma)[1].ravel() for s in (step, -step)
        )
        numeric[:, k] = (up - down) / 2e-6
    np.testing.assert_allclose(band.dense(), numeric, atol=1e-3 * np.abs(numeric).max())


def test_gaps_in_time_cost_nothing_at_a_constant_speed() -> None:
    T = 8
    speed = np.array([[0.5, -1.0, 0.3]])
    times = np.array([0, 1, 2, 5, 6, 7, 20, 21]) / 30.0
    R = matrix_from_axis_angle(times[:, None, None] * speed)
    x = times[:, None] * np.array([0.2, 1.0, 0.0])
    linked = linked_instants(times, 0.2)
    assert linked.tolist() == [False, True, True, True, True, True, False, True]
    sigma = acceleration_sigmas(("pelvis",))
    assert smooth_terms(R, x, times, linked, sigma)[0].sum() < 1e-9
    # by the number of the frame instead of its time it would have been a jolt
    assert smooth_terms(R, x, np.arange(T) / 30.0, np.arange(T) > 0, sigma)[0].sum() > 1.0
    # and what happens across a long gap costs nothing
    R[6:] = R[6:] @ matrix_from_axis_angle(np.array([1.0, 0, 0]))
    assert smooth_terms(R, x, times, linked, sigma)[0].sum() < 1e-9


def test_only_instants_in_order_and_close_are_a_sequence() -> None:
    terms = SequenceConfig()
    assert is_sequence([0.0, 0.2, 0.4], terms)
    assert not is_sequence([0.0, 0.1], terms)
    assert not is_sequence([0.0, 1.0, 2.0, 3.0], terms)
    assert not is_sequence([0.2, 0.1, 0.0], terms)
    assert not is_sequence([0.0, 0.0, 0.0], terms)


def test_flicker_is_what_errs_anew() -> None:
    rng = np.random.default_rng(4)
    T, J = 200, 2
    R, x = a_walk(J, T, rng, 0.0)
    times, linked = np.arange(T) / 30.0, np.arange(T) > 0
    sd = np.full((T, 3 * J + 3), 0.01)
    noisy = perturbed((R, x), rng.normal(0, 0.004, (T, 3 * J + 3)))
    assert flicker(*noisy, times, linked, sd) == pytest.approx(0.4, abs=0.05)
    offset = perturbed((R, x), np.full((T, 3 * J + 3), 0.05))
    assert flicker(*offset, times, linked, sd) == LEAST_FLICKER
    assert flicker(*noisy, times, np.zeros(T, bool), sd) == USUAL_FLICKER


def test_soles_are_where_the_body_has_them(model: BodyModel, setup: FitSetup, mesh: Mesh, soles: Soles) -> None:
    rng = np.random.default_rng(5)
    pose, transl = rng.normal(0, 0.3, (model.num_joints, 3)), rng.normal(0, 1, 3)
    places, rows = sole_places(soles, matrix_from_axis_angle(pose)[None], transl[None])
    vertices, _ = model.forward(prior_shape(setup).mean, pose, transl)
    np.testing.assert_allclose(places[0], vertices[mesh.vertex_ids[mesh.floor_vertices]], atol=2e-5)
    poses = (matrix_from_axis_angle(pose)[None], transl[None])
    for point in (0, len(places[0]) - 1):
        for axis in range(3):
            entries = [(0, a) for a in range(rows.shape[-1])]

            def place(R: NDArray[np.float64], x: NDArray[np.float64], p: int = point, c: int = axis) -> float:
                return float(sole_places(soles, R, x, want_rows=False)[0][0, p, c])

            np.testing.assert_allclose(slope(place, poses, entries), rows[0, point, axis], atol=1e-7)


def test_derivatives_of_standing_feet(soles: Soles, truth: Poses3) -> None:
    rng = np.random.default_rng(6)
    T, J = 3, truth[0].shape[1]
    step = rng.normal(0, 0.003, (T, 3 * J + 3))
    poses = perturbed((truth[0][:T], truth[1][:T]), step)
    times = np.array([0, 1, 3]) / 30.0
    stands = np.zeros((T, len(soles.rest)))
    stands[1:] = rng.uniform(0, 1, (2, len(soles.rest)))
    band = Band.zeros(T, 3 * J + 3, REACH)
    cost, gradient = standing_terms(soles, *poses, times, stands, band)

    def total(R: NDArray[np.float64], x: NDArray[np.float64]) -> float:
        return float(standing_terms(soles, R, x, times, stands)[0].sum())

    assert cost[0] == 0 and (cost[1:] > 0).all()
    entries = [(t, a) for t in range(T) for a in (0, 1, 4, 5, 12, 22, 25, 3 * J, 3 * J + 2)]
    expected = np.array([gradient[e] for e in entries])
    np.testing.assert_allclose(slope(total, poses, entries), expected, rtol=1e-4, atol=1e-4)
    assert np.linalg.eigvalsh(band.dense()).min() > -1e-6 * np.abs(band.diagonal).max()


def test_only_low_and_slow_points_stand() -> None:
    times, linked = np.arange(6) / 30.0, np.arange(6) > 0
    places = np.zeros((6, 3, 3))
    places[:, 1, 0] = times * 1.0
    places[:, 2, 2] = 0.10
    floor = np.tile([0.0, 0, 1, 0], (6, 1))
    stands = judge_standing(places, times, linked, floor)
    assert (stands[1:, 0] == 1).all() and (stands[:, 1:] == 0).all() and (stands[0] == 0).all()
    assert not judge_standing(places, times, linked, np.zeros((6, 4))).any()


def acceleration(poses: Poses3 | Poses, mesh: Mesh) -> float:
    """Mean acceleration of the joints, m/s²."""
    from bodyfit.fit.retrace import joint_places

    R, x = poses if isinstance(poses, tuple) else (poses.rotations, poses.transl)
    places = joint_places(mesh, R, x)
    return float(np.linalg.norm(np.diff(places, 2, axis=0), axis=2).mean() * 900)


def off(poses: Poses3 | Poses, truth: Poses3, mesh: Mesh) -> float:
    """Mean distance of the joints from the truth's, metres."""
    from bodyfit.fit.retrace import joint_places

    R, x = poses if isinstance(poses, tuple) else (poses.rotations, poses.transl)
    return float(np.linalg.norm(joint_places(mesh, R, x) - joint_places(mesh, *truth), axis=2).mean())


def test_a_shaken_chain_calms_down(solved: Poses, chain: Chain, shaken: Poses3, truth: Poses3, mesh: Mesh) -> None:
    assert solved.reason in (StopReason.CONVERGED, StopReason.STEPS_USED) and solved.steps > 0
    assert off(solved, truth, mesh) < 0.5 * off(shaken, truth, mesh)
    assert acceleration(solved, mesh) < 0.1 * acceleration(shaken, mesh)
    alone = solve_chain(chain, *shaken, replace(TERMS, looseness=1e5, feet=False, retrace=False))
    assert acceleration(solved, mesh) < 0.7 * acceleration(alone, mesh)
    # what moves is still moving: the elbow goes as far as it does in truth
    elbow = mesh.joint_names.index("left_elbow")
    swing = [float(np.ptp(axis_angle_from_matrix(R[:, elbow]), axis=0).max()) for R in (solved.rotations, truth[0])]
    assert swing[0] == pytest.approx(swing[1], rel=0.3)
    # and an instant is known better among others than alone
    sd, sd_alone = (np.sqrt(np.diagonal(p.cov, axis1=1, axis2=2)) for p in (solved, alone))
    assert (np.median(sd, axis=1) < 0.9 * np.median(sd_alone, axis=1)).all()


def test_standing_feet_do_not_slide(solved: Poses, chain: Chain, shaken: Poses3, soles: Soles) -> None:
    def slide(poses: Poses) -> float:
        places, _ = sole_places(soles, poses.rotations, poses.transl, want_rows=False)
        return float(np.linalg.norm(np.diff(places, axis=0), axis=2).mean() * 30)

    free = solve_chain(chain, *shaken, replace(TERMS, feet=False))
    assert solved.stands[1:].mean() > 0.5 and not free.stands.any()
    assert slide(solved) < SIGMA_M_S and slide(solved) < slide(free)


def test_windows_leave_no_seam(solved: Poses, chain: Chain, shaken: Poses3, mesh: Mesh) -> None:
    pieces = solve_chain(chain, *shaken, replace(TERMS, window=3, ahead=3))
    assert np.abs(pieces.transl - solved.transl).max() < 0.004
    assert acceleration(pieces, mesh) < 2 * acceleration(solved, mesh)
    assert (np.diagonal(pieces.cov, axis1=1, axis2=2) > 0).all()


def test_a_limb_that_leaps_is_followed_again(chain: Chain, truth: Poses3, mesh: Mesh) -> None:
    arm = mesh.joint_names.index("left_shoulder")
    start = truth[0].copy()
    start[3:6, arm] = start[3:6, arm] @ matrix_from_axis_angle(np.array([0.0, 0.0, 2.2]))
    found = solve_chain(chain, start, truth[1], TERMS)
    assert off((start, truth[1]), truth, mesh) > 0.02
    assert off(found, truth, mesh) < 0.01


def test_the_same_again(solved: Poses, chain: Chain, shaken: Poses3) -> None:
    again = solve_chain(chain, *shaken, TERMS)
    assert np.array_equal(again.rotations, solved.rotations) and np.array_equal(again.cov, solved.cov)


def test_cancelled_before_it_begins(chain: Chain, shaken: Poses3) -> None:
    cov = np.full((FRAMES, 75, 75), 3.0)
    found = solve_chain(chain, *shaken, TERMS, cov=cov, cancelled=lambda: True)
    assert found.reason is StopReason.CANCELLED
    assert np.abs(found.rotations - shaken[0]).max() < 1e-9 and np.array_equal(found.cov, cov)


def test_a_recording_is_solved_together_once_it_moves(
    model: BodyModel, setup: FitSetup, shaken: Poses3, truth: Poses3, mesh: Mesh
) -> None:
    """After the joint fit, with its shape; and nothing of it where instants are far apart or it is switched off."""
    stage = replace(setup.config.refine[0], level=2, pixels=400, iterations=3, num_betas=4)
    quick = replace(setup, config=replace(setup.config, refine=(stage,), sequence=TERMS))
    prior, tight, n = prior_shape(setup), CLOTHING["tight"], 4
    poses = axis_angle_from_matrix(truth[0])
    observations = [seen(model, prior.mean, p, x) for p, x in zip(poses[:n], truth[1], strict=False)]
    instants = [Instant(t, t / 30.0, (replace(o, timestamp_s=t / 30.0),)) for t, o in enumerate(observations)]
    state = State(shaken[0][:n], shaken[1][:n], np.zeros((1, model.num_betas + len(GARMENTS))), np.zeros(n, np.int64))

    def say(_stage: str, _fraction: float) -> None:
        return

    start = refine(
        quick, tight, instants, state, prior, pose_prior(model.joint_names), [None] * n, [1.0] * n, say, None
    )  # fmt: skip
    found = together(quick, tight, instants, start, say, None)
    assert np.array_equal(found.shape, start.shape) and np.array_equal(found.shape_cov, start.shape_cov)
    assert acceleration((found.rotations, found.transl), mesh) < acceleration((start.rotations, start.transl), mesh)
    assert np.median(np.diagonal(found.pose_cov, axis1=1, axis2=2)) < np.median(
        np.diagonal(start.pose_cov, axis1=1, axis2=2)
    )
    off_switch = replace(quick, config=replace(quick.config, sequence=None))
    assert together(off_switch, tight, instants, start, say, None) is start

    def late(seconds: float) -> list[Instant]:
        return [
            replace(i, observations=(replace(i.observations[0], timestamp_s=i.timestamp_s + seconds),))
            for i in instants
        ]

    delayed = together(quick, tight, late(0.003), start, say, None)
    assert not np.array_equal(delayed.rotations, found.rotations)
    # sensors that are further out of step are left to the joint fit
    assert together(quick, tight, late(0.02), start, say, None) is start
    slow = [replace(i, timestamp_s=float(i.index)) for i in instants]
    assert together(quick, tight, slow, start, say, None) is start
    assert together(replace(quick, method="gradient, native"), tight, instants, start, say, None) is start
    with pytest.raises(InputError, match="start"):
        refine_sequence(quick, tight, instants[:2], start)


def test_covariances_of_neighbours() -> None:
    band = random_band(7, 3, 2, np.random.default_rng(8))
    dense = np.linalg.inv(band.dense()).reshape(7, 3, 7, 3)
    near = band_cholesky(band).inverse()
    for t in range(7):
        for s in range(max(0, t - 2), t + 1):
            np.testing.assert_allclose(near.block(t, s), dense[t, :, s], atol=1e-12)


def test_news_vary_as_the_poses_do() -> None:
    """Their variances are those of the dense inverse, and a step moves them as their derivatives say."""
    rng = np.random.default_rng(9)
    T, J, k = 8, 2, 2
    Q = 3 * J + 3
    times, linked = np.arange(T) / 30.0, np.arange(T) > 0
    news = news_of(*a_walk(J, T, rng, 0.02), times, linked)
    band = random_band(T - k, Q, REACH, rng)
    dense = np.zeros((T, Q, T, Q))
    dense[k:, :, k:] = np.linalg.inv(band.dense()).reshape(T - k, Q, T - k, Q)
    found = variances(news, band_cholesky(band).inverse(), k)
    rows = np.zeros((len(news.at), J + 1, 3, T, Q))
    for n, t in enumerate(news.at):
        for j in range(J + 1):
            for later in range(REACH + 1):
                if t + later - 2 >= 0:
                    rows[n, j, :, t + later - 2, 3 * j : 3 * j + 3] = news.blocks[later, n, j]
    np.testing.assert_allclose(found, np.einsum("njatp,tpsq,njasq->nja", rows, dense, rows), rtol=1e-9, atol=1e-9)
    step = rng.normal(0, 1, (T, Q))
    np.testing.assert_allclose(moved_news(news, step), np.einsum("njatp,tp->nja", rows, step), rtol=1e-9, atol=1e-9)


def test_scales_are_those_of_the_person() -> None:
    """One joint stands still, one is jerked about in the second half; both are seen with the same noise."""
    rng = np.random.default_rng(10)
    T, noise = 120, 0.01
    times, linked = np.arange(T) / 30.0, np.arange(T) > 0
    usual = np.array([8.0, 8.0, 1.0])
    angle = np.zeros((T, 2, 3))
    pushes = rng.normal(0, 40.0, (T, 3)) * (np.arange(T) >= T // 2)[:, None]
    angle[:, 1] = np.cumsum(np.cumsum(pushes, 0), 0) / 900.0
    seen_angles = angle + rng.normal(0, noise, angle.shape)
    place = rng.normal(0, 0.005, (T, 3))
    news = news_of(matrix_from_axis_angle(seen_angles), place, times, linked)
    band = Band.zeros(T, 9, REACH)
    # evidence that claims twice the errors which are new in each instant
    band.diagonal[:] = np.diag(np.repeat([1 / (2 * noise) ** 2, 1 / 0.01**2], (6, 3)))
    sigma = learnt_scales(news, usual, times, Evidence(band, np.zeros((T, 9)), 0, 0.5))[..., 0]
    calm, brisk = sigma[10 : T // 2 - 20], sigma[T // 2 + 10 : -10, 1]
    assert np.median(sigma[:, 0]) < 0.2 * usual[0] and np.median(calm[:, 1]) < 0.3 * usual[1]
    assert np.median(brisk) > 2 * usual[1] and sigma.max() <= MOST * usual.max() + 1e-9
    # of what nobody sees nothing is learnt
    blind = Band.zeros(T, 9, REACH)
    blind.diagonal[:] = 1e-6 * np.eye(9)
    still = news_of(np.tile(np.eye(3), (T, 2, 1, 1)), np.zeros((T, 3)), times, linked)
    unseen = learnt_scales(still, usual, times, Evidence(blind, np.zeros((T, 9)), 0, 1.0))[5:-5, :, 0]
    assert (unseen > 0.25 * usual).all() and (unseen < 2 * usual).all()
