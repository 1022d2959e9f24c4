"""How people move: accelerations of joints and of the pelvis are limited, and last for a while.

Singer's model of a manoeuvre (Singer 1970, IEEE Trans. Aerospace and Electronic Systems 6): acceleration is a
first-order Markov process, with a scale and a time over which it lasts. So muscles' work and falling bodies cost
little, and a sensor's noise, whose second differences change sign from frame to frame, costs much. Times between
instants count, so one that is missing does no harm and frames need not be evenly spaced. What comes new has heavy tails
(people stand still, then throw a ball): Student's t and not a Gaussian, whose standard deviation would let a still limb
tremble and blunt a blow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.banded import Band
from bodyfit.fit.pose_prior import log_rotation

LASTS_S = 0.10
"""how long an acceleration lasts: exp(-1) of it is left after this long"""
TAIL = 2.0
"""degrees of freedom of Student's t"""
ACCELERATION_RAD_S2 = {
    "pelvis": 5.1, "hip": 8.5, "knee": 4.2, "ankle": 9.5, "foot": 9.5, "spine1": 4.7, "spine2": 2.7, "spine3": 3.0,
    "neck": 4.8, "head": 2.1, "collar": 3.0, "shoulder": 8.0, "elbow": 9.5, "wrist": 10.5, "hand": 10.5,
}  # fmt: skip
"""scale of each joint's angular acceleration, per axis: by maximum likelihood from seven CMU motion-capture clips
(walking, dancing, jumping, ball play) at 30 Hz, below 8 Hz (a marker's own tremor is above); collars and hands, which
those do not move, from their neighbours"""
OTHER_RAD_S2 = 10.5
"""of fingers, jaw and eyes"""
ACCELERATION_M_S2 = 1.1
"""scale of the pelvis' acceleration, per axis, from the same clips"""
REACH = 3
"""an instant is coupled to this many before it: a change of acceleration is between four"""
FLICKER = np.array([1.0, -4.0, 6.0, -4.0, 1.0]) / np.sqrt(70.0)
"""fourth differences, whose sum of squares is 1: what errs anew in each instant is left, how people move is not"""
LEAST_FLICKER, MOST_FLICKER = 0.1, 1.0
USUAL_FLICKER = 0.35
"""where no five instants follow each other evenly"""


def flicker(
    rotations: NDArray[np.float64],
    transl: NDArray[np.float64],
    times_s: NDArray[np.float64],
    linked: NDArray[np.bool_],
    sd: NDArray[np.float64],
) -> float:
    """How much poses that were solved alone err from one instant to the next, as a share of the errors that their
    evidence claims. Most of those are the same in all instants (a body that is not the model, a biased sensor): they
    say nothing against a motion. Median over all parameters and instants, so that a limb that leaps does not count.

    Args:
        rotations: (T, J, 3, 3); transl (T, 3); times_s, linked (T,).
        sd: (T, 3J + 3) standard deviations claimed.
    """
    T = len(rotations)
    gap = np.diff(times_s, prepend=np.nan)
    at = [t for t in range(4, T) if linked[t - 3 : t + 1].all() and np.ptp(gap[t - 3 : t + 1]) < 0.1 * gap[t]]
    if not at:
        return USUAL_FLICKER
    turns = log_rotation(np.swapaxes(rotations[:-1], -1, -2) @ rotations[1:])[0].reshape(T - 1, -1)
    steps = np.concatenate([turns, np.diff(transl, axis=0)], 1)
    # fourth differences of places are third differences of steps
    of_steps = np.cumsum(FLICKER)[:4]
    index = np.array(at)
    seen = sum(c * steps[index - 1 - k] for k, c in enumerate(of_steps))
    share = np.abs(seen) / np.maximum(sd[index - 2], 1e-9)
    return float(np.clip(np.median(share) / 0.6745, LEAST_FLICKER, MOST_FLICKER))


def acceleration_sigmas(joint_names: tuple[str, ...]) -> NDArray[np.float64]:
    """(J + 1,) rad/s² of each joint's rotation, then m/s² of the translation."""
    plain = [n.removeprefix("left_").removeprefix("right_") for n in joint_names]
    return np.array([*(ACCELERATION_RAD_S2.get(n, OTHER_RAD_S2) for n in plain), ACCELERATION_M_S2])


@dataclass(frozen=True)
class Steps:
    """What lies between each instant and the one before: turns and moves (T, J + 1, 3), their derivatives by the later
    and the earlier instant's perturbations (T, J + 1, 3, 3), seconds (T,); row 0 is unused."""

    moves: NDArray[np.float64]
    by_later: NDArray[np.float64]
    by_earlier: NDArray[np.float64]
    seconds: NDArray[np.float64]


def steps_of(
    rotations: NDArray[np.float64], transl: NDArray[np.float64], times_s: NDArray[np.float64]
) -> Steps:  # fmt: skip
    """Steps between instants of rotations (T, J, 3, 3), transl (T, 3) at times (T,)."""
    T, J = rotations.shape[:2]
    moves, later = np.zeros((T, J + 1, 3)), np.zeros((T, J + 1, 3, 3))
    earlier = np.zeros_like(later)
    theta, D = log_rotation(np.swapaxes(rotations[:-1], -1, -2) @ rotations[1:])
    moves[1:, :J], later[1:, :J] = theta, D
    # the left Jacobian is the right one's transpose
    earlier[1:, :J] = -np.swapaxes(D, -1, -2)
    moves[1:, J], later[1:, J], earlier[1:, J] = np.diff(transl, axis=0), np.eye(3), -np.eye(3)
    return Steps(moves, later, earlier, np.diff(times_s, prepend=np.nan))


