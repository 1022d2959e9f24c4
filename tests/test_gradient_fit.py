"""The first-order fit: the same terms as Levenberg-Marquardt, whatever renders; starts disturbed, ends on the body."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from seen_body import on_the_floor, seen, standing

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.cli.main import app
from bodyfit.errors import InputError, MissingExtraError
from bodyfit.fit.config import CLOTHING, FitConfig, Stage
from bodyfit.fit.fit import fit
from bodyfit.fit.gradient import GradientSolver
from bodyfit.fit.mesh import mesh_for
from bodyfit.fit.pose_prior import pose_prior
from bodyfit.fit.problem import Problem, ShapeGaussian, State
from bodyfit.fit.quality import agreement
from bodyfit.fit.solver import StopReason
from bodyfit.fit.torch_body import TorchMesh, turned
from bodyfit.fit.view import make_view
from bodyfit.observe.observation import Observation
from bodyfit.render.backends import make_renderer
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle

NUM_BETAS = 12


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(scope="module")
def scene(model: BodyModel) -> tuple[NDArray[np.float64], NDArray[np.float64], Observation]:
    """A standing body's pose and place, and what a sensor saw of it."""
    pose = standing(model, "a_pose")
    transl = on_the_floor(model, model.priors["neutral"].mean, pose)
    return pose, transl, seen(model, model.priors["neutral"].mean, pose, transl)


def problem(model: BodyModel, observation: Observation, level: int, pixels: int, steps: int) -> Problem:
    prior = pose_prior(model.joint_names)
    shape = model.priors["neutral"]
    precision = np.asarray(np.linalg.inv(shape.cov[:NUM_BETAS, :NUM_BETAS]), np.float64)
    gaussian = ShapeGaussian(np.zeros(NUM_BETAS), precision)
    return Problem(
        mesh_for(model, level, NUM_BETAS, shape.mean), [make_view(observation, pixels)], np.array([[0, 0]]),
        Stage("test", level, pixels, steps, NUM_BETAS, 0.06, 0.12), FitConfig(), prior, prior.mean[None], gaussian,
        CLOTHING["tight"].sigma_behind_m,
    )  # fmt: skip


def disturbed(pose: NDArray[np.float64], transl: NDArray[np.float64]) -> State:
    """5 cm off, and every joint turned by 8 degrees."""
    rng = np.random.default_rng(0)
    axis = rng.normal(size=pose.shape)
    axis *= np.radians(8) / np.linalg.norm(axis, axis=1, keepdims=True)
    away = rng.normal(size=3)
    away *= 0.05 / np.linalg.norm(away)
    R = matrix_from_axis_angle(pose) @ matrix_from_axis_angle(axis)
    return State(R[None], (transl + away)[None], np.zeros((1, NUM_BETAS)), np.zeros(1, np.int64))


def depth_error_m(model: BodyModel, state: State, observation: Observation) -> float:
    """Mean distance along the normal, over the pixels that body and person share."""
    betas = model.priors["neutral"].mean.copy()
    betas[:NUM_BETAS] += state.shape[0]
    vertices, _ = model.forward(betas, axis_angle_from_matrix(state.rotations[0]), state.transl[0])
    return float(np.abs(agreement(model, vertices, observation).residuals).mean())


def test_torch_poses_the_body_as_the_kernels_do(model: BodyModel) -> None:
    rng = np.random.default_rng(1)
    pose, transl = rng.normal(0, 0.4, (model.num_joints, 3)), rng.normal(0, 1, 3)
    shape = rng.normal(0, 1, NUM_BETAS)
    mean = model.priors["neutral"].mean
    mesh = mesh_for(model, 2, NUM_BETAS, mean)
    betas = mean.copy()
    betas[:NUM_BETAS] += shape
    R = torch.tensor(matrix_from_axis_angle(pose), dtype=torch.float32)
    got = TorchMesh(mesh).vertices(R, *(torch.tensor(x, dtype=torch.float32) for x in (transl, shape)))
    expected = model.forward(betas, pose, transl)[0][mesh.vertex_ids]
    assert np.abs(got.numpy() - expected).max() < 5e-6


