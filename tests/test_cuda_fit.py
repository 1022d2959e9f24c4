# ruff: noqa: E402 (what is imported needs what may be missing)
"""The fit's inner loop for a GPU against the CPU's, at full size: the same kernels, compiled for this machine.

On a CUDA device (marker `gpu`) the same tests run there. The simulator's share is in `simulated_fit.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

numba_cuda = pytest.importorskip("numba_cuda", reason="numba-cuda (extra [cuda]) is missing")
torch = pytest.importorskip("torch")

from compiled_launches import CompiledTensors
from device_problems import bodies_mm, follow_job, joint_job, start_job

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.camera import Camera
from bodyfit.errors import DeviceError, DeviceLostError, DeviceMemoryError
from bodyfit.fit import cuda_backend, cuda_equations
from bodyfit.fit.blas import one_blas_thread
from bodyfit.fit.config import FitConfig
from bodyfit.fit.cuda_backend import CudaBackend
from bodyfit.fit.cuda_equations import ROWS_PER_PIXEL, Equations
from bodyfit.fit.device import CpuBackend, LinearizeJob, SolveJob
from bodyfit.fit.problem import Linearization
from bodyfit.fit.rig import seen_late

CAMERA = Camera(320, 288, 252.0, 252.0, 159.5, 143.5)
WIDE = Camera(424, 240, 215.0, 215.0, 211.5, 119.5)
PLACES = ["compiled", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(scope="module")
def model() -> BodyModel:
    return load_body_model()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As every fit has it: how many threads BLAS has decides the last bits."""
    with one_blas_thread():
        yield


@pytest.fixture(scope="module", params=PLACES)
def tensors(request: pytest.FixtureRequest) -> Any:
    if request.param == "compiled":
        return CompiledTensors()
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    from bodyfit.fit.cuda_tensors import DeviceTensors

    return DeviceTensors(torch.device("cuda"))


@pytest.fixture
def backend(tensors: Any) -> CudaBackend:
    return CudaBackend("cuda", tensors=tensors)


