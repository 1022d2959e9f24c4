"""The device itself: what it is, which kernels take how much of its time, how near the heaviest one comes to what the
hardware can do, and what happens when its memory is too small."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu_jobs import alike, apart_mm, batch_of, give_back, rows_of, solver_of
from benchmarks.gpu_measure import TOGETHER, Bench, Record, per_call
from bodyfit.errors import DeviceMemoryError
from bodyfit.fit.device import CpuBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bodyfit.fit.device import Backend

PACKAGES = ("torch", "numba", "numba-cuda", "cuda-bindings", "numpy", "scipy")
PROFILED = 5
"""batches while the profiler looks"""


@dataclass(frozen=True)
class Peak:
    """What a card's data sheet promises: single precision outside the tensor cores, TFLOP/s, and memory, TB/s."""

    tflops: float
    tb_per_s: float


PEAKS: tuple[tuple[str, Peak], ...] = (
    ("H200", Peak(67.0, 4.8)),
    ("H100 NVL", Peak(60.0, 3.9)),
    ("H100 PCIe", Peak(51.0, 2.0)),
    ("H100", Peak(67.0, 3.35)),
    ("A100 80GB PCIe", Peak(19.5, 1.935)),
    ("A100-SXM4-80GB", Peak(19.5, 2.039)),
    ("A100", Peak(19.5, 1.555)),
    ("L40S", Peak(91.6, 0.864)),
    ("L4", Peak(30.3, 0.3)),
    ("A10", Peak(31.2, 0.6)),
    ("T4", Peak(8.1, 0.3)),
    ("V100-SXM2", Peak(15.7, 0.9)),
)
"""By what torch calls them, the longer names first; NVIDIA's data sheets of these cards."""


def peak_of(name: str) -> Peak | None:
    """What the card of a name can do; None where it is not in the table."""
    return next((peak for part, peak in PEAKS if re.search(rf"\b{re.escape(part)}\b", name)), None)


def environment(device: str) -> Record:
    """The machine, the packages, the date and the command; of a CUDA device its name, memory and driver."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "missing"
    cpu = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", cpu.read_text()) if cpu.is_file() else []
    out: Record = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]]),
        "device": device,
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "packages": packages,
    }
    if device == "cpu":
        return {**out, "name": "CPU"}
    import torch

    about = torch.cuda.get_device_properties(torch.device(device))
    driver = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    out |= {
        "name": about.name,
        "memory_gib": about.total_memory / 2**30,
        "multiprocessors": about.multi_processor_count,
        "capability": f"{about.major}.{about.minor}",
        "cuda": torch.version.cuda,
        "driver": "unknown",
    }
    if shutil.which(driver[0]):
        told = subprocess.run(driver, capture_output=True, text=True, timeout=20)
        out["driver"] = (told.stdout.splitlines() or ["unknown"])[0].strip()
    return out


def first_use(bench: Bench) -> Record:
    """What the device takes for its first job of each kind, compiling or reading the compiled kernels from the disk
    included, and then for the next."""
    from bodyfit.fit.device import LinearizeJob, SolveJob

    jobs = alike(bench.backend, bench.track_jobs.descends)[:1]
    rows: Record = {}
    for kind, ask in (
        ("linearize", lambda: bench.backend.linearize([LinearizeJob(j.problem, j.state) for j in jobs])),
        ("solve", lambda: bench.backend.solve([SolveJob(j.problem, j.state, 3) for j in jobs])),
        ("descend", lambda: bench.backend.descend(jobs)),
    ):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            ask()
            times.append(1e3 * (time.perf_counter() - start))
        rows[kind] = {"first_ms": times[0], "third_ms": times[-1]}
    return rows


# kernels


def kernels(bench: Bench) -> Record:
    """Time of each kernel on the device, of descents and of full normal equations, by torch's profiler."""
    from bodyfit.fit.device import LinearizeJob

    follow = alike(bench.backend, bench.track_jobs.descends)
    whole = alike(bench.backend, [j for j in bench.cold_jobs.solves if j.problem.stage.name == "finish"])
    n = min(TOGETHER, max(bench.scale.batches))
    out: Record = {"batch": n}
    for name, jobs, call in (
        ("descend, followed", follow, bench.backend.descend),
        ("linearize, full mesh", [LinearizeJob(j.problem, j.state) for j in whole], bench.backend.linearize),
    ):
        if jobs and bench.has(5):
            batch = batch_of(jobs, n)
            out[name] = profiled(bench.on_gpu, lambda call=call, batch=batch: call(batch))
    return out


