"""One instant fitted from where the last one ended: views of the expected body, a few steps, and how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.collide import Spheres
from bodyfit.fit.config import FitConfig, Stage
from bodyfit.fit.device import DescendJob, Descent
from bodyfit.fit.learned_prior import learned_for
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.photometric import ColorTerm
from bodyfit.fit.pose_prior import PosePrior, log_rotation
from bodyfit.fit.problem import HELD, Linearization, Problem, Scratch, State
from bodyfit.fit.solver import StopReason, moved
from bodyfit.fit.view import MARGIN_M, View
from bodyfit.frame import Frame
from bodyfit.kernels import evidence as E
from bodyfit.observe.follow import FollowedView, Follower, Grid, grid_around
from bodyfit.rotation import nearest_rotation


@dataclass
class Pose:
    """rotations (J, 3, 3) and transl (3,) of one body."""

    rotations: NDArray[np.float64]
    transl: NDArray[np.float64]


@dataclass
class Expected(Problem):
    """A problem of one instant that also says how far a body gets from where it was expected to be."""

    expected: Pose | None = None
    sigma_turn_rad: float = 0.12
    sigma_move_m: float = 0.05

    def _add_priors(self, state: State, on: NDArray[np.bool_], out: Linearization, *, want_rows: bool = True) -> None:
        super()._add_priors(state, on, out, want_rows=want_rows)
        if self.expected is None:
            return
        theta, D = log_rotation(np.swapaxes(self.expected.rotations, -1, -2) @ state.rotations[0])
        w = 1.0 / self.sigma_turn_rad**2
        joints = len(theta)
        shift = state.transl[0] - self.expected.transl
        cost = 0.5 * w * float((theta * theta).sum()) + 0.5 * float(shift @ shift) / self.sigma_move_m**2
        out.instant_cost[0] += cost
        out.cost[0] += cost
        if not want_rows:
            return
        out.pose_gradient[0, : 3 * joints] += w * (theta[:, None] @ D).ravel()
        blocks = out.A[0, : 3 * joints, : 3 * joints].reshape(joints, 3, joints, 3)
        each = np.arange(joints)
        blocks[each, :, each, :] += w * (np.swapaxes(D, 1, 2) @ D)
        i = np.arange(3 * joints, 3 * joints + 3)
        out.pose_gradient[0, i] += shift / self.sigma_move_m**2
        out.A[0, i, i] += 1.0 / self.sigma_move_m**2


@dataclass(frozen=True)
class Seen:
    """A sensor's view of an instant and what was counted in it."""

    view: View
    followed: FollowedView


@dataclass(frozen=True)
class Followed:
    """Where the steps ended: the pose, its normal equations, and the statistics of the last evaluation."""

    pose: Pose
    equations: Linearization
    gap_m: float
    """mean distance of the readings from the body"""
    overlap: float
    """share of the pixels of person and body that both have"""
    covered: float
    """share of the person's pixels that the body covers"""
    evaluations: int
    reason: StopReason
    views: tuple[View, ...]
    held: NDArray[np.float64]
    """(Q,) how much of the equations says only where the body was expected: the diagonal, which is all of it"""

    @property
    def fits(self) -> tuple[float, float]:
        """Gap and overlap: how well the body explains the frame."""
        return self.gap_m, self.overlap

    def settled(self) -> Pose:
        """The pose with exact rotations."""
        return Pose(nearest_rotation(self.pose.rotations), self.pose.transl)


