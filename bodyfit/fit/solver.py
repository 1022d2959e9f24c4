"""Levenberg-Marquardt on a batch of groups, each with its own damping; the shape by the Schur complement.

Marquardt's diagonal scaling and Nielsen's rule of thumb, in the simple form that the prototypes settled on (damping
times 0.3 on a good step, times a growing factor on a bad one).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.problem import Linearization, Problem, State
from bodyfit.rotation import matrix_from_axis_angle, nearest_rotation

MAX_TURN_RAD = 0.6
SMALL_GAIN = 2e-4
WORST_DAMPING = 1e4


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


def step_of(eq: Linearization, state: State, damping: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Damped Gauss-Newton step: of the poses (N, Q) and of the shapes (G, S)."""
    group = state.group
    lam = damping[group][:, None]
    A = eq.A.copy()
    Q, S = A.shape[1], eq.C.shape[1]
    i = np.arange(Q)
    diagonal = A[:, i, i]
    A[:, i, i] += lam * diagonal + 1e-9 * (1.0 + diagonal.max(1, keepdims=True))
    X = np.linalg.solve(A, np.concatenate([eq.B, eq.pose_gradient[:, :, None]], 2))
    C = eq.C.copy()
    s = np.arange(S)
    C[:, s, s] += damping[:, None] * C[:, s, s] + 1e-9
    right = eq.shape_gradient.copy()
    reduced = np.einsum("nqs,nqt->nst", eq.B, X)
    np.subtract.at(C, group, reduced[:, :, :S])
    np.subtract.at(right, group, reduced[:, :, S])
    shape_step = -np.linalg.solve(C, right[:, :, None])[:, :, 0]
    pose_step = -X[:, :, S] - np.einsum("nqs,ns->nq", X[:, :, :S], shape_step[group])
    return pose_step, shape_step


def moved(state: State, pose_step: NDArray[np.float64], shape_step: NDArray[np.float64]) -> State:
    """The state after a step; turns over `MAX_TURN_RAD` shorten their group's whole step."""
    n, n_joints = state.rotations.shape[:2]
    turns = pose_step[:, : 3 * n_joints].reshape(n, n_joints, 3)
    largest = np.zeros(len(state.shape))
    np.maximum.at(largest, state.group, np.linalg.norm(turns, axis=2).max(1))
    scale = np.minimum(1.0, MAX_TURN_RAD / np.maximum(largest, 1e-9))
    each = scale[state.group]
    R = state.rotations @ matrix_from_axis_angle(turns * each[:, None, None])
    return State(
        R,
        state.transl + pose_step[:, 3 * n_joints :] * each[:, None],
        state.shape + shape_step * scale[:, None],
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
    n_groups = len(state.shape)
    damping = np.full(n_groups, problem.stage.damping)
    growth = np.full(n_groups, 4.0)
    active = np.ones(n_groups, bool)
    steps = np.zeros(n_groups, np.int64)
    reasons = [StopReason.STEPS_USED] * n_groups
    best, eq = state, problem.linearize(state)
    cost = eq.cost.copy()
    for _ in range(problem.stage.iterations if iterations is None else iterations):
        if cancelled is not None and cancelled():
            reasons = [StopReason.CANCELLED if a else r for a, r in zip(active, reasons, strict=True)]
            break
        if not active.any():
            break
        live = active[best.group]
        pose_step, shape_step = np.zeros(eq.pose_gradient.shape), np.zeros(best.shape.shape)
        pose_step[live], shape_step[active] = _step_of_active(eq, best, damping, active, live)
        candidate = moved(best, pose_step, shape_step)
        trial = problem.linearize(candidate, active)
        good = active & (trial.cost < cost) & np.isfinite(trial.cost)
        gain = np.where(good, (cost - trial.cost) / np.maximum(cost, 1e-12), 0.0)
        best, eq = _accept(best, candidate, eq, trial, good, problem)
        cost = np.where(good, trial.cost, cost)
        steps += good
        bad = active & ~good
        damping = np.where(good, np.maximum(damping * 0.3, 1e-7), np.where(bad, damping * growth, damping))
        growth = np.where(good, 4.0, np.where(bad, growth * 2.0, growth))
        for k in np.flatnonzero(active):
            if good[k] and gain[k] < SMALL_GAIN:
                active[k], reasons[k] = False, StopReason.CONVERGED
            elif bad[k] and damping[k] > WORST_DAMPING:
                # a step this short changes nothing: the association flips between two equal costs
                active[k], reasons[k] = False, StopReason.CONVERGED if steps[k] else StopReason.STUCK
    best = State(nearest_rotation(best.rotations), best.transl, best.shape, best.group)
    return Solution(best, eq, cost, steps, reasons)


def _step_of_active(
    eq: Linearization, state: State, damping: NDArray[np.float64], active: NDArray[np.bool_], live: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if active.all():
        return step_of(eq, state, damping)
    number = np.cumsum(active) - 1
    part = Linearization(
        eq.A[live], eq.B[live], eq.C[active], eq.pose_gradient[live], eq.shape_gradient[active],
        eq.cost[active], eq.stats,
    )  # fmt: skip
    few = State(state.rotations[live], state.transl[live], state.shape[active], number[state.group[live]])
    return step_of(part, few, damping[active])


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
        np.where(good, trial.cost, eq.cost), np.where(item[:, None], trial.stats, eq.stats),
    )  # fmt: skip
