"""A fit whose sensors are where they were said to be only roughly: their places and clocks are solved for too.

A view's residuals depend on the body in the sensor's camera alone. Moving a sensor by D therefore is moving the body
by D⁻¹, and seeing it τ later is moving it along its own motion: no new derivative is needed. Each view looks at a body
that was moved so, and a linear map takes its normal equations to the parameters that are solved for.

A sensor's six parameters are those of D: p → c + exp(ω)(p - c) + ρ, world, about a pivot c at the person's place, where
turning and shifting can be told apart. D moves what the sensor saw from where it was said to be to where it is, so
T_world_depth becomes D · T_world_depth; the floor that this sensor saw moves with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from bodyfit.fit.pose_prior import log_rotation
from bodyfit.fit.problem import Problem, Scratch, State
from bodyfit.rotation import matrix_from_axis_angle

RIGID = 6


@dataclass(frozen=True)
class RigLayout:
    """Where a rig's parameters (E,) lie: for each sensor but the first ω (3 radians), ρ (3 metres) and, where clocks
    are solved for, τ (seconds).

    Attributes:
        sensors: the names; the first one stays where it is.
        pivot: (3,) world metres.
        clocks: whether each sensor's clock may be off by a constant.
    """

    sensors: tuple[str, ...]
    pivot: NDArray[np.float64]
    clocks: bool = False

    @property
    def each(self) -> int:
        """Parameters of one sensor."""
        return RIGID + int(self.clocks)

    @property
    def size(self) -> int:
        """E: all parameters."""
        return self.each * (len(self.sensors) - 1)

    def of(self, k: int) -> slice:
        """Where those of the k-th sensor are; k > 0."""
        return slice(self.each * (k - 1), self.each * k)

    def motion(self, theta: NDArray[np.float64], k: int) -> NDArray[np.float64]:
        """D (4, 4) of the k-th sensor."""
        D = np.eye(4)
        if k > 0:
            part = theta[self.of(k)]
            D[:3, :3] = matrix_from_axis_angle(part[:3])
            D[:3, 3] = self.pivot - D[:3, :3] @ self.pivot + part[3:6]
        return D

    def delay(self, theta: NDArray[np.float64], k: int) -> float:
        """Seconds by which the k-th sensor sees the body later than its stamps say."""
        return float(theta[self.of(k)][RIGID]) if self.clocks and k > 0 else 0.0


def cross_matrix(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) with cross_matrix(a) b = a × b."""
    return np.array([[0.0, -v[2], v[1]], [v[2], 0.0, -v[0]], [-v[1], v[0], 0.0]])


