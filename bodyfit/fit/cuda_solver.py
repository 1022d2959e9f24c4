"""Levenberg-Marquardt for a batch of fits on a GPU: the loops of `solver` and `follow`, without a branch on the host.

Every group has its damping, its acceptance and its end on the device; a group that has ended stays as it is while the
others go on. The host starts one step after the other and waits for none; only whether all have ended is looked at as
it becomes known, so that the steps that are left over are not begun.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bodyfit.fit.cuda_equations import BatchState, Equations, Normal
from bodyfit.fit.device import DescendJob, Descent, SolveJob
from bodyfit.fit.problem import State
from bodyfit.fit.solver import MEMORY, PATIENCE, SMALL_GAIN, WORST_DAMPING, Solution, StopReason
from bodyfit.render.extra import Tensor, torch
from bodyfit.rotation import nearest_rotation

F64 = torch.float64
_NUMPY = {torch.float64: np.float64, torch.int64: np.int64, torch.bool: np.bool_}
Work = Callable[[], None]
LEAST_DAMPING = 1e-7
ALMOST_SAME = 1.02
SMALL_DESCENT = 2e-3
REASONS = (StopReason.STEPS_USED, StopReason.CONVERGED, StopReason.STUCK)


def rotations_of(turns: Tensor) -> Tensor:
    """Rodrigues' formula: (..., 3) radians to (..., 3, 3), as `bodyfit.rotation.matrix_from_axis_angle`."""
    square = (turns * turns).sum(-1)
    small = square < 1e-16
    angle = torch.where(small, torch.ones_like(square), square).sqrt()
    s = torch.where(small, torch.ones_like(square), torch.sin(angle) / angle)[..., None, None]
    c = torch.where(small, torch.full_like(square, 0.5), (1.0 - torch.cos(angle)) / (angle * angle))[..., None, None]
    x, y, z = turns.unbind(-1)
    zero = torch.zeros_like(x)
    K = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    return torch.eye(3, dtype=turns.dtype, device=turns.device) + s * K + c * (K @ K)


