"""Problems as a fit poses them, small or at full size, for comparing a device's solutions with the CPU's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from seen_body import camera_pose, on_the_floor, seen, standing

from bodyfit.body.model import BodyModel
from bodyfit.camera import Camera
from bodyfit.fit.collide import spheres_of
from bodyfit.fit.config import CLOTHING, FitConfig, Stage
from bodyfit.fit.device import DescendJob, SolveJob
from bodyfit.fit.follow import Pose, instant_problem, place_points
from bodyfit.fit.joint import FitSetup, garment_directions, held_body, joint_gaussian, prior_shape
from bodyfit.fit.learned_prior import learned_for
from bodyfit.fit.mesh import held_mesh, mesh_for
from bodyfit.fit.pose_prior import pose_prior
from bodyfit.fit.problem import Problem, State
from bodyfit.fit.view import View, make_view
from bodyfit.frame import Keypoints
from bodyfit.rotation import matrix_from_axis_angle

POSES = ("a_pose", "hands_on_hips", "arms_crossed", "mid_walk")


def view_of(
    model: BodyModel, pose: NDArray[np.float64], seed: int, pixels: int, camera: Camera, *, keypoints: bool = False
) -> tuple[View, NDArray[np.float64]]:
    """A noisy view of a body of some shape in a pose, and its translation."""
    rng = np.random.default_rng(seed)
    betas = np.zeros(model.num_betas)
    betas[:3] = rng.normal(0, 0.7, 3)
    transl = on_the_floor(model, betas, pose, 2.2 + 0.1 * (seed % 4))
    points = None
    if keypoints:
        T = camera_pose()
        _, joints = model.forward(betas, pose, transl)
        at = (joints - T[:3, 3]) @ T[:3, :3]
        xy = at[:, :2] / at[:, 2:] * (camera.fx, camera.fy) + (camera.cx, camera.cy)
        chosen = [list(model.joint_names).index(n) for n in ("left_wrist", "right_knee", "head")]
        points = Keypoints(("left_wrist", "right_knee", "head"), xy[chosen] + 2.0, np.array([1.0, 0.5, 0.8]))
    observation = seen(model, betas, pose, transl, camera=camera, keypoints=points)
    noise = rng.normal(0, 0.004, observation.depth.shape).astype(np.float32)
    return make_view(replace(observation, depth=observation.depth + noise), pixels), transl


def away_from(
    pose: NDArray[np.float64], transl: NDArray[np.float64], shapes: int, seed: int, count: int, spread: float = 0.03
) -> State:
    """States (count groups) some way from where a body is: joints turned by `spread` radians, standard deviation.

    From further off some pixels' choice between two limbs decides the way, and rounding decides some pixels' choice.
    """
    rng = np.random.default_rng(1000 + seed)
    R = matrix_from_axis_angle(np.repeat(pose[None], count, 0) + rng.normal(0, spread, (count, *pose.shape)))
    return State(
        R, transl + rng.normal(0, 0.4 * spread, (count, 3)), rng.normal(0, 0.2, (count, shapes)), np.arange(count)
    )


def start_job(
    model: BodyModel, camera: Camera, seed: int = 0, *, stage: Stage | None = None, count: int = 3, views: int = 1,
    keypoints: bool = False,
) -> SolveJob:  # fmt: skip
    """Some hypotheses of a cold start, all looking at the same views."""
    config = FitConfig(threads=1)
    stage = stage or config.settle[-1]
    prior = pose_prior(model.joint_names)
    shape = prior_shape(FitSetup(model, "neutral", "tight", config))
    pose = standing(model, POSES[seed % len(POSES)], seed, heading_deg=15.0 * seed)
    made = [view_of(model, pose, seed, stage.pixels, camera, keypoints=keypoints) for _ in range(views)]
    n = min(stage.num_betas, model.num_betas)
    items = np.array([(i, v) for i in range(count) for v in range(views)], np.int64)
    problem = Problem(
        mesh_for(model, stage.level, n, shape.mean), [v for v, _ in made], items, stage, config, prior,
        np.broadcast_to(prior.mean, (count, *prior.mean.shape)), shape.gaussian(n),
        CLOTHING["tight"].sigma_behind_m, learned_prior=learned_for(config, stage, model.joint_names),
        spheres=spheres_of(model, shape.mean) if stage.solid else None,
    )  # fmt: skip
    return SolveJob(problem, away_from(pose, made[0][1], n, seed, count))


def joint_job(model: BodyModel, camera: Camera, seed: int = 0, *, instants: int = 2, last: bool = True) -> SolveJob:
    """One shape with garments and several poses together, as a fit ends."""
    config = FitConfig(threads=1)
    stage = config.refine[-1] if last else config.refine[0]
    prior = pose_prior(model.joint_names)
    shape = prior_shape(FitSetup(model, "neutral", "tight", config))
    n = min(stage.num_betas, model.num_betas)
    mesh = mesh_for(model, stage.level, n, shape.mean, garment_directions(model, shape.mean))
    poses = [standing(model, POSES[k % len(POSES)], seed, heading_deg=90.0 * k) for k in range(instants)]
    made = [view_of(model, pose, seed, stage.pixels, camera) for pose in poses]
    problem = Problem(
        mesh, [v for v, _ in made], np.array([(i, i) for i in range(instants)], np.int64), stage, config, prior,
        np.broadcast_to(prior.mean, (instants, *prior.mean.shape)), joint_gaussian(shape, CLOTHING["tight"], n),
        CLOTHING["tight"].sigma_behind_m, learned_prior=learned_for(config, stage, model.joint_names),
        spheres=spheres_of(model, shape.mean),
    )  # fmt: skip
    near = [away_from(p, t, 1, seed, 1) for p, (_, t) in zip(poses, made, strict=True)]
    start = np.zeros((1, mesh.num_shape))
    start[0, n:] = 0.002
    return SolveJob(
        problem,
        State(
            np.concatenate([s.rotations for s in near]), np.concatenate([s.transl for s in near]), start,
            np.zeros(instants, np.int64),
        ),
    )  # fmt: skip


def follow_job(model: BodyModel, camera: Camera, seed: int = 0, *, level: int = 2, pixels: int = 900) -> DescendJob:
    """One frame of a person who is followed, the shape held; everyone has a body of their own."""
    config = FitConfig(threads=1)
    stage = replace(config.refine[0], name="follow", level=level, pixels=pixels)
    setup = FitSetup(model, "neutral", "tight", config)
    shape = np.zeros(model.num_betas + 4)
    shape[:3] = np.random.default_rng(seed).normal(0, 0.5, 3)
    pose = standing(model, POSES[seed % len(POSES)], seed, heading_deg=10.0 * seed)
    view, transl = view_of(model, pose, seed, pixels, camera)
    state = away_from(0.8 * pose, transl, 1, seed, 1)
    state = State(matrix_from_axis_angle(pose[None]), state.transl, np.zeros((1, 1)), state.group)
    expected = Pose(state.rotations[0], state.transl[0])
    problem = instant_problem(
        held_body(setup, level, shape), [view], stage, config, pose_prior(model.joint_names), 0.01,
        expected=expected if seed % 2 else None, sigma_turn_rad=0.12, sigma_move_m=0.05,
        spheres=spheres_of(model, prior_shape(setup).mean),
    )  # fmt: skip
    return DescendJob(problem, state, 4, 1e-3, 2e-4)


def bodies_mm(problem: Problem, state: State) -> NDArray[np.float64]:
    """(N, V, 3) millimetres: the bodies of a state."""
    out = []
    for n, group in enumerate(state.group):
        mesh = held_mesh(problem.mesh, state.shape[group])
        points = np.empty_like(mesh.template)
        place_points(mesh, Pose(state.rotations[n], state.transl[n]), np.eye(3), np.zeros(3), points)
        out.append(1e3 * points.astype(np.float64))
    return np.stack(out)
