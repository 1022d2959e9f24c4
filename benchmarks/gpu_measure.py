"""What is measured of the fit on a GPU beside tracks and hardware: agreement, cold starts, shapes, batch sizes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.gpu_jobs import (
    Recorder,
    Stopwatch,
    alike,
    apart_mm,
    batch_of,
    rows_of,
    solver_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.gpu_frames import Film
    from bodyfit.body.model import BodyModel
    from bodyfit.fit.config import FitConfig
    from bodyfit.fit.device import Backend, SolveJob, Solver
    from bodyfit.fit.problem import Linearization, State
    from bodyfit.fit.result import FitResult

Record = dict[str, Any]
LIMITS = {"cost": 1e-3, "equations": 5e-3, "gradient": 5e-3, "body_mm": 0.1}
"""How far device and CPU may be apart: relative, but for the body. One pixel of a few hundred that rounding puts on the
other side of an edge is most of that."""
SETTLED = ("finish", "follow")
"""Stages at whose end the body must be the same; a search's hypotheses may fall to either side."""
NUDGE_M = 1e-7
TOGETHER = 64
COLD_LIMIT_MS, COLD_GOAL_MS = 100.0, 50.0
BEFORE = {"measuring": "limbs again and finish", "done": "measuring"}
"""What a fit did before it told that: most words come after what they name, these two before the next"""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    films: int = 8
    frames: int = 34
    every: int = 1
    """of the sensor's pixels every so-manieth"""
    streams: tuple[int, ...] = (1, 4, 16, 64)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    processes: tuple[int, ...] = (4, 12)
    seconds: float = 1.0
    """for one figure"""
    track_seconds: float = 4.0
    repeats: int = 10
    instants: int = 4
    at_once: int = 8
    """shape fits that are worked on at once"""
    changes: Record = field(default_factory=dict)
    """what is other than usual in a fit's settings"""


@dataclass
class Bench:
    """What the sections share. `deadline` is when the present one should be done, by `time.monotonic`."""

    scale: Scale
    backend: Backend
    on_gpu: bool
    model: BodyModel
    films: list[Film] = field(default_factory=list)
    cold_jobs: Recorder = field(default_factory=Recorder)
    track_jobs: Recorder = field(default_factory=Recorder)
    cold_cpu: FitResult | None = None
    deadline: float = float("inf")
    found: Record = field(default_factory=dict)
    """the sections' results by name, for those that come later"""

    def has(self, seconds: float) -> bool:
        """Whether so much time is left to the section."""
        return time.monotonic() + seconds < self.deadline


def fit_config(bench: Bench, solver: Solver | None) -> FitConfig:
    """A fit's settings with this solver."""
    from bodyfit.fit.config import FitConfig

    return replace(FitConfig(threads=1, solver=solver), **bench.scale.changes)


def fit_film(
    bench: Bench,
    film: Film,
    places: Sequence[int],
    solver: Solver | None,
    say: Callable[[str, float], None] | None = None,
) -> FitResult:
    """A cold fit to some of a film's frames, each a second after the one before: evidence in, measured body out."""
    from benchmarks.gpu_frames import CLOTHING
    from bodyfit.fit.joint import FitSetup, Instant, fit_instants

    setup = FitSetup(bench.model, "neutral", CLOTHING, fit_config(bench, solver))
    seen = [replace(film.observation(at), timestamp_s=float(k)) for k, at in enumerate(places)]
    return fit_instants(setup, [Instant(k, float(k), (o,)) for k, o in enumerate(seen)], progress=say)


def per_call(task: Callable[[], Any], seconds: float, least: int = 3) -> float:
    """Median wall seconds of a call, after one that does not count. What is called waits for the device itself."""
    task()
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < least or (time.monotonic() < end and len(times) < 200):
        start = time.perf_counter()
        task()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


# before all else


