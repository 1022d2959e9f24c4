"""Jobs of several threads in one batch: gathered, each with its own result, whatever happens to the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_problems import follow_job, start_job
from tiny_body import write_tiny_body

from bodyfit.body.model import BodyModel, load_body_model
from bodyfit.camera import Camera
from bodyfit.errors import DeviceLostError, DeviceMemoryError
from bodyfit.fit.config import FitConfig
from bodyfit.fit.device import CpuBackend, DescendJob, Descent, LinearizeJob, SolveJob
from bodyfit.fit.gather import Gatherer
from bodyfit.fit.solver import Solution, StopReason, solve
from bodyfit.watch import watched

CAMERA = Camera(48, 40, 34.0, 34.0, 23.5, 19.5)
MANY = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BodyModel:
    return load_body_model(write_tiny_body(Path(tmp_path_factory.mktemp("body")) / "tiny.npz"))


def job_of(model: BodyModel, seed: int) -> DescendJob:
    return follow_job(model, CAMERA, seed, level=0, pixels=100)


@pytest.fixture(scope="module")
def jobs(model: BodyModel) -> list[DescendJob]:
    return [job_of(model, seed) for seed in range(MANY)]


class Slow(CpuBackend):
    """The CPU's launchers, which write down their batches and begin the first of them only when they are let."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.let = threading.Event()
        self.before: Callable[[Sequence[Any]], None] = lambda _jobs: None

    def descend(self, jobs: Sequence[DescendJob]) -> list[Descent]:
        self.let.wait(30)
        self.before(jobs)
        self.batches.append(len(jobs))
        return super().descend(jobs)

    def solve(self, jobs: Sequence[SolveJob]) -> list[Solution]:
        self.let.wait(30)
        self.before(jobs)
        self.batches.append(len(jobs))
        return super().solve(jobs)


def asked_together(gatherer: Gatherer, backend: Slow, jobs: Sequence[DescendJob]) -> list[Any]:
    """What all get who ask while a first batch is held up: results, or what was raised."""

    def ask(job: DescendJob) -> Any:
        try:
            return gatherer.descend(job)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(jobs)) as pool:
        first = pool.submit(ask, jobs[0])
        while not backend.let.is_set() and gatherer._thread is None:
            time.sleep(0.001)
        time.sleep(0.05)
        others = [pool.submit(ask, job) for job in jobs[1:]]
        while len(gatherer._queue) < len(others):
            time.sleep(0.001)
        backend.let.set()
        return [f.result(timeout=60) for f in (first, *others)]


def assert_equal(ours: Descent, theirs: Descent) -> None:
    np.testing.assert_array_equal(ours.state.rotations, theirs.state.rotations)
    np.testing.assert_array_equal(ours.state.transl, theirs.state.transl)
    np.testing.assert_array_equal(ours.equations.A, theirs.equations.A)
    assert (ours.evaluations, ours.reason) == (theirs.evaluations, theirs.reason)


def test_who_asks_meanwhile_is_gathered_and_gets_what_he_would_alone(jobs: list[DescendJob]) -> None:
    backend = Slow()
    gatherer = Gatherer(backend)
    found = asked_together(gatherer, backend, jobs)
    assert backend.batches == [1, MANY - 1]
    for ours, theirs in zip(found, CpuBackend().descend(jobs), strict=True):
        assert_equal(ours, theirs)
    counts = gatherer.counts
    assert (counts.batches, counts.jobs, counts.largest, counts.splits) == (2, MANY, MANY - 1, 0)
    gatherer.close()
    with pytest.raises(DeviceLostError, match="closed"):
        gatherer.descend(jobs[0])


def test_only_what_can_be_one_batch_is_one(model: BodyModel, jobs: list[DescendJob]) -> None:
    backend = Slow()
    gatherer = Gatherer(backend)
    other = follow_job(model, CAMERA, 3, level=0, pixels=100)
    other = replace(other, problem=replace(other.problem, stage=replace(other.problem.stage, name="another")))
    found = asked_together(gatherer, backend, [jobs[0], jobs[1], other, jobs[2]])
    assert backend.batches == [1, 2, 1]
    assert_equal(found[2], CpuBackend().descend([other])[0])


def test_one_who_asks_alone_waits_for_nobody(jobs: list[DescendJob]) -> None:
    gatherer = Gatherer(CpuBackend(), wait_s=30.0)
    began = time.monotonic()
    for job in jobs[:3]:
        gatherer.descend(job)
    assert time.monotonic() - began < 25.0


def test_a_batch_that_does_not_fit_is_halved_and_one_that_fits_nowhere_is_the_cpus(jobs: list[DescendJob]) -> None:
    backend = Slow()

    def refuse(given: Sequence[Any]) -> None:
        if len(given) > 2 or any(j is jobs[4] for j in given):
            raise DeviceMemoryError("too large")

    backend.before = refuse
    gatherer = Gatherer(backend)
    found = asked_together(gatherer, backend, jobs)
    for ours, theirs in zip(found, CpuBackend().descend(jobs), strict=True):
        assert_equal(ours, theirs)
    assert gatherer.counts.on_cpu == 1 and gatherer.counts.splits >= 2
    assert sum(backend.batches) == MANY - 1 and max(backend.batches) <= 2


