"""What the benchmark of the fit on a GPU asks a device: the very jobs of real fits and tracks, written down as they
come, in batches of those that can be done together; and who is asked."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Hashable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bodyfit.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bodyfit.fit.device import Backend, DescendJob, Descent, LinearizeJob, SolveJob, Solver
    from bodyfit.fit.gather import Gatherer
    from bodyfit.fit.problem import Linearization, Problem, State
    from bodyfit.fit.solver import Solution


def make_backend(device: str) -> Backend:
    """The backend of a device: cpu, cuda or cuda:N.

    Raises:
        DeviceError: it is not there, and why.
    """
    if device == "cpu":
        from bodyfit.fit.device import CpuBackend

        return CpuBackend()
    from bodyfit.fit.cuda_backend import CudaBackend

    missing = CudaBackend.available()
    if missing is not None:
        raise DeviceError("device", "cpu, or a CUDA device that can be used", f"{device}: {missing}")
    return CudaBackend(device if ":" in device else f"{device}:0")


@contextmanager
def solver_of(backend: Backend) -> Iterator[Gatherer]:
    """What gathers the jobs of threads into batches for a backend."""
    from bodyfit.fit.gather import Gatherer

    gatherer = Gatherer(backend)
    try:
        yield gatherer
    finally:
        gatherer.close()


def counts_of(solver: Any) -> dict[str, int]:
    """What a gatherer has done until now, here or in another process; nothing for a solver that does not gather."""
    counts: Any = getattr(solver, "counts", None)
    if counts is None:
        return {"batches": 0, "jobs": 0}
    found: Any = counts() if callable(counts) else asdict(counts)
    return dict(found)


def give_back(backend: Any) -> None:
    """Gives the device's memory back that is kept for batches of shapes that came before."""
    programs = getattr(backend, "programs", None)
    if programs is not None:
        from torch import cuda

        programs.clear()
        cuda.empty_cache()


@dataclass
class Recorder:
    """A solver that computes on the CPU and keeps what it was asked."""

    name: str = "cpu"
    solves: list[SolveJob] = field(default_factory=list)
    linearizes: list[LinearizeJob] = field(default_factory=list)
    descends: list[DescendJob] = field(default_factory=list)

    def takes(self, problem: Problem) -> bool:
        """Every problem."""
        del problem
        return True

    def solve(self, job: SolveJob) -> Solution:
        """As the CPU does."""
        from bodyfit.fit.device import CpuBackend

        self.solves.append(job)
        return CpuBackend().solve([job])[0]

    def linearize(self, job: LinearizeJob) -> Linearization:
        """As the CPU does."""
        from bodyfit.fit.device import CpuBackend

        self.linearizes.append(job)
        return CpuBackend().linearize([job])[0]

    def descend(self, job: DescendJob) -> Descent:
        """As the CPU does."""
        from bodyfit.fit.device import CpuBackend

        self.descends.append(job)
        return CpuBackend().descend([job])[0]


@dataclass
class Stopwatch:
    """A solver that adds up how long its threads waited for another one, by kind of job, and the CPU time that these
    very threads spent in it."""

    solver: Solver
    waited_s: dict[str, float] = field(default_factory=dict)
    jobs: dict[str, int] = field(default_factory=dict)
    cpu_s: float = 0.0
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    @property
    def name(self) -> str:
        """As the other one's."""
        return self.solver.name

    def takes(self, problem: Problem) -> bool:
        """As the other one does."""
        return self.solver.takes(problem)

    def solve(self, job: SolveJob) -> Solution:
        """As the other one does."""
        return self._timed("solve", self.solver.solve, job)

    def linearize(self, job: LinearizeJob) -> Linearization:
        """As the other one does."""
        return self._timed("linearize", self.solver.linearize, job)

    def descend(self, job: DescendJob) -> Descent:
        """As the other one does."""
        return self._timed("descend", self.solver.descend, job)

    def _timed(self, kind: str, call: Any, job: Any) -> Any:
        start, cpu = time.perf_counter(), time.thread_time()
        try:
            return call(job)
        finally:
            took, cpu = time.perf_counter() - start, time.thread_time() - cpu
            with self._lock:
                self.cpu_s += cpu
                self.waited_s[kind] = self.waited_s.get(kind, 0.0) + took
                self.jobs[kind] = self.jobs.get(kind, 0) + 1


def alike(backend: Backend, jobs: Sequence[Any]) -> list[Any]:
    """Those of some jobs that the backend takes and that can be in one batch: the largest such set."""
    sets: dict[Hashable, list[Any]] = {}
    for job in jobs:
        if backend.takes(job.problem):
            sets.setdefault(backend.key(job.problem), []).append(job)
    return max(sets.values(), key=len, default=[])


def batch_of(jobs: Sequence[Any], count: int) -> list[Any]:
    """`count` jobs, spread over those that there are; where they are too few, the same problems as objects of their
    own, from a millimetre or two beside."""
    if count <= len(jobs):
        places = np.linspace(0, len(jobs) - 1, count).round().astype(int)
        return [jobs[i] for i in places]
    rng = np.random.default_rng(count)
    out = list(jobs)
    for job in itertools.islice(itertools.cycle(jobs), count - len(jobs)):
        state = job.state.copy()
        state.transl += rng.normal(0, 0.001, state.transl.shape)
        out.append(replace(job, problem=copied(job.problem), state=state))
    return out


def copied(problem: Problem) -> Problem:
    """The same problem as an object of its own, with scratch of its own."""
    return replace(problem, _scratch=[])


def vertices_of(problem: Problem, state: State) -> NDArray[np.float64]:
    """(N, V, 3) metres, world: the bodies of a state."""
    from bodyfit.kernels.body import joint_motions, skin

    mesh = problem.mesh
    shape = state.shape[state.group]
    out = np.empty((len(shape), *mesh.template.shape))
    for n, s in enumerate(shape):
        rest = (mesh.template + mesh.shapedirs @ s.astype(np.float32)).astype(np.float32)
        joints = mesh.joint_template + mesh.jointdirs @ s
        G, posed, points = np.empty((len(joints), 3, 3)), np.empty((len(joints), 3)), np.empty_like(rest)
        # about the body itself: float32 has less to round there
        joint_motions(state.rotations[n], joints, mesh.parents, np.eye(3), np.zeros(3), np.zeros(3), G, posed)
        skin(rest, mesh.weight_joints, mesh.weights, G, posed, joints, points)
        out[n] = points + state.transl[n]
    return out


def apart_mm(problem: Problem, a: State, b: State) -> NDArray[np.float64]:
    """(N,) how far the farthest vertex of each body of a state is from where another state has it, millimetres."""
    difference = vertices_of(problem, a) - vertices_of(problem, b)
    return 1e3 * np.sqrt((difference**2).sum(2)).max(1)


def rows_of(problem: Problem, equations: Linearization) -> int:
    """How many Jacobian rows went into some normal equations: a pixel's, and those of the soles; a gaping pixel that
    has two is counted once."""
    from bodyfit.kernels import evidence as E

    pixels = equations.stats[:, [E.NUM_BOTH, E.NUM_SPILLED, E.NUM_BARE]].sum()
    floors = sum(bool(np.any(problem.views[v].floor_plane[:3])) for _, v in problem.items)
    return int(pixels) + floors * len(problem.mesh.floor_vertices)
