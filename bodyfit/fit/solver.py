"""Levenberg-Marquardt on a batch of groups, each with its own damping; the shape by the Schur complement.

Marquardt's diagonal scaling and Nielsen's rule of thumb, in the simple form that the prototypes settled on (damping
times 0.3 on a good step, times a growing factor on a bad one).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.device import SolveJob
from bodyfit.fit.problem import Linearization, Problem, State
from bodyfit.rotation import matrix_from_axis_angle, nearest_rotation
from bodyfit.watch import checkpoint

SMALL_GAIN = 2e-4
WORST_DAMPING = 1e3
MEMORY = 3
"""a step is held against the worst of this many last costs"""
PATIENCE = 3
"""a group stops after this many taken steps in a row that do not lower its best cost"""


class StopReason(Enum):
    """Why the optimiser stopped; the value is the message."""

    CONVERGED = "the cost no longer falls"
    STEPS_USED = "all steps were used before the cost stood still"
    STUCK = "no damping gave a step that lowers the cost"
    CANCELLED = "stopped on request"
    NO_EVIDENCE = "nothing of the person was left to compare with"


@dataclass
class Solution:
    """The best state, its normal equations, and for each group cost, steps taken and why it stopped."""

    state: State
    equations: Linearization
    cost: NDArray[np.float64]
    steps: NDArray[np.int64]
    reasons: list[StopReason]


class Refiner(Protocol):
    """Takes a state to a better one: `solve` here, or `bodyfit.fit.gradient.GradientSolver`."""

    def __call__(self, problem: Problem, state: State, *, cancelled: Callable[[], bool] | None = None) -> Solution:
        """The best state found, and why it stopped there."""
        ...


def step_of(
    eq: Linearization, state: State, damping: NDArray[np.float64], shape_damping: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Damped Gauss-Newton step: of the poses (N, Q) and of the shapes (G, S), each with its own damping (N,), (G,)."""
    group = state.group
    lam = damping[:, None]
    A = eq.A.copy()
    Q, S = A.shape[1], eq.C.shape[1]
    i = np.arange(Q)
    diagonal = A[:, i, i]
    A[:, i, i] += lam * diagonal + 1e-9 * (1.0 + diagonal.max(1, keepdims=True))
    X = np.linalg.solve(A, np.concatenate([eq.B, eq.pose_gradient[:, :, None]], 2))
    C = eq.C.copy()
    s = np.arange(S)
    C[:, s, s] += shape_damping[:, None] * C[:, s, s] + 1e-9
    right = eq.shape_gradient.copy()
    reduced = np.swapaxes(eq.B, 1, 2) @ X
    np.subtract.at(C, group, reduced[:, :, :S])
    np.subtract.at(right, group, reduced[:, :, S])
    shape_step = -np.linalg.solve(C, right[:, :, None])[:, :, 0]
    pose_step = -X[:, :, S] - (X[:, :, :S] @ shape_step[group][:, :, None])[:, :, 0]
    return np.asarray(pose_step, np.float64), np.asarray(shape_step, np.float64)


def moved(state: State, pose_step: NDArray[np.float64], shape_step: NDArray[np.float64], max_turn: float) -> State:
    """The state after a step. A joint turns by at most `max_turn`: a limb that nothing sees is held by the prior alone
    and would otherwise leap to where it then sticks out; the joints that are seen keep their full step."""
    n, n_joints = state.rotations.shape[:2]
    turns = pose_step[:, : 3 * n_joints].reshape(n, n_joints, 3)
    angle = np.linalg.norm(turns, axis=2, keepdims=True)
    turns = turns * np.minimum(1.0, max_turn / np.maximum(angle, 1e-9))
    return State(
        state.rotations @ matrix_from_axis_angle(turns),
        state.transl + pose_step[:, 3 * n_joints :],
        state.shape + shape_step,
        state.group,
    )