@dataclass
class Looker:
    """Draws an expected body and cuts a frame to it."""

    _scratch: dict[int, Scratch] = field(default_factory=dict)

    def look(
        self, mesh: Mesh, pose: Pose, frame: Frame, follower: Follower, stride: int, noise_m: float, reach_m: float
    ) -> Seen | None:
        """What a sensor sees of a body expected at a pose; None where it is not in the picture."""
        scratch = self._scratch.get(len(mesh.template))
        if scratch is None:
            scratch = self._scratch[len(mesh.template)] = Scratch(mesh)
        T = frame.T_world_depth
        R_cw = np.ascontiguousarray(T[:3, :3].T)
        t_cw = -R_cw @ T[:3, 3]
        place_points(mesh, pose, R_cw, t_cw, scratch.points)
        grid = grid_around(scratch.points, follower.camera, stride, max(MARGIN_M, reach_m))
        if grid is None:
            return None
        drawn, face, near = scratch.of_size((grid.height, grid.width))
        E.draw_body(scratch.points, mesh.faces, grid.intrinsics(follower.camera), drawn, face, near)
        followed = follower.label(frame, grid, drawn, near, reach_m)
        return Seen(make_grid_view(followed, grid, follower, R_cw, t_cw, noise_m), followed)


def place_points(
    mesh: Mesh, pose: Pose, R_cw: NDArray[np.float64], t_cw: NDArray[np.float64], points: NDArray[np.float32]
) -> None:
    """Fills points (V, 3): the mesh's template, posed, in a camera."""
    from bodyfit.kernels.body import joint_motions, skin

    joints = mesh.joint_template
    G, posed = np.empty((len(joints), 3, 3)), np.empty((len(joints), 3))
    joint_motions(pose.rotations, joints, mesh.parents, R_cw, t_cw, pose.transl, G, posed)
    skin(mesh.template, mesh.weight_joints, mesh.weights, G, posed, joints, points)


def posed_joints(mesh: Mesh, rotations: NDArray[np.float64], transl: NDArray[np.float64]) -> NDArray[np.float64]:
    """(J, 3) joints in the world of the mesh's body in a pose: rotations (J, 3, 3), transl (3,)."""
    from bodyfit.kernels.body import joint_motions

    G, posed = np.empty_like(rotations), np.empty((len(rotations), 3))
    joint_motions(rotations, mesh.joint_template, mesh.parents, np.eye(3), np.zeros(3), transl, G, posed)
    return posed


def make_grid_view(
    followed: FollowedView, grid: Grid, follower: Follower, R_cw: NDArray[np.float64], t_cw: NDArray[np.float64],
    noise_m: float,
) -> View:  # fmt: skip
    """A followed grid as the solver takes it."""
    from bodyfit.kernels.nearest import nearest_marked

    label = followed.label
    near = np.where(label == 1, np.arange(label.size, dtype=np.int32).reshape(label.shape), np.int32(-1))
    near = np.ascontiguousarray(near, np.int32)
    nearest_marked(near)
    noise, plane = follower.noise, follower.floor_plane_world
    return View(
        depth=followed.depth,
        label=label,
        near_person=near,
        intrinsics=grid.intrinsics(follower.camera),
        R_cw=R_cw,
        t_cw=t_cw,
        floor_plane=np.zeros(4) if plane is None else np.asarray(plane, np.float64),
        num_person=followed.person,
        noise_m=noise_m,
        independent_pixels=followed.person * grid.stride**2 / (1.0 if noise is None else noise.area_px),
        stride=grid.stride,
        origin=(grid.row0, grid.col0),
        noise_is_smooth=noise is not None and noise.stereo,
    )


def instant_problem(
    mesh: Mesh,
    views: Sequence[View],
    stage: Stage,
    config: FitConfig,
    prior: PosePrior,
    sigma_behind_m: float,
    *,
    expected: Pose | None,
    sigma_turn_rad: float,
    sigma_move_m: float,
    colors: Sequence[ColorTerm] = (),
    spheres: Spheres | None = None,
) -> Expected:
    """What is minimised for one instant, the shape held."""
    items = np.array([(0, v) for v in range(len(views))], np.int64)
    return Expected(
        mesh, views, items, stage, config, prior, prior.mean[None], HELD, sigma_behind_m,
        expected=expected, sigma_turn_rad=sigma_turn_rad, sigma_move_m=sigma_move_m,
        colors=[(0, term) for term in colors], learned_prior=learned_for(config, stage, mesh.joint_names),
        spheres=spheres,
    )  # fmt: skip