def apart(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Largest difference, relative to the largest number."""
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12))


def assert_same_equations(ours: Linearization, theirs: Linearization) -> None:
    assert ours.stats[:, 3:7].sum() > 100
    for name in ("cost", "instant_cost"):
        assert apart(getattr(ours, name), getattr(theirs, name)) < 2e-5, name
    for name in ("A", "B", "C"):
        assert apart(getattr(ours, name), getattr(theirs, name)) < 1e-4, name
    # gradients are sums of what cancels: their error is to be seen beside what a step of 0.1 sd would change
    for name, matrix in (("pose_gradient", "A"), ("shape_gradient", "C")):
        error = np.abs(getattr(ours, name) - getattr(theirs, name))
        scale = np.sqrt(np.maximum(np.diagonal(getattr(theirs, matrix), axis1=1, axis2=2), 1.0))
        assert (error < 0.1 * scale).all(), name
    np.testing.assert_allclose(ours.stats[:, 3:7], theirs.stats[:, 3:7], atol=2)


def assert_same_bodies(problem: Any, ours: Any, theirs: Any, tolerance_mm: float = 0.1) -> None:
    apart_mm = np.linalg.norm(bodies_mm(problem, ours) - bodies_mm(problem, theirs), axis=-1).max(1)
    assert (apart_mm < tolerance_mm).all(), apart_mm


@pytest.mark.parametrize("kind", ["search", "start", "two views and keypoints", "joint", "follow"])
def test_costs_and_equations_are_those_of_the_cpu(kind: str, model: BodyModel, backend: CudaBackend) -> None:
    job: Any = {
        "search": lambda: start_job(model, CAMERA, 1, stage=FitConfig().search, count=4),
        "start": lambda: start_job(model, CAMERA, 2),
        "two views and keypoints": lambda: start_job(model, CAMERA, 3, views=2, keypoints=True, count=2),
        "joint": lambda: joint_job(model, CAMERA),
        "follow": lambda: follow_job(model, WIDE, 1),
    }[kind]()
    assert backend.takes(job.problem)
    (ours,) = backend.linearize([LinearizeJob(job.problem, job.state)])
    assert_same_equations(ours, job.problem.linearize_here(job.state))
    (cost,) = backend.linearize([LinearizeJob(job.problem, job.state, want_rows=False)])
    np.testing.assert_allclose(cost.cost, ours.cost, rtol=1e-12)


def test_sums_of_float32_rows_err_no_more_than_the_rows(model: BodyModel, tensors: Any) -> None:
    job = joint_job(model, CAMERA)
    equations = Equations([job.problem], [job.state], tensors, rows_per_pixel=ROWS_PER_PIXEL)
    equations.at(equations.upload([job.state]))
    rows = equations._rows.cpu().numpy().astype(np.float64)
    found = equations._products(want_rows=True)
    assert found is not None and np.count_nonzero(rows[:, :, -1]) > 5000
    exact = np.einsum("mcar,mcbr->mab", rows, rows, optimize=True)
    size = np.sqrt(np.einsum("maa->ma", exact))
    assert (np.abs(found.cpu().numpy() - exact) <= 1e-6 * size[:, :, None] * size[:, None] + 1e-12).all()


def test_groups_that_are_not_active_are_left_at_zero(model: BodyModel, backend: CudaBackend) -> None:
    job = start_job(model, CAMERA, 0)
    active = np.array([True, False, True])
    (ours,) = backend.linearize([LinearizeJob(job.problem, job.state, active)])
    theirs = job.problem.linearize_here(job.state, active)
    assert not ours.A[1].any() and not ours.C[1].any() and ours.cost[1] == 0 and not ours.stats[1].any()
    assert apart(ours.A, theirs.A) < 1e-4 and apart(ours.cost, theirs.cost) < 2e-5


@pytest.mark.parametrize("kind", ["start", "joint"])
def test_a_solution_is_that_of_the_cpu(kind: str, model: BodyModel, backend: CudaBackend) -> None:
    job = start_job(model, CAMERA, 2, count=2) if kind == "start" else joint_job(model, CAMERA, last=False)
    # later steps may come to a fork, where the last bit decides (docs/gpu.md)
    job = replace(job, iterations=3)
    (ours,), (theirs,) = backend.solve([job]), CpuBackend().solve([job])
    np.testing.assert_allclose(ours.cost, theirs.cost, rtol=1e-3)
    np.testing.assert_array_equal(ours.steps, theirs.steps)
    assert ours.reasons == theirs.reasons and (ours.steps > 1).all()
    assert_same_bodies(job.problem, ours.state, theirs.state)
    before = job.problem.linearize_here(job.state, want_rows=False).cost
    assert (ours.cost < 0.7 * before).all()
    again = job.problem.linearize_here(ours.state)
    np.testing.assert_allclose(again.cost, ours.cost, rtol=1e-3)


def test_a_group_that_has_ended_waits_for_the_others(model: BodyModel, backend: CudaBackend) -> None:
    """One starts where it ends, the others do not."""
    job = start_job(model, CAMERA, 1, count=2)
    done = CpuBackend().solve([replace(job, iterations=25)])[0]
    state = replace(job.state, rotations=job.state.rotations.copy(), transl=job.state.transl.copy())
    state.rotations[0], state.transl[0] = done.state.rotations[0], done.state.transl[0]
    state.shape[0] = done.state.shape[0]
    both = SolveJob(job.problem, state, 12)
    (ours,), (theirs,) = backend.solve([both]), CpuBackend().solve([both])
    assert ours.reasons == theirs.reasons
    np.testing.assert_array_equal(ours.steps, theirs.steps)
    assert_same_bodies(job.problem, ours.state, theirs.state)


def test_what_is_followed_ends_where_it_does_on_the_cpu(model: BodyModel, backend: CudaBackend) -> None:
    jobs = [follow_job(model, CAMERA if k % 2 else WIDE, k) for k in range(5)]
    assert len({backend.key(j.problem) for j in jobs}) == 1
    jobs[3] = replace(jobs[3], evaluations=1)
    jobs[4] = replace(jobs[4], still_rad=1.0, still_m=1.0)
    together, alone = backend.descend(jobs), CpuBackend().descend(jobs)
    for job, ours, theirs in zip(jobs, together, alone, strict=True):
        assert (ours.evaluations, ours.reason) == (theirs.evaluations, theirs.reason)
        assert_same_bodies(job.problem, ours.state, theirs.state)
        assert_same_equations(ours.equations, theirs.equations)
    assert [t.evaluations for t in together[3:]] == [1, 1]


def test_one_in_company_is_as_alone(model: BodyModel, tensors: Any) -> None:
    jobs = [
        replace(start_job(model, camera, seed, count=count, views=views), iterations=4)
        for camera, seed, count, views in ((CAMERA, 0, 2, 1), (WIDE, 1, 1, 1), (CAMERA, 3, 1, 2))
    ]
    together = CudaBackend("cuda", tensors=tensors).solve(jobs)
    for job, company in zip(jobs, together, strict=True):
        (alone,) = CudaBackend("cuda", tensors=tensors).solve([job])
        assert_same_bodies(job.problem, company.state, alone.state, 0.05)
        assert company.reasons == alone.reasons and company.equations.stats.shape == alone.equations.stats.shape


def test_rows_without_room_are_made_again_with_room(
    model: BodyModel, backend: CudaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = follow_job(model, WIDE, 2)
    (enough,) = backend.descend([job])
    assert backend.redone == 0
    monkeypatch.setattr(cuda_equations, "ROWS_PER_PIXEL", 0.1)
    monkeypatch.setattr(cuda_equations, "SPARE_ROWS", 0)
    (again,) = backend.descend([job])
    assert backend.redone == 1
    assert_same_bodies(job.problem, again.state, enough.state, 0.05)


def test_shapes_that_come_again_are_recorded_and_played(model: BodyModel, tensors: Any) -> None:
    backend = CudaBackend("cuda", tensors=tensors)
    plain = CudaBackend("cuda", tensors=tensors, record=False)
    for k in range(4):
        job = follow_job(model, WIDE, 1)
        moved = job.state.transl + 0.004 * k
        job = replace(job, state=replace(job.state, transl=moved))
        (ours,), (theirs,) = backend.descend([job]), plain.descend([job])
        assert_same_bodies(job.problem, ours.state, theirs.state, 0.02)
        assert ours.evaluations == theirs.evaluations
    assert backend.programs.counts.recorded >= 1 and backend.programs.counts.played >= 1
    assert backend.programs.counts.failed == 0 and plain.programs.counts.recorded == 0


def test_what_the_device_does_not_know_is_left_to_the_cpu(model: BodyModel, backend: CudaBackend) -> None:
    problem = follow_job(model, WIDE).problem
    assert backend.takes(problem)
    pulled: Any = [(0, object())]
    assert not backend.takes(replace(problem, pulls=pulled))
    assert not backend.takes(replace(problem, items=np.zeros((0, 2), np.int64)))
    plain = start_job(model, WIDE, count=1).problem
    Q = 3 * model.num_joints + 3
    assert not backend.takes(seen_late(plain, np.zeros(1), np.zeros((1, Q))))


def test_nothing_in_a_step_asks_the_device(model: BodyModel) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    from bodyfit.fit.cuda_solver import BatchDescent, BatchSolve

    class Watch(TorchDispatchMode):
        seen: list[str]

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.seen.append(str(func))
            return func(*args, **(kwargs or {}))

    loops: list[Any] = []
    kinds: Any = (
        (BatchSolve, [joint_job(model, CAMERA, last=False), joint_job(model, CAMERA, 1, last=False)]),
        (BatchDescent, [follow_job(model, WIDE, k) for k in range(3)]),
    )
    for kind, jobs in kinds:
        states = [j.state for j in jobs]
        equations = Equations([j.problem for j in jobs], states, CompiledTensors(), rows_per_pixel=ROWS_PER_PIXEL)
        loops.append(kind(equations, jobs))
    for loop in loops:
        watch = Watch()
        watch.seen = []
        with watch:
            loop.begin()
            loop.step()
        assert len(watch.seen) > 100
        asking = (
            "_local_scalar_dense",
            "nonzero",
            "masked_select",
            "is_nonzero",
            "equal.default",
            "unique",
            "pin_memory",
        )
        assert not [name for name in watch.seen if any(a in name for a in asking)]


def test_a_lost_device_and_too_little_memory_have_errors_of_their_own(
    model: BodyModel, backend: CudaBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = follow_job(model, WIDE)
    for raised, expected in (
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), DeviceMemoryError),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), DeviceLostError),
        (RuntimeError("shapes do not match"), RuntimeError),
    ):

        def fail(*_: Any, error: Exception = raised, **__: Any) -> None:
            raise error

        monkeypatch.setattr(backend.programs, "build", fail)
        with pytest.raises(expected) as caught:
            backend.descend([job])
        assert type(caught.value) is expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_the_backend_says_so() -> None:
    assert "no CUDA device" in str(CudaBackend.available())
    with pytest.raises(DeviceError, match="device: expected a CUDA device"):
        CudaBackend("cuda:1")
    assert cuda_backend.MOST_JOINTS >= 55  # SMPL-X's