@dataclass(frozen=True)
class News:
    """What is new in the accelerations, of unit scale: residual (n, J + 1, 3), rad/s² and m/s², at the instants at (n,)
    (the middle one of the acceleration), and its derivatives (4, n, J + 1, 3, 3) by the perturbations of instants
    at - 2 to at + 1."""

    at: NDArray[np.int64]
    residual: NDArray[np.float64]
    blocks: NDArray[np.float64]


def news_of(
    rotations: NDArray[np.float64],
    transl: NDArray[np.float64],
    times_s: NDArray[np.float64],
    linked: NDArray[np.bool_],
) -> News:
    """What is new in the accelerations of rotations (T, J, 3, 3), transl (T, 3) at times_s (T,); linked as in
    `smooth_terms`."""
    T, J = rotations.shape[:2]
    bent = np.zeros(T, bool)
    bent[1:-1] = linked[1:-1] & linked[2:]
    at = np.flatnonzero(bent)
    a, by_a = np.zeros((T, J + 1, 3)), np.zeros((3, T, J + 1, 3, 3))
    if not len(at):
        return News(at, a[at], np.zeros((REACH + 1, 0, J + 1, 3, 3)))
    s = steps_of(rotations, transl, times_s)
    h1, h2 = s.seconds[at][:, None, None], s.seconds[at + 1][:, None, None]
    mean = 0.5 * (h1 + h2)
    a[at] = (s.moves[at + 1] / h2 - s.moves[at] / h1) / mean
    h1, h2, mean = h1[..., None], h2[..., None], mean[..., None]
    # by the perturbations of the instant before, of its own, and of the one after
    by_a[0, at] = -s.by_earlier[at] / h1 / mean
    by_a[1, at] = (s.by_earlier[at + 1] / h2 - s.by_later[at] / h1) / mean
    by_a[2, at] = s.by_later[at + 1] / h2 / mean
    # what is left of the acceleration one instant before; nothing is known of that where there was none
    left = np.where(bent[at - 1], np.exp(-s.seconds[at] / LASTS_S), 0.0)[:, None, None]
    unit = np.sqrt(1.0 - left**2)
    blocks = np.zeros((REACH + 1, len(at), J + 1, 3, 3))
    blocks[1:] = by_a[:, at]
    blocks[:3] -= left[..., None] * by_a[:, at - 1]
    return News(at, (a[at] - left * a[at - 1]) / unit, blocks / unit[..., None])


def tail_weights(residual: NDArray[np.float64], sigma: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 1) how much a residual (..., 3) of scale sigma (..., 1 or 3) counts under Student's t, beside Gauss's."""
    return (TAIL + 3.0) / (TAIL + ((residual / sigma) ** 2).sum(-1, keepdims=True))


def smooth_terms(
    rotations: NDArray[np.float64],
    transl: NDArray[np.float64],
    times_s: NDArray[np.float64],
    linked: NDArray[np.bool_],
    sigma: NDArray[np.float64],
    band: Band | None = None,
    share: float = 1.0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What accelerations cost.

    Args:
        rotations: (T, J, 3, 3); transl (T, 3) metres; times_s (T,).
        linked: (T,) whether an instant follows the one before it closely enough to say anything about it.
        sigma: (J + 1,) as from `acceleration_sigmas`, or (T, J + 1, 1 or 3), of each instant (and axis).
        band: of reach 3; gets the Gauss-Newton Hessian added, over right perturbations of the joints, then transl.
        share: the cost is for evidence which errs by this share of what it claims (`flicker`).

    Returns:
        Cost (T,), each acceleration's at the middle one of its instants, and gradient (T, 3J + 3).
    """
    T, J = rotations.shape[:2]
    cost, gradient = np.zeros(T), np.zeros((T, 3 * J + 3))
    news = news_of(rotations, transl, times_s, linked)
    at = news.at
    if not len(at):
        return cost, gradient
    scale = sigma[None, :, None] if sigma.ndim == 1 else sigma[at]
    # -log of Student's t in three dimensions, up to a constant
    q = ((news.residual / scale) ** 2).sum(2) / TAIL
    cost[at] = 0.5 * (TAIL + 3.0) * share**2 * np.log1p(q).sum(1)
    weight = tail_weights(news.residual, scale) * (share / scale) ** 2
    add_rows(at, news.residual, news.blocks, weight, gradient, band)
    return cost, gradient


def add_rows(
    at: NDArray[np.int64],
    residual: NDArray[np.float64],
    blocks: NDArray[np.float64],
    weight: NDArray[np.float64],
    gradient: NDArray[np.float64],
    band: Band | None,
) -> None:
    """Adds the gradient (T, 3J + 3) and the Gauss-Newton Hessian of news that count by weight (n, J + 1, 1 or 3)."""
    J1 = residual.shape[1]
    joints = np.arange(3 * J1).reshape(J1, 3)
    weighted = weight[..., None] * blocks
    for later in range(REACH + 1):
        use = at + later - 2 >= 0
        pull = np.einsum("tjab,tja->tjb", weighted[later], residual)[use]
        np.add.at(gradient, at[use] + later - 2, pull.reshape(-1, 3 * J1))
        for earlier in range(later + 1 if band is not None else 0):
            both = at + earlier - 2 >= 0
            products = np.einsum("tjab,tjac->tjbc", weighted[later][both], blocks[earlier][both])
            t = (at[both] + later - 2)[:, None, None, None]
            assert band is not None
            # an instant appears once in t, so that plain indexing adds everything
            band.blocks[later - earlier][t, joints[None, :, :, None], joints[None, :, None, :]] += products