def descend(
    mesh: Mesh,
    views: Sequence[View],
    start: Pose,
    stage: Stage,
    config: FitConfig,
    prior: PosePrior,
    sigma_behind_m: float,
    *,
    evaluations: int,
    expected: Pose | None,
    sigma_turn_rad: float = 0.12,
    sigma_move_m: float = 0.05,
    still_rad: float = 0.0,
    still_m: float = 0.0,
    colors: Sequence[ColorTerm] = (),
    spheres: Spheres | None = None,
) -> Followed:
    """Levenberg-Marquardt on the pose alone, at most `evaluations` times the normal equations.

    A step that hardly moves the body is taken without looking again, and is the last.
    """
    problem = instant_problem(
        mesh, views, stage, config, prior, sigma_behind_m, expected=expected, sigma_turn_rad=sigma_turn_rad,
        sigma_move_m=sigma_move_m, colors=colors, spheres=spheres,
    )  # fmt: skip
    state = State(start.rotations[None], start.transl[None], np.zeros((1, 1)), np.zeros(1, np.int64))
    job, device = DescendJob(problem, state, evaluations, still_rad, still_m), config.solver
    end = device.descend(job) if device is not None and device.takes(problem) else descend_here(job)
    pose = Pose(end.state.rotations[0], end.state.transl[0])
    held = np.repeat([sigma_turn_rad**-2, sigma_move_m**-2], [3 * len(pose.rotations), 3])
    return Followed(
        pose, end.equations, *agreement_of(end.equations), end.evaluations, end.reason, tuple(views),
        held if expected is not None else np.zeros_like(held),
    )  # fmt: skip


def descend_here(job: DescendJob) -> Descent:
    """Levenberg-Marquardt on one instant's pose, on the CPU."""
    problem, state = job.problem, job.state
    eq = problem.linearize_here(state)
    lam, growth, used = problem.stage.damping, 4.0, 1
    reason = StopReason.CONVERGED
    joints = state.rotations.shape[1]
    while True:
        A = eq.A[0].copy()
        i = np.arange(len(A))
        A[i, i] += lam * A[i, i] + 1e-9 * (1 + A[i, i].max())
        step = -np.linalg.solve(A, eq.pose_gradient[0])
        candidate = moved(state, step[None], np.zeros((1, 1)), problem.stage.max_turn_rad)
        turn = float(np.abs(step[: 3 * joints]).max())
        if turn < job.still_rad and float(np.abs(step[3 * joints :]).max()) < job.still_m:
            state = candidate
            break
        if used >= job.evaluations:
            reason = StopReason.STEPS_USED
            if used == 1:
                state = candidate
            break
        trial = problem.linearize_here(candidate)
        used += 1
        if trial.cost[0] < eq.cost[0]:
            small = eq.cost[0] - trial.cost[0] < 2e-3 * eq.cost[0]
            state, eq, lam, growth = candidate, trial, max(lam * 0.3, 1e-7), 4.0
            if small:
                break
        elif np.isfinite(trial.cost[0]) and trial.cost[0] < 1.02 * eq.cost[0]:
            break  # pixels changed the part they are compared with: neither is better
        else:
            lam, growth = lam * growth, 2 * growth
    return Descent(state, eq, used, reason)


def agreement_of(eq: Linearization) -> tuple[float, float, float]:
    """Mean gap (metres), overlap and covered share of a linearisation, over all views (see `Followed`)."""
    s = eq.stats.sum(0)
    both = s[E.NUM_BOTH]
    if not both:
        return float("inf"), 0.0, 0.0
    every = both + s[E.NUM_SPILLED] + s[E.NUM_BARE]
    return float(s[E.SUM_GAP] / both), float(both / every), float(both / (both + s[E.NUM_BARE]))
