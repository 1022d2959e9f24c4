"""Single limbs put elsewhere: what a descent never finds, once the trunk is in place.

Each arm in every configuration, like the other one and reaching for what the body leaves unexplained; hands bent and
turned; the head turned; legs exchanged, plain and reaching. With the trunk in place a picture tells them apart, which
it could not while the whole body was still decimetres off; and a descent alone never gets from one to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.config import Stage
from bodyfit.fit.hypotheses import ARMS, limb_variants
from bodyfit.fit.pose_prior import PosePrior
from bodyfit.fit.problem import Problem, State
from bodyfit.fit.reach import reaching, unexplained_spots
from bodyfit.fit.solver import solve
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle
from bodyfit.watch import checkpoint

CHOICES = 2
"""of each limb's other configurations this many are followed"""
REACHES = 32
"""so many of a limb's ways to reach for what is unexplained are tried"""
OTHER_TURN_RAD = 0.4
"""two configurations of a limb are different when a joint's turn differs by this"""
SURELY_BETTER = 1.0
"""a limb is put elsewhere when that lowers the cost (half a squared residual in units of its sigma) by this"""
TASTED = 2
"""steps after which it is known which of many ways to hold an arm come to something: their costs before any step do
not tell"""
RIVALS = 3
"""at most so many of these are kept"""
RIVAL_COST = 12.0
"""a limb held otherwise for so little more cost may turn out to be the better one when all is settled"""
CROWD = 128
"""hypotheses that are worked on at once: their normal equations are in memory together"""

ProblemOf = Callable[[Stage, NDArray[np.float64]], Problem]
"""The problem of one instant in a stage, with one group for each of the pose means (N, J, 3)."""


@dataclass(frozen=True)
class LimbStages:
    """How limbs are searched: the stage in which they are compared, the one in which what is unexplained is drawn, the
    one whose cost decides, and how often."""

    compare: Stage
    reach: Stage
    last: Stage
    rounds: int
    prior: PosePrior
    cancelled: Callable[[], bool]
    tasted: int = 0
    """of each arm's configurations so many are followed for a few steps before the best are chosen"""


@dataclass(frozen=True)
class Improved:
    """A state with its limbs where they explain most, its cost in the last stage, and states that explain nearly as
    much with a limb elsewhere, best first."""

    state: State
    cost: float
    rivals: tuple[State, ...] = ()


def improve_limbs(how: LimbStages, problem_of: ProblemOf, state: State, cost: float) -> Improved:
    """One settled instant's limbs put elsewhere, one after the other, as long as that helps; cost is that of the last
    stage."""
    best = Improved(state, cost)
    for _ in range(how.rounds):
        if how.cancelled():
            break
        tried = _try_limbs(how, problem_of, best.state, best.cost)
        better = tried.cost < best.cost
        best = tried
        if not better:
            break
    return best


def _try_limbs(how: LimbStages, problem_of: ProblemOf, state: State, cost: float) -> Improved:
    prior = how.prior.mean
    pose = axis_angle_from_matrix(state.rotations)[0]
    problem = problem_of(how.reach, prior[None])
    names = problem.mesh.joint_names
    groups = limb_variants(pose, names)
    reached = _reaching(how, problem, state, pose)
    for group, limb, side in ((0, "arm", "left"), (1, "arm", "right"), (-2, "leg", "left"), (-1, "leg", "right")):
        groups[group] += reached[limb, side]
    trials = np.stack([variant for group in groups for variant in group])
    found = []
    for first in range(0, len(trials), CROWD):
        some = trials[first : first + CROWD]
        tried = with_pose(state.take(np.zeros(len(some), int)), some)
        means = np.broadcast_to(prior, some.shape)
        found.append(problem_of(how.compare, means).linearize(tried, want_rows=False).cost)
    costs = np.concatenate(found)
    chosen: list[NDArray[np.float64]] = []
    offset, merged = 0, pose.copy()
    for number, group in enumerate(groups):
        order = np.argsort(costs[offset : offset + len(group)], kind="stable")
        # an arm like the other one hides well behind the body: it is followed however it looks unsettled
        surely = group[len(ARMS) : len(ARMS) + 1] if number < 2 else []
        if number < 2 and how.tasted and len(group) > len(ARMS) + 1:
            order = _tasted(how, problem_of, state, group, order)
        chosen += [*surely, *(group[k] for k in _unlike(group, order.tolist(), CHOICES))]
        changed = np.abs(group[order[0]] - pose).max(1) > 1e-9
        merged[changed] = group[order[0]][changed]
        offset += len(group)
    poses = np.stack([pose, *chosen, merged])
    starts = with_pose(state.take(np.zeros(len(poses), int)), poses)
    settled = solve(problem_of(how.compare, np.broadcast_to(prior, poses.shape)), starts, cancelled=how.cancelled)
    # against the state as it was, by the same measure: the first of the poses
    best = int(np.argmin(settled.cost))
    if settled.cost[best] > settled.cost[0] - SURELY_BETTER:
        return Improved(state, cost, _rivals(settled.state, settled.cost, 0))
    problem = problem_of(how.last, prior[None])
    again = solve(problem, settled.state.take([best]), iterations=4, cancelled=how.cancelled)
    if again.cost[0] < cost:
        return Improved(again.state, float(again.cost[0]), _rivals(settled.state, settled.cost, best))
    return Improved(state, cost, _rivals(settled.state, settled.cost, 0))