def step_of(normal: Normal, damping: Tensor, shape_damping: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """As `solver.step_of`, by Cholesky's factors: steps (N, Q) and (G, S); not a number where there is none."""
    diagonal = normal.A.diagonal(dim1=1, dim2=2)
    more = damping[:, None] * diagonal + 1e-9 * (1.0 + diagonal.amax(1, keepdim=True))
    factor, _ = torch.linalg.cholesky_ex(normal.A + torch.diag_embed(more))
    S = normal.C.shape[1]
    X = torch.cholesky_solve(torch.cat([normal.B, normal.pose_gradient[:, :, None]], 2), factor)
    less = -(normal.B.transpose(1, 2) @ X)
    C = normal.C + torch.diag_embed(shape_damping[:, None] * normal.C.diagonal(dim1=1, dim2=2) + 1e-9)
    C = C.index_add(0, group, less[:, :, :S])
    right = normal.shape_gradient.index_add(0, group, less[:, :, S])
    shape_factor, _ = torch.linalg.cholesky_ex(C)
    shape_step = -torch.cholesky_solve(right[:, :, None], shape_factor)[:, :, 0]
    pose_step = -X[:, :, S] - (X[:, :, :S] @ shape_step[group][:, :, None])[:, :, 0]
    return pose_step, shape_step


def moved(state: BatchState, pose_step: Tensor, shape_step: Tensor, max_turn: Tensor) -> BatchState:
    """As `solver.moved`; max_turn (N,) radians."""
    n, joints = state.rotations.shape[:2]
    turns = pose_step[:, : 3 * joints].reshape(n, joints, 3)
    angle = turns.norm(dim=2, keepdim=True)
    turns = turns * (max_turn[:, None, None] / angle.clamp_min(1e-9)).clamp_max(1.0)
    return BatchState(
        state.rotations @ rotations_of(turns), state.transl + pose_step[:, 3 * joints :], state.shape + shape_step
    )


class Descending:
    """What the loops have in common: problems, the state of each, and what is told of the end."""

    def __init__(self, equations: Equations, states: Sequence[State], stages: Sequence[tuple[float, float]]) -> None:
        """stages: first damping and largest turn of every problem."""
        self.equations, self.batch, self.tensors = equations, equations.batch, equations.tensors
        at = self.batch.places
        self.group, self.item = at.group_of_instant, at.instant_of_item
        instants = [len(s.group) for s in states]
        groups = [len(s.shape) for s in states]
        up = self.tensors.upload
        self.damping = up(np.repeat([s[0] for s in stages], instants))
        self.shape_damping = up(np.repeat([s[0] for s in stages], groups))
        self.max_turn = up(np.repeat([s[1] for s in stages], instants))
        self.now = equations.upload(states)
        self.normal = equations.empty_normal()

    def full(self, count: int, value: float | bool, kind: torch.dtype = F64) -> Tensor:
        """(count,) of one value."""
        return self.tensors.upload(np.full(count, value, _NUMPY[kind]))

    def run(self, most: int, active: Tensor, begin: Work, step: Work) -> None:
        """At most so many steps; ends earlier where it is known in time that nothing is active. begin and step are the
        methods of that name, or what was recorded of them."""
        begin()
        known = None
        for _ in range(most):
            step()
            if known is None:
                known = self.tensors.read_later(active.any()[None])
            ends = known()
            if ends is not None:
                if not ends[0]:
                    return
                known = None

    def begin(self) -> None:
        """Looks at the first state."""
        self.normal.copy_(self.equations.at(self.now))

    def step(self) -> None:
        """One step of all."""
        raise NotImplementedError

    def states(self, found: BatchState, given: Sequence[State], *, exact: bool) -> list[State]:
        """The problems' own states, on the host; exact: with the nearest rotations."""
        rotations, transl, shape = (t.cpu().numpy() for t in (found.rotations, found.transl, found.shape))
        if exact:
            rotations = nearest_rotation(rotations)
        at, out = self.batch.places, []
        for k, state in enumerate(given):
            n = slice(at.first_instant[k], at.first_instant[k + 1])
            g = slice(at.first_group[k], at.first_group[k + 1])
            out.append(State(rotations[n].copy(), transl[n].copy(), shape[g].copy(), state.group))
        return out


class BatchSolve(Descending):
    """`solver.solve_here` for a batch: a step is held against the worst of the last costs of its group."""

    def __init__(self, equations: Equations, jobs: Sequence[SolveJob]) -> None:
        states = [j.state for j in jobs]
        super().__init__(equations, states, [(j.problem.stage.damping, j.problem.stage.max_turn_rad) for j in jobs])
        N, G = self.batch.num_instants, self.batch.num_groups
        limits = [j.problem.stage.iterations if j.iterations is None else j.iterations for j in jobs]
        self.most = max(limits)
        self.limit = self.tensors.upload(np.repeat(limits, [len(s.shape) for s in states]).astype(np.int64))
        self.growth = self.full(N, 4.0)
        self.active = self.tensors.upload(np.repeat(np.array(limits) > 0, [len(s.shape) for s in states]))
        self.steps, self.idle, self.tries = (self.full(G, 0, torch.int64) for _ in range(3))
        self.reason = self.full(G, 0, torch.int64)
        self.best, self.best_normal = equations.upload(states), equations.empty_normal()
        self.best_cost = self.tensors.room(G, kind=F64)
        self.recent = self.tensors.room(MEMORY, G, kind=F64)

    def begin(self) -> None:
        """Looks at the first state, which is the best so far."""
        super().begin()
        self.best_normal.copy_(self.normal)
        self.best_cost.copy_(self.normal.cost)
        self.recent.copy_(self.normal.cost[None].expand_as(self.recent))

    def step(self) -> None:
        """One step of every group that has not ended."""
        group, active = self.group, self.active
        live = active[group]
        pose_step, shape_step = step_of(self.normal, self.damping, self.shape_damping, group)
        pose_step = torch.where(live[:, None], pose_step, torch.zeros_like(pose_step))
        shape_step = torch.where(active[:, None], shape_step, torch.zeros_like(shape_step))
        candidate = moved(self.now, pose_step, shape_step, self.max_turn)
        trial = self.equations.at(candidate)
        good = active & (trial.cost < self.recent.amax(0)) & torch.isfinite(trial.cost)
        bad = active & ~good
        # only the instants that got worse are damped, as in the loop on the CPU
        worse = trial.instant_cost > self.normal.instant_cost
        any_worse = torch.zeros_like(self.steps).index_add(0, group, worse.to(torch.int64)) > 0
        alone = (bad & ~any_worse)[group]
        much = trial.instant_cost > 1.5 * self.normal.instant_cost
        blamed = live & torch.where(good[group], much, worse | alone)
        accepted = good[group]
        self.now.copy_where(accepted, good, candidate)
        self.normal.copy_where(accepted, good, accepted[self.item], trial)
        better = good & (trial.cost < self.best_cost)
        gain = torch.where(better, (self.best_cost - trial.cost) / self.best_cost.clamp_min(1e-12), 0.0)
        improved = better[group]
        self.best.copy_where(improved, better, candidate)
        self.best_normal.copy_where(improved, better, improved[self.item], trial)
        self.best_cost.copy_(torch.where(better, trial.cost, self.best_cost))
        newest = torch.where(good, trial.cost, self.recent[0])
        self.recent.copy_(torch.cat([newest[None], self.recent[:-1]]))
        self.steps += good
        self.idle.copy_(torch.where(good, torch.where(gain < SMALL_GAIN, self.idle + 1, 0), self.idle))
        calm = live & accepted & ~blamed
        eased = (self.damping * 0.3).clamp_min(LEAST_DAMPING)
        self.damping.copy_(torch.where(blamed, self.damping * self.growth, torch.where(calm, eased, self.damping)))
        self.growth.copy_(torch.where(blamed, self.growth * 2.0, torch.where(calm, 4.0, self.growth)))
        shape_eased = (self.shape_damping * 0.3).clamp_min(LEAST_DAMPING)
        self.shape_damping.copy_(
            torch.where(good, shape_eased, torch.where(bad, self.shape_damping * 4, self.shape_damping))
        )
        ends = active & ((self.idle >= PATIENCE) | (self.shape_damping > WORST_DAMPING))
        self.reason.copy_(torch.where(ends, torch.where(self.steps > 0, 1, 2), self.reason))
        self.tries += active
        self.active.copy_(active & ~ends & (self.tries < self.limit))

    def solutions(self, jobs: Sequence[SolveJob], begin: Work, step: Work) -> list[Solution]:
        """Runs to the end (see `run`); waits for the device."""
        self.run(self.most, self.active, begin, step)
        equations = self.equations.split(self.best_normal)
        states = self.states(self.best, [j.state for j in jobs], exact=True)
        cost, steps, reason = (t.cpu().numpy() for t in (self.best_cost, self.steps, self.reason))
        out, first = [], self.batch.places.first_group
        for k, (state, eq) in enumerate(zip(states, equations, strict=True)):
            g = slice(first[k], first[k + 1])
            out.append(Solution(state, eq, cost[g].copy(), steps[g].copy(), [REASONS[r] for r in reason[g]]))
        return out


class BatchDescent(Descending):
    """`follow.descend_here` for a batch of problems of one instant each."""

    def __init__(self, equations: Equations, jobs: Sequence[DescendJob]) -> None:
        states = [j.state for j in jobs]
        super().__init__(equations, states, [(j.problem.stage.damping, j.problem.stage.max_turn_rad) for j in jobs])
        n = len(jobs)
        up = self.tensors.upload
        self.limit = up(np.array([j.evaluations for j in jobs], np.int64))
        self.most = max(j.evaluations for j in jobs)
        self.still = up(np.array([(j.still_rad, j.still_m) for j in jobs], np.float64))
        self.growth, self.used = self.full(n, 4.0), self.full(n, 1, torch.int64)
        self.active = self.full(n, True, torch.bool)
        self.reason = self.full(n, 1, torch.int64)

    def step(self) -> None:
        """One step of every problem that has not ended."""
        active, joints = self.active, self.batch.num_joints
        A, gradient = self.normal.A, self.normal.pose_gradient
        diagonal = A.diagonal(dim1=1, dim2=2)
        more = self.damping[:, None] * diagonal + 1e-9 * (1.0 + diagonal.amax(1, keepdim=True))
        factor, _ = torch.linalg.cholesky_ex(A + torch.diag_embed(more))
        step = -torch.cholesky_solve(gradient[:, :, None], factor)[:, :, 0]
        turn, shift = step[:, : 3 * joints].abs().amax(1), step[:, 3 * joints :].abs().amax(1)
        still = active & (turn < self.still[:, 0]) & (shift < self.still[:, 1])
        out = active & ~still & (self.used >= self.limit)
        going = active & ~still & ~out
        candidate = moved(self.now, step, torch.zeros_like(self.now.shape), self.max_turn)
        # a step that hardly moves the body is taken without looking again; so is the only one
        taken = still | (out & (self.used == 1))
        trial = self.equations.at(candidate)
        lower = going & (trial.cost < self.normal.cost)
        small = lower & (self.normal.cost - trial.cost < SMALL_DESCENT * self.normal.cost)
        near = going & ~lower & torch.isfinite(trial.cost) & (trial.cost < ALMOST_SAME * self.normal.cost)
        self.used += going
        self.now.copy_where(taken | lower, taken | lower, candidate)
        self.normal.copy_where(lower, lower, lower[self.item], trial)
        harder = going & ~lower & ~near
        eased = (self.damping * 0.3).clamp_min(LEAST_DAMPING)
        self.damping.copy_(torch.where(lower, eased, torch.where(harder, self.damping * self.growth, self.damping)))
        self.growth.copy_(torch.where(lower, 4.0, torch.where(harder, self.growth * 2.0, self.growth)))
        self.reason.copy_(torch.where(out, 0, self.reason))
        self.active.copy_(going & ~small & ~near)

    def descents(self, jobs: Sequence[DescendJob], begin: Work, step: Work) -> list[Descent]:
        """Runs to the end (see `run`); waits for the device."""
        self.run(self.most, self.active, begin, step)
        equations = self.equations.split(self.normal)
        states = self.states(self.now, [j.state for j in jobs], exact=False)
        used, reason = self.used.cpu().numpy(), self.reason.cpu().numpy()
        return [
            Descent(state, eq, int(u), REASONS[r])
            for state, eq, u, r in zip(states, equations, used, reason, strict=True)
        ]