def prepare(bench: Bench) -> Record:
    """Films, and on the CPU a cold fit and some tracks whose jobs are kept; with it the CPU's kernels are compiled."""
    from benchmarks.gpu_frames import make_films, new_tracker
    from bodyfit.fit.track_config import TrackConfig

    scale, start = bench.scale, time.perf_counter()
    bench.films = make_films(bench.model, scale.films, scale.frames, scale.every)
    filmed = time.perf_counter()
    fit_film(bench, bench.films[0], [0], None)
    compiled = time.perf_counter()
    cpu = time.process_time()
    bench.cold_cpu = fit_film(bench, bench.films[0], [0], bench.cold_jobs)
    cold, fitted = time.process_time() - cpu, time.perf_counter()
    frames, seconds = 0, 0.0
    config = TrackConfig(fit=fit_config(bench, bench.track_jobs), search=fit_config(bench, None))
    for film in bench.films:
        tracker = new_tracker(bench.model, film, config)
        walk = film.walk_through(0, scale.frames)
        tracker.update(walk[:1])
        cpu = time.process_time()
        for frame in walk[1:]:
            tracker.update([frame])
        frames, seconds = frames + len(walk) - 1, seconds + time.process_time() - cpu
    return {
        "films_s": filmed - start,
        "first_cpu_fit_s": compiled - filmed,
        "cold_fit_cpu_ms": 1e3 * cold,
        "track_cpu_ms_a_frame": 1e3 * seconds / max(frames, 1),
        "tracks_s": time.perf_counter() - fitted,
        "jobs": {
            "solve": len(bench.cold_jobs.solves),
            "linearize": len(bench.cold_jobs.linearizes),
            "descend": len(bench.track_jobs.descends),
        },
    }


# agreement


def difference(found: Linearization, expected: Linearization, group: NDArray[np.int64]) -> Record:
    """How far normal equations are from others: the cost relatively; a matrix' entry by the diagonal's entries of its
    row and column; a gradient's by the diagonal's and the cost. group (N,) is the state's."""

    def worst(a: NDArray[np.float64]) -> float:
        return float(np.abs(a).max(initial=0.0))

    at = np.sqrt(np.maximum(np.einsum("nii->ni", expected.A), 1e-12))
    ct = np.sqrt(np.maximum(np.einsum("gii->gi", expected.C), 1e-12))
    scale = np.sqrt(2 * np.maximum(expected.cost, 1e-12))
    return {
        "cost": worst((found.cost - expected.cost) / np.maximum(expected.cost, 1e-12)),
        "equations": max(
            worst((found.A - expected.A) / (at[:, :, None] * at[:, None, :])),
            worst((found.B - expected.B) / (at[:, :, None] * ct[group][:, None, :])),
            worst((found.C - expected.C) / (ct[:, :, None] * ct[:, None, :])),
        ),
        "gradient": max(
            worst((found.pose_gradient - expected.pose_gradient) / (at * scale[group][:, None])),
            worst((found.shape_gradient - expected.shape_gradient) / (ct * scale[:, None])),
        ),
        "pixels_elsewhere": int(np.abs(found.stats[:, 3:7] - expected.stats[:, 3:7]).sum()),
    }


def forked(job: SolveJob) -> list[State]:
    """Where the CPU itself ends when the start is moved by a ten-thousandth of a millimetre: between two descents that
    cost the same that decides, as does the last bit of a sum."""
    from bodyfit.fit.device import CpuBackend

    starts = []
    for way in np.concatenate([np.eye(3), -np.eye(3)]):
        state = job.state.copy()
        state.transl += NUDGE_M * way
        starts.append(replace(job, state=state))
    return [solution.state for solution in CpuBackend().solve(starts)]