def _tasted(
    how: LimbStages,
    problem_of: ProblemOf,
    state: State,
    group: Sequence[NDArray[np.float64]],
    order: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The first of an order of poses (J, 3), put in the order of their costs after a few steps."""
    some = np.array(_unlike(group, order.tolist(), how.tasted))
    poses = np.stack([group[k] for k in some])
    problem = problem_of(how.compare, np.broadcast_to(how.prior.mean, poses.shape))
    starts = with_pose(state.take(np.zeros(len(poses), int)), poses)
    cost = solve(problem, starts, iterations=TASTED, cancelled=how.cancelled).cost
    return some[np.argsort(cost, kind="stable")]


def _rivals(state: State, cost: NDArray[np.float64], best: int) -> tuple[State, ...]:
    """The states (N) that cost little more than the best one and differ from it, and from each other, in a limb."""
    close = [k for k in np.argsort(cost, kind="stable").tolist() if k != best and cost[k] < cost[best] + RIVAL_COST]
    unlike = _unlike(list(axis_angle_from_matrix(state.rotations)), [best, *close], RIVALS + 1)
    return tuple(state.take([k]) for k in unlike[1:])


def _reaching(
    how: LimbStages, problem: Problem, state: State, pose: NDArray[np.float64]
) -> dict[tuple[str, str], list[NDArray[np.float64]]]:
    """Copies of the one state's pose (J, 3) whose limb ends where a sensor saw something unexplained, by limb and side:
    those that the pose prior finds most likely."""
    from bodyfit.kernels.body import joint_motions

    mesh = problem.mesh
    rest = mesh.joint_template + mesh.jointdirs @ state.shape[0]
    G, posed = np.empty((len(rest), 3, 3)), np.empty((len(rest), 3))
    joint_motions(state.rotations[0], rest, mesh.parents, np.eye(3), np.zeros(3), state.transl[0], G, posed)
    spots = [s for v in problem.views for s in unexplained_spots(v, *problem.drawn(state, v))]
    out = {}
    for limb in ("arm", "leg"):
        for side in ("left", "right"):
            checkpoint()
            turned = reaching(mesh.joint_names, rest, G, posed, mesh.parents, spots, limb, side)
            many = np.repeat(pose[None], len(next(iter(turned.values()), ())), 0)
            for joint, rotations in turned.items():
                many[:, joint] = axis_angle_from_matrix(rotations)
            for end in ("wrist", "hand") if limb == "arm" else ("ankle",):
                if f"{side}_{end}" in mesh.joint_names:
                    many[:, mesh.joint_names.index(f"{side}_{end}")] = 0
            unlikely = how.prior.unlikely(many[:, list(turned)], list(turned)) if turned else np.zeros(0)
            out[limb, side] = [many[k] for k in np.argsort(unlikely, kind="stable")[:REACHES]]
    return out


def with_pose(state: State, poses: NDArray[np.float64]) -> State:
    """The state with other poses (N, J, 3); every root stays as it is."""
    rotations = matrix_from_axis_angle(poses)
    rotations[:, 0] = state.rotations[:, 0]
    return State(rotations, state.transl, state.shape, state.group)


def _unlike(poses: Sequence[NDArray[np.float64]], order: Sequence[int], count: int) -> list[int]:
    """The first of an order of poses (J, 3) that differ from each other in a joint's turn."""
    keep: list[int] = []
    for k in order:
        if all(np.abs(poses[k] - poses[other]).max() > OTHER_TURN_RAD for other in keep):
            keep.append(int(k))
        if len(keep) == count:
            break
    return keep
