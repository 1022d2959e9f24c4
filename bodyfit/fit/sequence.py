"""All poses of a moving person together: what the sensors saw, how people move, and feet that stand.

The shape is held: it has been decided from instants spread over the recording. The poses are a chain, each coupled to
the two before it by second differences, so a Gauss-Newton step is one block-banded system for a whole window of
instants. A long recording goes through in windows: the instants of one window are held still when the next begins,
which starts where they ended, so that there is no seam; and its last few are solved again there, with what follows
them. Memory and time per instant do not grow with the recording's length.

The table of terms, with units and sources, is in docs/sequence.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import InputError
from bodyfit.fit.banded import Band, band_cholesky
from bodyfit.fit.collide import Spheres
from bodyfit.fit.config import FitConfig, SequenceConfig, Stage
from bodyfit.fit.mesh import Mesh
from bodyfit.fit.motion_scale import Evidence, learnt_scales
from bodyfit.fit.photometric import ColorPull
from bodyfit.fit.pose_prior import PosePrior, pose_prior
from bodyfit.fit.problem import HELD, Problem, Scratch, State
from bodyfit.fit.retrace import Retracing, Way, retrace
from bodyfit.fit.rig import seen_late
from bodyfit.fit.smooth import REACH, USUAL_FLICKER, acceleration_sigmas, flicker, news_of, smooth_terms
from bodyfit.fit.solver import MEMORY, WORST_DAMPING, StopReason, moved, solve
from bodyfit.fit.standing_feet import Soles, sole_places, soles_of, standing, standing_terms
from bodyfit.fit.view import View, make_view
from bodyfit.rotation import nearest_rotation

if TYPE_CHECKING:
    from bodyfit.fit.config import Clothing
    from bodyfit.fit.joint import FitSetup, Instant, JointFit

ALONE_STEPS = 3
"""so many steps of each instant alone show how much its evidence errs by itself"""
SMALL_ENOUGH = 1e-3
"""two steps in a row that lower the cost by less than this share end the descent"""


@dataclass(frozen=True)
class Chain:
    """What is known of a moving person before the poses are solved together.

    views: each instant's; times_s (T,) seconds; mesh: the body at its found shape, with one direction that is not used
    (`held_body` of a joint fit); sigma_behind_m: how far the skin may lie behind the seen surface; delays_s: for each
    instant's views, by how much later they were taken, None where all are of one time; velocity (T, Q) rad/s and m/s:
    how the poses move meanwhile.
    """

    views: Sequence[Sequence[View]]
    times_s: NDArray[np.float64]
    mesh: Mesh
    prior: PosePrior
    sigma_behind_m: float
    config: FitConfig
    delays_s: Sequence[Sequence[float]] | None = None
    velocity: NDArray[np.float64] | None = None
    spheres: Spheres | None = None
    """what tells how deep parts lie in each other"""
    pulls: Sequence[ColorPull | None] = ()
    """what each instant's colours say; empty where colour is not used"""


@dataclass(frozen=True)
class Poses:
    """Poses of a chain: rotations (T, J, 3, 3), transl (T, 3) metres, cov (T, Q, Q) of right perturbations and transl,
    each instant's own with all others unknown; steps taken and why the last window stopped; stands (T, P) how surely
    each of the sole's points stood still since the instant before."""

    rotations: NDArray[np.float64]
    transl: NDArray[np.float64]
    cov: NDArray[np.float64]
    steps: int
    reason: StopReason
    stands: NDArray[np.float64]


def linked_instants(times_s: NDArray[np.float64], most_s: float) -> NDArray[np.bool_]:
    """(T,) whether an instant follows the one before it, in time and closely enough to say something about it."""
    gap = np.diff(times_s, prepend=np.nan)
    return (gap > 0) & (gap <= most_s + 1e-9)


def is_sequence(times_s: Sequence[float], terms: SequenceConfig) -> bool:
    """Whether a recording has accelerations to speak of: three instants that follow each other closely."""
    linked = linked_instants(np.asarray(times_s, np.float64), terms.most_gap_s)
    return bool((linked[1:-1] & linked[2:]).any()) if len(linked) >= 3 else False


