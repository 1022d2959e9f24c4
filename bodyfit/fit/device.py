"""Where the inner loop of a fit runs: here on the CPU, or on a device that solves for many fits at once.

A fit asks for three things: a problem solved (`SolveJob`), its normal equations (`LinearizeJob`), or a pose followed
(`DescendJob`). `FitConfig.solver` is who is asked; None is this thread, on the CPU. A `Backend` does a batch of jobs in
one go; between the two stands what gathers (`bodyfit.fit.gather`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import DeviceMemoryError

if TYPE_CHECKING:
    from bodyfit.fit.problem import Linearization, Problem, State
    from bodyfit.fit.solver import Solution, StopReason

Cancelled = Callable[[], bool]
WAIT_S = 0.002
"""so long a job waits for others that can be in its batch"""
LOST = 4
"""exit status of a process whose device is lost"""


@dataclass(frozen=True)
class SolveJob:
    """`bodyfit.fit.solver.solve` with these arguments."""

    problem: Problem
    state: State
    iterations: int | None = None
    cancelled: Cancelled | None = None


@dataclass(frozen=True)
class LinearizeJob:
    """`Problem.linearize` with these arguments; active (G,) is None for all groups."""

    problem: Problem
    state: State
    active: NDArray[np.bool_] | None = None
    want_rows: bool = True


@dataclass(frozen=True)
class DescendJob:
    """`bodyfit.fit.follow.descend_from` with these arguments: at most `evaluations` times the normal equations, and a
    step below still_rad and still_m is taken without looking again."""

    problem: Problem
    state: State
    evaluations: int
    still_rad: float = 0.0
    still_m: float = 0.0


@dataclass(frozen=True)
class Descent:
    """Where a `DescendJob` ended: the state, the equations of the last state that was looked at and kept, how often
    they were made, and why it stopped."""

    state: State
    equations: Linearization
    evaluations: int
    reason: StopReason


class Backend(Protocol):
    """Does jobs of one kind in one batch; each one's result is what it would be alone, to 0.1 mm of the body."""

    @property
    def name(self) -> str:
        """cpu, cuda or cuda:N."""
        ...

    def takes(self, problem: Problem) -> bool:
        """Whether such a problem can be solved there; others are solved on the CPU."""
        ...

    def key(self, problem: Problem) -> Hashable:
        """Problems with equal keys can be in one batch."""
        ...

    def solve(self, jobs: Sequence[SolveJob]) -> list[Solution]:
        """Solutions in the jobs' order.

        Raises:
            DeviceMemoryError: the batch does not fit; a smaller one may.
            DeviceLostError: the device does not answer any more, and will not in this process.
        """
        ...

    def linearize(self, jobs: Sequence[LinearizeJob]) -> list[Linearization]:
        """Normal equations in the jobs' order; raises as `solve`."""
        ...

    def descend(self, jobs: Sequence[DescendJob]) -> list[Descent]:
        """Ends of the descents in the jobs' order; raises as `solve`."""
        ...


class Solver(Protocol):
    """Who does one job for the thread that asks; safe to be asked by several threads at once."""

    @property
    def name(self) -> str:
        """As the backend's."""
        ...

    def takes(self, problem: Problem) -> bool:
        """As the backend's."""
        ...

    def solve(self, job: SolveJob) -> Solution:
        """Waits for the solution.

        Raises:
            DeviceLostError: as the backend's. A lack of memory is never raised: a batch is split, and what does not
                fit alone is solved on the CPU.
        """
        ...

    def linearize(self, job: LinearizeJob) -> Linearization:
        """Waits for the equations; raises as `solve`."""
        ...

    def descend(self, job: DescendJob) -> Descent:
        """Waits for the end; raises as `solve`."""
        ...


class CpuBackend:
    """The CPU's launchers, one job after the other: what stands in for a device where there is none.

    Args:
        most_jobs: a batch of more jobs is taken not to fit into the memory; None for any.
    """

    name = "cpu"

    def __init__(self, *, most_jobs: int | None = None) -> None:
        self._most_jobs = most_jobs

    def _check_memory(self, jobs: Sequence[object]) -> None:
        if self._most_jobs is not None and len(jobs) > self._most_jobs:
            raise DeviceMemoryError(f"{self.name}: {len(jobs)} jobs, memory for {self._most_jobs}")

    def takes(self, problem: Problem) -> bool:
        """Every problem."""
        del problem
        return True

    def key(self, problem: Problem) -> Hashable:
        """As a device has it: the mesh's level and the number of parameters."""
        return len(problem.mesh.template), len(problem.mesh.parents), problem.mesh.num_shape, problem.stage.name

    def solve(self, jobs: Sequence[SolveJob]) -> list[Solution]:
        """In this thread."""
        from bodyfit.fit.solver import solve_here

        self._check_memory(jobs)
        return [solve_here(j.problem, j.state, iterations=j.iterations, cancelled=j.cancelled) for j in jobs]

    def linearize(self, jobs: Sequence[LinearizeJob]) -> list[Linearization]:
        """In this thread."""
        self._check_memory(jobs)
        return [j.problem.linearize_here(j.state, j.active, want_rows=j.want_rows) for j in jobs]

    def descend(self, jobs: Sequence[DescendJob]) -> list[Descent]:
        """In this thread."""
        from bodyfit.fit.follow import descend_here

        self._check_memory(jobs)
        return [descend_here(j) for j in jobs]