def profiled(on_gpu: bool, task: Any) -> Record:
    """The kernels of a task, the longest first, and what share of the wall time the device was busy at all."""
    try:
        from torch.profiler import ProfilerActivity, profile
    except ModuleNotFoundError:
        return {"absent": "torch is not installed", "rows": []}
    task()
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as record:
        start = time.perf_counter()
        for _ in range(PROFILED):
            task()
        wall = time.perf_counter() - start
    times: dict[str, list[float]] = {}
    for event in record.events() or ():
        if str(event.device_type).endswith("CUDA"):
            times.setdefault(short_name(event.name), []).append(event.time_range.elapsed_us())
    total = sum(map(sum, times.values()))
    rows = [
        {"kernel": k, "ms": sum(t) / PROFILED / 1e3, "launches": len(t) / PROFILED, "share": sum(t) / total}
        for k, t in times.items()
    ]
    out: Record = {"rows": sorted(rows, key=lambda r: -r["ms"]), "wall_ms": 1e3 * wall / PROFILED}
    out["busy"] = total / 1e6 / wall
    if not rows:
        out["absent"] = "the profiler saw no kernels" if on_gpu else "the CPU has no kernels that could be told apart"
    return out


def short_name(name: str) -> str:
    """`cuda_fit_rows.write_rows` of one of our kernels' mangled names; the beginning of another's."""
    ours = re.search(r"(cuda_[a-z_]+?)(\d+)([a-z_]+)", name)
    if ours:
        return f"{ours[1]}.{ours[3][: int(ours[2])]}"
    return re.sub(r"^void ", "", name)[:70]


def roofline(bench: Bench) -> Record:
    """Full normal equations and the heaviest kernel of them against what the device's data sheet promises."""
    from bodyfit.fit.device import LinearizeJob

    jobs = [j for j in bench.cold_jobs.solves if j.problem.stage.name == "finish"] or bench.cold_jobs.solves[-1:]
    jobs = [LinearizeJob(j.problem, j.state) for j in alike(bench.backend, jobs)]
    batch = batch_of(jobs, min(TOGETHER, max(bench.scale.batches)))
    eqs = bench.backend.linearize(batch)
    rows = sum(rows_of(j.problem, eq) for j, eq in zip(batch, eqs, strict=True))
    P = eqs[0].A.shape[1] + eqs[0].C.shape[1]
    took = per_call(lambda: bench.backend.linearize(batch), bench.scale.seconds)
    # a row's products with itself and its residual, a multiplication and an addition each; a symmetric half is enough
    flop, kept = 2.0 * rows * P * (P + 1), 4.0 * rows * (P + 1)
    out: Record = {
        "batch": len(batch), "rows": rows, "parameters": P, "gflop": flop / 1e9, "rows_mb": kept / 1e6,
        "wall_ms": 1e3 * took, "gflop_per_s": flop / took / 1e9, "jobs_per_s": len(batch) / took,
    }  # fmt: skip
    name = bench.found.get("environment", {}).get("name", "")
    peak = peak_of(name)
    out["peak"] = "unknown" if peak is None else {"gflop_per_s": 1e3 * peak.tflops, "gb_per_s": 1e3 * peak.tb_per_s}
    profile = bench.found.get("kernels", {}).get("linearize, full mesh", {}).get("rows", [])
    if not profile:
        return {**out, "heaviest": "unknown: no kernel was seen by itself"}
    out["heaviest"] = heaviest = dict(profile[0])
    if bench.found["kernels"]["batch"] != len(batch):
        return out
    seconds = heaviest["ms"] / 1e3
    if re.search(r"gemm|cutlass|cublas|syrk|bmm|add_products|sum_products", heaviest["kernel"], re.I):
        heaviest |= {"gflop_per_s": flop / seconds / 1e9, "gb_per_s": kept / seconds / 1e9}
    elif "write_rows" in heaviest["kernel"]:
        heaviest |= {"gb_per_s": kept / seconds / 1e9, "counted": "the rows that it writes, not what it reads for them"}
    if peak is not None and "gb_per_s" in heaviest:
        bound = [heaviest["gb_per_s"] / (1e3 * peak.tb_per_s), heaviest.get("gflop_per_s", 0.0) / (1e3 * peak.tflops)]
        heaviest["share_of_the_roof"] = max(bound)
    return out


