"""Limbs that leap from one instant to the next: followed again from before the leap and from behind it.

An instant that is solved alone may find an arm where there is none, and what is started from it inherits the mistake.
Where a joint leaps, one of the two sides is wrong. So the pose before the leap is followed through what comes after,
step by step, and the poses behind it through what went before; the new way is taken as far as it makes the whole
likelier: what the sensors saw, and how people move.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.mesh import Mesh
from bodyfit.fit.pose_prior import log_rotation
from bodyfit.fit.problem import Linearization, Problem, State
from bodyfit.fit.smooth import REACH, smooth_terms
from bodyfit.fit.solver import moved, step_of
from bodyfit.kernels.body import joint_motions
from bodyfit.rotation import axis_angle_from_matrix, matrix_from_axis_angle, nearest_rotation

LEAP_M_S2 = 60.0
"""a joint that is accelerated more than this (six times as much as by falling) is looked at"""
MET_M = 0.02
"""a way has met the old one where no joint is further apart than this"""
FAR_WORSE = 150.0
"""a way whose cost is so much higher by now is given up"""
TURN_RAD_S = 4.0
MOVE_M_S = 1.0
"""standard deviations, per axis, of a joint's and of the pelvis' velocity beyond what is predicted of it"""
PREDICTED = 0.5
"""share of the last velocity that a step begins with: between standing still and going on"""


@dataclass(frozen=True)
class Retracing:
    """How leaps are followed: problem_of(t) is instant t's own problem with one instant in it; sigma (J + 1,) are the
    accelerations' scales; longest: so many instants at most; steps: in each."""

    problem_of: Callable[[int], Problem]
    times_s: NDArray[np.float64]
    linked: NDArray[np.bool_]
    sigma: NDArray[np.float64]
    longest: int
    steps: int

    def reversed(self) -> Retracing:
        """The same with time running backwards."""
        T = len(self.times_s)
        linked = np.zeros(T, bool)
        linked[1:] = self.linked[:0:-1]
        return replace(
            self, problem_of=lambda t: self.problem_of(T - 1 - t), times_s=-self.times_s[::-1], linked=linked
        )


@dataclass(frozen=True)
class Way:
    """Poses (T, J, 3, 3) and transl (T, 3) with each instant's own cost (T,)."""

    rotations: NDArray[np.float64]
    transl: NDArray[np.float64]
    cost: NDArray[np.float64]

    def reversed(self) -> Way:
        """The same with time running backwards."""
        return Way(self.rotations[::-1].copy(), self.transl[::-1].copy(), self.cost[::-1].copy())


def joint_places(mesh: Mesh, rotations: NDArray[np.float64], transl: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, J, 3) where the joints of a body of a held shape are in the world, metres."""
    T, J = rotations.shape[:2]
    joints = mesh.joint_template
    G, out = np.empty((J, 3, 3)), np.empty((T, J, 3))
    for t in range(T):
        joint_motions(rotations[t], joints, mesh.parents, np.eye(3), np.zeros(3), transl[t], G, out[t])
    return out


def leaps(places: NDArray[np.float64], times_s: NDArray[np.float64], linked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(T,) whether a joint of (T, J, 3) places is accelerated beyond belief at an instant or just before it."""
    T = len(places)
    out = np.zeros(T, bool)
    at = np.flatnonzero(linked[1:-1] & linked[2:]) + 1
    h1, h2 = (times_s[at] - times_s[at - 1])[:, None, None], (times_s[at + 1] - times_s[at])[:, None, None]
    a = ((places[at + 1] - places[at]) / h2 - (places[at] - places[at - 1]) / h1) / (0.5 * (h1 + h2))
    far = np.linalg.norm(a, axis=2).max(1, initial=0.0) > LEAP_M_S2
    out[at[far]] = True
    out[at[far] + 1] = True
    return out & linked


