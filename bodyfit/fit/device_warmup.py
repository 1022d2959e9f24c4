"""The first jobs of a device: they compile its kernels, and show that it computes what the CPU computes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.errors import DeviceError
from bodyfit.fit.config import CLOTHING, FitConfig, Stage
from bodyfit.fit.device import Backend, CpuBackend, DescendJob, SolveJob
from bodyfit.fit.follow import Pose, instant_problem
from bodyfit.fit.initialize import root_frame
from bodyfit.fit.joint import FitSetup, held_body, prior_shape, spheres_for
from bodyfit.fit.learned_prior import learned_for
from bodyfit.fit.mesh import Mesh, mesh_for
from bodyfit.fit.pose_prior import pose_prior
from bodyfit.fit.problem import Problem, Scratch, State
from bodyfit.fit.view import View
from bodyfit.kernels import evidence as E
from bodyfit.kernels.nearest import nearest_marked
from bodyfit.kernels.scalar_evidence import PERSON
from bodyfit.rotation import matrix_from_axis_angle

AWAY_M = 2.4
INTRINSICS = np.array([63.0, 63.0, 39.5, 35.5], np.float32)
SIZE = (72, 80)
SAME_M = 1e-3
"""so far a body may be from the CPU's: a device that computes something else is further off"""


def warm_up(backend: Backend) -> None:
    """Has a backend solve and follow a body that is seen as it is, in two batches of two.

    Raises:
        DeviceError: it does not end where the CPU ends.
    """
    model = load_body_model()
    for kind in ("solve", "descend"):
        jobs = [_solve_job(model, k) if kind == "solve" else _follow_job(model, k) for k in range(2)]
        # twice: what comes again is recorded
        for given in (jobs, jobs):
            found = getattr(backend, kind)(given)
        expected = getattr(CpuBackend(), kind)(jobs)
        apart = max(float(np.abs(a.state.transl - b.state.transl).max()) for a, b in zip(found, expected, strict=True))
        if not apart < SAME_M:
            raise DeviceError("device", "the place of a body where the CPU finds it", f"{1e3 * apart:.1f} mm beside it")


@lru_cache(maxsize=2)
def _seen(model: BodyModel) -> tuple[View, Pose]:
    """A view of the usual body, which looks at the camera, and its pose."""
    config = FitConfig(threads=1)
    mesh = mesh_for(model, 2, 1, prior_shape(FitSetup(model, "neutral", "tight", config)).mean)
    pose = Pose(np.tile(np.eye(3), (model.num_joints, 1, 1)), np.zeros(3))
    pose.rotations[0] = root_frame(np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, -1.0]), 0.0)
    low = float(mesh.template[:, 1].min())
    pose.transl[:] = (0.0, 0.9 + low, AWAY_M)
    blank = np.zeros(SIZE, np.float32)
    empty = View(
        blank, np.zeros(SIZE, np.uint8), np.full(SIZE, -1, np.int32), INTRINSICS, np.eye(3), np.zeros(3), np.zeros(4),
        1, 0.0, 1.0, 1, (0, 0),
    )  # fmt: skip
    scratch, state = Scratch(mesh), _state(pose, 1, 0.0)
    problem = _problem(model, mesh, empty, config.settle[-1], config)
    problem.view_equations(
        state, 0, empty, scratch, np.empty((1, 1)), np.empty(1), np.empty(E.NUM_STATS), want_rows=False
    )
    drawn, face, _ = scratch.of(empty)
    label = np.where(face >= 0, np.uint8(PERSON), np.uint8(0))
    near = np.where(face >= 0, np.arange(face.size, dtype=np.int32).reshape(face.shape), np.int32(-1))
    nearest_marked(near)
    persons = int(label.sum())
    depth = np.where(face >= 0, drawn, np.float32(4.0)).astype(np.float32)
    return replace(
        empty, depth=depth, label=label, near_person=near, num_person=persons, independent_pixels=float(persons)
    ), pose  # fmt: skip


def _state(pose: Pose, shapes: int, off_m: float, turn_rad: float = 0.0) -> State:
    turns = np.zeros((1, len(pose.rotations), 3))
    turns[:, 1:, 2] = turn_rad
    return State(
        pose.rotations[None] @ matrix_from_axis_angle(turns), pose.transl[None] + np.array([off_m, 0.0, off_m]),
        np.zeros((1, shapes)), np.zeros(1, np.int64),
    )  # fmt: skip


def _problem(model: BodyModel, mesh: Mesh, view: View, stage: Stage, config: FitConfig) -> Problem:
    setup, prior = FitSetup(model, "neutral", "tight", config), pose_prior(model.joint_names)
    mean: NDArray[np.float64] = prior.mean[None]
    return Problem(
        mesh, [view], np.zeros((1, 2), np.int64), stage, config, prior, mean,
        prior_shape(setup).gaussian(mesh.num_shape), CLOTHING["tight"].sigma_behind_m,
        learned_prior=learned_for(config, stage, model.joint_names), spheres=spheres_for(setup, stage),
    )  # fmt: skip


def _solve_job(model: BodyModel, number: int) -> SolveJob:
    config = FitConfig(threads=1)
    stage = config.settle[-1]
    n = min(stage.num_betas, model.num_betas)
    mesh = mesh_for(model, stage.level, n, prior_shape(FitSetup(model, "neutral", "tight", config)).mean)
    view, pose = _seen(model)
    return SolveJob(_problem(model, mesh, view, stage, config), _state(pose, n, 0.01 * (number + 1), 0.02), 3)


def _follow_job(model: BodyModel, number: int) -> DescendJob:
    config = FitConfig(threads=1)
    setup, stage = FitSetup(model, "neutral", "tight", config), config.refine[0]
    view, pose = _seen(model)
    expected = Pose(pose.rotations, pose.transl + 0.005)
    problem = instant_problem(
        held_body(setup, stage.level, np.zeros(model.num_betas + 4)), [view], stage, config,
        pose_prior(model.joint_names), 0.01, expected=expected, sigma_turn_rad=0.12, sigma_move_m=0.05,
        spheres=spheres_for(setup, stage),
    )  # fmt: skip
    return DescendJob(problem, _state(pose, 1, 0.01 * (number + 1), 0.02), 3)