# memory


def memory(bench: Bench) -> Record:
    """A batch that is far too large for the memory that there is: asked directly it must be refused as such, asked for
    by threads it must be split, with the same results."""
    jobs = batch_of(alike(bench.backend, bench.track_jobs.descends), min(TOGETHER, 2 * max(bench.scale.batches)))
    device = bench.backend
    free = device.descend(jobs)
    out: Record = {"jobs": len(jobs)}
    if bench.on_gpu:
        import torch

        give_back(device)
        torch.cuda.reset_peak_memory_stats()
        device.descend(jobs)
        out["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
    with cramped(bench, jobs) as (tight, told):
        out |= told
        try:
            tight.descend(jobs)
            out["refused"] = "no: it had room"
        except DeviceMemoryError as error:
            out["refused"] = str(error)
        with solver_of(tight) as solver, ThreadPoolExecutor(len(jobs)) as pool:
            split = list(pool.map(solver.descend, jobs))
            out |= {"splits": solver.counts.splits, "on_cpu": solver.counts.on_cpu}
    apart = [apart_mm(j.problem, a.state, b.state)[0] for j, a, b in zip(jobs, free, split, strict=True)]
    out |= {"survived": len(split), "body_mm": float(max(apart)), "body_mm_median": float(statistics.median(apart))}
    after = device.descend(jobs[:1])[0]
    out["afterwards_mm"] = float(apart_mm(jobs[0].problem, after.state, free[0].state)[0])
    if out["refused"].startswith("no:"):
        raise RuntimeError(f"the batch was not too large: {out}")
    return out


@contextmanager
def cramped(bench: Bench, jobs: Sequence[Any]) -> Iterator[tuple[Backend, Record]]:
    """The device with memory for about an eighth of a batch; on the CPU one that refuses larger ones."""
    if not bench.on_gpu:
        most = max(1, len(jobs) // 8)
        yield CpuBackend(most_jobs=most), {"room": f"{most} jobs"}
        return
    import torch

    device = torch.device(bench.backend.name)
    whole = torch.cuda.get_device_properties(device).total_memory
    give_back(bench.backend)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    bench.backend.descend(jobs[: max(1, len(jobs) // 8)])
    # the allocator takes 20 MiB at a time for what is large
    spare = 1.2 * (torch.cuda.max_memory_allocated(device) - before) + 2**25
    try:
        while spare > 2**18:
            give_back(bench.backend)
            room = torch.cuda.memory_reserved(device) + spare
            torch.cuda.set_per_process_memory_fraction(min(room / whole, 1.0), device)
            try:
                bench.backend.descend(jobs)
            except DeviceMemoryError:
                break
            spare /= 2
        yield bench.backend, {"room": f"{spare / 2**20:.1f} MiB"}
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        give_back(bench.backend)