def predicted(way: Way, t: int, how: Retracing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the pose before t goes by itself: rotations (J, 3, 3), transl (3,)."""
    R, x = way.rotations[t - 1], way.transl[t - 1]
    if t < 2 or not how.linked[t - 1]:
        return R.copy(), x.copy()
    share = PREDICTED * (how.times_s[t] - how.times_s[t - 1]) / (how.times_s[t - 1] - how.times_s[t - 2])
    turn = axis_angle_from_matrix(np.swapaxes(way.rotations[t - 2], 1, 2) @ R)
    return nearest_rotation(R @ matrix_from_axis_angle(share * turn)), x + share * (x - way.transl[t - 2])


def follow(way: Way, t: int, how: Retracing) -> None:
    """Solves instant t of a way from the one before it and writes it there."""
    problem = how.problem_of(t)
    h = how.times_s[t] - how.times_s[t - 1]
    aim, place = predicted(way, t, how)
    state = State(aim[None], place[None], np.zeros((1, 1)), np.zeros(1, np.int64))
    J = len(aim)
    own_joint = np.arange(3 * J).reshape(J, 3)
    inv, inv_place = 1.0 / (TURN_RAD_S * h), 1.0 / (MOVE_M_S * h)

    def look(s: State) -> tuple[float, float, Linearization]:
        eq = problem.linearize(s)
        own = float(eq.instant_cost[0])
        theta, D = log_rotation(np.swapaxes(aim, 1, 2) @ s.rotations[0])
        off = s.transl[0] - place
        eq.pose_gradient[0, : 3 * J] += (inv**2 * np.einsum("jab,ja->jb", D, theta)).ravel()
        eq.pose_gradient[0, 3 * J :] += inv_place**2 * off
        eq.A[0][own_joint[:, :, None], own_joint[:, None, :]] += inv**2 * np.einsum("jab,jac->jbc", D, D)
        i = np.arange(3 * J, 3 * J + 3)
        eq.A[0, i, i] += inv_place**2
        return own + 0.5 * float((inv * theta).ravel() @ (inv * theta).ravel() + inv_place**2 * off @ off), own, eq

    damping = np.array([problem.stage.damping])
    total, own, eq = look(state)
    for _ in range(how.steps):
        step, _ = step_of(eq, state, damping, damping)
        candidate = moved(state, step, np.zeros((1, 1)), problem.stage.max_turn_rad)
        trial = look(candidate)
        if trial[0] >= total:
            damping = damping * 8.0
            continue
        gain = (total - trial[0]) / total
        state, (total, own, eq), damping = candidate, trial, damping * 0.3
        if gain < 1e-3:
            break
    way.rotations[t], way.transl[t] = nearest_rotation(state.rotations[0]), state.transl[0]
    way.cost[t] = own


def retrace(way: Way, how: Retracing, cancelled: Callable[[], bool]) -> Way:
    """Every leap's poses before it followed forwards, then those behind it backwards, taken where that costs less."""
    there = _one_way(way, how, cancelled)
    return _one_way(there.reversed(), how.reversed(), cancelled).reversed()


def _one_way(way: Way, how: Retracing, cancelled: Callable[[], bool]) -> Way:
    now = Way(way.rotations.copy(), way.transl.copy(), way.cost.copy())
    T, t = len(now.cost), 1
    mesh = how.problem_of(0).mesh
    while t < T:
        if cancelled():
            break
        places = joint_places(mesh, now.rotations, now.transl)
        leaping = np.flatnonzero(leaps(places, how.times_s, how.linked)[t:]) + t
        if not len(leaping):
            break
        t = int(leaping[0])
        trial = Way(now.rotations.copy(), now.transl.copy(), now.cost.copy())
        s, more = t, 0.0
        while s < T and s - t < how.longest and how.linked[s]:
            follow(trial, s, how)
            more += trial.cost[s] - now.cost[s]
            apart = joint_places(mesh, trial.rotations[s : s + 1], trial.transl[s : s + 1])[0] - places[s]
            s += 1
            if more > FAR_WORSE or np.linalg.norm(apart, axis=1).max() < MET_M:
                break
        end = _best_end(now, trial, t, s, how)
        now.rotations[t:end], now.transl[t:end] = trial.rotations[t:end], trial.transl[t:end]
        now.cost[t:end] = trial.cost[t:end]
        # one that met the old way has been looked at up to there
        t = end if end > t else t + 1
    return now


def _best_end(now: Way, trial: Way, start: int, stop: int, how: Retracing) -> int:
    """Up to where the trial's poses from `start` on make the whole cheapest; start where they never do."""
    first, last = max(0, start - REACH), min(len(now.cost), stop + REACH)
    linked = how.linked[first:last].copy()
    linked[0] = False
    best, least = start, np.inf
    for end in range(start, stop + 1):
        both = [np.concatenate([a[first:start], b[start:end], a[end:last]])
                for a, b in ((now.rotations, trial.rotations), (now.transl, trial.transl))]  # fmt: skip
        cost, _ = smooth_terms(both[0], both[1], how.times_s[first:last], linked, how.sigma)
        total = float(cost.sum() + trial.cost[start:end].sum() + now.cost[end:stop].sum())
        if total < least - 1e-9:
            best, least = end, total
    return best