def left_jacobian(w: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) J with exp(w + δ) ≈ exp(J δ) exp(w) (Solà et al. 2018, "A micro Lie theory", eq. 145)."""
    angle = float(np.linalg.norm(w))
    K = cross_matrix(w)
    if angle < 1e-4:
        return np.eye(3) + 0.5 * K + K @ K / 6
    return np.eye(3) + (1 - np.cos(angle)) / angle**2 * K + (angle - np.sin(angle)) / angle**3 * (K @ K)


@dataclass
class RigProblem(Problem):
    """A problem of one group whose shared parameters are the shape (S,) and then the rig's (E,).

    `shape_prior` covers both. Velocities are held while the poses are solved for: they are known far better than what
    a few milliseconds of them move.

    Attributes:
        layout: whose parameters there are.
        item_sensor: (items,) each item's sensor, a place in layout.sensors.
        item_delay: (items,) seconds from the instant to when the sensor says that it saw the body.
        velocity: (N, Q) how each instant's pose moves: turns of the joints (R(t) = R·exp(v t), rad/s), then m/s.
    """

    layout: RigLayout = field(default_factory=lambda: RigLayout(("",), np.zeros(3)))
    item_sensor: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    item_delay: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))

    @property
    def num_shared(self) -> int:
        """The shape's parameters and the rig's."""
        return self.mesh.num_shape + self.layout.size

    def item_equations(
        self,
        state: State,
        i: int,
        scratch: Scratch,
        stats: NDArray[np.float64],
        *,
        want_rows: bool,
        settings: NDArray[np.float64] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """One item's normal equations over the pose, the shape and the rig."""
        n = int(self.items[i, 0])
        k = int(self.item_sensor[i])
        theta = state.shape[state.group[n], self.mesh.num_shape :]
        delay = float(self.item_delay[i]) + self.layout.delay(theta, k)
        seen, L = self.seen_body(state, n, k, delay, theta)
        H, g, cost = super().item_equations(seen, i, scratch, stats, want_rows=want_rows, settings=settings)
        return (L.T @ H @ L, L.T @ g, cost) if want_rows else (H, g, cost)

    def seen_body(
        self, state: State, n: int, k: int, delay: float, theta: NDArray[np.float64]
    ) -> tuple[State, NDArray[np.float64]]:
        """The state in which sensor k, were it where it was said to be, would see instant n as it does; and how the
        parameters of that state (Q + S) follow those that are solved for, (Q + S, Q + S + E)."""
        S, J = self.mesh.num_shape, state.rotations.shape[1]
        Q, root = 3 * J + 3, 3 * J
        shape = state.shape[:, :S]
        L = np.zeros((Q + S, Q + S + self.layout.size))
        L[:, : Q + S] = np.eye(Q + S)
        rotations, transl = state.rotations[n], state.transl[n]
        velocity = self.velocity[n] if len(self.velocity) else np.zeros(Q)
        if delay != 0.0:
            turned = matrix_from_axis_angle(velocity[:root].reshape(J, 3) * delay)
            rotations, transl = rotations @ turned, transl + velocity[root:] * delay
            for j in range(J):
                L[3 * j : 3 * j + 3, 3 * j : 3 * j + 3] = turned[j].T
        if k > 0:
            part = theta[self.layout.of(k)]
            back = matrix_from_axis_angle(-part[:3])
            place = self.mesh.joint_template[0] + self.mesh.jointdirs[0] @ shape[state.group[n]]
            away = place + transl - self.layout.pivot - part[3:6]
            at = Q + S + self.layout.of(k).start
            left = left_jacobian(part[:3])
            L[:3, at : at + 3] = -rotations[0].T @ left
            L[root:Q, at : at + 3] = back @ cross_matrix(away) @ left
            L[root:Q, at + 3 : at + 6] = -back
            L[root:Q, root:Q] = back
            L[root:Q, Q : Q + S] = (back - np.eye(3)) @ self.mesh.jointdirs[0]
            if self.layout.clocks:
                L[:root, at + RIGID] = velocity[:root]
                L[root:Q, at + RIGID] = back @ velocity[root:]
            rotations = rotations.copy()
            rotations[0] = back @ rotations[0]
            transl = back @ away + self.layout.pivot - place
        every, places = state.rotations.copy(), state.transl.copy()
        every[n], places[n] = rotations, transl
        return State(every, places, shape, state.group), L


def seen_late(problem: Problem, delays_s: NDArray[np.float64], velocity: NDArray[np.float64]) -> RigProblem:
    """The same problem, each item of which sees its instant so many seconds later; velocity (N, Q) moves the poses."""
    own = {f.name: getattr(problem, f.name) for f in fields(Problem) if f.init}
    return RigProblem(**own, item_sensor=np.zeros(len(delays_s), np.int64), item_delay=delays_s, velocity=velocity)


def motion_of(
    rotations: NDArray[np.float64], transl: NDArray[np.float64], times_s: Sequence[float], gap_s: float
) -> NDArray[np.float64]:
    """(T, Q) velocity of each pose, rad/s and m/s, by differences to the instants before and after that are at most
    `gap_s` away; zero where there is none."""
    T, J = rotations.shape[:2]
    out = np.zeros((T, 3 * J + 3))
    for n in range(T):
        near = [m for m in (n - 1, n + 1) if 0 <= m < T and abs(times_s[m] - times_s[n]) <= gap_s]
        if not near:
            continue
        a, b = (near[0], near[1]) if len(near) == 2 else sorted((n, near[0]))
        seconds = times_s[b] - times_s[a]
        # R_n⁻¹·R_b - R_n⁻¹·R_a, each as a turn of the joint about its own axes
        ahead, _ = log_rotation(np.swapaxes(rotations[n], 1, 2) @ rotations[b])
        behind, _ = log_rotation(np.swapaxes(rotations[n], 1, 2) @ rotations[a])
        out[n, : 3 * J] = ((ahead - behind) / seconds).ravel()
        out[n, 3 * J :] = (transl[b] - transl[a]) / seconds
    return out