def solve(
    problem: Problem,
    state: State,
    *,
    iterations: int | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Solution:
    """Minimises every group's cost from a state; a group stops alone and then costs nothing."""
    device = problem.config.solver
    if device is not None and device.takes(problem):
        checkpoint()
        solution = device.solve(SolveJob(problem, state, iterations, cancelled))
        checkpoint(float(solution.cost.min()))
        return solution
    return solve_here(problem, state, iterations=iterations, cancelled=cancelled)


def solve_here(
    problem: Problem,
    state: State,
    *,
    iterations: int | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Solution:
    """As `solve`, on the CPU whatever the configuration says."""
    n_groups = len(state.shape)
    damping = np.full(len(state.group), problem.stage.damping)
    growth = np.full(len(state.group), 4.0)
    shape_damping = np.full(n_groups, problem.stage.damping)
    active = np.ones(n_groups, bool)
    steps = np.zeros(n_groups, np.int64)
    reasons = [StopReason.STEPS_USED] * n_groups
    idle = np.zeros(n_groups, np.int64)
    now, eq = state, problem.linearize_here(state)
    cost = eq.cost.copy()
    best, best_eq, best_cost = now, eq, cost.copy()
    recent = np.tile(cost, (MEMORY, 1))
    for k in range(problem.stage.iterations if iterations is None else iterations):
        if cancelled is not None and cancelled():
            reasons = [StopReason.CANCELLED if a else r for a, r in zip(active, reasons, strict=True)]
            break
        if not active.any():
            break
        live = active[now.group]
        pose_step, shape_step = np.zeros(eq.pose_gradient.shape), np.zeros(now.shape.shape)
        pose_step[live], shape_step[active] = _step_of_active(eq, now, damping, shape_damping, active, live)
        candidate = moved(now, pose_step, shape_step, problem.stage.max_turn_rad)
        trial = problem.linearize_here(candidate, active)
        # pixels change the part they are compared with: a step that costs a little more is often the way to one
        # that costs less, so it is held against the worst of the last few (Grippo et al. 1986)
        good = active & (trial.cost < recent.max(0)) & np.isfinite(trial.cost)
        bad = active & ~good
        # a limb that leaps out in one instant must not hold up the others: only the instants that got worse are damped
        worse = trial.instant_cost > eq.instant_cost
        blamed = live & np.where(
            good[now.group], trial.instant_cost > 1.5 * eq.instant_cost, worse | bad_alone(bad, worse, now.group)
        )
        now, eq = _accept(now, candidate, eq, trial, good, problem)
        better = good & (trial.cost < best_cost)
        gain = np.where(better, (best_cost - trial.cost) / np.maximum(best_cost, 1e-12), 0.0)
        best, best_eq = _accept(best, candidate, best_eq, trial, better, problem)
        best_cost = np.where(better, trial.cost, best_cost)
        checkpoint(float(best_cost.min()))
        recent[k % MEMORY] = np.where(good, trial.cost, recent[(k - 1) % MEMORY])
        steps += good
        idle = np.where(good, np.where(gain < SMALL_GAIN, idle + 1, 0), idle)
        calm = live & good[now.group] & ~blamed
        damping = np.where(blamed, damping * growth, np.where(calm, np.maximum(damping * 0.3, 1e-7), damping))
        growth = np.where(blamed, growth * 2.0, np.where(calm, 4.0, growth))
        shape_damping = np.where(
            good, np.maximum(shape_damping * 0.3, 1e-7), np.where(bad, shape_damping * 4, shape_damping)
        )
        for g in np.flatnonzero(active):
            if idle[g] >= PATIENCE or shape_damping[g] > WORST_DAMPING:
                active[g], reasons[g] = False, StopReason.CONVERGED if steps[g] else StopReason.STUCK
    best = State(nearest_rotation(best.rotations), best.transl, best.shape, best.group)
    return Solution(best, best_eq, best_cost, steps, reasons)


def bad_alone(bad: NDArray[np.bool_], worse: NDArray[np.bool_], group: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Instants of groups that got worse though none of their instants did: the shape's prior is to blame for all."""
    any_worse = np.zeros(len(bad), bool)
    np.logical_or.at(any_worse, group, worse)
    return (bad & ~any_worse)[group]


def _step_of_active(
    eq: Linearization,
    state: State,
    damping: NDArray[np.float64],
    shape_damping: NDArray[np.float64],
    active: NDArray[np.bool_],
    live: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if active.all():
        return step_of(eq, state, damping, shape_damping)
    number = np.cumsum(active) - 1
    part = Linearization(
        eq.A[live], eq.B[live], eq.C[active], eq.pose_gradient[live], eq.shape_gradient[active],
        eq.cost[active], eq.instant_cost[live], eq.stats,
    )  # fmt: skip
    few = State(state.rotations[live], state.transl[live], state.shape[active], number[state.group[live]])
    return step_of(part, few, damping[live], shape_damping[active])


def _accept(
    best: State, candidate: State, eq: Linearization, trial: Linearization, good: NDArray[np.bool_], problem: Problem
) -> tuple[State, Linearization]:
    if good.all():
        return candidate, trial
    each = good[best.group]
    item = each[problem.items[:, 0]]
    state = State(
        np.where(each[:, None, None, None], candidate.rotations, best.rotations),
        np.where(each[:, None], candidate.transl, best.transl),
        np.where(good[:, None], candidate.shape, best.shape),
        best.group,
    )
    e1, e2, g1 = each[:, None], each[:, None, None], good[:, None]
    return state, Linearization(
        np.where(e2, trial.A, eq.A), np.where(e2, trial.B, eq.B), np.where(g1[:, :, None], trial.C, eq.C),
        np.where(e1, trial.pose_gradient, eq.pose_gradient), np.where(g1, trial.shape_gradient, eq.shape_gradient),
        np.where(good, trial.cost, eq.cost), np.where(each, trial.instant_cost, eq.instant_cost),
        np.where(item[:, None], trial.stats, eq.stats),
    )  # fmt: skip