def agreement(bench: Bench) -> Record:
    """The device against the CPU on the same problems: normal equations, solutions, descents; alone and in company."""
    from bodyfit.fit.device import CpuBackend, LinearizeJob

    cpu, device, rows = CpuBackend(), bench.backend, []
    stages: dict[str, Any] = {job.problem.stage.name: job for job in bench.cold_jobs.solves}
    for name, job in stages.items():
        if not device.takes(job.problem) or not bench.has(5):
            rows.append({"stage": name, "left_out": "no time" if device.takes(job.problem) else "not taken"})
            continue
        ask = LinearizeJob(job.problem, job.state)
        want = cpu.linearize([ask])[0]
        row = {
            "stage": name,
            "groups": len(job.state.shape),
            "items": len(job.problem.items),
            "parameters": want.A.shape[1] + want.C.shape[1],
            "rows": rows_of(job.problem, want),
            **difference(device.linearize([ask])[0], want, job.state.group),
        }
        there, here = device.solve([job])[0], cpu.solve([job])[0]
        apart = apart_mm(job.problem, there.state, here.state)
        forks = apart
        if apart.max() > LIMITS["body_mm"]:
            ends = forked(job)
            forks = np.minimum(apart, np.min([apart_mm(job.problem, there.state, e) for e in ends], axis=0))
            row["cpu_s_own_mm"] = float(np.max([apart_mm(job.problem, here.state, e).max() for e in ends]))
        row |= {
            "body_mm_median": float(np.median(apart)),
            "body_mm": float(apart.max()),
            "fork_mm": float(forks.max()),
            "settled": name in SETTLED,
        }
        row["solution_cost"] = float(np.abs(there.cost / here.cost - 1).max())
        rows.append(row)
    followed = alike(device, bench.track_jobs.descends)
    out: Record = {"limits": LIMITS, "stages": rows}
    if followed:
        jobs = batch_of(followed, min(TOGETHER, len(followed)))
        together, here = device.descend(jobs), cpu.descend(jobs)
        pairs = list(zip(jobs, together, here, strict=True))
        apart = np.array([apart_mm(j.problem, t.state, h.state)[0] for j, t, h in pairs])
        few = range(0, len(jobs), max(1, len(jobs) // 8))
        alone = [device.descend([jobs[i]])[0] for i in few]
        company = [apart_mm(jobs[i].problem, a.state, together[i].state)[0] for i, a in zip(few, alone, strict=True)]
        out["followed"] = {
            "bodies": len(jobs),
            "body_mm_median": float(np.median(apart)),
            "body_mm_p95": float(np.percentile(apart, 95)),
            "body_mm": float(apart.max()),
            "other_steps": int(sum(t.evaluations != h.evaluations for _, t, h in pairs)),
            "alone_or_in_company_mm": float(max(company)),
            **difference(
                device.linearize([LinearizeJob(j.problem, j.state) for j in jobs[:1]])[0],
                cpu.linearize([LinearizeJob(j.problem, j.state) for j in jobs[:1]])[0],
                jobs[0].state.group,
            ),
        }
    out["holds"] = bool(followed) and holds(out)
    return out


def holds(found: Record) -> bool:
    """Whether all that was compared is within the limits, the bodies of the settled stages too."""
    rows = [row for row in found["stages"] if "left_out" not in row]
    equations = all(
        row[k] <= LIMITS[k] for row in [*rows, found["followed"]] for k in ("cost", "equations", "gradient")
    )
    bodies = [row["fork_mm"] for row in rows if row["settled"]] + [found["followed"]["body_mm"]]
    return equations and max(bodies) <= LIMITS["body_mm"] >= found["followed"]["alone_or_in_company_mm"]


# fits


def cold(bench: Bench) -> Record:
    """One frame from nothing, again and again: wall time, and how much of it is waiting for the device."""
    rows: list[Record] = []
    apart = None
    with solver_of(bench.backend) as solver:
        for k in range(bench.scale.repeats + 1):
            if k > 1 and not bench.has(1.5 * rows[-1]["wall_ms"] / 1e3):
                break
            watch, stages, last = Stopwatch(solver), {}, time.perf_counter()

            def say(stage: str, _fraction: float, stages: Record = stages) -> None:
                nonlocal last
                now = time.perf_counter()
                name = BEFORE.get(stage, stage)
                stages[name] = stages.get(name, 0.0) + 1e3 * (now - last)
                last = now

            start, cpu, own = time.perf_counter(), time.process_time(), time.thread_time()
            found = fit_film(bench, bench.films[0], [0], watch, say)
            wall, own = time.perf_counter() - start, time.thread_time() - own
            waited = sum(watch.waited_s.values())
            rows.append(
                {
                    "wall_ms": 1e3 * wall, "device_ms": 1e3 * waited, "cpu_part_ms": 1e3 * (wall - waited),
                    "logic_cpu_ms": 1e3 * (own - watch.cpu_s),
                    "process_cpu_ms": 1e3 * (time.process_time() - cpu), "jobs": dict(watch.jobs), "stages_ms": stages,
                }
            )  # fmt: skip
            if apart is None and bench.cold_cpu is not None:
                difference_m = found.vertices_world(0) - bench.cold_cpu.vertices_world(0)
                apart = 1e3 * float(np.linalg.norm(difference_m, axis=1).max())
    first, rest = rows[0], rows[1:] or rows
    middle = {
        k: statistics.median(r[k] for r in rest)
        for k in ("wall_ms", "device_ms", "cpu_part_ms", "logic_cpu_ms", "process_cpu_ms")
    }
    names = dict.fromkeys(name for r in rest for name in r["stages_ms"])
    return {
        **middle,
        "repeats": len(rest),
        "first_ms": first["wall_ms"],
        "slowest_ms": max(r["wall_ms"] for r in rest),
        "jobs": rest[-1]["jobs"],
        "stages_ms": {name: statistics.median(r["stages_ms"].get(name, 0.0) for r in rest) for name in names},
        "body_from_the_cpu_s_mm": apart,
        "limit_ms": COLD_LIMIT_MS,
        "goal_ms": COLD_GOAL_MS,
        "met": middle["wall_ms"] <= COLD_LIMIT_MS,
    }


def shapes(bench: Bench) -> Record:
    """Fits of several frames, one after the other and several at once, whose jobs are gathered into batches."""
    scale = bench.scale
    places = np.linspace(0, len(bench.films[0]) - 1, scale.instants).round().astype(int).tolist()
    rows = []
    with solver_of(bench.backend) as solver:

        def fit_of(k: int) -> None:
            fit_film(bench, bench.films[k % len(bench.films)], places, solver)

        start = time.perf_counter()
        fit_of(0)
        first = time.perf_counter() - start
        for at_once in sorted({1, scale.at_once}):
            # all of them may take as long as so many in a row
            if not bench.has(first * (at_once if not bench.on_gpu else 2)):
                rows.append({"at_once": at_once, "left_out": "no time"})
                continue
            start, cpu, done = time.perf_counter(), time.process_time(), 0
            with ThreadPoolExecutor(at_once) as pool:
                while True:
                    list(pool.map(fit_of, range(done, done + at_once)))
                    done += at_once
                    took = time.perf_counter() - start
                    if took > 4 * scale.seconds or not bench.has(1.2 * took * at_once / done):
                        break
            cores = (time.process_time() - cpu) / took
            rows.append({"at_once": at_once, "fits": done, "fits_per_s": done / took, "busy_cores": cores})
    return {"frames": scale.instants, "first_s": first, "rows": rows}


# batch sizes


def batch_sizes(bench: Bench) -> Record:
    """Throughput over the batch's size: normal equations and solutions of followed frames and of whole bodies."""
    from bodyfit.fit.device import LinearizeJob, SolveJob

    device, seconds = bench.backend, bench.scale.seconds / 2
    follow = [LinearizeJob(j.problem, j.state) for j in alike(device, bench.track_jobs.descends)]
    whole = [j for j in bench.cold_jobs.solves if j.problem.stage.name == "finish"] or bench.cold_jobs.solves[-1:]
    kinds: dict[str, tuple[list[Any], Callable[[Any], Any]]] = {
        "linearize, followed": (follow, device.linearize),
        "descend, followed": (alike(device, bench.track_jobs.descends), device.descend),
        "solve, followed": ([SolveJob(j.problem, j.state, 3) for j in follow], device.solve),
        "linearize, full mesh": ([LinearizeJob(j.problem, j.state) for j in alike(device, whole)], device.linearize),
        "solve, full mesh": ([replace(j, iterations=4) for j in alike(device, whole)], device.solve),
    }
    table: Record = {}
    told: list[str] = []
    last: dict[str, float] = {}
    for size in bench.scale.batches:
        for kind, (jobs, call) in kinds.items():
            if not jobs:
                continue
            expected = 3 * last.get(kind, 0.0) + seconds
            if not bench.has(expected) or (last.get(kind, 0.0) > 2.0 and size > 1):
                told.append(f"{kind}, {size}: no time")
                continue
            batch = batch_of(jobs, size)
            try:
                took = per_call(lambda call=call, batch=batch: call(batch), seconds, 2)
            except Exception as error:  # a batch that does not fit ends the row, not the table
                told.append(f"{kind}, {size}: {type(error).__name__}: {error}")
                continue
            last[kind] = took
            table.setdefault(kind, {})[str(size)] = {"ms": 1e3 * took, "per_s": size / took}
    return {"table": table, "left_out": told}