def test_small_turns_have_the_derivative_of_the_exponential() -> None:
    rng = np.random.default_rng(2)
    R = matrix_from_axis_angle(rng.normal(0, 1, (1, 4, 3)))
    d = rng.normal(0, 1, (1, 4, 3))
    h = 1e-6
    expected = (R @ matrix_from_axis_angle(h * d) - R @ matrix_from_axis_angle(-h * d)) / (2 * h)
    got = turned(torch.tensor(R), torch.tensor(d)) - turned(torch.tensor(R), torch.zeros(1, 4, 3, dtype=torch.float64))
    assert np.abs(got.numpy() - expected).max() < 1e-8


def test_its_cost_is_that_of_levenberg_marquardt(model: BodyModel, scene: tuple[Any, Any, Observation]) -> None:
    pose, transl, observation = scene
    asked = problem(model, observation, 1, 1000, 1)
    costs: list[float] = []
    solver = GradientSolver(make_renderer("native"), watch=lambda _step, cost: costs.append(cost))
    for state in (disturbed(pose, transl), State(matrix_from_axis_angle(pose)[None], transl[None],
                  np.zeros((1, NUM_BETAS)), np.zeros(1, np.int64))):  # fmt: skip
        solver(asked, state)
        assert costs[-1] == pytest.approx(float(asked.linearize(state).cost[0]), rel=0.02)


@pytest.mark.parametrize(("renderer", "level", "pixels", "steps"), [
    ("native", 2, 600, 70),
    pytest.param("mitsuba", 2, 250, 50, marks=pytest.mark.slow),
])  # fmt: skip
def test_it_finds_a_disturbed_body(
    renderer: str, level: int, pixels: int, steps: int, model: BodyModel, scene: tuple[Any, Any, Observation]
) -> None:
    if renderer == "mitsuba":
        pytest.importorskip("mitsuba")
    pose, transl, observation = scene
    start = disturbed(pose, transl)
    assert depth_error_m(model, start, observation) > 0.010
    asked = problem(model, observation, level, pixels, steps)
    found = GradientSolver(make_renderer(renderer))(asked, start)
    assert depth_error_m(model, found.state, observation) < 0.005
    assert found.cost[0] < 0.1 * asked.linearize(start).cost[0]
    assert found.steps[0] == steps and found.reasons[0] in (StopReason.STEPS_USED, StopReason.CONVERGED)


def test_it_stops_when_asked(model: BodyModel, scene: tuple[Any, Any, Observation]) -> None:
    pose, transl, observation = scene
    asked = problem(model, observation, 2, 200, 30)
    found = GradientSolver(make_renderer("native"))(asked, disturbed(pose, transl), cancelled=lambda: True)
    assert found.reasons == [StopReason.CANCELLED] and found.steps[0] == 0


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="solver"):
        fit(tmp_path, solver="newton")
    with pytest.raises(InputError, match="renderer"):
        fit(tmp_path, solver="gradient", renderer="crayons")
    with pytest.raises(InputError, match=r"renderer.*native with the solver lm"):
        fit(tmp_path, renderer="mitsuba")
    asked = ["fit", str(tmp_path), "-o", str(tmp_path / "o")]
    assert app([*asked, "--solver", "newton"]) == 2
    assert app([*asked, "--renderer", "mitsuba"]) == 2


@pytest.mark.skipif(find_spec("pyredner") is not None, reason="redner is installed")
def test_redner_is_refused_where_it_is_not_installed() -> None:
    with pytest.raises(MissingExtraError, match=r"pyredner, which is not installed: build redner 0\.4\.28"):
        make_renderer("redner")


@pytest.mark.skipif(find_spec("mitsuba") is not None, reason="mitsuba is installed")
def test_mitsuba_is_refused_where_it_is_not_installed() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'bodyfit\[mitsuba\]'"):
        make_renderer("mitsuba")


def test_the_stages_are_the_gradients_own_unless_others_are_asked_for() -> None:
    from bodyfit.fit.fit import with_gradient
    from bodyfit.fit.gradient import GRADIENT_STAGES
    from bodyfit.fit.joint import FitSetup

    model = load_body_model()
    usual = with_gradient(FitSetup(model, "neutral", "tight", FitConfig()), "native")
    assert usual.config.refine == GRADIENT_STAGES["native"] and usual.method == "gradient, native"
    mine = (replace(GRADIENT_STAGES["native"][0], iterations=3),)
    asked = with_gradient(FitSetup(model, "neutral", "tight", FitConfig(refine=mine)), "native")
    assert asked.config.refine == mine