def test_a_bad_job_fails_alone(jobs: list[DescendJob]) -> None:
    backend = Slow()

    def refuse(given: Sequence[Any]) -> None:
        if any(j is jobs[2] for j in given):
            raise ValueError("no such number")

    backend.before = refuse
    found = asked_together(Gatherer(backend), backend, jobs)
    assert isinstance(found[2], ValueError)
    for k in (0, 1, 3, 4, 5):
        assert_equal(found[k], CpuBackend().descend([jobs[k]])[0])


def test_a_lost_device_is_told_to_all_now_and_later(jobs: list[DescendJob]) -> None:
    backend = Slow()

    def lose(given: Sequence[Any]) -> None:
        if len(given) > 1:
            raise DeviceLostError("cuda: gone")

    backend.before = lose
    gatherer = Gatherer(backend)
    found = asked_together(gatherer, backend, jobs)
    assert_equal(found[0], CpuBackend().descend([jobs[0]])[0])
    assert all(isinstance(f, DeviceLostError) for f in found[1:])
    with pytest.raises(DeviceLostError, match="gone"):
        gatherer.linearize(LinearizeJob(jobs[0].problem, jobs[0].state))


def test_one_that_is_cancelled_leaves_the_others_alone(model: BodyModel) -> None:
    backend = Slow()
    gatherer = Gatherer(backend)
    stage = replace(FitConfig().settle[-1], pixels=120, num_betas=3)
    jobs = [replace(start_job(model, CAMERA, k, stage=stage, count=2), iterations=4) for k in range(3)]
    cancelled = threading.Event()
    jobs[1] = replace(jobs[1], cancelled=cancelled.is_set)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(gatherer.solve, jobs[0])
        time.sleep(0.05)
        others = [pool.submit(gatherer.solve, job) for job in jobs[1:]]
        while len(gatherer._queue) < 2:
            time.sleep(0.001)
        cancelled.set()
        assert others[0].result(timeout=30).reasons == [StopReason.CANCELLED] * 2
        backend.let.set()
        kept = [first.result(timeout=30), others[1].result(timeout=30)]
    assert backend.batches == [1, 1]
    for ours, theirs in zip(kept, CpuBackend().solve([jobs[0], jobs[2]]), strict=True):
        np.testing.assert_array_equal(ours.state.rotations, theirs.state.rotations)
        np.testing.assert_array_equal(ours.cost, theirs.cost)


def test_who_watches_can_end_the_waiting(jobs: list[DescendJob]) -> None:
    backend = Slow()
    gatherer = Gatherer(backend)

    class Enough(Exception):
        pass

    def stop(_cost: float | None) -> None:
        raise Enough

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(gatherer.descend, jobs[0])
        time.sleep(0.05)
        with pytest.raises(Enough), watched(stop):
            gatherer.descend(jobs[1])
        assert not gatherer._queue
        backend.let.set()
        assert_equal(first.result(timeout=30), CpuBackend().descend([jobs[0]])[0])
    assert backend.batches == [1]


def test_a_fit_asks_the_solver_that_its_configuration_names(model: BodyModel) -> None:
    gatherer = Gatherer(CpuBackend())
    job = start_job(model, CAMERA, 0, stage=replace(FitConfig().settle[-1], pixels=120, num_betas=3), count=2)
    there = replace(job.problem, config=replace(job.problem.config, solver=gatherer))
    np.testing.assert_array_equal(solve(there, job.state).cost, solve(job.problem, job.state).cost)
    np.testing.assert_array_equal(there.linearize(job.state).A, job.problem.linearize(job.state).A)
    assert gatherer.counts.jobs == 2


def test_a_question_or_a_backend_that_fails_is_told_and_the_device_goes_on(model: BodyModel) -> None:
    class Short(CpuBackend):
        def linearize(self, jobs: Sequence[LinearizeJob]) -> list[Any]:
            return super().linearize(jobs)[1:]

    def asks() -> bool:
        raise ValueError("nobody knows")

    gatherer = Gatherer(Short())
    job = start_job(model, CAMERA, 0, stage=replace(FitConfig().settle[-1], pixels=120, num_betas=3), count=2)
    for _ in range(2):
        with pytest.raises(ValueError, match="nobody knows"):
            gatherer.solve(replace(job, cancelled=asks))
        with pytest.raises(RuntimeError, match="0 results of 1 jobs"):
            gatherer.linearize(LinearizeJob(job.problem, job.state))
    found = gatherer.solve(replace(job, iterations=2))
    np.testing.assert_array_equal(found.cost, CpuBackend().solve([replace(job, iterations=2)])[0].cost)


def test_who_asks_a_lost_device_often_keeps_nothing_of_it(jobs: list[DescendJob]) -> None:
    class Lost(CpuBackend):
        def descend(self, jobs: Sequence[DescendJob]) -> list[Descent]:
            raise DeviceLostError(f"cuda: gone with {len(jobs)}")

    gatherer = Gatherer(Lost())
    raised: list[DeviceLostError] = []
    for _ in range(3):
        with pytest.raises(DeviceLostError, match="gone with 1") as caught:
            gatherer.descend(jobs[0])
        raised.append(caught.value)
    assert len({id(error) for error in raised}) == 3