def refine_sequence(
    setup: FitSetup,
    clothing: Clothing,
    instants: Sequence[Instant],
    start: JointFit,
    *,
    terms: SequenceConfig | None = None,
    progress: Callable[[str, float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> JointFit:
    """The same fit with all poses solved together, its shape held.

    Args:
        start: a joint fit, or a track's poses with a shape, one pose for each instant.
        progress: called with the stage's name and the fraction of this stage.
        cancelled: asked between steps; True leaves what has not been solved as it was.

    Raises:
        InputError: not as many poses as instants.
    """
    from bodyfit.fit.joint import held_body, motion_between, spheres_for

    how = terms or setup.config.sequence or SequenceConfig()
    if len(instants) != len(start.rotations):
        raise InputError("start", f"{len(instants)} poses, one an instant", str(len(start.rotations)))
    poses = State(start.rotations, start.transl, np.zeros((1, 1)), np.zeros(len(instants), np.int64))
    chain = Chain(
        [[make_view(o, how.pixels) for o in instant.observations] for instant in instants],
        np.array([i.timestamp_s for i in instants]),
        held_body(setup, how.level, start.shape),
        pose_prior(setup.model.joint_names),
        clothing.sigma_behind_m,
        setup.config,
        [[o.timestamp_s - instant.timestamp_s for o in instant.observations] for instant in instants],
        motion_between(instants, poses),
        spheres_for(setup, setup.config.refine[-1]),
    )
    found = solve_chain(chain, start.rotations, start.transl, how, cov=start.pose_cov, progress=progress,
                        cancelled=cancelled)  # fmt: skip
    return replace(start, rotations=found.rotations, transl=found.transl, pose_cov=found.cov)


def solve_chain(
    chain: Chain,
    rotations: NDArray[np.float64],
    transl: NDArray[np.float64],
    terms: SequenceConfig,
    *,
    cov: NDArray[np.float64] | None = None,
    progress: Callable[[str, float], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Poses:
    """Solves a chain's poses from starts (T, J, 3, 3) and (T, 3), window by window.

    cov: (T, Q, Q) what an instant keeps where the solving was cancelled before it; zeros where None.
    """
    T, J = rotations.shape[:2]
    Q = 3 * J + 3
    linked = linked_instants(chain.times_s, terms.most_gap_s)
    soles = soles_of(chain.mesh)
    out = Poses(
        rotations.copy(), transl.copy(), np.zeros((T, Q, Q)) if cov is None else cov.copy(), 0, StopReason.CONVERGED,
        np.zeros((T, len(soles.rest))),
    )  # fmt: skip
    seen = np.zeros((0, Q, Q))
    steps, reason, first = 0, StopReason.CONVERGED, 0
    while first < T:
        last = T if T - first <= terms.window + terms.ahead else first + terms.window
        begin, end = max(0, first - terms.ahead), min(T, last + terms.ahead)
        window = Window(chain, terms, soles, linked, out, begin, first, end)
        taken, reason = window.solve(cancelled)
        steps += taken
        if reason is StopReason.CANCELLED:
            window.keep(T)
            break
        window.keep(window.end)
        # what the next window holds still is not known exactly either
        seen = np.concatenate([seen, window.spread(seen[len(seen) - window.held :], last)])[-terms.ahead :]
        first = last
        if progress is not None:
            progress("all poses together", first / T)
    return replace(out, rotations=nearest_rotation(out.rotations), steps=steps, reason=reason)


@dataclass(frozen=True)
class _Equations:
    """Of a window's instants: cost of each (N,), a coupling's at one of its instants; gradient (N, Q) and Hessian."""

    cost: NDArray[np.float64]
    gradient: NDArray[np.float64]
    band: Band
    own: NDArray[np.float64]
    """(N, Q) the diagonal of what each instant says by itself"""

    @property
    def total(self) -> float:
        """The window's cost."""
        return float(self.cost.sum())


class Window:
    """Instants [begin, end) of a chain, of which those before `free` are held still."""

    def __init__(
        self, chain: Chain, terms: SequenceConfig, soles: Soles, linked: NDArray[np.bool_], poses: Poses,
        begin: int, free: int, end: int,
    ) -> None:  # fmt: skip
        self.chain, self.terms, self.soles, self.poses = chain, terms, soles, poses
        self.begin, self.held, self.end = begin, free - begin, end
        self.times = chain.times_s[begin:end]
        self.linked = linked[begin:end].copy()
        self.linked[0] = False
        self.usual = acceleration_sigmas(chain.mesh.joint_names) * terms.looseness
        self.sigma = self.usual
        self.share = USUAL_FLICKER
        self.stands = np.zeros((end - begin, len(soles.rest)))
        self.problem = _problem(chain, terms, free, end)
        self.state = State(
            poses.rotations[begin:end].copy(), poses.transl[begin:end].copy(), np.zeros((1, 1)),
            np.zeros(end - begin, np.int64),
        )  # fmt: skip

    def judge_standing(self) -> None:
        """Which points of the soles stand, in the poses at hand."""
        if not self.terms.feet:
            return
        places, _ = sole_places(self.soles, self.state.rotations, self.state.transl, want_rows=False)
        planes = np.array([_floor(v) for v in self.chain.views[self.begin : self.end]])
        self.stands = standing(places, self.times, self.linked, planes)

    def equations(self, state: State) -> _Equations:
        """Cost, gradient and Hessian of the free instants at a state of all."""
        k = self.held
        mine = State(state.rotations[k:], state.transl[k:], state.shape, state.group[k:])
        eq = self.problem.linearize(mine)
        n, Q = len(state.rotations), eq.A.shape[1]
        band = Band.zeros(n, Q, REACH)
        cost, gradient = np.zeros(n), np.zeros((n, Q))
        for some, slope in self.couplings(state, band):
            cost += some
            gradient += slope
        cost[k:] += eq.instant_cost
        gradient[k:] += eq.pose_gradient
        band.diagonal[k:] += eq.A
        own = np.zeros((n, Q))
        own[k:] = np.diagonal(eq.A, axis1=1, axis2=2)
        return _Equations(cost, gradient, band, own)

    def step(self, eq: _Equations, damping: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """The damped Gauss-Newton step (n, Q), zero where held; None where the equations cannot be solved."""
        k = self.held
        band = Band(eq.band.blocks[:, k:].copy())
        i = np.arange(band.diagonal.shape[1])
        most = band.diagonal[:, i, i].max(1, keepdims=True)
        # accelerations hold firmly where somebody hardly moves, and are no reason to go slowly
        band.diagonal[:, i, i] += damping[k:, None] * eq.own[k:] + 1e-9 * (1.0 + most)
        out = np.zeros_like(eq.gradient)
        try:
            out[k:] = -band_cholesky(band).solve(eq.gradient[k:])
        except np.linalg.LinAlgError:
            return None
        return out

    def solve(self, cancelled: Callable[[], bool] | None) -> tuple[int, StopReason]:
        """Leaps first, then the poses without feet and with everybody's scales, so that feet and this person's scales
        are judged where the poses are smooth; then all."""
        if self.terms.retrace:
            self.retrace(cancelled)
        self.weigh(cancelled)
        steps, reason = self.descend(self.terms.iterations, cancelled)
        if reason is StopReason.CANCELLED:
            return steps, reason
        if self.terms.feet:
            self.judge_standing()
        self.adapt()
        more, reason = self.descend(self.terms.iterations, cancelled)
        return steps + more, reason

    def weigh(self, cancelled: Callable[[], bool] | None) -> None:
        """Accelerations count against an instant's own evidence by what that errs anew in each instant: seen in poses
        that are solved alone."""
        k, s = self.held, self.state
        n = len(self.times) - k
        each = State(s.rotations[k:], s.transl[k:], np.zeros((n, 1)), np.arange(n))
        alone = solve(self.problem, each, iterations=ALONE_STEPS, cancelled=cancelled)
        A, mine = alone.equations.A, alone.state
        # what is known beforehand does not err anew
        beforehand = replace(self.problem, items=np.zeros((0, 2), np.int64)).linearize(mine).A
        inverse = np.linalg.inv(A + 1e-9 * np.eye(A.shape[1]))
        cov = inverse @ (A - beforehand) @ inverse
        sd = np.sqrt(np.maximum(np.diagonal(cov, axis1=1, axis2=2), 1e-12))
        self.share = flicker(mine.rotations, mine.transl, self.times[k:], self.linked_free(), sd)

    def adapt(self) -> None:
        """The scales of this person's accelerations, at the poses at hand."""
        k, s = self.held, self.state
        mine = State(s.rotations[k:], s.transl[k:], s.shape, s.group[k:])
        eq = self.problem.linearize(mine)
        Q = eq.A.shape[1]
        band, gradient = Band.zeros(len(s.rotations), Q, REACH), np.zeros((len(s.rotations), Q))
        gradient += standing_terms(self.soles, s.rotations, s.transl, self.times, self.stands, band)[1]
        band.diagonal[k:] += eq.A
        gradient[k:] += eq.pose_gradient
        news = news_of(s.rotations, s.transl, self.times, self.linked)
        self.sigma = learnt_scales(news, self.usual, self.times, Evidence(band, gradient, k, self.share))

    def linked_free(self) -> NDArray[np.bool_]:
        """Which free instants follow another free one."""
        linked = self.linked[self.held :].copy()
        linked[0] = False
        return linked

    def retrace(self, cancelled: Callable[[], bool] | None) -> None:
        """Limbs that leap in the free instants followed again."""
        k, how = self.held, self.terms
        # wide enough to find a limb again that moves fast
        stage = replace(
            self.problem.stage,
            name="retrace",
            robust_depth_m=0.08,
            robust_outline_m=0.12,
            window_m=0.08,
            max_turn_rad=0.3,
        )
        scratch: list[Scratch] = []
        problems: dict[int, Problem] = {}

        def problem_of(t: int) -> Problem:
            if t not in problems:
                at = self.begin + k + t
                problems[t] = replace(_problem(self.chain, how, at, at + 1), stage=stage, _scratch=scratch)
            return problems[t]

        s, n = self.state, len(self.times) - k
        cost = np.zeros(n)
        for t in range(n):
            one = State(s.rotations[k + t : k + t + 1], s.transl[k + t : k + t + 1], s.shape, np.zeros(1, np.int64))
            cost[t] = problem_of(t).linearize(one, want_rows=False).instant_cost[0]
        found = retrace(
            Way(s.rotations[k:], s.transl[k:], cost),
            Retracing(
                problem_of, self.times[k:], self.linked_free(), self.usual / USUAL_FLICKER, how.window,
                how.retrace_steps,
            ),
            cancelled or (lambda: False),
        )  # fmt: skip
        s.rotations[k:], s.transl[k:] = found.rotations, found.transl

    def descend(self, iterations: int, cancelled: Callable[[], bool] | None) -> tuple[int, StopReason]:
        """Levenberg-Marquardt with a damping for each instant, as `bodyfit.fit.solver.solve` has it."""
        stage = self.problem.stage
        now = best = self.state
        eq = self.equations(now)
        least = eq.total
        n = len(now.rotations)
        damping, growth = np.full(n, stage.damping), np.full(n, 4.0)
        recent, idle, steps = [least] * MEMORY, 0, 0
        for _ in range(iterations):
            if cancelled is not None and cancelled():
                self.state = best
                return steps, StopReason.CANCELLED
            step = self.step(eq, damping)
            if step is None:
                damping, growth = damping * growth, growth * 2
                continue
            candidate = moved(now, step, np.zeros((1, 1)), stage.max_turn_rad)
            trial = self.equations(candidate)
            good = np.isfinite(trial.total) and trial.total < max(recent)
            worse = trial.cost > eq.cost
            blamed = trial.cost > 1.5 * eq.cost if good else worse
            damping = np.where(blamed, damping * growth, np.maximum(damping * 0.3, 1e-7) if good else damping)
            growth = np.where(blamed, growth * 2.0, 4.0 if good else growth)
            if not good:
                if damping.max() > WORST_DAMPING:
                    break
                continue
            gain = (least - trial.total) / max(least, 1e-12)
            now, eq = candidate, trial
            recent = [*recent[1:], trial.total]
            steps += 1
            if gain > 0:
                best, least = candidate, trial.total
            idle = idle + 1 if gain < SMALL_ENOUGH else 0
            if idle >= 2:
                self.state = best
                return steps, StopReason.CONVERGED
        self.state = best
        return steps, StopReason.STEPS_USED

    def keep(self, end: int) -> None:
        """Writes the free poses before `end` into the chain's."""
        k, stop = self.held, min(end, self.end) - self.begin
        self.poses.rotations[self.begin + k : self.begin + stop] = self.state.rotations[k:stop]
        self.poses.transl[self.begin + k : self.begin + stop] = self.state.transl[k:stop]
        self.poses.stands[self.begin + k : self.begin + stop] = self.stands[k:stop]

    def spread(self, held: NDArray[np.float64], last: int) -> NDArray[np.float64]:
        """Writes the covariances of the free poses before `last`; `held` (k, Q, Q) is what the sensors said of those
        that are held, as it is returned of those that were free (last - free, Q, Q)."""
        k, s = self.held, self.state
        problem = replace(self.problem, shared_noise=True, break_ties=False, _scratch=[])
        mine = State(s.rotations[k:], s.transl[k:], s.shape, s.group[k:])
        own = problem.linearize(mine).A
        band = Band.zeros(len(s.rotations), own.shape[1], REACH)
        # everybody's scales: what instants have wrong alike does not average out, however still somebody stands
        smooth_terms(s.rotations, s.transl, self.times, self.linked, self.usual / self.share, band)
        standing_terms(self.soles, s.rotations, s.transl, self.times, self.stands, band)
        band.diagonal[:k] += held
        band.diagonal[k:] += own
        i = np.arange(band.diagonal.shape[1])
        band.diagonal[:, i, i] += 1e-9 * (1.0 + band.diagonal[:, i, i].max(1, keepdims=True))
        stop = last - self.begin
        self.poses.cov[self.begin + k : last] = band_cholesky(band).marginals()[k:stop]
        return own[: stop - k]

    def couplings(self, state: State, band: Band) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Costs and gradients of what couples instants; its Hessian is added to the band."""
        return [
            smooth_terms(state.rotations, state.transl, self.times, self.linked, self.sigma, band, self.share),
            standing_terms(self.soles, state.rotations, state.transl, self.times, self.stands, band),
        ]


def _floor(views: Sequence[View]) -> NDArray[np.float64]:
    known = [v.floor_plane for v in views if np.any(v.floor_plane[:3])]
    return known[0] if known else np.zeros(4)


def _problem(chain: Chain, terms: SequenceConfig, first: int, end: int) -> Problem:
    views, items, delays = [], [], []
    for n in range(first, end):
        late = chain.delays_s[n] if chain.delays_s is not None else [0.0] * len(chain.views[n])
        for view, delay in zip(chain.views[n], late, strict=True):
            items.append((n - first, len(views)))
            views.append(view)
            delays.append(delay)
    mean = np.broadcast_to(chain.prior.mean, (end - first, *chain.prior.mean.shape))
    plain = Problem(
        chain.mesh, views, np.array(items, np.int64).reshape(-1, 2), sequence_stage(chain.config, terms), chain.config,
        chain.prior, mean, HELD, chain.sigma_behind_m, spheres=chain.spheres,
        pulls=[(n, pull) for n, pull in enumerate(chain.pulls[first:end]) if pull is not None],
    )  # fmt: skip
    if chain.velocity is None or not chain.velocity.any():
        return plain
    return seen_late(plain, np.array(delays), chain.velocity[first:end])


def sequence_stage(config: FitConfig, terms: SequenceConfig) -> Stage:
    """The last stage's noise and robust scales, on the sequence's mesh and grid."""
    return replace(config.refine[-1], name="sequence", level=terms.level, pixels=terms.pixels)
